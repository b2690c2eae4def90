"""The heap of moments at which something that waits should be looked at again."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from penstock.domain.limits import Gate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.domain.elder import Elder
    from penstock.domain.pipeline import Pipeline

ALARM: Final = -1
ELDER: Final = -2
"""Tickets of entries in the heap that stand for the expiry of a blocked head, and for the end of the elder's time."""


class Moments:
    """Hold moments of pipelines and gates. An entry is void when its pipeline has gone elsewhere, or its moment has moved."""

    __slots__ = ("_count", "_elder", "_heap")

    def __init__(self, elder: Elder) -> None:
        self._elder = elder
        self._heap: list[tuple[float, int, Pipeline | Gate, int]] = []
        self._count = 0

    def push(self, at: float, thing: Pipeline | Gate, ticket: int = 0) -> None:
        """Look at a gate, or at a pipeline that still has the ticket then, at a moment."""
        self._count += 1
        heappush(self._heap, (at, self._count, thing, ticket))

    def pass_by(self, now: float) -> Iterator[tuple[Pipeline | Gate, int]]:
        """Take out what should be looked at now."""
        while self._heap and self._heap[0][0] <= now:
            at, _, thing, ticket = heappop(self._heap)
            if not self._is_void(at, thing, ticket):
                yield thing, ticket

    def next(self) -> float | None:
        """Return the next moment, or None."""
        while self._heap:
            at, _, thing, ticket = self._heap[0]
            if not self._is_void(at, thing, ticket):
                return at
            heappop(self._heap)
        return None

    def _is_void(self, at: float, thing: Pipeline | Gate, ticket: int) -> bool:
        if isinstance(thing, Gate):
            return thing.wakes_at != at
        if ticket == ELDER:
            return self._elder.pipeline is not thing or self._elder.until != at
        return thing.alarm != at if ticket == ALARM else thing.ticket != ticket
