"""What follows the end of an attempt: units are freed, the store told, and whoever waits gets the result.

It is the listener of all instances. What it concludes is written down by the recorder.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, Literal

from penstock.compute.protocol import Blueprint, End, Ending, Exit, Instance
from penstock.domain.retry import follow
from penstock.domain.task import WAITING, Attempt, Outcome, State
from penstock.domain.units import format_size
from penstock.store.protocol import Line

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from penstock.domain.task import Task
    from penstock.engine.loops import Loops
    from penstock.engine.model import Member, Pipe, Plant, Running
    from penstock.runtime.frames import Word
    from penstock.runtime.wire import Request

MOST_SHARED: Final = 2
"""After so many interruptions a task that is interrupted once more runs in an instance of its own."""

_OUTCOMES: Final = {
    Ending.OK: Outcome.OK,
    Ending.ERROR: Outcome.ERROR,
    Ending.CANCELLED: Outcome.ERROR,
    Ending.THROTTLED: Outcome.THROTTLED,
}


_WHOLE: Final = frozenset({Ending.OK, Ending.ERROR})


class Settle:
    """Conclude attempts."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._quiet: asyncio.Future[None] | None = None

    def join(self, loops: Loops) -> None:
        """Get to know the loops that outcomes and requests are passed on to."""
        self._pump, self._lives, self._deadlines = loops.pump, loops.lives, loops.deadlines
        self._scheduler, self._recorder, self._expiry = loops.scheduler, loops.recorder, loops.expiry
        self._lender, self._configurer, self._visits = loops.lender, loops.configurer, loops.visits
        self._sizes = loops.sizes
        self._router = loops.router

    # what instances tell ------------------------------------------------------------------------------------------
    def ready(self, instance: Instance, at: float) -> None:
        """Let a new instance work."""
        member = self._plant.members.get(instance.id)
        if member is not None:
            self._lives.ready(member, at)
            if member.apart:
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

    def asked(self, instance: Instance, requests: Sequence[Request]) -> None:
        """Pass on what handlers ask of limits."""
        self._lender.asked(instance, requests)

    def heard(self, instance: Instance, words: Sequence[Word]) -> None:
        """Pass on what web apps answer."""
        self._visits.told(instance, words)

    def finished(self, instance: Instance, ends: Sequence[End]) -> None:
        """Conclude executions that ended."""
        plant = self._plant
        member = plant.members.get(instance.id)
        if member is None:
            return
        now, offset = plant.clock(), plant.wall() - plant.clock()
        fleet = member.fleet
        count = 0
        whole: list[float] = []  # how long those took that ran to their end
        for end in ends:
            running = member.busy.pop(end.attempt, None)
            if running is None:
                continue
            count += 1
            plant.running.pop(end.attempt, None)
            self._deadlines.remove(end.attempt, running)
            self._lender.end(running, end.finished)
            plant.admission.finish(running.start, end.started)
            taken = end.finished - end.started
            fleet.usage.requests += taken
            fleet.mean = taken if fleet.mean is None else fleet.mean + 0.05 * (taken - fleet.mean)
            if not running.tasks:
                continue
            if end.ending in _WHOLE and not self._visited(running):
                whole.append(taken)
            running.started = end.started
            if end.parts:
                self._conclude_parts(running, end, now, offset)
                continue
            outcome = _OUTCOMES[end.ending]
            held = self._hold(running, end, now) if outcome is Outcome.THROTTLED else None
            if outcome is Outcome.OK:
                plant.admission.accepted(running.start, running.sent, now)
            self._conclude(running, running.tasks, outcome, end.body, end.finished + offset, offset, held)
        if whole:
            self._router.ran(member, whole)
        fleet.running -= count
        fleet.progress = now
        member.served += count
        self._lives.freed(member, count, now)
        self._deadlines.settle_tainted(member)
        self._pump.wake()
        self._look_quiet()

    def _visited(self, running: Running) -> bool:
        """Say whether it is a web request: those may be open for as long as somebody likes."""
        return bool(self._plant.visits) and running.start.task.id in self._plant.visits

    def output(self, instance: Instance, attempt: int, stream: str, text: str) -> None:
        """Keep what a task has written."""
        running = self._plant.running.get(attempt)
        function = instance.blueprint.function
        at = self._plant.wall()
        member = self._plant.members.get(instance.id)
        if member is not None and member.censor is not None:
            text = member.censor.text(text)
        if running is not None and running.pipe.censor is not None:
            text = running.pipe.censor.text(text)
        if running is None:
            line = Line(0, "", function, 0, at, _stream(stream), text)
        else:
            task = running.start.task  # of a batch the first: the handler wrote for all of them
            line = Line(task.id, task.pipeline, function, task.attempts + 1, at, _stream(stream), text)
        self._recorder.keep(line)

    def gone(self, instance: Instance, exit: Exit) -> None:  # noqa: A002 - the protocol's word
        """Conclude what an instance took with it."""
        plant = self._plant
        now, offset = plant.clock(), plant.wall() - plant.clock()
        member = self._lives.gone(instance, now)
        if member is None:
            return
        self._deadlines.gone(instance.id)
        advice = "" if exit.overran is None else self._sizes.advice(member)
        larger = self._sizes.ended(member, exit)
        left = [running for running in member.busy.values() if running.tasks]
        inside = sum(len(running.carried) for running in member.busy.values())
        for attempt, running in member.busy.items():
            member.fleet.usage.requests += now - (running.started or running.sent) if member.reads else 0.0
            plant.running.pop(attempt, None)
            self._deadlines.remove(attempt, running)
            self._lender.end(running, now)
            # Whether the handler had started is unknown: its end is the latest it can have.
            plant.admission.finish(running.start, (running.started or now) if member.reads else None)
        if exit.overran is not None:
            self._router.used(member, exit.overran)
        for running in left:
            outcome = self._blame(member, inside, exit)
            if outcome is not Outcome.INTERRUPTED and not self._visited(running):
                self._router.ran(member, [now - (running.started or running.sent)])
            for task in running.tasks:
                # Neighbours that overstay may interrupt it again and again: then it runs without any.
                often = task.interruptions >= MOST_SHARED
                task.apart = task.apart or (outcome is Outcome.INTERRUPTED and (often or not exit.killed))
                task.interruptions -= plant.stopping and outcome is Outcome.INTERRUPTED
            body = None if outcome is Outcome.INTERRUPTED else _report(instance.blueprint, exit, advice)
            self._conclude(running, running.tasks, outcome, body, now + offset, offset, larger=larger)
        said = _log_line(member, inside, exit, advice)
        if said:
            said = said if member.censor is None else member.censor.text(said)
            self._recorder.keep(Line(0, "", instance.blueprint.function, 0, plant.wall(), "stderr", said))
        member.fleet.running -= len(member.busy)
        member.busy.clear()
        self._pump.wake()
        self._look_quiet()

    def _look_quiet(self) -> None:
        if self._quiet is not None and not self._plant.running and not self._quiet.done():
            self._quiet.set_result(None)

    def answers(self, instance: Instance, at: float) -> None:  # noqa: ARG002 - the protocol's
        """Pass a sign of life on."""
        self._deadlines.answers(instance.id)

    @staticmethod
    def _blame(member: Member, inside: int, exit: Exit) -> Outcome:  # noqa: A002
        """Say what the end of an instance means for a task in it: with several inside nobody is charged.

        One that still works after its outcome was given is inside, too: it may be the guilty one.
        """
        if exit.killed or not member.reads or (inside > 1 and not member.apart):
            return Outcome.INTERRUPTED
        return Outcome.CRASHED if exit.overran is None else Outcome.OUT_OF_MEMORY

    # outcomes -----------------------------------------------------------------------------------------------------
    def give(self, attempt: int, outcome: Outcome, task_id: int | None = None) -> None:
        """Give a running attempt its outcome (timeout, cancelled) while its work still goes on.

        `task_id`: give it to that task of a batch only.
        """
        running = self._plant.running[attempt]
        tasks = running.leave(None if task_id is None else {task_id})
        if not running.tasks:
            self._lender.withdraw(running)
        offset = self._plant.wall() - self._plant.clock()
        if outcome is Outcome.TIMEOUT:
            own = running.deadline <= self._plant.clock()
            whose = f"its timeout of {running.timeout:g} s" if own else "its caller's timeout"
            if own and not running.tasks and not self._visited(running):
                self._router.ran(running.member, [self._plant.clock() - (running.started or running.sent)])
            body = _error("Timeout", f"The task took longer than {whose} and was ended.")
        else:
            body = _error("Cancelled", "The task was cancelled while it ran.")
        self._conclude(running, tasks, outcome, body, self._plant.wall(), offset)

    def unsent(self, attempt: int, running: Running) -> None:
        """Let tasks wait again whose instance takes no more, before they were sent there."""
        plant, member, tasks = self._plant, running.member, running.tasks
        del member.busy[attempt], plant.running[attempt]
        member.fleet.running -= 1
        plant.admission.finish(running.start, None)
        self._lives.freed(member, 1, plant.clock())
        if plant.pipes.get(running.pipe.spec.name) is running.pipe:  # they did not run: there is no attempt to record
            running.pipe.counts.running -= len(tasks)
            running.pipe.counts.queued += len(tasks)
            plant.admission.put_back(tasks)
        else:
            self._conclude(running, tasks, Outcome.CANCELLED, None, plant.wall(), plant.wall() - plant.clock())
        self._deadlines.settle_tainted(member)
        self._pump.wake()

    def lost(self, attempt: int, running: Running, ids: Collection[int]) -> None:
        """End tasks whose payloads are gone: they were deleted while the tasks waited."""
        plant, member, tasks = self._plant, running.member, running.leave(ids)
        if not running.tasks:
            del member.busy[attempt], plant.running[attempt]
            member.fleet.running -= 1
            plant.admission.finish(running.start, None)
            self._lives.freed(member, 1, plant.clock())
        body = _error("PayloadLost", "The task's payload is no longer in the store.")
        self._conclude(running, tasks, Outcome.ERROR, body, plant.wall(), plant.wall() - plant.clock())
        self._pump.wake()

    def _conclude_parts(self, running: Running, end: End, now: float, offset: float) -> None:
        """Conclude a batch whose handler has said what became of each task. One that is wanted later holds them all."""
        held = None
        if any(part.ending is Ending.THROTTLED for part in end.parts):
            held = self._hold(running, end, now)
        else:
            self._plant.admission.accepted(running.start, running.sent, now)
        left = set(running.tasks)
        at = end.finished + offset
        for task, part in zip(running.carried, end.parts, strict=True):
            if task in left:
                self._conclude(running, (task,), _OUTCOMES[part.ending], part.body, at, offset, held)

    def _conclude(
        self,
        running: Running,
        tasks: Sequence[Task],
        outcome: Outcome,
        body: bytes | None,
        at: float,
        offset: float,
        held: float | None = None,
        *,
        larger: bool = False,
    ) -> None:
        if body is not None and outcome is not Outcome.OK:
            for censor in (running.member.censor, running.pipe.censor):
                body = body if censor is None else censor.json(body)
        visits = self._plant.visits
        for task in tasks:
            if visits and task.id in visits:
                self._conclude_visit(running, task, outcome, body)
            else:
                self._conclude_one(running, task, outcome, body, at, offset, held, larger=larger)

    def _conclude_visit(self, running: Running, task: Task, outcome: Outcome, body: bytes | None) -> None:
        """Conclude a web request: it is not tried again, and there is nothing to write down."""
        running.pipe.counts.running -= 1
        running.pipe.counts.done += 1
        self._visits.conclude(self._plant.visits[task.id], outcome, body or b"")
        self.look_empty(running.pipe)

    def _conclude_one(
        self,
        running: Running,
        task: Task,
        outcome: Outcome,
        body: bytes | None,
        at: float,
        offset: float,
        held: float | None,
        *,
        larger: bool,
    ) -> None:
        pipe = running.pipe
        if task.start_by is not None:
            self._expiry.met(task)
        draw = self._plant.rng.random()
        sequel = follow(task, outcome, pipe.spec.attempts, pipe.spec.backoff, draw, held, larger=larger)
        state = sequel.state
        if state in WAITING and self._plant.pipes.get(task.pipeline) is not pipe:
            state = State.CANCELLED  # its pipeline was removed while it ran
        if state is State.DEAD:
            state = State.DEAD if pipe.spec.dead_letters else State.DONE
            body = _interrupted(task) if outcome is Outcome.INTERRUPTED else body
        due = min(at + sequel.delay, task.expires) if state is State.DELAYED else None
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
            self._recorder.write(attempt)
        self.look_empty(pipe)

    def look_empty(self, pipe: Pipe) -> None:
        """Let a pipeline go that was to go when its work is done, if this was the last of it."""
        if pipe.leaving and not pipe.counts.waiting and not pipe.counts.running:
            self._configurer.emptied(pipe.spec.name)

    def _hold(self, running: Running, end: End, now: float) -> float | None:
        """Let downstream's "try later" hold; return for how long if other tasks wait that could go instead."""
        admission, start = self._plant.admission, running.start
        held = admission.refused(start, running.sent, now, end.retry_after, end.limit)
        return held if start.pipeline.queue.head() is not None or start.pipeline.queue.more else None

    async def nothing_runs(self, timeout: float) -> None:
        """Return when no attempt runs any more, or when `timeout` seconds are over."""
        if self._plant.running:
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait([self._quiet], timeout=timeout)
            self._quiet = None


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"type": kind, "message": message}).encode()


