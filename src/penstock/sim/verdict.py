"""The verdict on a world that has come to rest: every law, checked against what the ledger and the diary saw."""

from collections.abc import Iterator, Sequence
from typing import Final

from penstock.domain.task import ENDED, RETRIED, Outcome, State
from penstock.domain.units import parse_duration
from penstock.engine.pump import INLINE
from penstock.sim import laws
from penstock.sim.diary import Called, Sending
from penstock.sim.ledger import Execution, Fate
from penstock.sim.world import World
from penstock.store.protocol import StoredTask

CHARGED: Final = RETRIED | {Outcome.OK}

POSSIBLE: Final = {
    Fate.OK: {Outcome.OK, Outcome.TIMEOUT, Outcome.CANCELLED},
    Fate.ERROR: {Outcome.ERROR, Outcome.TIMEOUT, Outcome.CANCELLED},
    Fate.THROTTLED: {Outcome.THROTTLED, Outcome.TIMEOUT, Outcome.CANCELLED},
    Fate.CANCELLED: {Outcome.TIMEOUT, Outcome.CANCELLED},
    Fate.DIED: {Outcome.CRASHED, Outcome.INTERRUPTED, Outcome.TIMEOUT, Outcome.CANCELLED},
    Fate.OVERRAN: {Outcome.OUT_OF_MEMORY, Outcome.INTERRUPTED, Outcome.TIMEOUT, Outcome.CANCELLED},
    Fate.BESIDE: {Outcome.INTERRUPTED, Outcome.TIMEOUT, Outcome.CANCELLED},
    Fate.KILLED: {Outcome.TIMEOUT, Outcome.CANCELLED, Outcome.INTERRUPTED},
    Fate.LOST: {Outcome.INTERRUPTED, Outcome.CRASHED, Outcome.TIMEOUT, Outcome.CANCELLED},
}
"""What the engine may say of an execution, by what became of it: an end that is not reported in time is a timeout."""

PREPARED: Final = 4.0
"""Seconds that may pass between a task's admission and its being sent, if its payload or an instance has to be fetched."""

ROUNDING: Final = 1e-6

PROMPT: Final = 1.0
"""Seconds within which a task that has not started in time ends as expired."""

COMMIT: Final = 2.0
"""Seconds after which an outcome is on disk for certain; one that is younger when the server dies may be lost."""


def verdict(world: World) -> list[str]:
    """Return all breaches; none means that the world was as it should be."""
    _note_prepared(world)
    found = [*world.ledger.breaches, *world.diary.surprises, *world.diary.left]
    found += _limits(world)
    found += laws.slot_breaches(world.ledger.executions, world.machine.slots)
    found += laws.age_breaches(world.ledger.executions, world.machine.ready, _runtimes(world))
    found += laws.size_breaches(world.ledger.executions, world.diary.sizes)
    found += laws.overlap_breaches(world.ledger)
    found += _pauses(world)
    found += laws.hold_breaches(world.ledger.executions, lambda name, begin, end: _resumed(world, name, begin, end))
    if not world.diary.left:
        found += _tasks(world)
        found += world.mapper.breaches()
    for called in world.diary.calls:
        found += _call(world, called)
    if world.machine.processes:
        found.append(f"processes are left after a clean stop: {list(world.machine.processes.values())}")
    return found


def _runtimes(world: World) -> dict[str, float]:
    """Return how long an instance of each function may live, of those that say so."""
    written = {name: one.get("max_runtime") for name, one in world.scenario.functions.items()}
    return {name: parse_duration(most) for name, most in written.items() if most is not None}


# limits and pauses ----------------------------------------------------------------------------------------------------
def _limits(world: World) -> Iterator[str]:
    executions, scenario = world.ledger.executions, world.scenario
    for (kind, name), allowances in world.diary.allowances.items():
        if kind == "pipeline":
            mine = [e for e in executions if e.pipeline == name]
        elif kind == "function":
            mine = [e for e in executions if e.function == name and _gated(allowances, e)]
        elif scenario.limits[name].get("scope") == "project":
            mine = list(executions)
        else:
            users = {pipeline for pipeline, one in scenario.pipelines.items() if name in one.get("limits", ())}
            functions = {function for function, one in scenario.functions.items() if name in one.get("limits", ())}
            mine = [e for e in executions if e.pipeline in users or e.function in functions]
        taken, held = [], []
        if kind == "limit":
            taken = [use.as_start() for use in world.ledger.uses if use.limit == name and not use.slot]
            held = [use.as_start() for use in world.ledger.uses if use.limit == name and use.slot]
        yield from laws.rate_breaches(f"{kind} {name}", [*mine, *taken], allowances, lambda task: _cost(world, task))
        working = [part for execution in mine for part in execution.working()]
        yield from laws.concurrency_breaches(f"{kind} {name}", [*working, *held], allowances)


