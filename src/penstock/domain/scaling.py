"""How many instances to start: as many as are wanted now, within what caps allow.

The laws. Nothing is ramped unless a cap says so: a thousand tasks that only lack a slot get what they lack at once. Only
where tasks are so short that starting an instance for each takes longer than they do, fewer are started. Of several caps the
one with the least room binds, the first of them if they are equal; what it is called is what tasks then wait for.

Memory is measured, never reserved: the next instance is expected to cost what its siblings do, and what was started in the last
moments is taken to need all of that still.
"""

from __future__ import annotations

from collections import deque
from math import ceil, floor, inf, sqrt
from typing import TYPE_CHECKING, Final, NamedTuple

from penstock.domain.rates import Rate
from penstock.domain.specs import RateSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

LAUNCH: Final = 0.002
"""About what the start of an instance costs, in seconds of this machine."""

AT_ONCE: Final = RateSpec(24, 0.02, "window", 24.0)
"""As fast as instances are started where no ramp is set: faster than processes can be forked, and in steps that are short."""

UNKNOWN: Final = 16 * 2**20
"""Bytes that an instance is taken to cost while none of its siblings was measured."""

YOUNG: Final = 2.0
"""Seconds after its start for which an instance is taken to need all of its memory still."""

PAUSE: Final = 0.25
"""Seconds until memory is looked at again where it was too little."""

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


class Ramp:
    """Let instances start at a rate, the first of them at once."""

    def __init__(self) -> None:
        self._spec: RateSpec | None = None
        self._rate = _rate(AT_ONCE)

    def configure(self, spec: RateSpec | None) -> None:
        """Change the rate in place; None lets instances start as fast as they can be."""
        if spec != self._spec:
            self._spec = spec
            self._rate.configure(spec or AT_ONCE)

    def cap(self, function: str, now: float) -> Cap:
        """Return how many instances may start now, and from when on there is room for the next one."""
        until = self._rate.ready_at(now, 1, 0.0)
        room = max(floor(self._rate.room(now, 0.0) + 1e-9), int(until <= now))  # sums of moments are rounded
        if self._spec is None:
            return Cap("instances", f"instances of '{function}' are being started", room, until)
        ramp = f"{self._spec.n:g} in {self._spec.period:g} s"
        return Cap("ramp", f"the ramp of '{function}' lets no more than {ramp} start", room, until)

    def launched(self, now: float) -> None:
        """Count an instance that was started."""
        self._rate.take(now, 1)
        self._rate.date(now, 1)


class Memory:
    """Say how many instances fit into the memory that the machine has left."""

    def __init__(self) -> None:
        self._young: deque[tuple[float, float]] = deque()
        self._expected = 0.0

    def launched(self, cost: float | None, now: float) -> None:
        """Count what an instance that was started will need."""
        self._young.append((now, cost or UNKNOWN))
        self._expected += cost or UNKNOWN

    def room(self, available: float, spare: float, cost: float | None, now: float) -> int:
        """Return how many instances of that cost may start if so many bytes are available, `spare` of which are to stay so."""
        while self._young and self._young[0][0] <= now - YOUNG:
            self._expected -= self._young.popleft()[1]
        return max(0, int((available - spare - self._expected) / (cost or UNKNOWN)))


def learned(known: int | None, weights: Iterable[int]) -> int | None:
    """Return what an instance is expected to cost after some of them were weighed: a rise counts at once, a fall slowly."""
    found = [weight for weight in weights if weight]
    if not found:
        return known
    mean = sum(found) / len(found)
    return round(mean if known is None else max(mean, known + 0.1 * (mean - known)))


def _rate(spec: RateSpec) -> Rate:
    rate = Rate(spec)
    rate.reserved = inf  # it need not outlive a crash: instances do not, either
    return rate
