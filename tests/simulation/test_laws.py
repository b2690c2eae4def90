"""The law checkers find every breach and nothing else: each is compared with a slow one that is obviously right."""

from fractions import Fraction
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sim import laws
from penstock.sim.ledger import Execution, Fate, Ledger

moments = st.one_of(
    st.integers(0, 30).map(lambda tenths: tenths / 10),  # so that windows are hit exactly
    st.floats(0, 3, allow_nan=False),
)


def execution(task: int, sent: float, started: float | None, ended: float | None = None, **more: object) -> Execution:
    made = Execution(task, task, 1, "p", "f", 1, 1, 1, sent, 30.0, started, ended)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def crowded(starts: list[float], n: float, period: float) -> bool:
    """Try every half-open window that begins at a start: what any window holds, one of these holds."""
    exact = [Fraction(start) for start in starts]
    return any(sum(begin <= start < begin + Fraction(period) for start in exact) > n for begin in exact)


@given(st.lists(moments, max_size=20).map(sorted), st.integers(1, 5), st.sampled_from([0.1, 0.25, 1.0, 3.0]))
def test_exceeded_agrees_with_every_window(starts: list[float], n: int, period: float) -> None:
    assert (laws.exceeded(starts, n, period) is not None) == crowded(starts, n, period)


def test_exceeded_is_exact_where_floats_are_not() -> None:
    first = 100.0
    almost = first + 0.1  # rounded: it lies less than a tenth after the first
    assert Fraction(almost) - Fraction(first) < Fraction(0.1)
    assert laws.exceeded([first, almost], 1, 0.1) is not None
    assert laws.exceeded([first, almost + 2e-13], 1, 0.1) is None


def test_exceeded_counts_units() -> None:
    assert laws.exceeded([0.0, 0.5, 1.0], 10, 1.0, units=[6, 4, 6]) is None
    assert laws.exceeded([0.0, 0.5, 0.9], 10, 1.0, units=[6, 4, 6]) == (0.9, 16)
    assert laws.exceeded([0.0], 10, 1.0, units=[11]) == (0.0, 11)


@given(st.lists(moments, max_size=20).map(sorted), st.integers(1, 5), st.sampled_from([0.1, 0.25, 1.0]))
def test_rate_breaches_agree_with_exceeded(starts: list[float], n: int, period: float) -> None:
    executions = [execution(index, start - 0.01, start) for index, start in enumerate(starts)]
    allowances = [laws.Allowance(-inf, (laws.Window(n, period),))]
    found = laws.rate_breaches("l", executions, allowances, lambda task: 1.0)
    assert bool(found) == (laws.exceeded(starts, n, period) is not None)


def test_a_start_may_follow_the_rate_it_was_admitted_under() -> None:
    before, after = laws.amend(
        laws.amend([], -inf, -inf, (laws.Window(5, 1.0),), None), 10.0, 10.0, (laws.Window(1, 1.0),), None
    )
    assert (before.until, after.remembers) == (10.0, 9.0)
    burst = [execution(index, 9.99, 10.01) for index in range(5)]
    assert laws.rate_breaches("l", burst, [before, after], lambda task: 1.0) == []
    late = execution(9, 10.5, 10.51)
    assert len(laws.rate_breaches("l", [*burst, late], [before, after], lambda task: 1.0)) == 1
    patient = execution(9, 11.005, 11.02)
    assert laws.rate_breaches("l", [*burst, patient], [before, after], lambda task: 1.0) == []


def test_rates_by_cost_and_executions_that_never_started() -> None:
    allowances = [laws.Allowance(-inf, (laws.Window(10, 1.0, by_cost=True),))]
    executions = [execution(1, 0, 0.1), execution(2, 0, None), execution(3, 0, 0.2)]
    assert laws.rate_breaches("l", executions, allowances, lambda task: {1: 6.0, 2: 50.0, 3: 4.0}[task]) == []
    assert len(laws.rate_breaches("l", executions, allowances, lambda task: 6.0)) == 1


