"""Forecasts: what is said to be exact comes true, and nothing starts before its lower bound."""

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.admission import Admission
from penstock.domain.explain import reason
from penstock.domain.forecast import (
    BATCHED,
    COUNTED,
    DEPENDS,
    EXPIRES,
    FEW,
    IMPOSSIBLE,
    INSTANCES,
    LEARNS,
    LOOKED,
    PLAYED,
    RECKONED,
    Forecast,
    Room,
    forecast,
)
from penstock.domain.limits import Gate
from penstock.domain.rates import EXACT
from penstock.domain.specs import BatchSpec, PipelineSpec, RateSpec
from penstock.domain.task import Task

START = 50_000.0
WALL = 1.7e9
ROUNDED = 2e-6


@dataclass(frozen=True)
class Order:
    """Send a task some time after the one before it."""

    gap: float = 0.0
    cost: float = 1.0
    priority: int = 0
    age: float = 1e6
    work: float = 0.0  # how long its handler takes
    delay: float = 0.0  # how late its start is heard of


class Bench:
    """Drive admission as the engine does, on a clock of its own; handlers start at the moment of their admission."""

    def __init__(self) -> None:
        self.now = START
        self.admission = Admission()
        self.orders: dict[int, Order] = {}
        self.began: dict[int, float] = {}
        self.expired: set[int] = set()
        self._numbers = count(1)
        self._events: list[tuple[float, int, str, Any]] = []

    @property
    def wall(self) -> float:
        return WALL + self.now - START

    def limit(self, name: str, rates: Sequence[RateSpec], concurrency: int | None = None) -> None:
        gate = Gate(name)
        gate.configure(tuple(rates), concurrency)
        self.admission.limit(gate)

    def pipeline(self, name: str, rates: Sequence[RateSpec] = (), slots: int = 100_000, **options: object) -> None:
        spec = PipelineSpec(name, "f", rates=tuple(rates), **options)  # type: ignore[arg-type]
        self.admission.configure(spec, "f", spec.limits)
        self.admission.provide("f", slots)

    def send(self, name: str, orders: Sequence[Order]) -> None:
        for order in orders:
            self.run_until(self.now + order.gap)
            number = next(self._numbers)
            self.orders[number] = order
            task = Task(
                number, name, b"", created=self.wall, expires=self.wall + order.age, cost=order.cost, priority=order.priority
            )  # fmt: skip
            self.admission.offer(name, [task])
        self.admit()

    def admit(self) -> None:
        """Admit until nothing more can start, writing blocks of long periods down at once."""
        while True:
            admitted = self.admission.admit(self.now, self.wall, 7)
            self.expired |= {task.id for task in admitted.expired}
            for start in admitted.starts:
                self.began |= {task.id: self.now for task in start.tasks}
                order = self.orders[start.task.id]
                heappush(self._events, (self.now + order.delay, start.task.id, "started", start))
                heappush(self._events, (self.now + max(order.work, order.delay), start.task.id, "worked", start))
            self._hear()
            unreserved = list(self.admission.unreserved)
            self.admission.unreserved.clear()
            for gate in unreserved:
                gate.used(self.now, ahead=True)
                self.admission.reserved(gate)
            if not admitted.starts and not unreserved and self.admission.next_wakeup() != -inf:
                return

    def _hear(self) -> None:
        while self._events and self._events[0][0] <= self.now:
            _, number, what, start = heappop(self._events)
            if what == "started":
                self.admission.started(start, self.began[number])
            else:
                self.admission.finish(start, self.began[number])
                self.admission.provide("f", 1)

    def run_until(self, moment: float) -> None:
        """Let time pass, and everything happen at its moment."""
        self.admit()
        while True:
            wakeup = self.admission.next_wakeup()
            at = min(inf if wakeup is None else wakeup, self._events[0][0] if self._events else inf)
            if at > moment or at == inf:
                break
            self.now = max(self.now, at)
            self._hear()
            self.admit()
        if moment < inf:
            self.now = max(self.now, moment)

    def forecasts(self, name: str, most: int = PLAYED, room: Room | None = None) -> dict[int, Forecast]:
        """Return the forecast for each waiting task, by its id."""
        before = pickle.dumps(self.admission)
        tasks = self.admission.pipelines[name].queue.tasks()
        told = {
            task.id: forecast(self.admission, name, place, self.now, self.wall, room, most)
            for place, task in enumerate(tasks[: most * LOOKED])
        }
        reason(self.admission, name, self.now)
        assert pickle.dumps(self.admission) == before, "a forecast or a reason wrote something"
        return told

    def hold_against(self, told: dict[int, Forecast], *, exactly: bool = True) -> None:
        """Hold what was told against what then happened."""
        for number, one in told.items():
            began = self.began.get(number)
            if one.at is None and not exactly:
                continue  # others may have delayed what was to start before it, and let that expire
            if one.at is None:
                assert began is None, f"{number} started at {began!r}, and was not to: {one.because}"
                assert one.because == IMPOSSIBLE or number in self.expired
            elif began is None:
                assert not one.exact or not exactly, f"{number} never started, and was to at {one}"
            elif one.exact and exactly:
                assert began == pytest.approx(one.at, abs=ROUNDED, rel=0), (number, one, began)
            elif not one.exact:
                assert began >= one.at - ROUNDED, (number, one, began)


