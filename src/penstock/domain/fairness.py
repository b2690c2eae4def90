"""Fair turns: round robin inside a tier, fixed shares between the tiers."""

from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

TIERS: Final = ("realtime", "background", "batch")
SHARES: Final = (90, 8, 2)
"""Parts of what is scarce: realtime up to 90 %, background and batch 4:1 of the rest. Unused shares pass on."""


ALONE: Final = 64
"""How many tasks a pipeline starts in one turn when nobody else wants one."""


class Waiter(Protocol):
    """Stand in a wait queue: `ticket` is a number that changes whenever the waiter goes elsewhere."""

    tier: int
    ticket: int


W = TypeVar("W", bound=Waiter)


class WaitQueue(Generic[W]):
    """Hold waiters so that turns go round within a tier, and tiers get their shares (stride scheduling, Waldspurger 1995).

    An entry counts only while its waiter still holds the ticket, so that leaving from the middle costs nothing.
    """

    __slots__ = ("_passes", "_reached", "_rings", "count")

    def __init__(self) -> None:
        self._rings: tuple[deque[tuple[int, W]], ...] = (deque(), deque(), deque())
        self._passes = [0.0, 0.0, 0.0]
        self._reached = 0.0  # the pass of the tier that was called last
        self.count = 0

    def push(self, waiter: W) -> None:
        """Let a waiter stand at the end of its tier's ring."""
        self._enter(waiter.tier)
        self._rings[waiter.tier].append((waiter.ticket, waiter))

    def push_front(self, waiter: W) -> None:
        """Give a waiter its turn back: it was called, and could not go."""
        self._enter(waiter.tier)
        self._rings[waiter.tier].appendleft((waiter.ticket, waiter))

    def pop(self) -> W | None:
        """Call the waiter whose turn it is; None if there is none."""
        while self.count:
            tier = self._next_tier()
            ticket, waiter = self._rings[tier].popleft()
            if waiter.ticket == ticket:
                self._reached = self._passes[tier]
                self.count -= 1
                return waiter
        for ring in self._rings:
            ring.clear()
        return None

    def charge(self, tier: int) -> None:
        """Count a start for its tier, so that large turns of heavy waiters are paid from their tier's share."""
        self._passes[tier] += 1 / SHARES[tier]

    def _next_tier(self) -> int:
        """Return the tier whose turn it is, among those with entries."""
        passes, found = self._passes, -1
        for tier, ring in enumerate(self._rings):
            if ring and (found < 0 or passes[tier] < passes[found]):
                found = tier
        return found

    def leave(self, waiter: W) -> None:
        """Forget a waiter that is somewhere in here."""
        waiter.ticket += 1
        self.count -= 1

    def __iter__(self) -> Iterator[W]:
        for ring in self._rings:
            for ticket, waiter in ring:
                if waiter.ticket == ticket:
                    yield waiter

    def _enter(self, tier: int) -> None:
        if not self._rings[tier]:  # a tier that was away has saved nothing up
            self._passes[tier] = max(self._passes[tier], self._reached)
        self.count += 1
