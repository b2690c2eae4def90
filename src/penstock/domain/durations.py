"""How long the last tasks took: a histogram whose buckets grow by a tenth, in which older tasks count for less.

The law. A task counts half as much as one that ended `HALF` tasks later, so what is told is of about the last hundred; what a
function was like before is forgotten. There are at most some three hundred buckets, whatever is measured, and what they
tell is right to within a tenth. Adding one costs the same always. The decay is the forward one of Cormode et al., "Forward
decay: a practical time decay model for streaming systems" (ICDE 2009), by tasks instead of by time.
"""

from __future__ import annotations

from math import floor, log2
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

HALF: Final = 50
"""After so many further tasks, one counts half."""

_GROWTH: Final = 2 ** (1 / HALF)
_OCTAVE: Final = 8
"""Buckets from a duration to its double."""

_LEAST: Final = 0.001
_MOST: Final = 60 * 86_400.0
_HEAVIEST: Final = 2.0**40
_FORGOTTEN: Final = 2.0**-20
"""A bucket that weighs less than this, beside the newest task, is forgotten."""


class Durations:
    """Remember about how long tasks took, in few numbers. Durations are in seconds."""

    __slots__ = ("_newest", "_total", "_weights", "count")

    def __init__(self, weights: Mapping[int, float] | None = None, count: int = 0) -> None:
        self._weights = dict(weights or {})
        self._total = sum(self._weights.values())
        self._newest = 1.0  # what the task weighs that ended last
        self.count = count  # tasks that were ever added

    def add(self, seconds: float) -> None:
        """Remember one more."""
        bucket = _bucket(seconds)
        self._newest *= _GROWTH
        self._weights[bucket] = self._weights.get(bucket, 0.0) + self._newest
        self._total += self._newest
        self.count += 1
        if self._newest > _HEAVIEST:
            self._lighten()

    def _lighten(self) -> None:
        self._weights, self._newest = self.weights(), 1.0
        self._total = sum(self._weights.values())

    def weights(self) -> dict[int, float]:
        """Return what each bucket weighs, the newest task being 1: enough to go on from it."""
        lightened = ((bucket, weight / self._newest) for bucket, weight in self._weights.items())
        return {bucket: weight for bucket, weight in lightened if weight >= _FORGOTTEN}

    def longer(self, than: float) -> float:
        """Return the share of tasks, from 0 to 1, that took longer; 0 if there was none yet."""
        bound = _bucket(than)
        return sum(weight for bucket, weight in self._weights.items() if bucket > bound) / (self._total or 1.0)

    def quantile(self, share: float) -> float:
        """Return about how long that share of tasks took at most; 0 if there was none yet."""
        left = share * self._total
        bucket = 0
        for bucket in sorted(self._weights):
            left -= self._weights[bucket]
            if left <= 0:
                break
        return 2 ** ((bucket + 0.5) / _OCTAVE) * _LEAST if self._weights else 0.0


def _bucket(seconds: float) -> int:
    return floor(log2(min(max(seconds, _LEAST), _MOST) / _LEAST) * _OCTAVE)
