"""Pre-warming: habits are met, chance is not, and what it costs is bounded."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.prewarming import PRICE, SEEN, Window, windows

DAY = 86_400.0
rests = st.lists(st.floats(1, 7 * DAY), max_size=64)


def cost_and_hits(found: list[Window], rests: list[float]) -> tuple[float, int]:
    """Return the seconds for which instances would have idled, and the rests at whose end one would have been ready."""
    idle = sum(max(0.0, min(rest, window.end) - window.begin) for window in found for rest in rests)
    return idle, sum(any(window.begin <= rest <= window.end for window in found) for rest in rests)


@given(rests)
def test_windows_follow_each_other_and_are_worth_their_price(rests: list[float]) -> None:
    found = windows(rests)
    assert all(0 <= window.begin < window.end for window in found)
    assert all(one.end <= other.begin for one, other in pairwise(found))
    idle, hits = cost_and_hits(found, rests)
    assert idle <= PRICE * hits + 1e-6
    assert not found or hits >= SEEN


@given(st.floats(90, 6 * 3600), st.integers(SEEN, 64), st.randoms(use_true_random=False))
def test_what_happens_every_so_often_is_met(period: float, times: int, rng: random.Random) -> None:
    seen = [period + rng.uniform(-1, 1) for _ in range(times)]
    (window,) = windows(seen)
    assert window.begin < min(seen)
    assert max(seen) < window.end
    assert window.end - window.begin <= 0.02 * period + 6


def test_mornings_of_weekdays_are_met() -> None:
    found = windows([DAY, DAY + 60, DAY - 45, DAY + 10] * 3 + [3 * DAY, 3 * DAY + 30, 3 * DAY - 20])
    assert any(window.begin < DAY - 45 and window.end > DAY + 60 for window in found)
    assert all(window.end - window.begin < DAY / 40 for window in found)


def test_chance_is_not_met() -> None:
    rng = random.Random(1)
    assert windows([rng.uniform(100, 12 * 3600) for _ in range(64)]) == []


def test_a_few_times_are_no_habit() -> None:
    assert windows([900.0] * (SEEN - 1)) == []