def _gated(allowances: Sequence[laws.Allowance], execution: Execution) -> bool:
    """Say whether a function had a ceiling when an execution was sent: one that came later does not know of it."""
    return all(allowance.limits for allowance in laws.in_force(allowances, execution.admitted, execution.sent))


def _cost(world: World, task: int) -> float:
    sending = world.diary.tasks.get(task)
    return 1.0 if sending is None else sending.cost


def _note_prepared(world: World) -> None:
    """Mark executions that were sent later than admitted: payloads on disk had to be read, or starts to be written."""
    known: set[int] = set()
    for execution in world.ledger.executions:
        sendings = [world.diary.tasks[task] for task in execution.tasks if task in world.diary.tasks]
        on_disk = any(sending.delayed or len(sending.payload) > INLINE for sending in sendings)
        if on_disk or not known.isdisjoint(execution.tasks):
            execution.prepared = PREPARED
        known.update(execution.tasks)


def _pauses(world: World) -> Iterator[str]:
    for name, begin, end in world.diary.paused:
        for execution in world.ledger.executions:
            if execution.pipeline == name and begin < execution.admitted and execution.sent < end:
                yield f"task {execution.task:016x} of {name} was sent at {execution.sent!r}, within a pause"


def _resumed(world: World, name: str, begin: float, end: float) -> bool:
    return any(pipeline == name and begin <= moment <= end for pipeline, moment in world.diary.resumed)


# tasks ----------------------------------------------------------------------------------------------------------------
def _tasks(world: World) -> Iterator[str]:
    executions = world.ledger.of_tasks()
    for task, sending in world.diary.tasks.items():
        stored = world.diary.stored[task]
        if stored is None:
            if sending.pipeline not in world.diary.removed:
                yield f"task {task:016x} of {sending.pipeline} was acknowledged at {sending.at!r} and is lost"
            continue
        for complaint in _task(world, sending, stored, executions.get(task, [])):
            yield f"task {task:016x} of {sending.pipeline}: {complaint} ({stored})"
    for task in executions.keys() - world.diary.tasks.keys():
        # Calls, and sends whose acknowledgement was lost in a crash: they may run, but nothing was promised.
        if not world.diary.crashes and not any(e.body or e.fate for e in executions[task]):
            yield f"task {task:016x} ran, and nobody sent it"


def _task(world: World, sending: Sending, stored: StoredTask, executions: list[Execution]) -> Iterator[str]:
    if stored.state not in ENDED:
        yield "it has not ended"
        return
    removed = sending.pipeline in world.diary.removed
    cancelled = world.diary.cancelled.get(stored.id)
    match stored.state:
        case State.DONE:
            well = [e for e in executions if e.fate is Fate.OK]
            if stored.outcome is not Outcome.OK or not well:
                yield "it is done, but never ended well"
            elif stored.result != sending.payload and not _replaced_unheard(world, sending, stored):
                yield f"its result is not its payload, which is {sending.payload!r}"
        case State.CANCELLED:
            if stored.id not in world.diary.asked_to_cancel and not removed:
                yield "it is cancelled, and nobody cancelled it"
        case State.DEAD:
            yield from _dead(world, sending, stored)
    if cancelled is not None and stored.state is not State.CANCELLED and not _crashed_within(world, cancelled, COMMIT):
        yield f"its cancellation was acknowledged at {cancelled!r}"
    yield from _moments(world, sending, stored, executions)
    lived_through = any(moment >= sending.at for moment in (*world.diary.crashes, *world.diary.restarts))
    if sending.pipeline not in world.diary.redriven and not lived_through:
        yield from _account(stored, executions, learns=_learns(world, sending))


def _replaced_unheard(world: World, sending: Sending, stored: StoredTask) -> bool:
    """Say whether a debounced task got the payload of a send that was written, and never acknowledged."""
    unheard = world.diary.unheard.get(sending.pipeline, set())
    return sending.due is not None and bool(world.diary.crashes or world.diary.restarts) and stored.result in unheard


def _dead(world: World, sending: Sending, stored: StoredTask) -> Iterator[str]:
    retry = world.scenario.pipelines[sending.pipeline].get("retry") or {}
    attempts = retry.get("attempts", 3)
    if stored.outcome in RETRIED and stored.attempts < attempts:
        yield f"it is dead after {stored.attempts} of {attempts} attempts"
    if stored.outcome is Outcome.INTERRUPTED and stored.interruptions < 5:
        yield f"it is dead after {stored.interruptions} interruptions"