@given(st.lists(st.tuples(moments, moments).map(lambda pair: (min(pair), max(pair))), max_size=15), st.integers(1, 5))
def test_concurrency_breaches_agree_with_counting(spans: list[tuple[float, float]], most: int) -> None:
    executions = [execution(index, begin, begin, end) for index, (begin, end) in enumerate(spans)]
    found = laws.concurrency_breaches("l", executions, [laws.Allowance(-inf, concurrency=most)])
    assert bool(found) == (laws.most_at_once(spans) > most)
    inside = [(begin, end) for begin, end in spans if end > begin]
    counted = max((sum(begin <= at < end for begin, end in inside) for at, _ in inside), default=0)
    assert counted <= laws.most_at_once(spans) <= counted + 1  # one that ends as it starts counts for itself


def test_concurrency_follows_live_changes() -> None:
    running = [execution(index, 0.0, 0.0, 5.0) for index in range(3)]
    lowered = laws.amend(laws.amend([], -inf, -inf, (), 3), 1.0, 1.0, (), 1)
    assert laws.concurrency_breaches("l", running, lowered) == []
    assert len(laws.concurrency_breaches("l", [*running, execution(9, 2.0, 2.0, 3.0)], lowered)) == 1
    assert laws.concurrency_breaches("l", [*running, execution(9, 5.0, 5.0, 6.0)], lowered) == []
    assert laws.concurrency_breaches("l", [*running, execution(9, 2.0, 2.0, 3.0)], [laws.Allowance(-inf)]) == []


def test_a_crash_forgets_what_a_changed_rate_took_over() -> None:
    short, long = laws.Window(10, 1.0), laws.Window(20, 60.0)
    first = laws.amend([], 0.0, 0.0, (short,), None)
    assert laws.after_crash(first) == first
    changed = laws.amend(first, 5.0, 5.0, (short, long), None)
    assert changed[-1].remembers == 4.0
    assert laws.after_crash(changed)[-1].remembers == 5.0
    lowered = laws.amend(first, 5.0, 5.0, (laws.Window(5, 1.0),), None)
    assert laws.after_crash(lowered) == lowered


def test_slots_and_overlap() -> None:
    twice = [execution(1, 0.0, 0.0, 2.0), execution(1, 0.5, 1.0, 3.0)]
    assert laws.slot_breaches(twice, {1: 2}) == []
    assert len(laws.slot_breaches(twice, {1: 1})) == 1
    ledger = Ledger()
    ledger.executions += twice
    assert len(laws.overlap_breaches(ledger)) == 1
    ledger.executions[:] = [
        execution(1, 0.0, 0.0, 1.0, fate=Fate.OK, told=1.1),
        execution(1, 2.0, 2.0, 3.0, fate=Fate.OK, told=3.1),
    ]
    assert "had ended well" in laws.overlap_breaches(ledger)[0]
    ledger.executions[0].fate = Fate.DIED
    assert laws.overlap_breaches(ledger) == []


@pytest.mark.parametrize(("begin", "end", "seen"), [(0.0, 0.5, [1]), (1.0, 2.5, [1, 2, 3]), (2.0, 2.0, [2, 3])])
def test_in_force(begin: float, end: float, seen: list[int]) -> None:
    changes: list[laws.Allowance] = []
    for since in (0, 1, 2):
        changes = laws.amend(changes, float(since), float(since), (), since + 1)
    assert all(change.limits for change in changes)
    assert not laws.Allowance(0.0).limits
    assert [a.concurrency for a in laws.in_force(changes, begin, end)] == seen


def test_the_ledger_tells_and_fingerprints() -> None:
    one, other = Ledger(), Ledger(trace_length=1)
    for ledger in (one, other):
        ledger.note(1.0, "first")
        ledger.breach(2.0, "second")
    assert one.digest() == other.digest()
    assert one.breaches == ["at 2.000000: second"]
    assert other.tell() == "      2.000000  BREACH second"
    one.executions += [execution(2, 0, 5.0), execution(1, 0, 3.0), execution(3, 0, None)]
    assert [moment for _, moment in one.started()] == [3.0, 5.0]
    assert list(one.of_tasks()) == [2, 1, 3]
