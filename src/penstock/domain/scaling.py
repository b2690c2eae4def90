"""How many instances to start: as many as are wanted now, within what caps allow.

The laws. Nothing is ramped unless a cap says so: a thousand tasks that only lack a slot get what they lack at once. Only
where tasks are so short that starting an instance for each takes longer than they do, fewer are started. Of several caps the
one with the least room binds, the first of them if they are equal; what it is called is what tasks then wait for.
"""

from __future__ import annotations

from math import ceil, inf, sqrt
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

LAUNCH: Final = 0.002
"""About what the start of an instance costs, in seconds of this machine."""

PATIENCE: Final = 0.05
"""Seconds without an end of a task after which a fleet is taken to stand still, and a task to take long."""


class Cap(NamedTuple):
    """Let at most `room` more instances start now.

    `kind` is what binds ("instances", "ramp", "memory", "pool" …) and `text` says so for people. `until` is the monotonic
    moment from which there is more room; None where that depends on something that ends.
    """

    kind: str
    text: str
    room: float
    until: float | None = None


class Growth(NamedTuple):
    """Start so many instances; `cap` is what keeps more from starting, None if nothing does."""

    launches: int
    cap: Cap | None


def lacking(wanted: int, slots: int, starting: int) -> int:
    """Return how many instances of `slots` each are lacking for `wanted` slots, `starting` of which are coming."""
    return max(0, ceil((wanted - slots * starting) / slots))


def growth(lacking: int, caps: Iterable[Cap]) -> Growth:
    """Return how many of the lacking instances may start, and what binds if that is not all."""
    cap = min(caps, key=lambda cap: cap.room, default=None)
    if cap is None or cap.room >= lacking:
        return Growth(lacking, None)
    return Growth(max(0, int(cap.room)), cap)


def worthwhile(wanted: int, slots: int, mean: float | None, moving: int) -> float:
    """Return how many more instances would save those that wait more time than their own start takes.

    With k instances the work that waits, `wanted` tasks of `mean` seconds, takes work / k, and their start k * LAUNCH: the
    sum is least at the square root of work / LAUNCH. `moving` are those of the k that are there, without such whose tasks
    have taken long already. As long as nobody knows what a task takes, all are worth it.
    """
    if mean is None:
        return inf
    return max(0, max(1, ceil(sqrt(wanted * mean / (slots * LAUNCH)))) - moving)
