"""How many instances: as many as are wanted now, down to none.

What is wanted follows from `admission.demand`; nothing is ramped. Only where a function's tasks are so short that starting
an instance for each takes longer than they do, fewer are started.
"""

from __future__ import annotations

import asyncio
from math import ceil, inf, sqrt
from typing import TYPE_CHECKING, Final

from penstock.engine.model import READY, STARTING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Member, Plant

LAUNCH: Final = 0.002
"""About what the start of an instance costs, in seconds of this machine."""

PATIENCE: Final = 0.05
"""Seconds without an end of a task after which a fleet is taken to stand still, and a task to take long."""

MOST_APART: Final = 8
"""How many instances of a fleet may be there for one suspected task each."""

MOST_PAUSE: Final = 30.0
"""The longest wait, in seconds, before an instance is tried again whose predecessors ended before they were ready."""


class Scaler:
    """Say how many instances there are."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def join(self, loops: Loops) -> None:
        """Get to know the loops that begin instances and fill them."""
        self._lives, self._pump = loops.lives, loops.pump

    def run_once(self, now: float) -> None:
        """Start what is wanted by tasks that only lack a slot."""
        short = self._plant.admission.short
        if not short:
            return
        names = list(short)
        short.clear()
        for name in names:
            fleet = self._plant.fleets.get(name)
            if fleet is not None and fleet.blueprint is not None:
                self._grow(fleet, now)

    def _grow(self, fleet: Fleet, now: float) -> None:
        assert fleet.blueprint is not None
        if fleet.blocked_until > now:
            self._look_again(fleet, fleet.blocked_until - now)
            return
        slots = fleet.blueprint.slots
        counted = fleet.counted()
        room = self._plant.functions[fleet.function].spec.max_instances - counted
        if room <= 0:
            return
        coming = slots * sum(member.state == STARTING and member.suspect is None for member in fleet.members.values())
        wanted = self._plant.admission.demand(fleet.name, now, room * slots + coming)
        launches = min(room, ceil((wanted - coming) / slots))
        useful = self._useful(fleet, wanted, now)
        for _ in range(int(min(launches, useful))):
            self._lives.launch(fleet, now)
        if useful < launches:
            self._look_again(fleet, PATIENCE)

    def _useful(self, fleet: Fleet, wanted: int, now: float) -> float:
        """Return how many more instances would save those that wait more time than their own start takes.

        With k instances the work that waits takes work / k, and their start k * LAUNCH: the sum is least at the square
        root of work / LAUNCH. Instances whose tasks have taken long already do not count among the k.
        """
        if fleet.mean is None or (fleet.running and now - fleet.progress > PATIENCE):
            return inf
        slots = 1 if fleet.blueprint is None else fleet.blueprint.slots
        best = max(1, ceil(sqrt(wanted * fleet.mean / (slots * LAUNCH))))
        return max(0, best - sum(self._moves(member, now) for member in fleet.members.values()))

    @staticmethod
    def _moves(member: Member, now: float) -> bool:
        if member.state == STARTING:
            return True
        oldest = next(iter(member.busy.values()), None)
        return member.state == READY and (oldest is None or now - oldest.sent < PATIENCE)

    def _look_again(self, fleet: Fleet, delay: float) -> None:
        if fleet.looking:
            return
        fleet.looking = True

        def look() -> None:
            fleet.looking = False
            self._plant.admission.short[fleet.name] = None
            self._pump.wake()

        asyncio.get_running_loop().call_later(delay, look)

    def may_launch_apart(self, fleet: Fleet, now: float) -> bool:
        """Say whether an instance for one suspected task alone may be started: few at a time, beside the others."""
        most = self._plant.functions[fleet.function].spec.max_instances
        apart = sum(member.suspect is not None for member in fleet.members.values())
        return now >= fleet.blocked_until and apart < min(MOST_APART, most)

    def keep_warm(self, fleet: Fleet) -> None:
        """Start what `min_instances` asks for."""
        if fleet.blueprint is None:
            return
        now = self._plant.clock()
        for _ in range(self._plant.functions[fleet.function].spec.min_instances - fleet.counted()):
            self._lives.launch(fleet, now)

    def left(self, fleet: Fleet, now: float, *, came: bool) -> None:
        """Make up for an instance that is gone. One that never `came` to be ready is tried again later and later."""
        if not came:
            fleet.failures += 1
            fleet.blocked_until = now + min(MOST_PAUSE, 0.1 * 2.0 ** min(fleet.failures, 10))
        if fleet.blocked_until > now:
            self._look_again(fleet, fleet.blocked_until - now)
        elif self._plant.accepting and self._plant.fleets.get(fleet.name) is fleet:
            self.keep_warm(fleet)

    def switch(self, fleet: Fleet) -> Iterator[None]:
        """Let the instances of an earlier blueprint go, yielding often; those of the present one come as they are wanted."""
        fleet.failures, fleet.blocked_until, fleet.mean = 0, 0.0, None
        self._plant.admission.short[fleet.name] = None
        for member in list(fleet.members.values()):
            if member.blueprint != fleet.blueprint and member.state in {STARTING, READY} and member.suspect is None:
                self._lives.retire(member)
                yield
        self.keep_warm(fleet)
