"""How much memory an instance is to have, learned from what instances of its function have used.

Sizes double from `SMALLEST`. An instance that ran out of memory raises the size at once, to the next one. What instances have
used lowers it: once so many runs have passed that the size is sure (`patience`), it becomes the smallest one that leaves a
quarter more than the highest peak among them. Every raise doubles that patience, so the size changes about as often as the
logarithm of the runs, however needs alternate, and nothing oscillates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SMALLEST: Final = 64 * 10**6
"""Bytes of the smallest size."""

FIRST: Final = 256 * 10**6
"""Bytes of the size with which a function begins of which nothing is known."""

PATIENCE: Final = 10
"""Runs before a size is lowered that was never raised."""


@dataclass(slots=True)
class Need:
    """Learn the size of one function's instances, in bytes.

    `runs` have been looked at in all, `seen` of them since the last decision, with `peak` as the most that an instance used.
    """

    size: int = FIRST
    runs: int = 0
    patience: int = PATIENCE
    seen: int = 0
    peak: int = 0

    def used(self, peak: int, runs: int) -> bool:
        """Take note of the most that an instance used in some runs; return whether the size is another one now."""
        self.runs += runs
        self.seen += runs
        self.peak = max(self.peak, peak)
        if self.seen < self.patience:
            return False
        fitting = min(self.size, size_for(self.peak + self.peak // 4))
        lowered = fitting < self.size
        self._decide(fitting)
        return lowered

    def overran(self, size: int) -> bool:
        """Take note that an instance of a size ran out of memory; return whether the size is another one now."""
        if size < self.size:  # it was raised since that one began
            return False
        self.patience *= 2
        self._decide(size_for(size + 1))
        return True

    def _decide(self, size: int) -> None:
        self.size = size
        self.seen = self.peak = 0


def size_for(used: int) -> int:
    """Return the smallest size that has room for so many bytes."""
    size = SMALLEST
    while size < used:
        size *= 2
    return size
