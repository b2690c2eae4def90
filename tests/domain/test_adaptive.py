"""Adaptive ceilings settle near the true limit of a service that does not tell it, and hardly any call is refused."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.domain.downstreams import Bucket, Crowd, Service, Window, World

from penstock.domain.adaptive import LEAST, SLOWEST, Adaptive, Learned
from penstock.domain.admission import Admission
from penstock.domain.limits import Gate
from penstock.domain.pipeline import Start
from penstock.domain.retry import MOST_HOLD, YIELDS, follow, hold_for
from penstock.domain.specs import PipelineSpec, RateSpec
from penstock.domain.task import Outcome, State, Task
from penstock.sim.laws import exceeded, most_at_once


def by_rate(ceiling: float) -> Gate:
    return Gate("own", (RateSpec(ceiling, 1.0),), adaptive=True)


def by_number(ceiling: int) -> Gate:
    return Gate("own", (), ceiling, adaptive=True)


def learned(gate: Gate) -> Learned:
    assert gate.adaptive is not None
    return gate.adaptive.learned


def silent(_wait: float) -> None:
    return None


SERVICES = {
    "bucket": lambda n: Bucket(n, n),
    "deep bucket": lambda n: Bucket(n, 5 * n),
    "fixed window": lambda n: Window(n, 1.0),
    "sliding window": lambda n: Window(n, 1.0, sliding=True),
}


# it settles -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("wait", [ceil, silent], ids=["says when", "says nothing"])
@pytest.mark.parametrize("ratio", [1, 10, 100])
@pytest.mark.parametrize("limit", [5, 50, 200])
@pytest.mark.parametrize("kind", SERVICES)
def test_a_rate_settles_within_a_tenth_and_one_call_in_a_hundred_is_refused(
    kind: str, limit: int, ratio: int, wait: object
) -> None:
    world = World(SERVICES[kind](limit), [by_rate(limit * ratio)], wait=wait, latency=0.2).run(120)  # type: ignore[arg-type, no-untyped-call]
    assert world.refused(30) < 0.01
    assert 0.9 <= world.flow(30, 120) / limit <= 1.05
    assert exceeded(world.starts, limit * ratio, 1.0) is None


@pytest.mark.parametrize("latency", [0.01, 1.0, 5.0])
def test_it_settles_however_long_calls_take(latency: float) -> None:
    world = World(Bucket(20, 20), [by_rate(200)], latency=latency).run(120)
    assert world.refused(30) < 0.01
    assert world.flow(30, 120) > 18


@pytest.mark.parametrize("limit", [1, 3, 10, 40])
@pytest.mark.parametrize("ratio", [1, 10])
def test_a_concurrency_settles_too(limit: int, ratio: int) -> None:
    world = World(Crowd(limit), [by_number(limit * ratio)], latency=0.5).run(180)
    assert world.refused(30) < 0.01
    assert world.flow(30, 180) > 0.9 * limit / 0.5


def test_of_both_it_learns_the_one_that_binds() -> None:
    gate = Gate("own", (RateSpec(200, 1.0),), 100, adaptive=True)
    world = World(Bucket(20, 20), [gate]).run(120)
    assert world.flow(30, 120) > 18
    assert learned(gate).rate == pytest.approx(20, rel=0.15)
    gate = Gate("own", (RateSpec(1000, 1.0),), 100, adaptive=True)
    world = World(Crowd(10), [gate], latency=0.5).run(120)
    assert world.flow(30, 120) > 18
    assert learned(gate).concurrency in {8, 9, 10, 11}
    assert learned(gate).rate > 100  # type: ignore[operator]


def test_several_share_what_a_service_takes() -> None:
    world = World(Window(100, 1.0), [by_rate(300) for _ in range(5)]).run(120)
    assert world.refused(30) < 0.01
    assert world.flow(30, 120) > 90


# it follows -------------------------------------------------------------------------------------------------------------
def test_a_limit_that_was_raised_is_found_within_minutes() -> None:
    service = Bucket(20, 20)
    world = World(service, [by_rate(500)]).run(60)
    service.rate = service.burst = 60
    world.run(360)
    assert world.flow(180, 240) > 1.5 * world.flow(30, 60)
    assert world.flow(300, 360) > 54
    assert world.refused(30) < 0.01


def test_a_limit_that_was_lowered_is_found_at_once() -> None:
    service = Bucket(100, 20)
    world = World(service, [by_rate(500)]).run(60)
    service.rate = 20
    world.run(180)
    assert world.flow(90, 180) > 17
    assert world.refused(90) < 0.01


@dataclass
class Outage:
    """Take nothing for some time."""

    service: Service
    begin: float
    end_at: float

    def call(self, now: float) -> float | None:
        return 1.0 if self.begin <= now < self.end_at else self.service.call(now)

    def end(self) -> None:
        self.service.end()


@pytest.mark.parametrize("wait", [ceil, silent], ids=["says when", "says nothing"])
def test_after_an_outage_it_is_soon_what_it_was(wait: Callable[[float], float | None]) -> None:
    world = World(Outage(Bucket(40, 40), 60, 360), [by_rate(400)], wait=wait).run(540)
    assert world.flow(480, 540) > 36
    assert world.refused(420) < 0.01


def test_who_refuses_at_random_is_still_called() -> None:
    rng = random.Random(1)

    @dataclass
    class Moody(Outage):
        def call(self, now: float) -> float | None:
            return 0.0 if rng.random() < 0.3 else None

    world = World(Moody(Bucket(1, 1), 0, 0), [by_rate(5)]).run(3600)
    assert world.flow(600, 3600) > 0.05


def test_while_nothing_is_refused_the_ceiling_is_reached_in_seconds() -> None:
    gate = by_rate(100)
    world = World(Bucket(1e6, 1e6), [gate]).run(20)
    assert learned(gate).rate == 100
    assert world.flow(5, 20) == pytest.approx(100, rel=0.02)


# what counts ------------------------------------------------------------------------------------------------------------
def test_what_ran_at_the_same_time_is_refused_once() -> None:
    gate = by_rate(100)
    before = learned(gate).rate
    for _ in range(10):
        gate.refused(sent=1.0, now=1.5, wait=1.0)
    assert learned(gate).rate == 0.5 * before  # type: ignore[operator]
    assert gate.refusals == 1


def test_what_nobody_uses_is_not_learned() -> None:
    gate = by_rate(100)
    for second in range(1000):
        gate.take(float(second), 1.0)
        gate.release()
        gate.accepted(float(second), second + 0.1)
    assert learned(gate).rate < 100  # type: ignore[operator]


@given(st.lists(st.sampled_from(["taken", "refused", "too"]), max_size=60), st.floats(0.01, 5.0), st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_it_stays_between_its_bounds(story: list[str], pause: float, most: int) -> None:
    adaptive = Adaptive((RateSpec(most, 1.0),), most)
    now = 0.0
    for event in story:
        now += pause
        adaptive.take(now, 1.0, 1)
        if event == "taken":
            adaptive.accepted(now)
        else:
            adaptive.refused(now, pause, anew=event == "refused")
        rate, number = adaptive.learned
        assert rate is not None
        assert number is not None
        assert min(most, max(LEAST * most, SLOWEST)) <= rate <= most
        assert 1 <= number <= most
        assert adaptive.ready_at(now) < inf


def test_a_new_ceiling_keeps_what_was_learned_as_far_as_it_may() -> None:
    gate = by_rate(100)
    World(Bucket(20, 20), [gate]).run(60)
    known = learned(gate).rate
    gate.configure((RateSpec(1000, 1.0),), None, adaptive=True)
    assert learned(gate).rate == known
    gate.configure((RateSpec(5, 1.0),), None, adaptive=True)
    assert learned(gate).rate == 5
    gate.configure((RateSpec(5, 1.0),), None)
    assert gate.adaptive is None


def test_it_goes_on_from_what_it_learned_before_a_restart() -> None:
    adaptive = Adaptive((RateSpec(100, 1.0),), 40)
    adaptive.take_over(Learned(17.5, 6))
    assert adaptive.learned == Learned(17.5, 6)
    adaptive = Adaptive((RateSpec(10, 1.0),), None)
    adaptive.take_over(Learned(17.5, 6))
    assert adaptive.learned == Learned(10, None)


def test_a_rate_that_meters_cost_is_learned_in_cost() -> None:
    gate = Gate("own", (RateSpec(1000, 1.0, meter="cost"),), adaptive=True)
    gate.take(0.0, 50.0)
    assert gate.ready_at(0.0, 50.0) == pytest.approx(0.5 - 0.02, abs=0.02)  # 100 a second, to begin with


def test_no_cost_is_so_large_that_an_outage_delays_the_next_start_for_long() -> None:
    adaptive = Adaptive((RateSpec(90_000, 60.0, meter="cost"),), None)
    now = 0.0
    for _ in range(50):
        adaptive.take(now, 5000.0, 1)
        adaptive.refused(now + 0.1, 1.0, anew=True)
        now += 100.0
    adaptive.take(now, 5000.0, 1)
    assert adaptive.ready_at(now) == pytest.approx(now + 1 / SLOWEST, abs=0.1)
    adaptive.take(now := now + 100.0, 10.0, 1)
    assert adaptive.ready_at(now) > now + 5


# holds ------------------------------------------------------------------------------------------------------------------
def test_a_wait_of_ten_years_is_believed_for_an_hour() -> None:
    assert hold_for(10 * 365 * 86_400.0, 1) == MOST_HOLD == 3600
    gate = Gate("own")
    assert gate.refused(sent=0.0, now=1.0, wait=1e300) == 3601


def test_a_wait_of_nothing_is_none() -> None:
    said, silent = Gate("said"), Gate("silent")
    for now in (1.0, 10.0, 20.0):
        assert said.refused(now - 0.5, now, wait=0.0) == silent.refused(now - 0.5, now, wait=None) > now


def test_without_a_wait_holds_double_with_each_refusal_in_a_row() -> None:
    gate, now = Gate("own"), 0.0
    holds = []
    for _ in range(9):
        sent, now = now + 1, now + 2
        until = gate.refused(sent, now, None)
        holds.append(until - now)
        now = until
    assert holds == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    gate.accepted(now, now)
    assert gate.refused(now + 1, now + 2, None) == now + 3


def admission() -> Admission:
    found = Admission()
    found.limit(Gate("plain"))
    found.limit(Gate("first", (RateSpec(100, 1.0),), adaptive=True))
    found.limit(Gate("second", (), 10, adaptive=True))
    return found


def start(found: Admission, *limits: str, **own: object) -> Start:
    spec = PipelineSpec("p", "f", limits=limits, **own)  # type: ignore[arg-type]
    pipeline = found.configure(spec, "f", limits)
    found.offer("p", [Task(1, "p", b"", created=0.0, expires=1e12)])
    found.provide("f", 1)
    assert found.admit(0.0, 0.0).starts
    return Start((Task(2, "p", b"", created=0.0, expires=1e12),), 1.0, pipeline)


@pytest.mark.parametrize(
    ("limits", "own", "named", "held"),
    [
        ((), {}, None, "p"),
        (("plain",), {}, None, "p"),
        (("plain",), {}, "plain", "plain"),
        (("first", "second"), {}, "second", "second"),
        (("plain", "second", "first"), {}, None, "second"),
        (("first",), {"rates": (RateSpec(50, 1.0),)}, None, "first"),
        (("first",), {"rates": (RateSpec(50, 1.0),), "adaptive": True}, None, "p"),
        ((), {}, "nobody knows it", "p"),
        ((), {}, "plain", "p plain"),
        (("first",), {"adaptive": True, "rates": (RateSpec(50, 1.0),)}, "plain", "p plain"),
    ],
)
def test_a_refusal_holds_what_it_is_about(
    limits: tuple[str, ...], own: dict[str, object], named: str | None, held: str
) -> None:
    found = admission()
    refused = start(found, *limits, **own)
    found.refused(refused, 0.5, 1.0, 7.0, named)
    own_gate = found.pipelines["p"].own
    gates = {**found.gates, **({"p": own_gate} if own_gate is not None else {})}
    assert {name for name, gate in gates.items() if gate.held_until == 8.0} == set(held.split())


def test_a_task_that_is_refused_again_and_again_yields_its_place() -> None:
    task = Task(1, "p", b"", created=0.0, expires=1e12)
    sequels = [follow(task, Outcome.THROTTLED, 3, (1.0, 300.0), 0.5, held=10.0) for _ in range(20)]
    assert [sequel.state for sequel in sequels] == [State.QUEUED] * (YIELDS - 1) + [State.DELAYED] * (21 - YIELDS)
    waits = [sequel.delay for sequel in sequels[YIELDS - 1 :]]
    assert waits[:3] == [18.0, 26.0, 42.0]
    assert waits[-1] == 10.0 + MOST_HOLD
    assert task.attempts == 0
    assert follow(task, Outcome.THROTTLED, 3, (1.0, 300.0), 0.5).state is State.QUEUED  # nobody else waits


def test_services_are_what_they_say() -> None:
    services: list[Service] = [Bucket(10, 10), Window(10, 1.0), Window(10, 1.0, sliding=True), Crowd(10)]
    for service in services:
        assert [service.call(0.5) is None for _ in range(12)] == [True] * 10 + [False] * 2


def test_no_more_run_at_once_than_the_ceiling() -> None:
    world = World(Crowd(1000), [by_number(10)], latency=0.5).run(20)
    assert most_at_once((at, at + 0.35) for at in world.starts) <= 10