COSTS = st.sampled_from([1.0, 1.0, 2.0, 2.5])


@st.composite
def rates(draw: st.DrawFn) -> RateSpec:
    style = draw(st.sampled_from(["smooth", "smooth", "window"]))
    n = draw(st.one_of(st.integers(1, 6), st.sampled_from([20, EXACT + 22])))
    meter = draw(st.sampled_from(["tasks", "tasks", "cost"])) if n >= 3 else "tasks"
    burst = float(n) if style == "window" else draw(st.sampled_from([1.0, 1.0, 2.0, float(n)]))
    period = draw(st.sampled_from([0.1, 1.0, 1.0, 7.0, 60.0]))
    return RateSpec(n, period, style, burst, draw(st.sampled_from([0.0, 0.02])), meter)  # type: ignore[arg-type]


def orders(
    *, costs: st.SearchStrategy[float] = COSTS, most: int = 30, **fields: st.SearchStrategy[float]
) -> st.SearchStrategy[list[Order]]:
    gaps = st.sampled_from([0.0, 0.0, 0.01, 0.3, 2.0])
    ages = st.sampled_from([1e6, 1e6, 1e6, 0.513, 3.017])
    return st.lists(st.builds(Order, gaps, costs, st.integers(0, 1), ages, **fields), max_size=most)


@given(
    limits=st.lists(rates(), max_size=3),
    concurrency=st.none() | st.integers(1, 12),
    history=orders(most=12),
    pause=st.sampled_from([0.0, 0.04, 0.5, 3.0]),
    waiting=orders(),
    work=st.sampled_from([0.0, 0.2, 5.0]),
    hold=st.sampled_from([0.0, 0.0, 0.7, 30.0]),
    most=st.sampled_from([1, 3, FEW, PLAYED]),
)  # fmt: skip
def test_a_pipeline_alone_does_what_was_told(
    limits: list[RateSpec],
    concurrency: int | None,
    history: list[Order],
    pause: float,
    waiting: list[Order],
    work: float,
    hold: float,
    most: int,
) -> None:
    bench = Bench()
    bench.limit("provider", limits[2:])
    bench.pipeline("alone", limits[:2], concurrency=concurrency, limits=("provider",))
    bench.send("alone", [Order(one.gap, one.cost, work=work) for one in history])
    bench.run_until(bench.now + pause)
    if hold:
        bench.admission.hold("alone", bench.now + hold)
    bench.send("alone", [Order(0.0, one.cost, one.priority, one.age, work) for one in waiting])
    told = bench.forecasts("alone", most, Room(longest=work))
    if concurrency is None and most == PLAYED:
        assert all(one.exact or one.at is None for one in told.values())
    bench.run_until(inf)
    bench.hold_against(told)


