"""The laws, as pure functions over what the ledger saw. Each returns the breaches it found, as text; none means good.

Rates are checked exactly: moments are floats, and a difference of two floats is rounded, so the comparison that counts
is made in rational numbers.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from heapq import heappop, heappush
from itertools import pairwise
from math import inf

from penstock.sim.ledger import Execution, Fate, Ledger


@dataclass(frozen=True, slots=True)
class Window:
    """Allow `n` units in any half-open window of `period` seconds; units are tasks, or their cost."""

    n: float
    period: float
    by_cost: bool = False


@dataclass(frozen=True, slots=True)
class Allowance:
    """Say what one limit allowed from a moment until another. `concurrency` None means without bound.

    While a change is under way, the old and the new allowance are both in force: which one a start was admitted under
    cannot be told. Starts before `remembers` do not count: the limit kept no dates that far back when it was changed.
    Nor do those admitted before `gated`, when there was no rate: nothing counted them.
    """

    since: float
    windows: tuple[Window, ...] = ()
    concurrency: int | None = None
    remembers: float = -inf
    gated: float = -inf
    until: float = inf

    @property
    def limits(self) -> bool:
        """Say whether anything is limited at all."""
        return bool(self.windows) or self.concurrency is not None


def amend(
    allowances: Sequence[Allowance],
    began: float,
    done: float,
    windows: tuple[Window, ...],
    concurrency: int | None,
) -> list[Allowance]:
    """Add what a limit allows after a change that took from `began` to `done`.

    It remembers dates as far back as its longest period went before the change.
    """
    if not allowances:
        return [Allowance(began, windows, concurrency)]
    last = allowances[-1]
    before = {window.by_cost: window.period for window in sorted(last.windows, key=lambda window: window.period)}
    known = min((before.get(window.by_cost, 0.0) for window in windows), default=max(before.values(), default=0.0))
    gated = last.gated if last.windows else done
    changed = Allowance(began, windows, concurrency, max(last.remembers, done - known), gated)
    return [*allowances[:-1], replace(last, until=done), changed]


def after_crash(allowances: Sequence[Allowance]) -> list[Allowance]:
    """Return what limits remember after a crash: a rate that a change has brought knows what was used since, at least.

    What it took over from the rate before it is on disk only once it has reserved a block of its own.
    """
    if len(allowances) < 2:
        return list(allowances)
    before, last = allowances[-2:]
    if {window.period for window in last.windows} <= {window.period for window in before.windows}:
        return list(allowances)
    return [*allowances[:-1], replace(last, remembers=max(last.remembers, last.since))]


def exceeded(
    starts: Sequence[float], n: float, period: float, units: Sequence[float] | None = None
) -> tuple[float, float] | None:
    """Return the first (moment, units) at which a half-open window of `period` that ends there holds more than `n`.

    `starts` is sorted; each counts for one unit, or for those given beside it. A single start that is larger than `n`
    counts as exceeding. None means that the law held.
    """
    first, used = 0, 0.0
    for last, moment in enumerate(starts):
        used += 1 if units is None else units[last]
        while not _within(starts[first], moment, period):
            used -= 1 if units is None else units[first]
            first += 1
        if used > n * (1 + 1e-12):
            return moment, used
    return None


def most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """Return how many of the half-open spans (start, end) overlap at most; an end makes room for a start at that moment."""
    return max(_levels(spans), default=0)


def rate_breaches(
    name: str, executions: Sequence[Execution], allowances: Sequence[Allowance], cost: Callable[[int], float]
) -> list[str]:
    """Check every rate of one limit, changed live or not, at the moments of handler start.

    A start is fine if some allowance that was in force between its being sent and its starting had room for it: the
    one it was admitted under is among them. Those before it count for what was known of their cost when it was admitted.
    """
    begun = sorted((e for e in executions if e.started is not None), key=_start)
    moments = [_start(e) for e in begun]
    found = []
    for index, execution in enumerate(begun):
        candidates = in_force(allowances, execution.admitted, moments[index])
        verdicts = [_crowded(begun, moments, index, allowance, cost) for allowance in candidates]
        if verdicts and all(verdicts):
            found.append(f"rate of {name}: {verdicts[-1]} (task {execution.task:016x}, sent {execution.sent!r})")
    return found


def concurrency_breaches(name: str, executions: Sequence[Execution], allowances: Sequence[Allowance]) -> list[str]:
    """Check at every handler start that no more handlers of one limit run than it allowed when the task was admitted."""
    begun = sorted((e for e in executions if e.started is not None), key=_span)
    levels = _levels([_span(e) for e in begun])
    found = []
    for execution, level in zip(begun, levels, strict=True):
        candidates = in_force(allowances, execution.admitted, _start(execution))
        most = max((inf if a.concurrency is None else a.concurrency for a in candidates), default=inf)
        if level > most:
            found.append(
                f"concurrency of {name}: {level} run at {_start(execution)!r}, {most} may (task {execution.task:016x})"
            )
    return found


def slot_breaches(executions: Iterable[Execution], slots: Mapping[int, int]) -> list[str]:
    """Check that no instance ever ran more handlers at once than it has slots."""
    spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for execution in executions:
        if execution.started is not None:
            spans[execution.instance].append((execution.started, inf if execution.ended is None else execution.ended))
    return [
        f"instance {instance} ran {most_at_once(own)} handlers at once on {slots[instance]} slots"
        for instance, own in sorted(spans.items())
        if most_at_once(own) > slots[instance]
    ]


def age_breaches(
    executions: Iterable[Execution], ready: Mapping[int, float], runtimes: Mapping[str, float]
) -> list[str]:
    """Check that no instance was given a task whose timeout its life had no room for; `ready` says since when each lived."""
    found = []
    for execution in executions:
        most = runtimes.get(execution.function, inf)
        age = execution.sent - ready.get(execution.instance, execution.sent)
        if age + execution.timeout > most + 1e-9:
            found.append(
                f"task {execution.task:016x} was given to instance {execution.instance} at the age of {age:g} s: with its "
                f"timeout of {execution.timeout:g} s that is more than {most:g} s"
            )
    return found


def size_breaches(executions: Iterable[Execution], sizes: Mapping[str, int]) -> list[str]:
    """Check that no call of a handler had more tasks than its pipeline ever allowed."""
    return [
        f"{len(execution.tasks)} tasks of {execution.pipeline} were sent together at {execution.sent!r}"
        for execution in executions
        if len(execution.tasks) > sizes.get(execution.pipeline, 1)
    ]


def overlap_breaches(ledger: Ledger) -> list[str]:
    """Check that a task never runs twice at once, and never again in the same life of the server after a reported ok.

    An execution past its timeout does not count: its outcome was given at the limit, and it is being ended.
    """
    found = []
    for task, executions in sorted(ledger.of_tasks().items()):
        begun = sorted((e for e in executions if e.started is not None), key=_start)
        for earlier, later in pairwise(begun):
            first, second = sorted((earlier, later), key=lambda execution: execution.sent)
            overdue = second.sent >= first.sent + first.timeout
            if (earlier.ended is None or _start(later) < earlier.ended) and not overdue:
                found.append(f"task {task:016x} ran twice at once, from {_start(later)!r} on")
            ended_well = earlier.fate is Fate.OK and earlier.told is not None and earlier.told < later.sent
            if ended_well and earlier.epoch == later.epoch and not overdue:
                found.append(f"task {task:016x} ran again at {_start(later)!r} though it had ended well")
    return found


def hold_breaches(executions: Sequence[Execution], resumed: Callable[[str, float, float], bool]) -> list[str]:
    """Check that "try later" holds a pipeline from when it was heard, unless somebody resumed it (pipeline, begin, end).

    Those that were to hold a shared limit, did not say for how long, or had timed out by then, are left out.
    """
    holds = [e for e in executions if e.fate is Fate.THROTTLED and e.retry_after and e.limit is None and _in_time(e)]
    found = []
    for hold in holds:
        assert hold.told is not None
        assert hold.retry_after is not None
        until = hold.told + hold.retry_after
        for execution in executions:
            theirs = execution.pipeline == hold.pipeline and execution.epoch == hold.epoch
            early = hold.told < execution.admitted and execution.sent < until - 1e-9
            if theirs and early and not resumed(hold.pipeline, hold.told, until):
                found.append(
                    f"task {execution.task:016x} was sent at {execution.sent!r}, {hold.pipeline} is held until {until!r}"
                )
    return found


def in_force(allowances: Sequence[Allowance], begin: float, end: float) -> list[Allowance]:
    """Return the allowances that were in force at some moment from `begin` to `end`."""
    return [allowance for allowance in allowances if allowance.since <= end and allowance.until >= begin]


def _in_time(execution: Execution) -> bool:
    return execution.told is not None and execution.told < execution.sent + execution.timeout


def _start(execution: Execution) -> float:
    assert execution.started is not None
    return execution.started


def _span(execution: Execution) -> tuple[float, float]:
    return _start(execution), inf if execution.ended is None else execution.ended


def _within(earlier: float, later: float, period: float) -> bool:
    difference = later - earlier
    if abs(difference - period) > 1e-6 * max(1.0, period, abs(later)):
        return difference < period
    return Fraction(later) - Fraction(earlier) < Fraction(period)


def _crowded(
    begun: Sequence[Execution],
    moments: Sequence[float],
    index: int,
    allowance: Allowance,
    cost: Callable[[int], float],
) -> str:
    """Return what is wrong with a start if a window that ends with it holds more than it may, else an empty text."""
    for window in allowance.windows:
        used, at = 0.0, index
        first = allowance.remembers
        while at >= 0 and moments[at] >= first and _within(moments[at], moments[index], window.period):
            if begun[at].admitted > allowance.gated:
                used += _known_cost(begun[at], begun[index], cost) if window.by_cost else 1
            at -= 1
        if used > window.n * (1 + 1e-12):
            return f"{used:g} units within {window.period:g} s at {moments[index]!r}, {window.n:g} may"
    return ""


def _known_cost(one: Execution, later: Execution, cost: Callable[[int], float]) -> float:
    """Return what a start counted for when a later one was admitted; the least where a correction was under way."""
    taken = sum(map(cost, one.tasks)) if one.cost is None else one.cost
    if one is later or one.spent is None:
        return taken
    return one.spent if one.corrected < later.admitted else min(taken, one.spent)


def _levels(spans: Iterable[tuple[float, float]]) -> list[int]:
    """Return for each span, in order of start, how many run when it starts, itself included."""
    running: list[float] = []
    levels = []
    for start, end in sorted(spans):  # what ends as it begins makes room for what begins at that moment
        while running and running[0] <= start:
            heappop(running)
        levels.append(len(running) + 1)
        if end > start:
            heappush(running, end)
    return levels
