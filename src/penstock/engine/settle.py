"""What follows the end of an attempt: units are freed, the store told, and whoever waits gets the result.

It is the listener of all instances. Outcomes are written in batches: they wait a moment for each other, unless somebody
waits for one of them. A crash before the write runs the task again, which is what "at least once" allows.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Final, Literal

from penstock.compute.protocol import End, Ending, Exit, Instance
from penstock.domain.errors import DiskFull, Fenced, PenstockError, Unavailable
from penstock.domain.retry import follow, hold_for
from penstock.domain.task import WAITING, Attempt, Outcome, State
from penstock.engine.bell import Bell
from penstock.store.protocol import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from penstock.engine.deadlines import Deadlines
    from penstock.engine.model import Member, Pipe, Plant, Running
    from penstock.engine.pump import Pump
    from penstock.engine.scaler import Scaler
    from penstock.engine.scheduler import Scheduler

LINGER: Final = 0.05
"""How long (seconds) an outcome that nobody waits for may wait for others before it is written."""

LARGE_BATCH: Final = 1000
RETRY_PAUSE: Final = 0.25
KNOWN_AFTER: Final = 1.0
"""Seconds after which a task that still runs is written down as running."""

_OUTCOMES: Final = {
    Ending.OK: Outcome.OK,
    Ending.ERROR: Outcome.ERROR,
    Ending.CANCELLED: Outcome.ERROR,
    Ending.THROTTLED: Outcome.THROTTLED,
}

log = logging.getLogger(__name__)


class Settle:
    """Conclude attempts."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._quiet: asyncio.Future[None] | None = None
        self._pending: list[Attempt] = []
        self._writing: list[Attempt] = []
        self._lines: list[Line] = []
        self.told = Bell()  # rung when output of tasks can be read from the store
        self._flusher: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._notes: list[tuple[int, asyncio.Future[None] | None]] = []
        self._noting: asyncio.TimerHandle | None = None
        self._noted = 0
        self.emptied: Callable[[str], None] = lambda _name: None  # told of pipelines that go when they are empty
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}

    def join(self, pump: Pump, scaler: Scaler, deadlines: Deadlines, scheduler: Scheduler) -> None:
        """Get to know the loops that outcomes are passed on to."""
        self._pump, self._scaler, self._deadlines, self._scheduler = pump, scaler, deadlines, scheduler

    # what instances tell ------------------------------------------------------------------------------------------
    def ready(self, instance: Instance, at: float) -> None:
        """Let a new instance work."""
        member = self._plant.members.get(instance.id)
        if member is not None:
            self._scaler.ready(member, at)
            if member.suspect is not None:
                self._pump.run_suspect(member)
            self._pump.wake()

    def started(self, instance: Instance, starts: Sequence[tuple[int, float]]) -> None:  # noqa: ARG002 - the protocol's
        """Date the units of tasks whose handlers have started."""
        for attempt, at in starts:
            running = self._plant.running.get(attempt)
            if running is not None:
                running.started = at
                self._plant.admission.started(running.start, at)
        self._pump.wake()

    def finished(self, instance: Instance, ends: Sequence[End]) -> None:
        """Conclude executions that ended."""
        plant = self._plant
        member = plant.members.get(instance.id)
        if member is None:
            return
        now, offset = plant.clock(), plant.wall() - plant.clock()
        fleet = member.fleet
        count = 0
        for end in ends:
            running = member.busy.pop(end.attempt, None)
            if running is None:
                continue
            count += 1
            plant.running.pop(end.attempt, None)
            self._deadlines.remove(end.attempt, running)
            plant.admission.finish(running.start, end.started)
            taken = end.finished - end.started
            fleet.mean = taken if fleet.mean is None else fleet.mean + 0.05 * (taken - fleet.mean)
            if running.outcome_given:
                continue
            running.started = end.started
            outcome = _OUTCOMES[end.ending]
            if outcome is Outcome.THROTTLED:
                self._hold(running, end)
            self._conclude(running, outcome, end.body, end.finished + offset, offset)
        fleet.running -= count
        fleet.progress = now
        self._scaler.freed(member, count, now)
        self._deadlines.settle_tainted(member)
        self._pump.wake()
        self._look_quiet()

    def output(self, instance: Instance, attempt: int, stream: str, text: str) -> None:
        """Keep what a task has written."""
        running = self._plant.running.get(attempt)
        function = instance.blueprint.function
        at = self._plant.wall()
        if running is None:
            line = Line(0, "", function, 0, at, _stream(stream), text)
        else:
            task = running.task
            line = Line(task.id, task.pipeline, function, task.attempts + 1, at, _stream(stream), text)
        self._lines.append(line)
        self._flush_soon(urgent=False)

    def gone(self, instance: Instance, exit: Exit) -> None:  # noqa: A002 - the protocol's word
        """Conclude what an instance took with it."""
        plant = self._plant
        now, offset = plant.clock(), plant.wall() - plant.clock()
        member = self._scaler.gone(instance, now)
        if member is None:
            return
        self._deadlines.gone(instance.id)
        left = [running for running in member.busy.values() if not running.outcome_given]
        for attempt, running in member.busy.items():
            plant.running.pop(attempt, None)
            self._deadlines.remove(attempt, running)
            # Whether the handler had started is unknown: its end is the latest it can have.
            plant.admission.finish(running.start, (running.started or now) if member.reads else None)
        for running in left:
            outcome = self._blame(member, len(left), exit)
            running.task.apart = running.task.apart or (outcome is Outcome.INTERRUPTED and not exit.killed)
            running.task.interruptions -= plant.stopping and outcome is Outcome.INTERRUPTED
            body = None if outcome is Outcome.INTERRUPTED else _crash_report(exit)
            self._conclude(running, outcome, body, now + offset, offset)
        member.fleet.running -= len(member.busy)
        member.busy.clear()
        if not member.reads and not exit.killed and exit.detail:
            self._lines.append(Line(0, "", instance.blueprint.function, 0, plant.wall(), "stderr", exit.detail))
        self._flush_soon(urgent=False)
        self._pump.wake()
        self._look_quiet()

    def _look_quiet(self) -> None:
        if self._quiet is not None and not self._plant.running and not self._quiet.done():
            self._quiet.set_result(None)

    def answers(self, instance: Instance, at: float) -> None:
        """Pass a sign of life on."""
        self._deadlines.answers(instance.id, at)

    @staticmethod
    def _blame(member: Member, inside: int, exit: Exit) -> Outcome:  # noqa: A002
        """Say what the end of an instance means for a task in it: with several inside nobody is charged."""
        innocent = exit.killed or not member.reads
        return Outcome.INTERRUPTED if innocent or (inside > 1 and member.suspect is None) else Outcome.CRASHED

    # outcomes -----------------------------------------------------------------------------------------------------
    def give(self, attempt: int, outcome: Outcome) -> None:
        """Give a running attempt its outcome (timeout, cancelled) while its work still goes on."""
        running = self._plant.running[attempt]
        running.outcome_given = True
        offset = self._plant.wall() - self._plant.clock()
        if outcome is Outcome.TIMEOUT:
            body = _error("Timeout", f"The task took longer than its timeout of {running.timeout:g} s and was ended.")
        else:
            body = _error("Cancelled", "The task was cancelled while it ran.")
        self._conclude(running, outcome, body, self._plant.wall(), offset)

    def unsent(self, attempt: int, running: Running) -> None:
        """Let a task wait again whose instance takes no more, before it was sent there."""
        plant, member = self._plant, running.member
        del member.busy[attempt], plant.running[attempt]
        member.fleet.running -= 1
        plant.admission.finish(running.start, None)
        if plant.pipes.get(running.task.pipeline) is running.pipe:  # it did not run: there is no attempt to record
            running.pipe.counts.running -= 1
            running.pipe.counts.queued += 1
            plant.admission.put_back([running.task])
        else:
            self._conclude(running, Outcome.CANCELLED, None, plant.wall(), plant.wall() - plant.clock())
        self._deadlines.settle_tainted(member)
        self._pump.wake()

    def lost(self, attempt: int, running: Running) -> None:
        """End a task whose payload is gone: it was deleted while the task waited."""
        plant, member = self._plant, running.member
        del member.busy[attempt], plant.running[attempt]
        member.fleet.running -= 1
        plant.admission.finish(running.start, None)
        self._scaler.freed(member, 1, plant.clock())
        body = _error("PayloadLost", "The task's payload is no longer in the store.")
        self._conclude(running, Outcome.ERROR, body, plant.wall(), plant.wall() - plant.clock())
        self._pump.wake()

    def _conclude(self, running: Running, outcome: Outcome, body: bytes | None, at: float, offset: float) -> None:
        task, pipe = running.start.task, running.pipe
        sequel = follow(task, outcome, pipe.spec.attempts, pipe.spec.backoff, self._plant.rng.random())
        state = sequel.state
        if state in WAITING and self._plant.pipes.get(task.pipeline) is not pipe:
            state = State.CANCELLED  # its pipeline was removed while it ran
        if state is State.DEAD and outcome is Outcome.INTERRUPTED:
            body = _error("Interrupted", f"The task's instance ended {task.interruptions} times before the task did.")
        due = at + sequel.delay if state is State.DELAYED else None
        started = None if running.started is None else running.started + offset
        attempt = Attempt(
            task, outcome, state, body, at, started, due, running.version, str(running.member.instance.id)
        )
        counts = pipe.counts
        counts.running -= 1
        if not task.durable and state is not State.QUEUED:
            self._plant.answer(attempt)
        if state is State.DONE:
            counts.done += 1
        elif state is State.QUEUED:
            counts.queued += 1
            self._plant.admission.put_back([task])
        elif state is State.DELAYED:
            counts.delayed += 1
            task.due = due
            self._scheduler.add(task)
        elif state is State.DEAD:
            counts.dead += 1
        if task.durable or state is not State.QUEUED:  # a call that runs again has still left no trace
            self.write(attempt)
        self.look_empty(pipe)

    def look_empty(self, pipe: Pipe) -> None:
        """Let a pipeline go that was to go when its work is done, if this was the last of it."""
        if pipe.leaving and not pipe.counts.waiting and not pipe.counts.running:
            self.emptied(pipe.spec.name)

    def _hold(self, running: Running, end: End) -> None:
        """Let downstream's "try later" hold the pipeline, or the shared limit that the handler named."""
        plant = self._plant
        until = plant.clock() + hold_for(end.retry_after, running.task.throttles)
        if end.limit is not None and end.limit in plant.admission.gates:
            plant.admission.hold_limit(end.limit, until)
        elif running.task.pipeline in plant.admission.pipelines:
            plant.admission.hold(running.task.pipeline, until)

    # writing ------------------------------------------------------------------------------------------------------
    def write(self, attempt: Attempt) -> None:
        """Let an outcome be written with the next batch."""
        self._pending.append(attempt)
        self._flush_soon(urgent=attempt.task.id in self._waiters or len(self._pending) >= LARGE_BATCH)

    def uncommitted(self) -> set[int]:
        """Return the ids of tasks whose outcome the store does not know yet."""
        return {attempt.task.id for attempt in self._pending} | {attempt.task.id for attempt in self._writing}

    def pends(self, task_id: int) -> bool:
        """Say whether the store is about to hear of a task."""
        return any(one.task.id == task_id for batch in (self._pending, self._writing) for one in batch)

    async def catch_up(self) -> None:
        """Return when all outcomes that there are now are in the store."""
        batch = self._pending or self._writing
        if batch:
            await self.wait_for(batch[-1].task.id)

    def wait_for(self, task_id: int) -> asyncio.Future[None]:
        """Return a future that is done when the next outcome of a task is in the store."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(task_id, []).append(future)
        if any(attempt.task.id == task_id for attempt in self._pending):
            self._flush_soon(urgent=True)
        return future

    def forget(self, task_id: int, future: asyncio.Future[None]) -> None:
        """Wait no more."""
        waiters = self._waiters.get(task_id)
        if waiters is not None and future in waiters:
            waiters.remove(future)
            if not waiters:
                del self._waiters[task_id]

    async def nothing_runs(self, timeout: float) -> None:
        """Return when no attempt runs any more, or when `timeout` seconds are over."""
        if self._plant.running:
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._quiet], timeout=timeout)
            self._quiet = None

    async def drain(self) -> None:
        """Write all that is pending and return when it is in the store."""
        while self._dirty or self._flusher is not None:
            self._flush_soon(urgent=True)
            if self._flusher is not None:
                await asyncio.shield(self._flusher)
        for timer in (self._linger, self._noting):
            if timer is not None:
                timer.cancel()

    def _flush_soon(self, *, urgent: bool) -> None:
        if self._flusher is not None:
            return
        loop = asyncio.get_running_loop()
        if urgent:
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            self._flusher = loop.create_task(self._flush())
        elif self._linger is None:
            self._linger = loop.call_later(LINGER, self._linger_over)

    def _linger_over(self) -> None:
        self._linger = None
        self._flush_soon(urgent=True)

    async def _flush(self) -> None:
        """Write batch after batch, each with what came while the one before was written."""
        try:
            while self._dirty:
                self._writing, self._pending = self._pending, []
                lines, self._lines = self._lines, []
                await self._write_batch(lines)
                if self._notes:
                    await self._write_notes()
                done, self._writing = self._writing, []
                self._scheduler.written(done)
                for attempt in done if self._waiters else ():
                    for future in self._waiters.pop(attempt.task.id, ()):
                        if not future.done():
                            future.set_result(None)
                if len(self._pending) < LARGE_BATCH and not self._urgent():
                    break
        finally:
            self._flusher = None
            if self._dirty:
                self._flush_soon(urgent=False)

    @property
    def _dirty(self) -> bool:
        return bool(self._pending or self._lines or self._notes)

    def _urgent(self) -> bool:
        if self._notes:
            return True
        return bool(self._waiters) and any(attempt.task.id in self._waiters for attempt in self._pending)

    async def _write_batch(self, lines: list[Line]) -> None:
        """Write outcomes, for as long as it takes: they must not be lost while the server lives."""
        store, project = self._plant.store, self._plant.project_id
        while self._writing:
            try:
                await store.record(project, self._writing)
                break
            except (DiskFull, Unavailable) as error:
                log.warning("%d outcomes wait to be written: %s", len(self._writing), error)
                await asyncio.sleep(RETRY_PAUSE)
            except Fenced as error:
                log.critical("Another server has taken over. This one starts and takes nothing more: %s", error)
                self._plant.accepting = False
                self._pump.halt()
                break
        if lines:
            try:
                await store.write_output(project, lines)
                self.told.ring()
            except PenstockError as error:
                log.warning("Output of tasks was not kept: %s", error)

    # starts that are written down -----------------------------------------------------------------------------------
    def note_start(self, attempt: int) -> asyncio.Future[None]:
        """Write that an attempt runs; the future is done when the store knows."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._notes.append((attempt, future))
        self._flush_soon(urgent=True)
        return future

    def note_later(self) -> None:
        """See to it that tasks which run for long are written down as running."""
        if self._noting is None:
            self._noting = asyncio.get_running_loop().call_later(KNOWN_AFTER, self._note_long)

    def _note_long(self) -> None:
        self._noting = None
        before = self._plant.clock() - KNOWN_AFTER
        for attempt, running in self._plant.running.items():
            if running.sent > before:
                break
            if attempt > self._noted:
                self._noted = attempt
                self._notes.append((attempt, None))
        if self._notes:
            self._flush_soon(urgent=False)
        if self._plant.running:
            self.note_later()

    async def _write_notes(self) -> None:
        """Write starts, after the outcomes before them and only of what still runs: so the order is that of events."""
        notes, self._notes = self._notes, []
        running = [self._plant.running[attempt] for attempt, _ in notes if attempt in self._plant.running]
        tasks = [one.task for one in running if one.task.durable and not one.outcome_given]
        if tasks:
            try:
                await self._plant.store.note_starts(self._plant.project_id, tasks)
            except PenstockError as error:
                log.warning("That %d tasks run could not be written down: %s", len(tasks), error)
        for _, future in notes:
            if future is not None and not future.done():
                future.set_result(None)


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"type": kind, "message": message}).encode()


def _crash_report(exit: Exit) -> bytes:  # noqa: A002
    how = f"signal {exit.signal}" if exit.signal else f"exit code {exit.code}"
    body = {"type": "Crashed", "message": f"The instance ended while the task ran ({how})."}
    if exit.detail:
        body["traceback"] = exit.detail
    return json.dumps(body).encode()


def _stream(name: str) -> Literal["stdout", "stderr", "log"]:
    return "stdout" if name == "stdout" else "stderr" if name == "stderr" else "log"
