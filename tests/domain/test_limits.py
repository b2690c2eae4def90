"""Limits: no window ever sees more than it may, what may start does, and a wait that is told is the right one."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain import rates
from penstock.domain.limits import Gate
from penstock.domain.rates import CATCH_UP, EXACT, Rate
from penstock.domain.specs import RateSpec
from penstock.sim.laws import exceeded

START = 50_000.0
SECONDS = st.one_of(st.integers(0, 30).map(lambda tenths: tenths / 10), st.floats(0, 3), st.just(0.0))
DELAYS = st.one_of(st.just(0.0), st.floats(0, 0.01), st.floats(0, 2))
COUNTS = st.one_of(st.integers(1, 6), st.sampled_from([EXACT, EXACT + 1, 300]))
PERIODS = st.sampled_from([0.1, 0.3, 1.0, 60.0])


@st.composite
def specs(draw: st.DrawFn, style: str | None = None) -> RateSpec:
    n = draw(COUNTS)
    chosen = style or draw(st.sampled_from(["smooth", "window"]))
    burst = float(n) if chosen == "window" else draw(st.sampled_from([1.0, 2.0, float(n)]))
    return RateSpec(n, draw(PERIODS), style=chosen, burst=burst, margin=draw(st.sampled_from([0.0, 0.02])))  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def _nothing_to_reserve() -> Iterator[None]:
    """Let long periods need no blocks on disk here: `test_reserving` is about these."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rates, "LONG", inf)
        yield


@dataclass
class Flow:
    """Send units through a gate as admission does, each dated some time after it was taken, and keep the truth."""

    gate: Gate
    now: float = START

    def __post_init__(self) -> None:
        self.pending: list[tuple[float, float, float]] = []  # (report, start, cost)
        self.starts: list[tuple[float, float]] = []  # (moment, cost)
        self.taken: list[float] = []
        self.dated: list[float] = []  # what a date counts as: one that is heard out of order, as the latest before it

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for report, start, cost in sorted(self.pending):
            if report <= self.now:
                self.pending.remove((report, start, cost))
                self.dated.append(max([start, *self.dated[-1:]]))
                self.gate.date(start, cost)
                self.gate.release()

    def wait_until(self, moment: float) -> None:
        """Jump to a moment, as a timer does; the reports that come before it are heard at their own moments."""
        while self.pending and min(self.pending)[0] <= moment:
            self.pass_time(max(0.0, min(self.pending)[0] - self.now))
        if moment > self.now:
            self.now = moment

    def take(self, delay: float, report: float, cost: float = 1.0) -> None:
        self.gate.take(self.now, cost)
        self.taken.append(self.now)
        self.starts.append((self.now + delay, cost))
        self.pending.append((self.now + delay + report, self.now + delay, cost))
        self.pass_time(0.0)

    def moments(self) -> list[float]:
        return sorted(moment for moment, _ in self.starts)


STEPS = st.lists(st.tuples(SECONDS, st.integers(1, 8), DELAYS, DELAYS), max_size=40)


@given(specs(), STEPS)
def test_no_window_is_exceeded_whatever_the_delays(
    spec: RateSpec, steps: list[tuple[float, int, float, float]]
) -> None:
    flow = Flow(Gate("g", (spec,)))
    for seconds, count, delay, report in steps:
        flow.pass_time(seconds)
        for _ in range(count):
            if flow.gate.ready_at(flow.now, 1.0) <= flow.now:
                flow.take(delay, report)
    assert exceeded(flow.moments(), spec.n, spec.period + spec.margin) is None


@given(st.integers(0, 2**32))
def test_the_law_holds_to_the_last_digit(seed: int) -> None:
    """Moments that are sums are rounded; starts at exactly the moment that was told must not come too early by that."""
    rng = random.Random(seed)
    period = rng.choice([0.1, 0.3, 0.7, rng.random()])
    flow = Flow(Gate("g", (RateSpec(1, period, style="window"),)), now=rng.uniform(0, 10 ** rng.uniform(0, 8)))
    for _ in range(20):
        flow.wait_until(flow.gate.ready_at(flow.now, 1.0))
        flow.take(0.0, 0.0)
    assert exceeded(flow.moments(), 1, period) is None


