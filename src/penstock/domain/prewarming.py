"""When it is worth having an instance ready: learned from how long a function has rested before it was called again.

The law. A window is a time after the beginning of a rest during which an instance is kept ready. It is worth it if it would
have cost at most `PRICE` seconds of an idle instance for each rest that ended within it, and so with a warm start. A function
that is called every quarter of an hour, or every morning, is met by an instance, and one that is called at random by none.
The idea is that of the hybrid histogram policy of Shahrad et al., "Serverless in the Wild" (USENIX ATC 2020); rests are
clustered here instead of counted by the minute, so that rests of a second and of a week are learned alike.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

REMEMBERED: Final = 64
"""Rests that are remembered: the latest ones, so that a habit that changes is learned anew."""

PRICE: Final = 300.0
"""Seconds that an instance may idle for each cold start that this avoids."""

LEAST: Final = 1.0
BLUR: Final = 0.005
MOST: Final = 60.0
"""How much earlier and later than it was seen a rest may end: seconds and a part of its length, and the most of that."""

SEEN: Final = 3
"""How often something must have happened to be a habit."""


class Window(NamedTuple):
    """Hold a time in which to have an instance ready, in seconds after the beginning of a rest."""

    begin: float
    end: float


def windows(rests: Sequence[float]) -> list[Window]:
    """Return when to have an instance ready after a rest of unknown length began, given the lengths of earlier ones.

    Of all ways to put windows around neighbouring rests it is the one that saves most, found by dynamic programming.
    """
    ordered = sorted(rests)
    sums = [0.0, *accumulate(ordered)]
    saved = [0.0] * (
        len(ordered) + 1
    )  # by the best windows around the first rests, of which the last begins with `chosen`
    chosen: list[int | None] = [None] * (len(ordered) + 1)
    for after in range(1, len(ordered) + 1):
        saved[after] = saved[after - 1]
        for first in range(after - SEEN + 1):
            begin, end = _around(ordered, first, after)
            hits = after - first
            cost = sums[after] - sums[first] - hits * begin + (len(ordered) - after) * (end - begin)
            gain = saved[first] + PRICE * hits - cost
            if cost <= PRICE * hits and gain > saved[after]:
                saved[after], chosen[after] = gain, first
    found, after = list[Window](), len(ordered)
    while after > 0:
        start = chosen[after]
        if start is None:
            after -= 1
            continue
        begin, end = _around(ordered, start, after)
        found.append(Window(begin, min(end, found[-1].begin) if found else end))
        after = start
    return found[::-1]


def _around(ordered: Sequence[float], first: int, after: int) -> Window:
    """Return a window around neighbouring rests."""
    early, late = ordered[first], ordered[after - 1]
    return Window(max(0.0, early - _blur(early)), late + _blur(late))


def _blur(rest: float) -> float:
    return min(MOST, LEAST + BLUR * rest)
