"""Maps: many items sent as one, and what became of them.

A map is there with all its items or not at all. Its items are tasks of a pipeline like any other, with ids that follow the
map's own; so the ends that are written in batches are told to their maps by looking where an id lies. While a map is live
its tally is in memory; that of one from before a restart is read from the store when somebody asks.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left, insort
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

from penstock.domain.errors import BadRequest, Conflict, NotFound, PenstockError, TooLarge
from penstock.domain.tally import GONE
from penstock.domain.task import ENDED, Attempt, Outcome, State, Task, name_of
from penstock.engine.livemap import LiveMap
from penstock.store.protocol import StoredMap

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from penstock.engine.loops import Loops
    from penstock.engine.model import Pipe, Plant
    from penstock.store.protocol import StoredTask

T = TypeVar("T")
S = TypeVar("S", bound="Sequence[Any]")

MOST_ITEMS: Final = 100_000
"""Items of one map: they become durable in one transaction, and what others send waits for it."""

SLICE: Final = 500
"""Items that one turn of the event loop works on."""

PAGE: Final = 2000
ENDED_AT_ONCE: Final = 100
"""Items of a cancelled map that end in one turn; each turn waits until the store knows of the one before."""

LATER: Final = 1.0
"""Seconds until what the store did not take is tried again."""

log = logging.getLogger(__name__)


class Maps:
    """Start maps, hear of their ends, and cancel them."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._live: dict[int, LiveMap] = {}
        self._ids: list[int] = []  # of those, in order
        self._twins: dict[int, LiveMap] = {}
        self._loading = asyncio.Lock()
        self._jobs: set[asyncio.Task[Any]] = set()

    def join(self, loops: Loops) -> None:
        """Get to know the loops that items are passed on to."""
        self._intake, self._recorder, self._deadlines = loops.intake, loops.recorder, loops.deadlines
        self._withdrawals, self._stragglers, self._settle = loops.withdrawals, loops.stragglers, loops.settle

    async def open(self) -> None:
        """Go on with what an earlier server was doing: maps that were being cancelled, or whose stragglers run again."""
        plant = self._plant
        before: int | None = None
        while page := await plant.store.maps(plant.project_id, before, PAGE, unfinished=True):
            before = page[-1].id
            for stored in page:
                if stored.cancelled is not None or stored.stragglers is not None:
                    self._job(self._take_up(stored.id))

    async def _take_up(self, map_id: int) -> None:
        while True:
            try:
                live = await self.live(map_id)
                if live.stored.cancelled is not None:
                    await self._withdraw(live)
            except NotFound:  # it was pruned just now
                return
            except PenstockError as error:
                log.warning("The map %s could not be taken up, and will be later: %s", name_of(map_id), error)
                await asyncio.sleep(LATER)
            else:
                return

    def close(self) -> None:
        """Do nothing more."""
        for job in self._jobs:
            job.cancel()
        self._stragglers.close()

    # new maps -----------------------------------------------------------------------------------------------------
    async def start(
        self, name: str, payloads: Sequence[bytes], key: str | None = None, stragglers: float | None = None
    ) -> StoredMap:
        """Send a task for each payload to a pipeline, all or none; return the map when they are on disk.

        With a `key` that a map of the pipeline had before, that one is returned, and nothing sent. An item that takes longer
        than `stragglers` times the median of others is run a second time. Raises `TooLarge`, `QueueFull` and `Conflict`.
        """
        pipe = self._intake.pipe(name)
        self._check(pipe, payloads, stragglers)
        return await asyncio.shield(self._job(self._start(name, pipe, payloads, key, stragglers)))

    async def _start(
        self, name: str, pipe: Pipe, payloads: Sequence[bytes], key: str | None, stragglers: float | None
    ) -> StoredMap:
        plant = self._plant
        map_id = self._intake.reserve(len(payloads) + 1)
        wall = plant.wall()
        done = None if payloads else wall
        stored = StoredMap(map_id, name, len(payloads), wall, stragglers, finished=done)
        tasks: list[Task] = []
        pipe.counts.queued += len(payloads)
        try:
            for part in _slices(payloads):
                first = map_id + 1 + len(tasks)
                made = self._make(pipe, first, part, wall)
                tasks += made
                plant.sending.update([task.id for task in made])
                await asyncio.sleep(0)
            known = await plant.store.start_map(plant.project_id, stored, tuple(tasks), key, pipe.spec.dedup)
            if known is None:
                await self._offer(stored, pipe, tasks)
        except BaseException:
            if map_id not in self._live:
                self._take_back(pipe, len(payloads))
            raise
        finally:
            while tasks:  # to let go of all at once would take too long
                plant.sending.difference_update([task.id for task in tasks[-SLICE:]])
                del tasks[-SLICE:]
                await asyncio.sleep(0)
        if known is None:
            return stored
        self._take_back(pipe, len(payloads))
        return await self._known(known, len(payloads))

    def _check(self, pipe: Pipe, payloads: Sequence[bytes], stragglers: float | None) -> None:
        most = min(MOST_ITEMS, pipe.spec.max_queued)
        if len(payloads) > most:
            why = "" if most == MOST_ITEMS else f" through '{pipe.spec.name}' (max_queued)"
            raise TooLarge(
                f"A map has at most {most} items{why}; this one has {len(payloads)}. Nothing was kept: map it in parts."
            )
        if pipe.spec.debounce is not None:
            raise Conflict(
                f"The pipeline '{pipe.spec.name}' debounces: of all items only the last would run. "
                "Map the function itself, or a pipeline without debounce."
            )
        if stragglers is not None and not 1 < stragglers <= 1e6:
            raise BadRequest(
                f"stragglers is {stragglers:g}. It says after how many times the median an item is run again: more than 1."
            )
        self._intake.check_open(pipe)
        self._intake.check_room(pipe, len(payloads), max(map(len, payloads), default=0), 1.0)

    @staticmethod
    def _make(pipe: Pipe, first: int, payloads: Sequence[bytes], wall: float) -> list[Task]:
        name, expires = pipe.spec.name, wall + pipe.spec.max_age
        return [Task(first + n, name, body, created=wall, expires=expires) for n, body in enumerate(payloads)]

    def _take_back(self, pipe: Pipe, number: int) -> None:
        """Count items no more that were not sent."""
        pipe.counts.queued -= number
        if number:
            self._settle.look_empty(pipe)

    async def _known(self, map_id: int, items: int) -> StoredMap:
        """Return a map that was started before with the same key."""
        stored = await self.find(map_id)
        if stored.items != items:
            raise Conflict(
                f"This Idempotency-Key belongs to the map {name_of(map_id)}, which has {stored.items} items and not {items}. "
                "Give another map a key of its own."
            )
        return stored

    async def _offer(self, stored: StoredMap, pipe: Pipe, tasks: list[Task]) -> None:
        """Hand durable items to admission, a slice at a time."""
        live = LiveMap(stored)
        if tasks:
            self._keep(live)
        try:
            removed = False
            for some in _slices(tasks):
                removed = removed or self._plant.pipes.get(stored.pipeline) is not pipe
                if removed:
                    self._refuse_removed(some)
                else:
                    self._intake.offer(stored.pipeline, pipe, some)
                await asyncio.sleep(0)
        finally:
            live.offered.set()
        if removed:
            gone = f"The pipeline '{stored.pipeline}' was removed while the map was being sent"
            raise Conflict(f"{gone}. What had not started by then will not run.")

    def _refuse_removed(self, tasks: Sequence[Task]) -> None:
        """End items of a map whose pipeline was removed before they were offered."""
        body = b'{"type": "Cancelled", "message": "The pipeline was removed while the map was being sent."}'
        for task in tasks:
            self._recorder.write(Attempt(task, Outcome.CANCELLED, State.CANCELLED, body, self._plant.wall()))

    # live maps ----------------------------------------------------------------------------------------------------
    def _keep(self, live: LiveMap) -> None:
        self._live[live.stored.id] = live
        insort(self._ids, live.stored.id)
        live.note_pace(self._plant.clock())
        for twin in live.stored.twins.values():
            self._twins[twin] = live

    def _let_go(self, live: LiveMap) -> None:
        """Forget a map that has ended and that nobody reads."""
        if live.stored.finished is not None and not live.readers and self._live.get(live.stored.id) is live:
            self._drop(live)

    def _drop(self, live: LiveMap) -> None:
        del self._live[live.stored.id]
        self._ids.remove(live.stored.id)
        for twin in [twin for twin, one in self._twins.items() if one is live]:
            del self._twins[twin]

    def kept(self, map_id: int) -> LiveMap | None:
        """Return a map if it is live."""
        return self._live.get(map_id)

    async def live(self, map_id: int) -> LiveMap:
        """Return a map with its tally, reading what the store has of it if need be. Raises `NotFound`."""
        live = self._live.get(map_id)
        if live is not None and live.offered.is_set():
            return live
        async with self._loading:
            live = self._live.get(map_id)
            if live is not None:
                await live.offered.wait()
                return live
            live = LiveMap(await self.find(map_id))
            self._keep(live)
            live.readers += 1
            try:
                await self._read(live)
            except BaseException:
                self._drop(live)
                raise
            finally:
                live.readers -= 1
                live.offered.set()
            self._let_go(live)
        return live

    async def _read(self, live: LiveMap) -> None:
        """Read which items have ended; what ends meanwhile is heard as ever."""
        store, project, tally = self._plant.store, self._plant.project_id, live.tally
        await self._recorder.catch_up()
        at = tally.first
        while at <= live.last:
            page = await store.ends(project, at - 1, live.last, PAGE)
            upto = page[-1][0] if len(page) == PAGE else live.last
            known = _endings(page)
            for some in _slices(range(at, upto + 1)):
                for task in some:
                    if ending := known.get(task, GONE):
                        tally.hear(task - tally.first, task, ending)
                await asyncio.sleep(0)
            at = upto + 1
        for own, twin in live.stored.twins.items():
            page = await store.ends(project, twin - 1, twin, 1)
            if ending := _endings(page).get(twin, GONE):
                tally.hear(own - tally.first, twin, ending)
        self._look_whole(live)
        self._stragglers.taken_up(live)

    async def _read_anew(self, live: LiveMap) -> None:
        """Count a map's ends anew: some of its items were redriven, or deleted with their pipeline."""
        async with self._loading:
            stored = await self._plant.store.map(self._plant.project_id, live.stored.id)
            if stored is None:
                return
            live.stored = replace(stored, twins={**stored.twins, **live.stored.twins})  # one may have come meanwhile
            live.tally.forget(live.stored.twins)
            await self._read(live)
            live.bell.ring()

    async def look_again(self, pipeline: str) -> None:
        """Count the ends of a pipeline's maps anew. The store has no more to say of items than it has now."""
        for live in [live for live in self._live.values() if live.stored.pipeline == pipeline]:
            await live.offered.wait()
            await self._read_anew(live)

    # ends ---------------------------------------------------------------------------------------------------------
    def written(self, attempts: Sequence[Attempt]) -> None:
        """Hear what the store knows now."""
        if not self._live:
            return
        heard: dict[int, LiveMap] = {}
        for attempt in attempts:
            if attempt.state in ENDED and (live := self._hear(attempt)) is not None:
                heard[live.stored.id] = live
        now = self._plant.clock()
        for live in heard.values():
            live.note_pace(now)
            live.bell.ring()
            self._look_whole(live)
            self._stragglers.look(live)

    def _hear(self, attempt: Attempt) -> LiveMap | None:
        task, live = attempt.task.id, self._of(attempt.task.id)
        if live is None:
            return None
        tally = live.tally
        item = self._stragglers.item_of(live, task)
        twin = tally.twin(item)
        if tally.hear(item, task, attempt.outcome.value):
            if twin is not None:
                self._stragglers.decided(tally.first + item if task == twin else twin)
            if attempt.outcome is Outcome.OK and attempt.started is not None:
                live.took.append(attempt.finished - attempt.started)
        return live

    def _of(self, task: int) -> LiveMap | None:
        """Return the live map that a task belongs to."""
        place = bisect_left(self._ids, task) - 1
        if place >= 0:
            live = self._live[self._ids[place]]
            if task <= live.last:
                return live
        return self._twins.get(task)

    def paired(self, live: LiveMap, item: int, twin: int) -> None:
        """Let an item have a second task, whose end is heard too."""
        live.tally.pair(item, twin)
        live.stored = replace(live.stored, twins={**live.stored.twins, live.tally.first + item: twin})
        self._twins[twin] = live

    def _look_whole(self, live: LiveMap) -> None:
        if live.tally.whole and live.stored.finished is None:
            self._job(self._finish(live))

    async def _finish(self, live: LiveMap) -> None:
        """Write down that a map has ended."""
        plant, tally = self._plant, live.tally
        while tally.whole and live.stored.finished is None:
            wall, generation, ended = plant.wall(), tally.generation, dict(tally.by_ending)
            try:
                await plant.store.finish_map(plant.project_id, live.stored.id, wall, ended)
            except PenstockError as error:
                log.warning("The end of a map could not be written down, and will be later: %s", error)
                await asyncio.sleep(LATER)
            else:
                if tally.generation == generation:
                    live.stored = replace(live.stored, finished=wall, ended=ended)
        self._let_go(live)

    # readers ------------------------------------------------------------------------------------------------------
    async def enter(self, map_id: int) -> LiveMap:
        """Return a map that stays live until `leave`."""
        live = await self.live(map_id)
        live.readers += 1
        if map_id not in self._live:
            self._keep(live)
        return live

    def leave(self, live: LiveMap) -> None:
        """Let a map go if nobody else reads it."""
        live.readers -= 1
        self._let_go(live)

    async def find(self, map_id: int) -> StoredMap:
        """Return a map as the store has it. Raises `NotFound`."""
        stored = await self._plant.store.map(self._plant.project_id, map_id)
        if stored is None:
            raise NotFound("map", name_of(map_id))
        return stored

    async def list(self, before: int | None, limit: int) -> list[StoredMap]:
        """Return maps, newest first."""
        return await self._plant.store.maps(self._plant.project_id, before, limit)

    # cancelling -----------------------------------------------------------------------------------------------------
    async def cancel(self, map_id: int) -> LiveMap:
        """Cancel all items of a map that have not ended; return when that is on disk. Raises `Conflict` if none is left."""
        live = await self.live(map_id)
        if live.tally.whole:
            raise Conflict(f"All items of the map {name_of(map_id)} have ended already.")
        wall = self._plant.wall()
        await self._plant.store.cancel_map(self._plant.project_id, map_id, wall)
        live.stored = replace(live.stored, cancelled=live.stored.cancelled or wall)
        job = self._job(self._withdraw(live))
        await asyncio.shield(job)
        return live

    async def _withdraw(self, live: LiveMap) -> None:
        """End items wherever they are, a page at a time, until there is none that has not ended."""
        plant = self._plant
        left = True
        while left:
            await self._recorder.catch_up()
            after, left = live.stored.id, False
            while page := await plant.store.not_ended(plant.project_id, after, live.last, ENDED_AT_ONCE):
                after, left = page[-1].id, True
                self._withdraw_some(live, [one for one in page if not self._has_ended(live, one.id)])
                await self._recorder.catch_up()
        for twin in live.stored.twins.values():
            with suppress(NotFound, Conflict):
                await self._intake.cancel(twin)

    @staticmethod
    def _has_ended(live: LiveMap, task: int) -> bool:
        """Say whether a task has ended since the store was read: the item's end is its own, not that of a second run."""
        item = task - live.tally.first
        return live.tally.has(item) and live.tally.task_of(item) == task

    def _withdraw_some(self, live: LiveMap, some: Sequence[StoredTask]) -> None:
        """Cancel tasks; those whose last attempt is being written down are left to the next look."""
        running = self._running(live)
        unwritten = self._recorder.uncommitted()
        waiting = []
        for stored in some:
            attempt = running.get(stored.id)
            if attempt is not None:
                self._deadlines.end(attempt, self._plant.running[attempt], Outcome.CANCELLED, stored.id)
            elif stored.id not in unwritten:
                waiting.append(stored)
        self._withdrawals.cancel(*waiting)

    def _running(self, live: LiveMap) -> dict[int, int]:
        """Return the attempts in which items of a map run now, by their tasks."""
        return {
            task.id: attempt
            for attempt, running in self._plant.running.items()
            for task in running.tasks
            if live.stored.id < task.id <= live.last
        }

    def running(self, live: LiveMap) -> int:
        """Return how many items run now."""
        return len(self._running(live))

    def _job(self, work: Coroutine[None, None, T]) -> asyncio.Task[T]:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
        return job


def _endings(page: Sequence[tuple[int, State, Outcome | None]]) -> dict[int, str]:
    """Return how tasks have ended, "" for those that have not."""
    return {task: (outcome or state).value if state in ENDED else "" for task, state, outcome in page}


def _slices(several: S) -> Iterator[S]:
    """Yield a sequence in pieces that one turn of the event loop can work on."""
    for place in range(0, len(several), SLICE):
        yield several[place : place + SLICE]  # type: ignore[misc]