@given(specs(), STEPS)
def test_whoever_waits_as_long_as_told_may_start_then(
    spec: RateSpec, steps: list[tuple[float, int, float, float]]
) -> None:
    """Whatever is told, a wait ends when it is over: no moment is put off, and none is exceeded by waiting exactly."""
    flow = Flow(Gate("g", (spec,)))
    for seconds, count, delay, report in steps:
        flow.pass_time(seconds)
        for _ in range(count):
            while flow.pending and flow.gate.ready_at(flow.now, 1.0) > flow.now:  # reports may move the moment
                flow.wait_until(min(flow.gate.ready_at(flow.now, 1.0), max(flow.now, min(flow.pending)[0])))
            flow.wait_until(flow.gate.ready_at(flow.now, 1.0))
            assert flow.gate.ready_at(flow.now, 1.0) <= flow.now
            assert flow.gate.room(flow.now) >= 1 - 1e-6
            if flow.gate.ready_at(flow.now, 1.0) <= flow.now:
                flow.take(delay, report)
    assert exceeded(flow.moments(), spec.n, spec.period + spec.margin) is None


@given(specs("window"), STEPS)
def test_a_window_with_room_lets_start_at_once(spec: RateSpec, steps: list[tuple[float, int, float, float]]) -> None:
    """Be work-conserving: what the law allows, counting what has not been reported as if it starts now, may start."""
    flow = Flow(Gate("g", (spec,)))
    period = spec.period + spec.margin
    slack = 1e-6 if spec.n <= EXACT else period / 200
    for seconds, count, delay, report in steps:
        flow.pass_time(seconds)
        for _ in range(count):
            recent = sum(at > flow.now - period - slack for at in flow.dated)
            if recent + len(flow.pending) < spec.n:
                assert flow.gate.ready_at(flow.now, 1.0) <= flow.now
            if flow.gate.ready_at(flow.now, 1.0) <= flow.now:
                flow.take(delay, report)


@given(specs("smooth"), STEPS)
def test_smooth_starts_are_evenly_spaced_but_for_burst_and_catching_up(
    spec: RateSpec, steps: list[tuple[float, int, float, float]]
) -> None:
    flow = Flow(Gate("g", (spec,)))
    for seconds, count, delay, report in steps:
        flow.pass_time(seconds)
        for _ in range(count):
            if flow.gate.ready_at(flow.now, 1.0) <= flow.now:
                flow.take(delay, report)
    interval = (spec.period + spec.margin) / spec.n
    for first, begin in enumerate(flow.taken):
        for last in range(first, len(flow.taken)):
            most = max(spec.burst, 1.0) + (flow.taken[last] - begin + CATCH_UP) / interval
            assert last - first + 1 <= most + 1e-6


@pytest.mark.parametrize("n", [1, 2, 5, 50, 1000])
@pytest.mark.parametrize("style", ["smooth", "window"])
@pytest.mark.parametrize("delay", [0.0, 0.0005, 0.003])
def test_a_backlog_uses_the_limit_up(n: int, style: str, delay: float) -> None:
    spec = RateSpec(n, 1.0, style=style, burst=float(n) if style == "window" else 1.0)  # type: ignore[arg-type]
    flow = Flow(Gate("g", (spec,)))
    seconds = 20.0 if n < 1000 else 5.0
    while flow.now < START + seconds:
        at = flow.gate.ready_at(flow.now, 1.0)
        if at <= flow.now:
            flow.take(delay, delay)
        else:
            flow.wait_until(at if at < inf else min(flow.pending)[0])
    assert exceeded(flow.moments(), n, 1.0) is None
    assert len(flow.taken) >= 0.985 * n * seconds


@given(st.lists(specs(), min_size=1, max_size=3, unique_by=lambda spec: spec.period + spec.margin), STEPS)
def test_several_rates_hold_at_once(rates: list[RateSpec], steps: list[tuple[float, int, float, float]]) -> None:
    flow = Flow(Gate("g", tuple(rates)))
    for seconds, count, delay, report in steps:
        flow.pass_time(seconds)
        for _ in range(count):
            if flow.gate.ready_at(flow.now, 1.0) <= flow.now:
                flow.take(delay, report)
    for spec in rates:
        assert exceeded(flow.moments(), spec.n, spec.period + spec.margin) is None


