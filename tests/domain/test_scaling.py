"""Scaling: what is lacking starts, no cap is exceeded, and what binds is named."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.scaling import LAUNCH, Cap, Growth, growth, lacking, worthwhile

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
