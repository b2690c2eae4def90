"""Sleepers: instances all of whose tasks wait for others of their own making. They do not count among `max_instances`.

The law: of a fleet never more instances work (or may) than it may have. So one that was asleep works again when there is
room for it, in order of asking, and before any new task is put into another: that one drains, and makes room when nothing
works in it any more.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING

from penstock.engine.model import PRESENT

if TYPE_CHECKING:
    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Member, Plant


class Sleepers:
    """Know who sleeps."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._resting = 0.0
        self._looking: set[Fleet] = set()

    def join(self, loops: Loops) -> None:
        """Get to know who ends instances, and who lets tasks go on."""
        self._lives, self._orders, self._pump, self._pools = loops.lives, loops.orders, loops.pump, loops.pools

    @property
    def count(self) -> int:
        """Return how many instances all tasks that rest would fill, of all functions."""
        return round(self._resting)

    def rests(self, member: Member) -> None:
        """Take note that a task of an instance waits for others."""
        self._shift(member, 1)
        if member.asleep:
            self.look_soon(member.fleet)

    def goes_on(self, member: Member) -> None:
        """Take note that a task of an instance waits no more."""
        self._shift(member, -1)
        if not (member.asleep and member.resting) and member in member.fleet.sleepers:
            del member.fleet.sleepers[member]
            self.look_soon(member.fleet)

    def may_wake(self, member: Member) -> bool:
        """Say whether a task of an instance may go on as far as instances are concerned; if not, it is told later."""
        may = not member.asleep or not (member.state in PRESENT or member.yields)
        if may or self._room(member.fleet):
            return True
        member.fleet.sleepers[member] = None
        return False

    def makes_room(self, member: Member, now: float) -> bool:
        """Let an instance drain that has room now if another one is to have its place; say whether.

        That is one that sleeps and wants to go on, or one of a fleet whose turn has come in a full pool; or there are too many.
        """
        fleet = member.fleet
        if not fleet.sleepers and fleet.present <= self._most(fleet) and not self._pools.gives_way(member, now):
            return False
        self._lives.retire(member)
        member.yields = bool(member.busy)
        member.recount()
        return True

    def look_soon(self, fleet: Fleet) -> None:
        """Wake sleepers of a fleet for which there may be room, in this turn of the event loop; else more may be started."""
        self._plant.admission.short[fleet.name] = None
        self._pump.wake()
        self._pools.look(fleet.pool)
        self.wake_soon(fleet)

    def wake_soon(self, fleet: Fleet) -> None:
        """Let sleepers of a fleet go on for which there is room, in this turn of the event loop."""
        if fleet.sleepers and fleet not in self._looking:
            self._looking.add(fleet)
            asyncio.get_running_loop().call_soon(self._look, fleet)

    def _look(self, fleet: Fleet) -> None:
        self._looking.discard(fleet)
        while fleet.sleepers and self._room(fleet):
            member = next(iter(fleet.sleepers))
            del fleet.sleepers[member]
            self._orders.awake(member)
        self._plant.admission.short[fleet.name] = None  # who was woken may be ending, and leave room for another
        self._pump.wake()
        self._pools.look(fleet.pool)

    def _room(self, fleet: Fleet) -> bool:
        """Say whether one more instance may work, in its pool too; one that is idle goes if it has to."""
        if fleet.present >= self._most(fleet) and (idle := fleet.idle()) is not None:
            self._lives.retire(idle)
        if fleet.present < self._most(fleet):
            return self._pools.may_wake(fleet)
        self._pools.holds_up_no_longer(fleet)
        return False

    def _most(self, fleet: Fleet) -> float:
        function = self._plant.functions.get(fleet.function)
        return inf if function is None else function.spec.max_instances

    def _shift(self, member: Member, change: int) -> None:
        """Count resting tasks."""
        member.resting += change
        member.recount()
        self._resting += change / member.blueprint.slots
