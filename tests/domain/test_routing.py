"""Routes: how long tasks take is learned and forgotten, and fleets move by it, not to and fro."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.durations import HALF, Durations
from penstock.domain.routing import ENOUGH, SETTLED, Measured, about
from penstock.domain.specs import RouteSpec

seconds = st.floats(0.001, 30 * 86_400.0)
TENTH = 1.1
LONG = {"long": RouteSpec(300.0)}


def measured(*took: float, memory: int | None = None) -> Measured:
    found = Measured()
    for one in took:
        found.durations.add(one)
    found.memory = memory
    return found


# durations ------------------------------------------------------------------------------------------------------------
@given(st.lists(st.floats(0.01, 86_400.0), min_size=1, max_size=HALF), st.floats(0.01, 1.0))
def test_it_knows_the_shares_to_within_a_tenth(took: list[float], share: float) -> None:
    found = measured(*took).durations
    about_so_long = found.quantile(share)
    assert min(took) / TENTH <= about_so_long <= max(took) * TENTH
    assert found.longer(about_so_long * TENTH) <= 1 - share + 1e-9
    assert found.longer(about_so_long / TENTH / TENTH) >= 1 - share - 1e-9


@given(st.integers(), st.floats(0.1, 10_000.0))
def test_it_converges(seed: int, scale: float) -> None:
    rng, found = random.Random(seed), Durations()
    for _ in range(2000):
        found.add(rng.uniform(scale, 3 * scale))
    assert 2.5 * scale < found.quantile(0.9) < 3 * scale * TENTH
    assert found.longer(3 * scale) <= 1e-9
    assert found.longer(scale / TENTH) == pytest.approx(1.0)


@given(st.lists(seconds, max_size=300), seconds)
def test_it_forgets(before: list[float], now: float) -> None:
    found = measured(*before, *[now] * 10 * HALF).durations
    assert found.quantile(0.99) == pytest.approx(now, rel=0.1)
    assert found.longer(now) < 0.001


@given(st.integers(), st.integers(1, 30_000))
def test_it_stays_small(seed: int, number: int) -> None:
    rng, found = random.Random(seed), Durations()
    for _ in range(number):
        found.add(10.0 ** rng.uniform(-9, 12))
    assert len(found.weights()) <= 300
    assert found.count == number
    assert 0.0 <= found.longer(1.0) <= 1.0


@given(st.lists(seconds, min_size=1, max_size=3000), st.lists(seconds, max_size=20), seconds)
def test_what_was_written_down_is_gone_on_from(took: list[float], later: list[float], than: float) -> None:
    here = measured(*took).durations
    read = {int(bucket): weight for bucket, weight in json.loads(json.dumps(here.weights())).items()}
    there = Durations(read, here.count)
    for one in later:
        here.add(one)
        there.add(one)
    assert there.longer(than) == pytest.approx(here.longer(than), abs=1e-4)
    assert there.count == here.count


def test_nothing_is_known_at_first() -> None:
    assert (Durations().quantile(0.9), Durations().longer(0.0)) == (0.0, 0.0)


# routes ---------------------------------------------------------------------------------------------------------------
def test_it_moves_when_enough_were_long_and_back_when_few_are_half_as_long() -> None:
    found = measured(*[420.0] * (ENOUGH - 1))
    assert found.destination(LONG, None) is None
    found.durations.add(420.0)
    assert found.destination(LONG, None) == "long"
    assert found.why(LONG["long"]) == "p90 of its tasks is 7m, longer than 5m"
    for _ in range(500):
        found.durations.add(420.0)
    there, went = "long", 0
    while there == "long":
        found.durations.add(60.0)
        there = found.destination(LONG, there) or ""
        went += 1
    assert 3 * HALF < went < 6 * HALF
    assert found.destination(LONG, None) is None


def test_what_lies_between_stays_where_it_is() -> None:
    found = measured(*[200.0] * 500)
    assert found.destination(LONG, None) is None
    assert found.destination(LONG, "long") == "long"
    assert found.why(LONG["long"]) == "it was here before, and some of its tasks still take longer than half of 5m"


def test_a_few_long_tasks_among_many_do_not_move_it() -> None:
    rng = random.Random(5)
    found, there, moves = Measured(), None, 0
    for _ in range(20_000):
        found.durations.add(600.0 if rng.random() < 0.02 else 1.0)
        now = found.destination(LONG, there)
        moves, there = moves + (now != there), now
    assert moves <= 2  # the very first tasks may be misleading


@given(st.integers(), st.floats(0.0, 1.0), st.floats(150.0, 600.0))
def test_it_does_not_flap(seed: int, share: float, long: float) -> None:
    """Whatever part of the tasks is long, and however long: moves are rarer than once in a hundred tasks."""
    rng = random.Random(seed)
    found, there, moves = Measured(), None, 0
    for _ in range(3000):
        found.durations.add(long if rng.random() < share else 1.0)
        now = found.destination(LONG, there)
        moves, there = moves + (now != there), now
    assert moves <= 30


def test_with_new_code_it_stays_until_that_is_known() -> None:
    found = measured(*[1.0] * (SETTLED - 1))
    assert found.destination(LONG, "long") == "long"
    assert (
        found.why(LONG["long"]) == "it was here before, and few of its tasks have been measured since its last deploy"
    )
    found.durations.add(1.0)
    assert found.destination(LONG, "long") is None


def test_memory_counts_too() -> None:
    large = {"large": RouteSpec(larger_than=10**9)}
    found = measured(1.0, memory=1_400_000_000)
    assert found.destination(large, None) == "large"
    assert found.why(large["large"]) == "its instances use 1,400 MB, more than 1GB"
    found.memory = 600_000_000
    assert (found.destination(large, None), found.destination(large, "large")) == (None, "large")
    assert found.why(large["large"]) == "its instances use 600 MB, not less than half of 1GB"
    found.memory = 400_000_000
    assert found.destination(large, "large") is None
    assert measured(*[1.0] * 50).destination(large, "large") is None, "nothing is known of its memory"


def test_either_is_enough() -> None:
    both = {"both": RouteSpec(300.0, 10**9)}
    assert measured(*[600.0] * 9).destination(both, None) == "both"
    assert measured(1.0, memory=2 * 10**9).destination(both, None) == "both"
    assert measured(*[1.0] * 9, memory=10**6).destination(both, None) is None


def test_the_most_specific_of_several_takes_it() -> None:
    routes = {
        "large": RouteSpec(larger_than=10**9),
        "long": RouteSpec(300.0),
        "longest": RouteSpec(3600.0),
        "twin": RouteSpec(300.0),
    }
    assert measured(*[600.0] * 9).destination(routes, None) == "long"
    assert measured(*[600.0] * 9).destination(routes, "twin") == "twin"
    assert measured(*[9000.0] * 9, memory=2 * 10**9).destination(routes, "long") == "longest"
    assert measured(*[1.0] * 9, memory=2 * 10**9).destination(routes, None) == "large"
    assert measured(*[2400.0] * 30).destination(routes, "longest") == "longest"
    assert measured(*[600.0] * 30).destination(routes, "longest") == "long"
    assert measured(*[600.0] * 9).destination({}, "long") is None


@pytest.mark.parametrize(
    ("took", "said"),
    [
        (0.0123, "12ms"),
        (1.5, "1.5s"),
        (42.3, "42s"),
        (119.0, "120s"),
        (423.0, "7m"),
        (435.0, "7.2m"),
        (90.0, "90s"),
        (90_000.0, "25h"),
    ],
)
def test_durations_for_people(took: float, said: str) -> None:
    assert about(took) == said
