"""Routes: which pool the measured tasks of a function belong in, if it names none.

The laws. A pool takes what is longer or larger than its route says: more than `OFTEN` of the tasks take longer than
`longer_than`, so their p90 does, or an instance uses more than `larger_than`. It lets go of what does neither by far: fewer
than `RARELY` of the tasks take longer than half of the one, and instances use less than half of the other. What lies between
stays where it is, and so does what moved less than `REST` ago; so nothing moves to and fro. Of several pools that would take
it, the one with the highest `longer_than` that is met has it, then the one with the highest `larger_than`, then the first by
name.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.durations import Durations
from penstock.domain.units import format_duration, format_size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.domain.specs import RouteSpec

OFTEN: Final = 0.10
RARELY: Final = 0.03
"""Shares of tasks: with more of them long a function is taken, with fewer it is let go."""

ENOUGH: Final = 3
"""Tasks that must have been measured before a function moves for how long they take."""

SETTLED: Final = 20
"""Tasks that must have been measured, since the last deploy, before it may go back."""

REST: Final = 60.0
"""Seconds that it stays at least where it has moved to."""


class Measured:
    """Hold what is known of the tasks and instances of a fleet. `memory` is in bytes, None as long as nobody knows."""

    __slots__ = ("durations", "memory", "moved")

    def __init__(self) -> None:
        self.durations = Durations()
        self.memory: int | None = None
        self.moved = -inf  # when it went to another pool last

    def destination(self, routes: Mapping[str, RouteSpec], here: str | None) -> str | None:
        """Return the pool whose route takes these tasks, None if there is none; `here` is the one that has taken them."""
        found = []
        for name, route in routes.items():
            rank = self._rank(route, stays=name == here)
            if rank is not None:
                found.append(((-rank[0], -rank[1], name != here, name), name))
        return min(found)[1] if found else None

    def _rank(self, route: RouteSpec, *, stays: bool) -> tuple[float, float] | None:
        """Return how much of a route is met; None if nothing is."""
        time, size = route.longer_than or 0.0, route.larger_than or 0
        met = (
            time if time and self._long(time, stays=stays) else 0,
            size if size and self._large(size, stays=stays) else 0,
        )
        return met if any(met) else None

    def _long(self, than: float, *, stays: bool) -> bool:
        if stays:
            return self.durations.count < SETTLED or self.durations.longer(than / 2) >= RARELY
        return self.durations.count >= ENOUGH and self.durations.longer(than) > OFTEN

    def _large(self, than: int, *, stays: bool) -> bool:
        return self.memory is not None and self.memory > (than / 2 if stays else than)

    def why(self, route: RouteSpec) -> str:
        """Say why a pool with this route has these tasks, for people."""
        long, large, known = route.longer_than, route.larger_than, self.durations.count
        if long is not None and known >= ENOUGH and self.durations.longer(long) > OFTEN:
            return f"p90 of its tasks is {about(self.durations.quantile(0.9))}, longer than {format_duration(long)}"
        if large is not None and self._large(large, stays=False):
            return f"its instances use {(self.memory or 0) / 1e6:,.0f} MB, more than {format_size(large)}"
        if large is not None and self._large(large, stays=True):
            return f"its instances use {(self.memory or 0) / 1e6:,.0f} MB, not less than half of {format_size(large)}"
        if known < SETTLED:
            return "it was here before, and few of its tasks have been measured since its last deploy"
        if long is not None:
            return f"it was here before, and some of its tasks still take longer than half of {format_duration(long)}"
        return "it was here before"


def about(seconds: float) -> str:
    """Return a duration in two digits, for people, such as "7.2m"."""
    for unit, size, least in (("h", 3600.0, 7200.0), ("m", 60.0, 120.0), ("s", 1.0, 1.0)):
        if seconds >= least:
            return f"{float(f'{seconds / size:.2g}'):g}{unit}"
    return f"{float(f'{seconds * 1000:.2g}'):g}ms"
