"""One simulated instance: a process that reads executions, runs scripted handlers and tells what became of them.

The laws. Each way is a stream: what is sent first arrives first, late but in order, in batches. What an instance has not
flushed when it dies is lost with it, what is on the way arrives, and `gone` comes last. A breach of the protocol by
the engine is noted in the ledger, and carried out all the same.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from penstock.compute.protocol import Blueprint, End, Ending, Exit, Listener, Part, Run
from penstock.runtime import wire
from penstock.runtime.frames import Word
from penstock.sim.ledger import Execution, Fate, Use
from penstock.sim.script import IDLE, Act, Call, Handler, error

if TYPE_CHECKING:
    from penstock.sim.compute import Machine

_FATES = {
    Ending.OK: Fate.OK,
    Ending.ERROR: Fate.ERROR,
    Ending.THROTTLED: Fate.THROTTLED,
    Ending.CANCELLED: Fate.CANCELLED,
}


_MADE = 1000
"""The number of the first order of an execution; those of what it asks of limits are below."""


@dataclass(slots=True)
class _Batch:
    """Gather what an instance tells in one write."""

    ready: float | None = None
    starts: list[tuple[int, float]] = field(default_factory=list)
    requests: list[wire.Request] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)
    outputs: list[tuple[int, str, str]] = field(default_factory=list)
    answers: list[float] = field(default_factory=list)


@dataclass(slots=True)
class _Work:
    """Follow one execution inside the instance; `act` is None until its handler starts.

    It has asked for `asked` limits, the last at the moment `asked_at`, and waits for the answer or `holds` what it got. Then
    it waits for the others that it has `made` run.
    """

    run: Run
    execution: Execution
    act: Act | None = None
    parts: tuple[Part, ...] = ()
    timer: asyncio.TimerHandle | None = None
    cancelled: bool = False
    asked: int = 0
    asked_at: float = 0.0
    waits: bool = False
    holds: Use | None = None
    made: set[int] = field(default_factory=set)


class SimInstance:
    """Be one simulated process."""

    def __init__(self, machine: "Machine", number: int, blueprint: Blueprint, handler: Handler, epoch: int) -> None:
        self.id = number
        self.blueprint = blueprint
        self.epoch = epoch
        self.alive = True
        self.told_gone = False
        self._machine = machine
        self._handler = handler
        self._booted = False
        self._stopped = self._killed = False  # what the engine asked for
        self._leaving = False  # the process has read `stop`
        self._sent: dict[int, Execution] = {}  # by attempt: sent, and its end not told yet
        self._served = 0
        self._peak = IDLE
        self._inbox: deque[Callable[[], None]] = deque()  # on the way, or arrived and not read
        self._arrived = 0
        self._inbox_at = -inf
        self._work: dict[int, _Work] = {}
        self._waiting: deque[_Work] = deque()  # those of them for which there was no slot
        self._batch: _Batch | None = None
        self._flush_due = False
        self._on_the_way: deque[Callable[[], None]] = deque()
        self._outbox_at = -inf
        self._clock: asyncio.TimerHandle | None = None  # the moment of its own death

    def __repr__(self) -> str:
        return f"instance {self.id}"

    # what the engine asks -----------------------------------------------------------------------------------------------
    def run(self, runs: Sequence[Run]) -> None:
        """Send executions."""
        now, ledger = self._machine.now(), self._machine.ledger
        executions = []
        for run in runs:
            execution = Execution(
                run.attempt, run.task, run.number, run.pipeline.name, self.blueprint.function, self.blueprint.version,
                self.id, self.epoch, now, run.timeout, tasks=tuple(entry.task for entry in run.batch),
            )  # fmt: skip
            if run.attempt in self._machine.attempts:
                ledger.breach(now, f"attempt {run.attempt} was sent twice")
            self._machine.attempts.add(run.attempt)
            self._machine.check_context(run.pipeline)
            self._sent[run.attempt] = execution
            ledger.executions.append(execution)
            executions.append(execution)
            ledger.note(now, f"{self}: task {run.task:016x} of {run.pipeline.name} sent, attempt {run.number}")
        self._served += len(runs)
        self._check_run(now)
        if self.alive:
            self._down(partial(self._read_runs, list(zip(runs, executions, strict=True))))
        else:
            self._lose(executions)

    def cancel(self, attempts: Sequence[int]) -> None:
        """Cancel executions."""
        self._machine.ledger.note(self._machine.now(), f"{self}: cancel {list(attempts)}")
        self._down(partial(self._read_cancel, list(attempts)))

    def answer(self, answers: Sequence[wire.Answer | wire.Reply]) -> None:
        """Answer what executions have asked of limits, and reply to what they ordered."""
        self._down(partial(self._read_answers, list(answers)))

    def tell(self, words: Sequence[Word]) -> None:
        """Lose what came for web requests: scripted handlers answer without it."""

    def stop(self) -> None:
        """Let it end when it has finished what it has."""
        self._machine.ledger.note(self._machine.now(), f"{self}: stop")
        self._stopped = True
        self._down(self._read_stop)

    def kill(self) -> None:
        """End it now."""
        if self._killed or not self.alive or self._machine.severed(self):
            return
        self._machine.ledger.note(self._machine.now(), f"{self}: kill")
        self._killed = True
        self._machine.later(self._machine.draw("kill"), self.die, Exit(None, 9, killed=True, detail="killed"))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._down(self._read_ping)

    def _check_run(self, now: float) -> None:
        ledger, slots = self._machine.ledger, self.blueprint.slots
        if self._stopped or self._killed:
            ledger.breach(now, f"{self} was sent work after {'kill' if self._killed else 'stop'}")
        if self.told_gone:
            ledger.breach(now, f"{self} was sent work after it was gone")
        if len(self._sent) > slots:
            ledger.breach(now, f"{self} was sent {len(self._sent)} executions at once on {slots} slots")
        if not self.blueprint.reuse and self._served > slots:
            ledger.breach(now, f"{self} was used again though its function says reuse: false")

    # what the process does ------------------------------------------------------------------------------------------------
    def boot(self, seconds: float, import_error: str) -> None:
        """Begin to read after a while, or die of an import that fails."""
        if import_error:
            self._machine.later(seconds, self.die, Exit(1, None, killed=False, detail=import_error))
        else:
            self._machine.later(seconds, self._read_first)

    def _read_first(self) -> None:
        if not self.alive:
            return
        self._booted = True
        machine = self._machine
        machine.ready[self.id] = machine.now()
        machine.ledger.note(machine.now(), f"{self}: ready")
        if self._handler.lifetime is not None:
            died = Exit(None, 11, killed=False, detail="segmentation fault")
            self._clock = machine.later(self._handler.lifetime(machine.rng), self.die, died)
        self._tell().ready = machine.now()
        self._flush()
        self._read()

    def _read(self) -> None:
        """Read what has arrived, unless a handler holds the GIL."""
        while self.alive and self._booted and self._arrived and not self._hogged():
            self._arrived -= 1
            self._inbox.popleft()()

    def _read_runs(self, pairs: list[tuple[Run, Execution]]) -> None:
        for run, execution in pairs:
            work = self._work[run.attempt] = _Work(run, execution)
            self._waiting.append(work)
        self._begin()

    def _begin(self) -> None:
        """Begin what waits inside, as far as there are slots; an engine that binds late leaves nothing to wait."""
        while self.alive and self._waiting and len(self._work) - len(self._waiting) < self.blueprint.slots:
            work = self._waiting.popleft()
            wait = self._machine.draw("start")
            if wait:
                work.timer = self._machine.later(wait, self._start, work)
            else:
                self._start(work)

    def _start(self, work: _Work) -> None:
        machine, run = self._machine, work.run
        now = work.execution.started = machine.now()
        name, params, timeout, rng = run.pipeline.name, run.pipeline.params, run.timeout, machine.rng
        calls = [
            Call(task, number, name, params, payload, timeout, self.blueprint, now, rng)
            for task, number, payload in _pieces(run)
        ]
        acts = [self._handler.behaviour(call) for call in calls]
        act = work.act = acts[0]  # what the first task of a batch does is what the call does
        if run.batch:
            work.parts = tuple(_part(one, call) for one, call in zip(acts, calls, strict=True))
        machine.ledger.note(now, f"{self}: task {run.task:016x} of {run.pipeline.name} starts")
        if run.dated:
            self._tell().starts.append((run.attempt, now))
        if act.output:
            self._tell().outputs += [(run.attempt, stream, text) for stream, text in act.output]
        work.timer = None
        self._go_on(work)

    def _go_on(self, work: _Work) -> None:
        """Let an execution ask for the next limit it wants, or do its work."""
        act, execution, attempt = work.act, work.execution, work.run.attempt
        assert act is not None
        if work.asked < len(act.takes):
            take = act.takes[work.asked]
            work.asked += 1
            work.asked_at, work.waits = self._machine.now(), True
            wanted = wire.Take(attempt, work.asked, take.hold is not None, take.cost, take.limit)
            self._tell().requests.append(wanted)
            return
        if act.makes and not execution.rests:
            self._make(work, act)
            return
        if act.spends is not None:
            execution.spent = act.spends
            self._tell().requests.append(wire.Spent(attempt, act.spends))
        if act.after < inf:
            work.timer = self._machine.later(act.after, self._finish, work, act.ending, act.body)

    def _make(self, work: _Work, act: Act) -> None:
        """Let an execution make others run, and rest until they have ended."""
        work.execution.rests.append((self._machine.now(), inf))
        for number, make in enumerate(act.makes, _MADE):
            work.made.add(number)
            order = (True, make.target, b"{}", len(make.payload), make.payload)
            self._tell().requests.append(wire.Order(work.run.attempt, number, wire.INVOKE, *order))

    def _read_reply(self, work: _Work, reply: wire.Reply) -> None:
        work.made.discard(reply.number)
        if not work.made and not work.cancelled:
            rests, now = work.execution.rests, self._machine.now()
            rests[-1] = (rests[-1][0], now)
            self._machine.ledger.note(now, f"{self}: task {work.run.task:016x} goes on after a rest")
            self._go_on(work)

    def _read_answers(self, answers: list[wire.Answer | wire.Reply]) -> None:
        now = self._machine.now()
        for answer in answers:
            work = self._work.get(answer.attempt)
            if isinstance(answer, wire.Reply):
                if work is not None and answer.number in work.made:
                    self._read_reply(work, answer)
                continue
            if work is None or work.act is None or not work.waits or answer.number != work.asked:
                continue
            work.waits = False
            take = work.act.takes[answer.number - 1]
            if answer.refusal == wire.GRANTED:
                use = Use(work.execution, take.limit, take.hold is not None, take.cost, work.asked_at, now)
                self._machine.ledger.uses.append(use)
                self._machine.ledger.note(now, f"{self}: task {work.run.task:016x} goes on with {take}")
                if take.hold is not None:
                    work.holds = use
                    work.timer = self._machine.later(take.hold, self._let_go, work)
                    continue
                self._tell().requests.append(wire.Took(answer.attempt, answer.number, now))
            self._go_on(work)

    def _let_go(self, work: _Work) -> None:
        """Give back what an execution holds, and go on."""
        work.timer = None
        self._give(work)
        self._go_on(work)

    def _give(self, work: _Work) -> None:
        """Take back what an execution waits for or holds."""
        if work.holds is not None:
            work.holds.ended = self._machine.now()
        if work.waits or work.holds is not None:
            self._tell().requests.append(wire.Give(work.run.attempt, work.asked))
        work.waits, work.holds = False, None

    def _read_cancel(self, attempts: list[int]) -> None:
        for attempt in attempts:
            work = self._work.get(attempt)
            if work is None or work.cancelled or (work.act is not None and work.act.grace is None):
                continue
            work.cancelled = True
            if work.timer is not None:
                work.timer.cancel()
            self._give(work)
            act = work.act
            if act is None and work in self._waiting:
                self._waiting.remove(work)
            stays = None if act is None else act.stays
            grace = 0.0 if act is None or act.grace is None else act.grace
            ending = Ending.CANCELLED if stays is None else Ending.OK
            body = error("CancelledError", "cancelled") if stays is None else stays
            work.timer = self._machine.later(grace, self._finish, work, ending, body)

    def _finish(self, work: _Work, ending: Ending, body: bytes) -> None:
        now, act = self._machine.now(), work.act
        if act is not None and act.crash is not None and not work.cancelled:
            code = act.crash
            self.die(Exit(code if code >= 0 else None, None if code >= 0 else -code, killed=False, detail="crashed"))
            return
        needs = 0 if act is None or work.cancelled else act.needs
        self._peak = max(self._peak, needs)
        if self.blueprint.memory is not None and needs > self.blueprint.memory:
            self._overrun(work, self.blueprint.memory)
            return
        del self._work[work.run.attempt]
        execution = work.execution
        execution.held_up = self._hogged()
        execution.ended, execution.fate, execution.body = now, _FATES[ending], body
        started = now if execution.started is None else execution.started
        end = End(work.run.attempt, ending, body, started, now)
        if ending is Ending.OK:
            end.parts = work.parts
            said = [(_FATES[part.ending], part.body) for part in work.parts]
            execution.parts = dict(zip(execution.tasks, said, strict=False))
        if act is not None and ending is Ending.THROTTLED:
            end.retry_after, end.limit = execution.retry_after, execution.limit = act.retry_after, act.limit
        self._tell().ends.append(end)
        self._machine.ledger.note(now, f"{self}: task {execution.task:016x} ends {execution.fate}")
        self._begin()
        self._read()
        self._leave_if_done()

    def _overrun(self, guilty: _Work, limit: int) -> None:
        """Die of the memory that one execution uses."""
        self.die(Exit(None, 9, killed=False, detail="out of memory", overran=limit + limit // 8))
        for execution in self._sent.values():
            if execution.fate is Fate.DIED:
                execution.fate = Fate.OVERRAN if execution is guilty.execution else Fate.BESIDE

    def _read_stop(self) -> None:
        self._leaving = True
        self._leave_if_done()

    def _read_ping(self) -> None:
        self._tell().answers.append(self._machine.now())

    def _leave_if_done(self) -> None:
        if self._leaving and self.alive and not self._work:
            self._flush()
            self.die(Exit(0, None, killed=False, detail="stopped"))

    def _hogged(self) -> bool:
        return self.holder() is not None

    def holder(self) -> int | None:
        """Return the attempt that holds the GIL."""
        return next((attempt for attempt, work in self._work.items() if work.act is not None and work.act.hogs), None)

    def die(self, how: Exit) -> None:
        """End now, by whatever cause; what runs in it ends too."""
        if not self.alive:
            return
        self.alive = False
        machine, now = self._machine, self._machine.now()
        machine.ledger.note(now, f"{self}: dies, {how.detail}")
        if self._clock is not None:
            self._clock.cancel()
        for work in self._work.values():
            if work.timer is not None:
                work.timer.cancel()
            if work.holds is not None:
                work.holds.ended = now
            if work.execution.started is not None:
                work.execution.ended, work.execution.fate = now, Fate.KILLED if how.killed else Fate.DIED
        self._work.clear()
        self._waiting.clear()
        self._batch = None
        self._inbox.clear()
        self._lose([execution for execution in self._sent.values() if execution.started is None])
        self._up(partial(self._tell_gone, replace(how, peak=self._peak)), machine.draw("reap"))

    def _lose(self, executions: list[Execution]) -> None:
        for execution in executions:
            execution.fate = execution.fate or Fate.LOST

    # the two ways ---------------------------------------------------------------------------------------------------------
    def _down(self, read: Callable[[], None]) -> None:
        if not self.alive or self._machine.severed(self):
            return
        self._inbox.append(read)
        self._inbox_at = max(self._inbox_at, self._machine.now() + self._machine.draw("down"))
        self._machine.at(self._inbox_at, self._arrive)

    def _arrive(self) -> None:
        if self.alive:
            self._arrived += 1
            self._read()

    def _tell(self) -> _Batch:
        """Return the batch that is being gathered."""
        if self._batch is None:
            self._batch = _Batch()
            self._flush_due = False
            self._machine.later(self._machine.draw("flush"), self._flush_batch, self._batch)
        return self._batch

    def _flush_batch(self, batch: _Batch) -> None:
        if batch is self._batch:
            self._flush_due = True
            self._flush()

    def _flush(self) -> None:
        """Write what was gathered, unless a handler holds the GIL."""
        if self._batch is None or not self.alive or self._hogged():
            return
        batch, self._batch = self._batch, None
        self._up(partial(self._deliver, batch), 0.0)

    def _up(self, deliver: Callable[[], None], wait: float) -> None:
        self._on_the_way.append(deliver)
        self._outbox_at = max(self._outbox_at, self._machine.now() + wait + self._machine.draw("up"))
        self._machine.at(self._outbox_at, self._hand_over)

    def _hand_over(self) -> None:
        self._on_the_way.popleft()()

    def _deliver(self, batch: _Batch) -> None:
        now = self._machine.now()
        for request in batch.requests:
            if isinstance(request, wire.Spent):
                self._sent[request.attempt].corrected = now
        for end in batch.ends:
            execution = self._sent.pop(end.attempt)
            execution.told = now
        listener = self._machine.listener(self)
        if listener is not None:
            self._machine.tell(partial(self._pass_on, listener, batch))

    def _pass_on(self, listener: Listener, batch: _Batch) -> None:
        if batch.ready is not None:
            listener.ready(self, batch.ready)
        for attempt, stream, text in batch.outputs:
            listener.output(self, attempt, stream, text)
        if batch.starts:
            listener.started(self, batch.starts)
        if batch.requests:
            listener.asked(self, batch.requests)
        if batch.ends:
            listener.finished(self, batch.ends)
        for at in batch.answers:
            listener.answers(self, at)

    def _tell_gone(self, how: Exit) -> None:
        now = self._machine.now()
        self.told_gone = True
        for execution in self._sent.values():
            if execution.fate in {Fate.DIED, Fate.KILLED, Fate.LOST, Fate.OVERRAN, Fate.BESIDE}:
                execution.told = now
        self._sent.clear()
        self._machine.bury(self)
        listener = self._machine.listener(self)
        if listener is not None:
            self._machine.ledger.note(now, f"{self}: gone")
            self._machine.tell(partial(listener.gone, self, how))


def _pieces(run: Run) -> Iterator[tuple[int, int, bytes]]:
    """Yield the id, the number and the payload of each task of an execution."""
    if not run.batch:
        yield run.task, run.number, run.payload
    at = 0
    for entry in run.batch:
        yield entry.task, entry.number, run.payload[at : at + entry.size]
        at += entry.size


def _part(act: Act, call: Call) -> Part:
    """Return what a call with a batch says of a task that would have done this alone."""
    if act.after < inf and act.crash is None:
        return Part(act.ending, act.body)
    return Part(Ending.OK, call.payload)
