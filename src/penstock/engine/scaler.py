"""How many instances: as many as are wanted now, down to none.

What is wanted follows from `admission.demand`, how many are started for it from `domain.scaling`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from penstock.domain.scaling import PATIENCE, Cap, growth, lacking, worthwhile
from penstock.engine.model import STARTING, TAKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Member, Plant

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
        self._headroom, self._pools = loops.headroom, loops.pools

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
        if self._pools.passes(fleet, now):
            self._look_at_cap(fleet, now)
            return
        caps = self._caps(fleet, now)
        room = int(min(cap.room for cap in caps))
        if room <= 0:
            fleet.cap = growth(1, caps).cap
        else:
            slots = fleet.blueprint.slots
            wanted = self._plant.admission.demand(fleet.name, now, slots * (room + 1 + fleet.starting))
            caps.append(self._worthwhile(fleet, wanted, now))
            lack = lacking(wanted, slots, fleet.starting)
            launches, fleet.cap = growth(lack, caps)
            if launches:
                launches, fleet.cap = growth(lack, [*caps, *self._headroom.caps(fleet, now)])
            for _ in range(launches):
                self._lives.launch(fleet, now, grows=True)
        self._pools.asked(fleet)
        self._look_at_cap(fleet, now)

    def _caps(self, fleet: Fleet, now: float) -> list[Cap]:
        """Return what may keep instances of a fleet from starting."""
        most = self._plant.functions[fleet.function].spec.max_instances
        caps = [
            Cap(
                "instances",
                _busy(fleet.function, most),
                most - fleet.present - len(fleet.sleepers),  # these go on first
            )
        ]
        if fleet.blocked_until > now:
            failed = (
                f"instances of '{fleet.function}' ended before they were ready; the next one is started in a moment"
            )
            caps.insert(0, Cap("instances", failed, -1, fleet.blocked_until))
        pool = self._pools.cap(fleet, now)
        if pool is not None:
            caps.append(pool)
        return caps

    def _worthwhile(self, fleet: Fleet, wanted: int, now: float) -> Cap:
        """Say how many more instances are worth their start. A fleet that stands still needs all it can get."""
        assert fleet.blueprint is not None
        mean = None if fleet.running and now - fleet.progress > PATIENCE else fleet.mean
        moving = 0 if mean is None else sum(self._moves(member, now) for member in fleet.members.values())
        room = worthwhile(wanted, fleet.blueprint.slots, mean, moving)
        return Cap(
            "instances", f"the instances of '{fleet.function}' that there are will be free soon", room, now + PATIENCE
        )

    @staticmethod
    def _moves(member: Member, now: float) -> bool:
        if member.state == STARTING:
            return True
        oldest = next(iter(member.busy.values()), None)
        return member.state in TAKING and not member.asleep and (oldest is None or now - oldest.sent < PATIENCE)

    def _look_at_cap(self, fleet: Fleet, now: float) -> None:
        """See to it that a fleet is looked at again when there may be more room for it."""
        if fleet.cap is not None and fleet.cap.until is not None:
            self._look_again(fleet, fleet.cap.until - now)

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
        apart = sum(member.apart and not member.asleep for member in fleet.members.values())
        return now >= fleet.blocked_until and apart < min(MOST_APART, most) and fleet.pool.takes_apart(fleet.typical)

    def keep_warm(self, fleet: Fleet) -> None:
        """Start what is to be there without being asked for."""
        if self._plant.fleets.get(fleet.name) is not fleet or fleet.function not in self._plant.functions:
            return
        if fleet.blueprint is None:
            return
        now = self._plant.clock()
        lacks = fleet.least(self._plant.functions[fleet.function].spec, now) - fleet.present
        for _ in range(self._pools.warm_room(fleet, lacks)):
            self._lives.launch(fleet, now)

    def left(self, fleet: Fleet, now: float, *, came: bool) -> None:
        """Make up for an instance that is gone. One that never `came` to be ready is tried again later and later."""
        if not came:
            fleet.failures += 1
            fleet.blocked_until = now + min(MOST_PAUSE, 0.1 * 2.0 ** min(fleet.failures, 10))
        if fleet.blocked_until > now:
            self._look_again(fleet, fleet.blocked_until - now)
        elif self._plant.accepting:
            self.keep_warm(fleet)

    def switch(self, fleet: Fleet) -> Iterator[None]:
        """Let the instances of an earlier blueprint go, yielding often; those of the present one come as they are wanted."""
        fleet.failures, fleet.blocked_until, fleet.mean = 0, 0.0, None
        self._plant.admission.short[fleet.name] = None
        for member in list(fleet.members.values()):
            old = member.blueprint != fleet.blueprint or member.pool is not fleet.pool
            if old and member.state in {STARTING, *TAKING} and not member.apart:
                self._lives.retire(member)
                yield
        self.keep_warm(fleet)


def _busy(function: str, most: int) -> str:
    if most == 1:
        return f"the one instance of '{function}' is busy or starting"
    return f"all {most} instances of '{function}' are busy or starting"