@given(
    specs("window").map(lambda spec: replace(spec, n=spec.n * 4.0, meter="cost")),
    st.lists(st.tuples(SECONDS, st.sampled_from([0.5, 1.0, 2.5, 4.0]), DELAYS, DELAYS), max_size=40),
)
def test_a_rate_by_cost_holds(spec: RateSpec, steps: list[tuple[float, float, float, float]]) -> None:
    flow = Flow(Gate("g", (spec,)))
    for seconds, cost, delay, report in steps:
        flow.pass_time(seconds)
        for _ in range(4):
            if flow.gate.ready_at(flow.now, cost) <= flow.now:
                flow.take(delay, report, cost)
    ordered = sorted(flow.starts)
    units = [cost for _, cost in ordered]
    assert exceeded([moment for moment, _ in ordered], spec.n, spec.period + spec.margin, units) is None
    assert flow.gate.most_cost() == spec.n


@given(specs(), st.integers(1, 10), STEPS)
def test_a_lower_rate_holds_from_the_next_start_on(
    spec: RateSpec, lower: int, steps: list[tuple[float, int, float, float]]
) -> None:
    gate = Gate("g", (spec,))
    flow = Flow(gate)
    after = replace(spec, n=min(spec.n, lower), burst=min(spec.burst, float(lower)))
    changed = len(steps) // 2
    first_after = None
    for index, (seconds, count, delay, report) in enumerate(steps):
        flow.pass_time(seconds)
        if index == changed:
            gate.configure((after,), None)
            first_after = len(flow.starts)
        for _ in range(count):
            if gate.ready_at(flow.now, 1.0) <= flow.now:
                flow.take(delay, report)
    period = spec.period + spec.margin
    assert exceeded(flow.moments(), spec.n, period) is None
    if first_after is not None:
        since = [moment for moment, _ in flow.starts[first_after:]]
        assert exceeded(sorted(since), after.n, period) is None
        for moment in since:  # none of those before the change is forgotten
            within = sum(moment - period < other <= moment for other in flow.moments())
            assert within <= after.n or any(moment < other for other, _ in flow.starts[:first_after])


@given(specs("window"), st.integers(1, 400), st.integers(1, 8))
def test_a_raise_is_felt_at_once(spec: RateSpec, raised: int, count: int) -> None:
    gate = Gate("g", (spec,))
    flow = Flow(gate)
    for _ in range(count):
        if gate.ready_at(flow.now, 1.0) <= flow.now:
            flow.take(0.0, 0.0)
    used = len(flow.starts)
    gate.configure((replace(spec, n=used + raised, burst=float(used + raised)),), None)
    for _ in range(raised):
        assert gate.ready_at(flow.now, 1.0) <= flow.now
        flow.take(0.0, 0.0)
    assert gate.ready_at(flow.now, 1.0) > flow.now


@pytest.mark.parametrize(("before", "after"), [((1, 60.0), (600, 60.0)), ((2, 10.0), (50, 10.0))])
@pytest.mark.parametrize("cost", [1.0, 2.0])
def test_a_raise_is_felt_at_once_though_starts_are_paced(
    before: tuple[int, float], after: tuple[int, float], cost: float
) -> None:
    meter = "cost" if cost > 1 else "tasks"
    n, period = before
    gate = Gate("g", (RateSpec(n * cost, period, meter=meter),))  # type: ignore[arg-type]
    flow = Flow(gate)
    flow.take(0.0, 0.0, cost)
    assert gate.ready_at(flow.now, cost) >= flow.now + period / n - CATCH_UP - 1e-6
    gate.configure((RateSpec(after[0] * cost, after[1], meter=meter),), None)  # type: ignore[arg-type]
    assert gate.ready_at(flow.now, cost) <= flow.now + after[1] / after[0] + 1e-6
    gate.configure((RateSpec(n * cost, period, meter=meter),), None)  # type: ignore[arg-type]
    assert gate.ready_at(flow.now, cost) >= flow.now + period / n - CATCH_UP - 1e-6


