"""The pump: asks admission what may start, and hands it to instances, a batch to each."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.compute.protocol import Entry, Run
from penstock.domain.asks import Lent
from penstock.domain.errors import PenstockError
from penstock.domain.queue import key_of
from penstock.engine.model import TAKING, Running

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from penstock.domain.pipeline import Start
    from penstock.domain.task import Task
    from penstock.engine.loops import Loops
    from penstock.engine.model import Member, Pipe, Plant

BATCH: Final = 512
"""Starts that one turn of the event loop decides about: it keeps callbacks short."""

PAGE: Final = 1000
INLINE: Final = 16 * 1024
"""Payloads up to this many bytes are kept in memory while they wait; larger ones are read when they start."""

COALESCE: Final = 0.004
"""The part of the shortest period that may pass between two moments at which the timer starts tasks.

What is due between them starts together; a unit is used half of that later on average."""

LONGEST_PAUSE: Final = 0.004
"""The longest pause, in seconds, that is made for that."""

FULL_PAUSE: Final = 0.25
"""Seconds until a full disk is looked at again; nothing starts before it has room."""

APART_PAUSE: Final = 1.0
"""Seconds until a suspected task is tried again that could not have an instance of its own."""

READ_PAUSE: Final = 1.0
"""Seconds until a page that could not be read is asked for again."""

log = logging.getLogger(__name__)


class Pump:
    """Start tasks. Whoever changes what may start calls `wake`; many calls make one run."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._timer_ran = -inf
        self._jobs: set[asyncio.Task[None]] = set()
        self.halted = False
        self._lends = True

    def join(self, loops: Loops) -> None:
        """Get to know the loops that starts are passed on to."""
        self._scaler, self._lives, self._settle = loops.scaler, loops.lives, loops.settle
        self._scheduler, self._reserver, self._recorder = loops.scheduler, loops.reserver, loops.recorder
        self._withdrawals, self._lender, self._deadlines = loops.withdrawals, loops.lender, loops.deadlines
        self._visits = loops.visits
        self._prewarmer = loops.prewarmer

    def wake(self) -> None:
        """Run once in this turn of the event loop."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self.run_once)

    def run_once(self) -> None:
        """Start what may start now, ask for instances that are wanted, and set the timer for the next moment."""
        self._scheduled = False
        plant = self._plant
        now = plant.clock()
        self._lives.run_once(now)
        if self.halted or plant.store.full:
            self._lend_only(now)
            return
        admitted = plant.admission.admit(now, plant.wall(), BATCH)
        self._lender.answer(admitted.lent)
        if admitted.starts:
            self._send(admitted.starts, now)
        for task in admitted.expired:
            self._withdrawals.drop_old(task)
        for task, limit in admitted.impossible:
            self._withdrawals.drop_dear(task, limit)
        self._scaler.run_once(now)
        if plant.admission.unreserved:
            self._reserver.wake()
        for name in plant.admission.hungry:
            self._page(name)
        plant.admission.hungry.clear()
        self._set_timer(plant.admission.next_wakeup())

    def _lend_only(self, now: float) -> None:
        """Start nothing, but let what runs go on: it may end then."""
        at = inf if self.halted else now + FULL_PAUSE
        if self._lends:
            lent = Lent()
            at = min(at, self._plant.admission.lending.serve_all(now, lent))
            self._lender.answer(lent)
        if self.halted and self._lends and self._plant.admission.unreserved:
            self._reserver.wake()
        if at < inf:
            self._set_timer(at)

    def halt(self, *, lends: bool = False) -> None:
        """Start nothing more; what runs may still take from limits if it `lends`."""
        self.halted, self._lends = True, lends
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._timer_at = None, inf
        for job in self._jobs:
            job.cancel()
        if lends:
            self.wake()

    # starts -------------------------------------------------------------------------------------------------------
    def _send(self, starts: list[Start], now: float) -> None:
        plant = self._plant
        batches: dict[Member, list[Run]] = {}
        for start in starts:
            task, number = start.task, len(start.tasks)
            pipe = plant.pipes[task.pipeline]
            fleet = plant.fleets[start.slots.name]
            counts = pipe.counts
            counts.queued -= number
            counts.running += number
            if task.apart and fleet.blueprint is not None and fleet.blueprint.slots > 1:
                plant.admission.provide(fleet.name, 1)
                if self._scaler.may_launch_apart(fleet, now):
                    self._register(start, self._lives.launch(fleet, now, apart=True), now)
                else:
                    self._put_off(start, pipe)
                continue
            chosen = fleet.choose()
            assert chosen is not None, "admission gave a slot that no instance has"
            attempt, running = self._register(start, chosen, now)
            if plant.visits and (visit := plant.visits.get(task.id)) is not None:
                batches.setdefault(chosen, []).append(self._visits.begin(visit, attempt, running, start))
                continue
            if task.payload is None or task.interruptions or (number > 1 and not _at_hand(start.tasks)):
                self._job(self._send_prepared(attempt, running))
                continue
            self._deadlines.add(attempt, running)
            if start.batched:
                run = _run_of(attempt, running, [one.payload or b"" for one in start.tasks])
            else:
                run = Run(attempt, task.id, task.attempts + 1, pipe.context, task.payload, running.timeout, start.dated)
            batch = batches.get(chosen)
            if batch is None:
                batches[chosen] = [run]
            else:
                batch.append(run)
        for member, batch in batches.items():
            member.instance.run(batch)
        self._recorder.note_later()

    def _put_off(self, start: Start, pipe: Pipe) -> None:
        """Let a suspected task wait a little: there are enough instances for single tasks."""
        self._plant.admission.finish(start, None)
        pipe.counts.running -= 1
        pipe.counts.delayed += 1
        start.task.due = self._plant.wall() + APART_PAUSE
        self._scheduler.add(start.task)

    def _register(self, start: Start, member: Member, now: float) -> tuple[int, Running]:
        attempt = self._plant.next_attempt()
        fleet = member.fleet
        if not fleet.running:
            fleet.progress = now
            self._prewarmer.works(fleet)
        fleet.running += 1
        running = Running(start, self._plant.pipes[start.task.pipeline], member, now)
        self._plant.running[attempt] = member.busy[attempt] = running
        return attempt, running

    def run_suspect(self, member: Member) -> None:
        """Send the one task that an instance was started for."""
        if self.halted:
            return
        for attempt, running in member.busy.items():
            self._job(self._send_prepared(attempt, running))

    async def _send_prepared(self, attempt: int, running: Running) -> None:
        """Send tasks of which a payload is on disk only, or a start must be known to the store before it runs."""
        plant = self._plant
        if any(task.interruptions for task in running.tasks):
            await self._recorder.note_start(attempt)
        payloads = {task.id: task.payload for task in running.tasks if task.payload is not None}
        while attempt in running.member.busy and (missing := _missing(running, payloads)):
            try:
                payloads |= await plant.store.payloads(plant.project_id, missing)
            except PenstockError as error:
                log.warning("The payloads of %d tasks could not be read, and will be later: %s", len(missing), error)
                await asyncio.sleep(READ_PAUSE)
                continue
            lost = set(missing) - payloads.keys()
            if lost and attempt in running.member.busy:  # else the instance is gone, and they wait again
                self._settle.lost(attempt, running, lost)
        if attempt not in running.member.busy or not running.tasks:
            return
        running.sent = plant.clock()
        if running.member.state not in TAKING or not running.member.fits(running.timeout, running.sent):
            self._settle.unsent(attempt, running)  # its instance was stopped meanwhile, or is too old for it by now
            return
        running.deadline = running.sent + running.timeout
        self._deadlines.add(attempt, running)
        running.carried = running.tasks
        run = _run_of(attempt, running, [payloads[task.id] for task in running.tasks])
        running.member.instance.run([run])

    # pages --------------------------------------------------------------------------------------------------------
    def _page(self, name: str) -> None:
        pipe = self._plant.pipes.get(name)
        if pipe is not None and not pipe.paging:
            pipe.paging = True
            self._job(self._load_page(name))

    async def _load_page(self, name: str) -> None:
        """Read the next waiting tasks of a pipeline, leaving out those that are known to be elsewhere by now."""
        plant = self._plant
        pipe = plant.pipes.get(name)
        if pipe is None:  # it was removed just now
            return
        queue = plant.admission.pipelines[name].queue
        known = self._known(name)
        try:
            page = await plant.store.waiting(plant.project_id, name, queue.ask_page(), PAGE, INLINE)
        except PenstockError as error:
            log.warning("The next tasks of '%s' could not be read, and will be later: %s", name, error)
            asyncio.get_running_loop().call_later(READ_PAUSE, self._still_hungry, name)
            return
        finally:
            pipe.paging = False
        if plant.pipes.get(name) is not pipe:  # it was removed, and perhaps made anew: what was read is gone
            return
        known |= self._known(name)
        upto = key_of(page[-1]) if len(page) == PAGE else None
        elsewhere = (known, plant.sending)
        here = [t for t in page if not any(t.id in ids for ids in elsewhere) and not self._scheduler.has(t.id)]
        plant.admission.page_in(name, here, upto)
        self.wake()

    def _still_hungry(self, name: str) -> None:
        if name in self._plant.admission.pipelines:
            self._plant.admission.hungry[name] = None
            self.wake()

    def _known(self, name: str) -> set[int]:
        plant = self._plant
        # One whose outcome was given has only work left to end: if it is redriven, it waits again meanwhile.
        known = plant.running_tasks()
        known |= self._recorder.uncommitted()
        known |= {task.id for task in plant.admission.pipelines[name].queue.tasks()}
        return known

    # timers -------------------------------------------------------------------------------------------------------
    def _set_timer(self, moment: float | None) -> None:
        if moment is None:
            return
        if moment == -inf:
            self.wake()
        elif moment < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = moment
            delay = max(0.0, max(moment, self._timer_ran + self._pause()) - self._plant.clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._timer_over)

    def _pause(self) -> float:
        return min(LONGEST_PAUSE, self._plant.admission.shortest_period * COALESCE)

    def _timer_over(self) -> None:
        self._timer, self._timer_at = None, inf
        self._timer_ran = self._plant.clock()
        if not self._scheduled:
            self._scheduled = True
            self.run_once()

    def _job(self, work: Coroutine[None, None, None]) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)


def _at_hand(tasks: tuple[Task, ...]) -> bool:
    """Say whether tasks can be sent at once."""
    return all(task.payload is not None and not task.interruptions for task in tasks)


def _missing(running: Running, payloads: Mapping[int, bytes]) -> list[int]:
    return [task.id for task in running.tasks if task.id not in payloads]


def _run_of(attempt: int, running: Running, payloads: Sequence[bytes]) -> Run:
    """Return what an instance is asked for: one task, or those of a batch with their payloads in a row."""
    start, tasks = running.start, running.carried
    entries: tuple[Entry, ...] = ()
    if start.batched:
        pairs = zip(tasks, payloads, strict=True)
        entries = tuple(Entry(task.id, task.attempts + 1, len(payload)) for task, payload in pairs)
    first, context = tasks[0], running.pipe.context
    body = b"".join(payloads)
    return Run(attempt, first.id, first.attempts + 1, context, body, running.timeout, start.dated, entries)
