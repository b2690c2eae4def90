"""Scaling: what is lacking starts, no cap is exceeded, and what binds is named."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.scaling import LAUNCH, YOUNG, Cap, Growth, Memory, Ramp, growth, lacking, learned, worthwhile
from penstock.domain.specs import RateSpec

caps = st.lists(st.builds(Cap, st.sampled_from("abc"), st.just(""), st.floats(-2, 2000)), max_size=4)
numbers = st.integers(0, 5000)


@given(numbers, st.integers(1, 50), numbers)
def test_instances_that_are_lacking_give_every_task_a_slot_and_none_is_too_many(
    wanted: int, slots: int, starting: int
) -> None:
    more = lacking(wanted, slots, starting)
    assert (more + starting) * slots >= wanted
    assert not more or (more + starting - 1) * slots < wanted


def test_a_thousand_tasks_want_a_thousand_instances_at_once() -> None:
    assert growth(lacking(1000, 1, 0), [Cap("instances", "", 1000)]) == Growth(1000, None)
    assert lacking(1000, 100, 0) == 10


@given(numbers, caps)
def test_growth_keeps_to_every_cap_and_names_the_one_that_binds(more: int, caps: list[Cap]) -> None:
    launches, cap = growth(more, caps)
    assert 0 <= launches <= more
    assert all(launches <= max(0, cap.room) for cap in caps)
    if launches < more:
        assert cap is not None
        assert max(0, int(cap.room)) == launches
    if all(cap.room >= more for cap in caps):
        assert (launches, cap) == (more, None)


@given(st.integers(1, 5000), st.integers(1, 20), st.floats(1e-5, 100), st.integers(0, 3))
def test_another_instance_is_worth_it_while_it_saves_more_than_it_costs(
    wanted: int, slots: int, mean: float, moving: int
) -> None:
    def takes(instances: int) -> float:
        return wanted * mean / (slots * instances) + instances * LAUNCH

    best = max(1, int(worthwhile(wanted, slots, mean, 0)))
    assert takes(best) <= min(takes(best + 1), takes(max(1, best - 1))) + LAUNCH
    assert worthwhile(wanted, slots, mean, moving) == max(0, best - moving)


def test_while_nobody_knows_what_a_task_takes_all_are_worth_it() -> None:
    assert worthwhile(1000, 1, None, 7) == inf


# ramps ----------------------------------------------------------------------------------------------------------------
@given(st.integers(1, 100), st.sampled_from([1.0, 10.0, 60.0]), st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_a_ramp_lets_no_window_see_more_starts_than_it_allows(n: int, period: float, gaps: list[float]) -> None:
    ramp, now, starts = Ramp(), 1000.0, []
    ramp.configure(RateSpec(n, period))
    for gap in gaps:
        now += gap
        cap = ramp.cap("f", now)
        assert cap.until is not None
        assert (cap.room >= 1) == (cap.until <= now)
        for _ in range(int(cap.room)):
            ramp.launched(now)
            starts.append(now)
    for index, start in enumerate(starts[n:]):
        assert start - starts[index] >= period


@given(st.integers(1, 40), st.sampled_from([1.0, 10.0, 60.0]), st.floats(1000.0, 5000.0), st.floats(0, 0.1))
def test_a_ramp_has_room_at_the_moment_that_it_names(n: int, period: float, now: float, gap: float) -> None:
    ramp = Ramp()
    ramp.configure(RateSpec(n, period))
    for _ in range(5 * n):
        cap = ramp.cap("f", now)
        assert cap.until is not None
        if cap.room < 1:
            now = cap.until
            assert ramp.cap("f", now).room >= 1
        ramp.launched(now)
        now += gap


def test_without_a_ramp_instances_start_as_fast_as_processes_can_be_forked() -> None:
    ramp, now, started = Ramp(), 0.0, 0
    while now < 1.0:
        cap = ramp.cap("f", now)
        for _ in range(int(cap.room)):
            ramp.launched(now)
            started += 1
        now += 0.001
    assert started >= 900


# memory ---------------------------------------------------------------------------------------------------------------
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 50)), max_size=30), st.integers(0, 10_000))
def test_what_was_started_just_now_and_what_may_start_fit_into_what_is_left(
    waves: list[tuple[float, int]], available: int
) -> None:
    memory, now, spare = Memory(), 50.0, 100
    launched: list[tuple[float, int]] = []
    for gap, cost in waves:
        now += gap
        room = memory.room(available, spare, cost, now)
        expected = sum(cost for at, cost in launched if now - at < YOUNG)
        assert room == 0 or expected + room * cost <= available - spare + 1e-6
        assert expected + (room + 1) * cost > available - spare
        for _ in range(min(room, 5)):
            memory.launched(cost, now)
            launched.append((now, cost))


def test_what_an_instance_costs_rises_at_once_and_falls_slowly() -> None:
    assert learned(None, []) is None
    assert learned(None, [0, 10, 30]) == 20
    assert learned(20, [100]) == 100
    assert learned(100, [50, 50]) == 95
    assert learned(100, [0]) == 100