@given(
    limit=rates(),
    equal=st.booleans(),
    history=st.integers(0, 150),
    pause=st.sampled_from([0.0, 0.3, 1.01]),
    waiting=st.integers(1, 400),
    age=st.sampled_from([1e6, 1e6, 4.013]),
    most=st.sampled_from([FEW, PLAYED]),
)
@settings(max_examples=40)
def test_a_long_queue_does_what_was_told(
    limit: RateSpec, equal: bool, history: int, pause: float, waiting: int, age: float, most: int
) -> None:
    bench = Bench()
    bench.pipeline("alone", (limit,))
    bench.send("alone", [Order() for _ in range(history)])
    bench.run_until(bench.now + pause)
    bench.send("alone", [Order(cost=1.0 if equal or number % 3 else 2.0, age=age) for number in range(waiting)])
    tasks = bench.admission.pipelines["alone"].queue.tasks()
    told = {
        task.id: forecast(bench.admission, "alone", place, bench.now, bench.wall, most=most)
        for place, task in enumerate(tasks)
        if place % 7 == 0 or place == len(tasks) - 1
    }
    if equal and age == 1e6 and limit.n * 3 <= most and len(tasks) <= most * LOOKED:
        assert all(one.exact for one in told.values())
    bench.run_until(inf)
    if bench.expired:
        told = {task.id: told[task.id] for task in tasks[: most * LOOKED] if task.id in told}
    bench.hold_against(told)


@given(
    own=st.lists(rates(), max_size=1),
    provider=st.lists(rates(), max_size=2),
    concurrency=st.none() | st.integers(1, 8),
    slots=st.sampled_from([2, 100]),
    before=st.lists(st.tuples(st.sampled_from("abc"), orders(most=5)), max_size=4),
    waiting=orders(work=st.sampled_from([0.0, 0.5, 2.0]), delay=st.sampled_from([0.0, 0.004, 0.3])),
    later=st.lists(st.tuples(st.sampled_from("abc"), orders(most=5)), max_size=4),
    most=st.sampled_from([1, 3, FEW, PLAYED]),
)  # fmt: skip
def test_nothing_starts_before_its_lower_bound(
    own: list[RateSpec],
    provider: list[RateSpec],
    concurrency: int | None,
    slots: int,
    before: list[tuple[str, list[Order]]],
    waiting: list[Order],
    later: list[tuple[str, list[Order]]],
    most: int,
) -> None:
    bench = Bench()
    bench.limit("provider", provider, concurrency)
    for name in "abc":
        bench.pipeline(name, own, slots=0, limits=("provider",))
    bench.admission.provide("f", slots)
    for name, some in before:
        bench.send(name, some)
    bench.send("a", waiting)
    told = bench.forecasts("a", most)
    for name, some in later:
        bench.send(name, some)
    bench.run_until(inf)
    bench.hold_against(told, exactly=False)


@given(
    limits=st.lists(rates(), max_size=2),
    batch=st.builds(BatchSpec, st.integers(1, 5), st.sampled_from([0.0, 0.5, 4.0])),
    history=orders(most=12),
    pause=st.sampled_from([0.0, 0.5]),
    waiting=orders(),
    most=st.sampled_from([1, FEW, PLAYED]),
)
def test_no_batch_starts_before_its_lower_bound(
    limits: list[RateSpec], batch: BatchSpec, history: list[Order], pause: float, waiting: list[Order], most: int
) -> None:
    bench = Bench()
    bench.pipeline("a", limits, batch=batch)
    bench.send("a", history)
    bench.run_until(bench.now + pause)
    bench.send("a", waiting)
    told = bench.forecasts("a", most)
    bench.run_until(inf)
    bench.hold_against(told)


# examples -------------------------------------------------------------------------------------------------------------
def told(bench: Bench, *places: int, **given: Any) -> list[tuple[float | None, str]]:
    found = [forecast(bench.admission, "a", place, bench.now, bench.wall, **given) for place in places]
    return [(None if one.at is None else round(one.at - bench.now, 3), one.because) for one in found]


def test_a_rate_alone_is_told_exactly_however_far_ahead() -> None:
    bench = Bench()
    bench.pipeline("a", [RateSpec(2, 1.0)])
    bench.send("a", [Order()] * 5001)
    assert told(bench, 0, 1, 10, 4999) == [(0.45, ""), (1.0, ""), (5.45, ""), (2500.0, "")]


def test_a_window_starts_all_at_once_again_and_again() -> None:
    bench = Bench()
    bench.pipeline("a", [RateSpec(100, 60.0, "window", 100)])
    bench.send("a", [Order()] * 1001)
    assert told(bench, 0, 99, 100, 900) == [(60.0, ""), (60.0, ""), (120.0, ""), (600.0, "")]


