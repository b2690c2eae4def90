"""Pools: shares of the machine, and who gets the next place in a full one.

The laws. An instance starts only while fewer than `max_instances` of its pool are starting or ready, but for one at a time
that is for a single suspected task. Those that only finish what they have do not count: an instance in its last phase never
keeps a new one from starting. Of several fleets that want
instances the one that has fewest gets the next, of equals the one that has waited longest; so a fleet without any is always
next. In a full pool, a fleet gives a place back at the end of a task while another that waits has two fewer, or none.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.specs import PoolSpec
from penstock.domain.units import format_size

if TYPE_CHECKING:
    from collections.abc import Iterable

UNKNOWN: Final = 8
"""How many instances start at once in a pool with `memory` while nobody knows what one of them uses."""


class Pool:
    """Count the instances of a pool by fleet, and keep those fleets in line that want more than there is room for."""

    def __init__(self, name: str) -> None:
        self.spec = PoolSpec(name)
        self.present = 0
        self.used = 0  # bytes that its instances were measured to use, those in their last phase included
        self.unweighed = 0  # instances that were started since
        self.weighed_at = -inf  # when they were weighed last
        self.held: dict[str, int] = {}  # present instances by fleet
        self._giving: dict[str, int] = {}  # those of them that take nothing more
        self._lines: dict[int, dict[str, None]] = {}  # fleets that wait, by how many instances they have
        self._place: dict[str, int] = {}  # in which of these lines each one is
        self.wakers: dict[str, None] = {}  # fleets with instances that slept, and want to work again
        self.apart = 0  # those that are present for a single suspected task

    @property
    def name(self) -> str:
        """Return its name."""
        return self.spec.name

    @property
    def limited(self) -> bool:
        """Say whether it limits anything."""
        return self.spec.max_instances is not None or self.spec.memory is not None

    @property
    def waiting(self) -> int:
        """Return how many fleets wait for a place."""
        return len(self._place)

    @property
    def has_room(self) -> bool:
        """Say whether one more instance may work here that is there already."""
        return self.spec.max_instances is None or self.present < self.spec.max_instances

    @property
    def gives_way_to_wakers(self) -> bool:
        """Say whether an instance gives its place up at the end of a task to one that slept: one at a time."""
        return bool(self.wakers) and not self._giving

    @property
    def crowded(self) -> bool:
        """Say whether anybody waits for a place, or more have one than should."""
        most = self.spec.max_instances
        return bool(self._place or self.wakers) or (most is not None and self.present > most)

    # instances ----------------------------------------------------------------------------------------------------
    def count(self, fleet: str, change: int, *, apart: bool = False) -> None:
        """Count an instance of a fleet that comes (1) or is not present any more (-1)."""
        self.present += change
        self.apart += change * apart
        self.unweighed += change > 0
        left = self.held.get(fleet, 0) + change
        if left:
            self.held[fleet] = left
        else:
            del self.held[fleet]
        if fleet in self._place:
            self._lines[self._place[fleet]].pop(fleet)
            self._stand(fleet)

    def give_up(self, fleet: str, change: int) -> None:
        """Count a present instance that gives its place up (1), or has done so (-1)."""
        left = self._giving.get(fleet, 0) + change
        if left:
            self._giving[fleet] = left
        else:
            del self._giving[fleet]

    def weighed(self, used: int, began: int, at: float) -> None:
        """Take note of what all its instances use together, in bytes; `began` of them were not weighed before."""
        self.used, self.weighed_at = used, at
        self.unweighed = max(0, self.unweighed - began)

    def free(self, typical: int | None) -> float:
        """Return how many more instances may start that use about `typical` bytes each (None: nobody knows)."""
        places = inf if self.spec.max_instances is None else self.spec.max_instances - self.present
        if self.spec.memory is not None:
            places = min(places, self._fitting(self.spec.memory, typical))
        return max(0, places)

    def _fitting(self, memory: int, typical: int | None) -> float:
        """Return how many fit into what is not used. An empty pool always has room for one, whatever that needs."""
        if not self.present:
            return 1 if typical is None or typical > memory else memory // typical
        if typical is None:
            return UNKNOWN - self.unweighed if self.used < memory else 0
        return (memory - self.used) // typical - self.unweighed

    def takes_apart(self, typical: int | None) -> bool:
        """Say whether an instance may start for one suspected task; it cannot wait for its turn, so it may be one more."""
        return not self.apart or self.free(typical) >= 1

    def most(self, fleet: str, otherwise: int) -> int:
        """Return how many instances a fleet may have in all as things are, `otherwise` as far as the pool is concerned."""
        if self.spec.max_instances is None:
            return otherwise
        return min(otherwise, max(1, self.spec.max_instances - self.present + self.held.get(fleet, 0)))

    def text(self, typical: int | None) -> str:
        """Say why nothing more starts that uses about `typical` bytes, for people."""
        most, memory = self.spec.max_instances, self.spec.memory
        if most is not None and self.present >= most:
            busy = "its one instance is" if most == 1 else f"all its {most} instances are"
            return f"the pool '{self.name}' is full: {busy} busy or starting"
        if memory is not None and self._fitting(memory, typical) <= 0:
            return (
                f"the pool '{self.name}' is full: its instances use {self.used / 1e6:,.0f} MB of {format_size(memory)}"
            )
        return f"others wait for the pool '{self.name}' as well, and it is their turn"

    # turns ----------------------------------------------------------------------------------------------------------
    def ask(self, fleet: str) -> None:
        """Let a fleet stand in line, unless it does."""
        if fleet not in self._place:
            self._stand(fleet)

    def satisfied(self, fleet: str) -> None:
        """Let a fleet leave the line: it wants no more, or something else holds it back."""
        place = self._place.pop(fleet, None)
        if place is not None:
            self._lines[place].pop(fleet)

    def _stand(self, fleet: str) -> None:
        place = self._place[fleet] = self.held.get(fleet, 0)
        self._lines.setdefault(place, {})[fleet] = None

    def first(self) -> str | None:
        """Return the fleet whose turn it is; None if nobody waits."""
        self._lines = {place: line for place, line in self._lines.items() if line}
        return next(iter(self._lines[min(self._lines)])) if self._lines else None

    def share(self, fleet: str, typical: int | None) -> float:
        """Return how many instances a fleet that stands in line may start now."""
        free = self.free(typical)
        if free <= 0 or self.first() != fleet:
            return 0
        return free if len(self._place) == 1 else max(1, free // len(self._place))

    def gives_way(self, fleet: str) -> bool:
        """Say whether a fleet gives a place back in a full pool."""
        if self.spec.max_instances is not None and self.present - self._given_up() > self.spec.max_instances:
            return True  # the pool has become smaller
        first = self.first()
        if first is None or first == fleet:
            return False
        mine, fewest = self.held.get(fleet, 0) - self._giving.get(fleet, 0), self._place[first]
        if self._given_up() >= len(self._lines[fewest]):  # one place for each of those who have fewest
            return False
        return mine >= fewest + 2 or (mine > 0 and not fewest)

    def richer(self, fleet: str) -> Iterable[str]:
        """Return the other fleets that have instances, most first."""
        return sorted((other for other in self.held if other != fleet), key=lambda other: -self.held[other])

    def _given_up(self) -> int:
        return sum(self._giving.values())