@given(specs(), specs(), st.integers(1, 20))
def test_a_rate_of_another_period_knows_what_was_used(before: RateSpec, after: RateSpec, count: int) -> None:
    gate = Gate("g", (before,))
    flow = Flow(gate)
    for _ in range(count):
        if gate.ready_at(flow.now, 1.0) <= flow.now:
            flow.take(0.0, 0.0)
    gate.configure((after,), None)
    while gate.ready_at(flow.now, 1.0) <= flow.now:
        flow.take(0.0, 0.0)
        assert len(flow.starts) <= max(before.n, after.n)


@given(st.integers(1, 5), st.lists(st.booleans(), max_size=30))
def test_concurrency_counts_what_has_not_ended(most: int, steps: list[bool]) -> None:
    gate = Gate("g", (), most)
    running = 0
    for begins in steps:
        if begins:
            allowed = gate.ready_at(START, 1.0) <= START
            assert allowed == (running < most)
            assert gate.room(START) == most - running
            if allowed:
                gate.take(START, 1.0)
                running += 1
        elif running:
            gate.undate(1.0)
            gate.release()
            running -= 1
    assert gate.rates == ()


def test_a_held_gate_says_until_when() -> None:
    gate = Gate("g", (RateSpec(5, 1.0),))
    gate.held_until = START + 7
    assert gate.ready_at(START, 1.0) == START + 7
    assert gate.room(START) == 0
    assert gate.ready_at(START + 7, 1.0) == START + 7


def test_a_start_that_never_happened_gives_its_unit_back() -> None:
    gate = Gate("g", (RateSpec(1, 1.0, style="window"),))
    gate.take(START, 1.0)
    assert gate.ready_at(START, 1.0) == inf
    gate.undate(1.0)
    gate.release()
    assert gate.ready_at(START, 1.0) == START


@given(specs("window"), st.integers(1, 50), st.floats(0, 2), st.floats(0, 5))
def test_what_was_kept_over_a_stop_holds_after_it(spec: RateSpec, count: int, apart: float, away: float) -> None:
    before, after = Rate(spec), Rate(spec)
    starts = []
    now = START
    for _ in range(count):
        if before.ready_at(now, 1.0, 0.0) <= now:
            before.date(now, 1.0)
            starts.append(now)
        now += apart / count
    kept = before.dates(now)
    back = 7.0  # the next server's monotonic clock may show anything
    after.restore(back, kept, away)
    begin = len(starts)
    while after.ready_at(back, 1.0, 0.0) <= back:
        after.date(back, 1.0)
        starts.append(now + away)
    assert exceeded(starts, spec.n, (spec.period + spec.margin) * (1 - 1e-9)) is None
    remembered = (spec.period + spec.margin) * (1.005 if spec.n > EXACT else 1) + 1e-6
    recent = sum(start > now + away - remembered for start in starts[:begin])
    assert len(starts) - begin >= spec.n - recent - 1e-9


@given(specs())
def test_after_a_crash_nothing_is_left_for_a_period(spec: RateSpec) -> None:
    rate = Rate(spec)
    rate.use_up(START)
    assert rate.ready_at(START, 1.0, 0.0) >= START + spec.period
    later = START + spec.period + spec.margin + 1e-6
    assert rate.ready_at(later, 1.0, 0.0) <= later


def test_the_log_of_a_large_rate_stays_small() -> None:
    rate = Rate(RateSpec(10_000, 86_400.0, style="window"))
    now = START
    for _ in range(10_000):
        rate.date(now, 1.0)
        now += 8.64
    assert len(rate.dates(now)) <= 300
    assert rate.ready_at(now, 1.0, 0.0) <= now + 400


@given(specs("window"), st.lists(st.tuples(DELAYS, DELAYS), min_size=1, max_size=20))
def test_a_start_that_is_dated_anew_counts_once(spec: RateSpec, starts: list[tuple[float, float]]) -> None:
    rate = Rate(spec)
    now = START
    last = now
    for wait, later in starts:
        now += wait
        rate.date(now, 1.0)
        rate.redate(now, now + later, 1.0)
        last = max(last, now + later)
    counted = sum(units for _, units in rate.dates(START))
    assert counted == len(starts)
    assert (
        rate.ready_at(last + spec.period + spec.margin + 1e-6, float(spec.n), 0.0)
        == last + spec.period + spec.margin + 1e-6
    )