def test_several_rates_far_ahead_are_reckoned_by_the_slowest() -> None:
    bench = Bench()
    bench.pipeline("a", [RateSpec(10, 1.0), RateSpec(60, 60.0)])
    bench.send("a", [Order()] * 2060)
    [(at, because)] = told(bench, 1999)
    assert at == pytest.approx(2000, rel=0.03)
    assert because == RECKONED


def test_what_keeps_a_forecast_from_being_exact_is_said() -> None:
    bench = Bench()
    bench.limit("provider", [RateSpec(1, 1.0)])
    bench.pipeline("a", limits=("provider",), concurrency=3)
    bench.pipeline("b", limits=("provider",))
    bench.send("a", [Order(work=5.0)] * 5)
    assert told(bench, 0, 1, 2) == [(1.0, ""), (2.0, ""), (3.0, DEPENDS)]
    assert told(bench, 2, room=Room(longest=2.0)) == [(3.0, "")], "two at most can run at once then"
    bench.send("b", [Order()])
    assert told(bench, 1) == [(2.0, "other pipelines use the limit 'provider'")]
    bench.admission.pause("b")
    assert told(bench, 1) == [(2.0, "")]
    bench.admission.pause("a")
    assert told(bench, 1) == [(None, "the pipeline is paused")]


def test_what_is_adaptive_is_told_a_lower_bound() -> None:
    bench = Bench()
    bench.admission.limit(Gate("provider", (RateSpec(1, 1.0),), adaptive=True))
    bench.pipeline("a", limits=("provider",))
    bench.send("a", [Order()] * 3)
    assert told(bench, 1) == [(2.0, LEARNS)]


def test_without_instances_it_is_a_lower_bound() -> None:
    bench = Bench()
    bench.pipeline("a", slots=1)
    bench.send("a", [Order(work=9.0)] * 3)
    assert told(bench, 0) == [(0.0, INSTANCES)]


def test_a_start_that_is_due_now_needs_an_instance_now() -> None:
    bench = Bench()
    bench.pipeline("a", [RateSpec(3, 1.0, "window", 3)], slots=1)
    bench.admission.offer("a", [Task(n, "a", b"", created=bench.wall, expires=bench.wall + 9) for n in (1, 2, 3, 4)])
    assert told(bench, 0, 1, 3) == [(0.0, ""), (0.0, INSTANCES), (1.0, INSTANCES)]


def test_what_is_on_disk_is_counted() -> None:
    bench = Bench()
    bench.pipeline("a", [RateSpec(1, 1.0)])
    bench.send("a", [Order()] * 3)
    bench.admission.left_behind("a")
    assert told(bench, 0, 101) == [(1.0, ""), (102.0, COUNTED)]
    bench.pipeline("b", [RateSpec(1, 1.0)])
    found = forecast(bench.admission, "b", 4, bench.now, bench.wall)
    assert found.because == COUNTED
    assert found.at == pytest.approx(bench.now + 4, abs=ROUNDED)


def test_what_expires_or_could_never_pass_is_told_no_moment() -> None:
    bench = Bench()
    bench.pipeline("a", [RateSpec(10, 1.0, meter="cost")])
    bench.send("a", [Order(cost=9.0), Order(cost=9.0, age=0.5), Order(cost=8.0), Order()])
    assert told(bench, 0, 1, 2) == [(None, EXPIRES), (1.0, ""), (1.75, "")]
    bench.pipeline("a", [RateSpec(5, 1.0, meter="cost")])
    assert told(bench, 1, 2)[0] == (None, IMPOSSIBLE)
    assert told(bench, 1, 2)[1][1] == f"a task ahead of it: {IMPOSSIBLE}"


def test_full_batches_bound_those_behind_them() -> None:
    bench = Bench()
    bench.pipeline("a", [RateSpec(1, 1.0)], batch=BatchSpec(10, 5.0))
    bench.send("a", [Order()] * 110)
    assert told(bench, 9, 10, 99) == [(1.0, BATCHED), (2.0, BATCHED), (10.0, BATCHED)]
