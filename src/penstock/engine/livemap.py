"""A map while its ends are heard: which items have ended, how fast they do, and who is told of it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from penstock.domain.tally import Tally
from penstock.engine.bell import Bell

if TYPE_CHECKING:
    from penstock.store.protocol import StoredMap

RECENT: Final = 10.0
"""Seconds over which the rate of ends is taken."""


class LiveMap:
    """Hold a map whose ends are heard. `bell` is rung when items have ended; `readers` counts those who read results.

    `took` are the durations (seconds) of the last items that ended well, `offered` is done when all items wait for their turn.
    """

    __slots__ = ("_pace", "bell", "offered", "readers", "stored", "tally", "took")

    def __init__(self, stored: StoredMap) -> None:
        self.stored = stored
        self.tally = Tally(stored.id + 1, stored.items, stored.twins)
        self.bell = Bell()
        self.readers = 0
        self.took: deque[float] = deque(maxlen=1001)
        self.offered = asyncio.Event()
        self._pace: deque[tuple[float, int]] = deque()

    @property
    def last(self) -> int:
        """Return the id of the last item's task."""
        return self.stored.id + self.stored.items

    def note_pace(self, now: float) -> None:
        """Take note that items have ended now."""
        pace = self._pace
        if not pace or now - pace[-1][0] >= RECENT / 100:
            pace.append((now, self.tally.ended))
        while pace[0][0] < now - RECENT and len(pace) > 2:
            pace.popleft()

    def rate(self, now: float) -> float | None:
        """Return how many items end in a second, of late; None if that is not known."""
        if not self._pace or now - self._pace[0][0] < RECENT / 100:
            return None
        since, ended = self._pace[0]
        return (self.tally.ended - ended) / (now - since)
