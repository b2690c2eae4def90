"""Gates whose pipeline or limit was removed: one that is made anew with the name goes on where the old one was.

So removing and making again is no way around a limit. A gate is forgotten when what it has used no longer counts.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from penstock.domain.limits import Gate

AGAIN: Final = 60.0
"""Seconds until a gate is looked at again through which tasks still run."""


class Gone:
    """Keep gates by name, each for its longest period from when it went, and while tasks run that have passed it."""

    def __init__(self) -> None:
        self._gates: dict[str, tuple[float, Gate]] = {}
        self._ends: list[tuple[float, str]] = []

    def keep(self, name: str, gate: Gate, now: float) -> None:
        """Remember a gate that has been used, and forget those whose time is over."""
        while self._ends and self._ends[0][0] <= now:
            end, over = heappop(self._ends)
            if over in self._gates and self._gates[over][0] == end:
                _, old = self._gates.pop(over)
                if old.in_use:
                    self._remember(over, old, now + AGAIN)
        if gate.rates or gate.in_use:
            self._remember(name, gate, now + max((rate.period for rate in gate.rates), default=AGAIN))

    def _remember(self, name: str, gate: Gate, end: float) -> None:
        self._gates[name] = end, gate
        heappush(self._ends, (end, name))

    def take(self, name: str) -> Gate | None:
        """Return the gate of a name, which is in use again from now on; None if there is none."""
        found = self._gates.pop(name, None)
        return None if found is None else found[1]
