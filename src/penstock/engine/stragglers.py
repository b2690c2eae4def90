"""Stragglers: items of a map that take much longer than the others run a second time, and the first good end counts.

It is done on request only, because a handler that runs twice at the same time must not mind. Nothing happens before most of
a map's items have ended; from then on the moment is known at which an item will have run too long, so nothing polls.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from penstock.domain.errors import Conflict, NotFound, PenstockError
from penstock.domain.task import Attempt, Outcome, State, Task

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from penstock.engine.livemap import LiveMap
    from penstock.engine.loops import Loops
    from penstock.engine.model import Plant

MOST: Final = 0.75
"""The part of a map's items that must have ended before any is run again."""

SHORTEST: Final = 0.05
"""Seconds that an item may take in any case: below that a second run takes longer than waiting."""

PAUSE: Final = 0.1
"""Seconds between two looks at a map."""

_REMOVED: Final = (
    b'{"type": "Cancelled", "message": "The pipeline was removed while the item was to run a second time."}'
)

log = logging.getLogger(__name__)


class Stragglers:
    """Run items again."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._timers: dict[int, tuple[float, asyncio.TimerHandle]] = {}
        self._making: set[int] = set()  # tasks whose second run is being written
        self._jobs: set[asyncio.Task[Any]] = set()

    def join(self, loops: Loops) -> None:
        """Get to know who sends tasks, cancels them, and hears and writes of their ends."""
        self._intake, self._maps, self._recorder = loops.intake, loops.maps, loops.recorder

    def close(self) -> None:
        """Run nothing again any more."""
        for _, timer in self._timers.values():
            timer.cancel()
        for job in self._jobs:
            job.cancel()

    @staticmethod
    def item_of(live: LiveMap, task: int) -> int:
        """Return the item that a task of a map is a run of."""
        if live.stored.id < task <= live.last:
            return task - live.tally.first
        return next(own for own, twin in live.stored.twins.items() if twin == task) - live.tally.first

    def taken_up(self, live: LiveMap) -> None:
        """Go on where an earlier server has left a map: end runs that count no more, and look for those that take too long."""
        for own, twin in live.stored.twins.items():
            item = own - live.tally.first
            if live.tally.has(item):
                self.decided(own if live.tally.task_of(item) == twin else twin)
        self.look(live)

    def decided(self, other: int) -> None:
        """End the run of an item that counts no more, because its other one was quicker."""
        self._job(self._end(other))

    async def _end(self, task: int) -> None:
        with suppress(NotFound, Conflict):
            await self._intake.cancel(task)

    def look(self, live: LiveMap) -> None:
        """See to it that what takes too long runs again, in a moment if it does so already."""
        stored, tally = live.stored, live.tally
        wanted = stored.stragglers is not None and stored.cancelled is None and not tally.whole
        if wanted and live.took and tally.ended >= MOST * tally.items:
            self._look_at(live, self._plant.clock() + PAUSE)

    def _look_at(self, live: LiveMap, at: float) -> None:
        known = self._timers.get(live.stored.id)
        if known is not None and known[0] <= at:
            return
        if known is not None:
            known[1].cancel()
        delay = max(0.0, at - self._plant.clock())
        timer = asyncio.get_running_loop().call_later(delay, self._run_once, live)
        self._timers[live.stored.id] = at, timer

    def _run_once(self, live: LiveMap) -> None:
        """Run again what has taken too long by now, and come back when the next item has."""
        del self._timers[live.stored.id]
        if live.tally.whole or live.stored.cancelled is not None:
            return
        assert live.stored.stragglers is not None
        most, now = max(SHORTEST, live.stored.stragglers * median(live.took)), self._plant.clock()
        soonest = now + most  # what starts from now on cannot be late before
        for running in self._plant.running.values():
            for task in running.tasks:
                if live.stored.id < task.id <= live.last and self._may_run_again(live, task.id):
                    late = (running.sent if running.started is None else running.started) + most
                    if late <= now:
                        self._making.add(task.id)
                        self._job(self._run_again(live, task))
                    else:
                        soonest = min(soonest, late)
        self._look_at(live, max(soonest, now + PAUSE))

    def _may_run_again(self, live: LiveMap, task: int) -> bool:
        return task not in live.stored.twins and task not in self._making

    async def _run_again(self, live: LiveMap, own: Task) -> None:
        """Send a second task for an item that has not ended."""
        plant, item = self._plant, own.id - live.tally.first
        try:
            pipe = self._intake.pipe(own.pipeline)
            self._intake.check_open(pipe)
            payload = (await plant.store.payloads(plant.project_id, [own.id])).get(own.id)
            if payload is None or live.tally.has(item):
                return
            wall = plant.wall()
            twin = Task(self._intake.reserve(1), own.pipeline, payload, created=wall, expires=wall + pipe.spec.max_age)
            plant.sending.add(twin.id)
            try:
                await plant.store.add_twin(plant.project_id, live.stored.id, own.id, twin)
            finally:
                plant.sending.discard(twin.id)
            if plant.pipes.get(own.pipeline) is not pipe:
                self._recorder.write(Attempt(twin, Outcome.CANCELLED, State.CANCELLED, _REMOVED, plant.wall()))
                return
            pipe.counts.queued += 1
            self._maps.paired(live, item, twin.id)
            self._intake.offer(own.pipeline, pipe, [twin])
            if live.tally.has(item) or live.stored.cancelled is not None:  # it was quicker after all
                self.decided(twin.id)
        except PenstockError as error:
            log.warning("An item that takes long could not be run a second time: %s", error)
        finally:
            self._making.discard(own.id)

    def _job(self, work: Coroutine[Any, Any, None]) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)