def _moments(world: World, sending: Sending, stored: StoredTask, executions: list[Execution]) -> Iterator[str]:
    """Check that a task starts neither before nor after it may; a clock that was set may have let it start before."""
    if sending.due is not None and executions and not world.clock_was_set:
        sent = world.wall(executions[0].sent)
        if sent < sending.due - ROUNDING:
            yield f"it was sent at {sent!r}, and was to wait for others until {sending.due!r}"
    if sending.start_by is not None:
        yield from _deadline(world, sending.start_by, stored, executions)


def _deadline(world: World, start_by: float, stored: StoredTask, executions: list[Execution]) -> Iterator[str]:
    """Check that a task with a start deadline never starts after it, and ends as expired soon after it instead."""
    if executions:
        first = executions[0]
        admitted = min(world.wall(first.admitted), world.wall(first.sent) - first.prepared)
        if admitted >= start_by:
            yield f"it was started at {admitted!r}, and had to be by {start_by!r}"
    disturbed = {"crash", "restart", "full", "block"} & {
        step.action for step in world.scenario.steps
    } or world.clock_was_set
    if stored.state is State.EXPIRED and not (disturbed or stored.history) and stored.finished is not None:
        if stored.finished > start_by + PROMPT:
            yield f"it expired at {stored.finished!r}, and had to start by {start_by!r}"
        if stored.finished < start_by and "max_age" not in world.scenario.pipelines[stored.pipeline]:
            yield f"it expired at {stored.finished!r}, before {start_by!r}"


def _learns(world: World, sending: Sending) -> bool:
    """Say whether a task's function learns how much memory it needs."""
    function = world.scenario.pipelines[sending.pipeline]["function"]
    return world.scenario.functions[function].get("memory") == "auto"


def _account(stored: StoredTask, executions: list[Execution], *, learns: bool) -> Iterator[str]:
    """Compare the recorded attempts of a task with what really happened to it, one by one.

    Where memory is learned, those that ran out of it and were tried again may have cost nothing.
    """
    outcomes = [attempt.outcome for attempt in stored.history]
    if stored.outcome is not None and not (
        stored.outcome in {Outcome.CANCELLED, Outcome.EXPIRED} and len(executions) == len(outcomes)
    ):
        outcomes.append(stored.outcome)
    charged = sum(outcome in CHARGED for outcome in outcomes)
    ended_running = stored.outcome is Outcome.CANCELLED  # then its last attempt, if it had begun one, was charged too
    free = sum(attempt.outcome is Outcome.OUT_OF_MEMORY for attempt in stored.history) if learns else 0
    if not charged - free <= stored.attempts <= charged + ended_running:
        yield f"{stored.attempts} attempts are counted, {charged} were charged: {outcomes}"
    interrupted = sum(outcome is Outcome.INTERRUPTED for outcome in outcomes)
    if stored.interruptions != interrupted:
        yield f"{stored.interruptions} interruptions are counted, there were {interrupted}: {outcomes}"
    sent = [execution for execution in executions if execution.fate is not None]
    if len(outcomes) < len(sent):
        yield f"it ran {len(sent)} times, and {len(outcomes)} attempts are recorded: {outcomes}"
    unsent = len(outcomes) - len(sent)  # attempts that ended before they were sent: their instance was gone by then
    for outcome, execution in zip(outcomes, sent, strict=False) if not unsent else ():
        fate = execution.fate if execution.told is not None else Fate.DIED  # the report of its end was lost
        assert fate is not None
        if outcome not in POSSIBLE[fate]:
            yield f"an execution ended {fate.value} and was recorded as {outcome.value}"
        in_time = execution.ended is not None and execution.ended < execution.sent + execution.timeout
        if outcome is Outcome.TIMEOUT and execution.held_up and in_time:
            yield f"an execution that ended at {execution.ended!r}, and was held up by another, was recorded as a timeout"


# calls ----------------------------------------------------------------------------------------------------------------
def _call(world: World, called: Called) -> Iterator[str]:
    what = f"a call of {called.pipeline} that began at {called.began!r}"
    if called.answer is None and called.error is None:
        if not any(moment >= called.began for moment in (*world.diary.crashes, *world.diary.restarts)):
            yield f"{what} was never answered"
        return
    if called.answer is not None and called.answer.outcome is Outcome.OK and called.answer.body != called.payload:
        yield f"{what} got {called.answer.body!r} for {called.payload!r}"
    if called.timeout is not None and called.ended > called.began + called.timeout + 1.0:
        yield f"{what} took until {called.ended!r}, though its timeout was {called.timeout} s"


def _crashed_within(world: World, moment: float, seconds: float) -> bool:
    return any(moment <= crash <= moment + seconds for crash in world.diary.crashes)