def _interrupted(task: Task) -> bytes:
    return _error("Interrupted", f"The task's instance ended {task.interruptions} times before the task did.")


def _log_line(member: Member, inside: int, exit: Exit, advice: str) -> str:  # noqa: A002
    """Return what the function's log says of an instance's end; nothing if that of its one task says it, or it was meant."""
    if exit.killed:
        return ""
    if exit.overran is not None and (inside != 1 or not member.reads):
        return _overrun(member.blueprint, exit.overran, advice)
    return "" if member.reads else exit.detail


def _report(blueprint: Blueprint, exit: Exit, advice: str) -> bytes:  # noqa: A002
    """Return the error of a task with which its instance ended."""
    if exit.overran is not None:
        return _error("OutOfMemory", _overrun(blueprint, exit.overran, advice))
    how = f"signal {exit.signal}" if exit.signal else f"exit code {exit.code}"
    body = {"type": "Crashed", "message": f"The instance ended while the task ran ({how})."}
    if exit.detail:
        body["traceback"] = exit.detail
    return json.dumps(body).encode()


def _overrun(blueprint: Blueprint, used: int, advice: str) -> str:
    assert blueprint.memory is not None
    shared = f" Up to {blueprint.slots} tasks share it (max_parallel_requests)." if blueprint.slots > 1 else ""
    return (
        f"The instance was ended because it used {used / 1e6:,.0f} MB of memory: '{blueprint.function}' may use "
        f"{format_size(blueprint.memory)} in each instance.{shared} {advice}"
    )


def _stream(name: str) -> Literal["stdout", "stderr", "log"]:
    return "stdout" if name == "stdout" else "stderr" if name == "stderr" else "log"
