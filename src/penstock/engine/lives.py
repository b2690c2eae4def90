"""Lives of instances: from the launch to the end.

What an instance has room for is given to admission when it is ready, and taken back when it takes nothing more: when it
drains or is tainted. One that idles for long goes, and none lives longer than it may.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from penstock.engine.model import DRAINING, PRESENT, READY, STARTING, TAINTED, Member

if TYPE_CHECKING:
    from penstock.compute.protocol import Instance
    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Plant


class Lives:
    """Begin, follow and end instances."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def join(self, loops: Loops) -> None:
        """Get to know who starts tasks, and who starts instances."""
        self._pump, self._scaler = loops.pump, loops.scaler

    def launch(self, fleet: Fleet, now: float, *, apart: bool = False) -> Member:
        """Start one instance, for one suspected task alone if it is to be apart."""
        assert fleet.blueprint is not None
        instance = self._plant.compute.launch(fleet.blueprint)
        member = Member(fleet, instance, now, apart=apart)
        fleet.members[instance.id] = self._plant.members[instance.id] = member
        return member

    def ready(self, member: Member, now: float) -> None:
        """Let admission fill the slots of an instance that is ready; a suspect's has none to give."""
        fleet = member.fleet
        member.reads = True
        fleet.failures = 0
        if member.state != STARTING:
            return
        member.become(READY)
        member.idle_since = now
        if member.apart:
            return
        if member.blueprint != fleet.blueprint:
            self.retire(member)
            return
        self.give(member, member.blueprint.slots)
        self._limit_life(member, now)
        self._watch_idle(fleet)

    def give(self, member: Member, count: int) -> None:
        """Let admission use slots of a member again."""
        member.fleet.give(member, count)
        self._plant.admission.provide(member.fleet.name, count)

    def freed(self, member: Member, count: int, now: float) -> None:
        """Take note that tasks of a member have ended."""
        if not member.busy:
            member.idle_since = now
        if member.state != READY:
            return
        if member.apart or not member.blueprint.reuse:
            self.retire(member)
            return
        self.give(member, count)
        if not member.busy:
            self._watch_idle(member.fleet)

    def retire(self, member: Member) -> None:
        """Let an instance finish what it has and go; it never keeps a new one from starting."""
        if member.state != TAINTED:  # that one is to be killed, and must not be spared now
            self._close(member, DRAINING)
        member.instance.stop()

    def taint(self, member: Member) -> None:
        """Put nothing new into an instance in which something overstays."""
        self._close(member, TAINTED)

    def kill(self, member: Member) -> None:
        """End an instance now."""
        self._close(member, TAINTED)
        member.instance.kill()

    def gone(self, instance: Instance, now: float) -> Member | None:
        """Forget an instance that has ended."""
        member = self._plant.members.pop(instance.id, None)
        if member is None:
            return None
        came = member.state != STARTING
        self._close(member, TAINTED)
        del member.fleet.members[instance.id]
        self._scaler.left(member.fleet, now, came=came)
        return member

    def _close(self, member: Member, state: str) -> None:
        fleet = member.fleet
        free = fleet.close(member)
        if free:
            self._plant.admission.provide(fleet.name, -free)
        if member.state in PRESENT:  # there is room for another instance now
            self._plant.admission.short[fleet.name] = None
            self._pump.wake()
        member.become(state)

    def _limit_life(self, member: Member, now: float) -> None:
        spec = self._plant.functions[member.fleet.function].spec
        if spec.max_runtime is not None:
            left = member.born + spec.max_runtime - spec.timeout - now
            asyncio.get_running_loop().call_later(max(0.0, left), self._end_of_life, member)

    def _end_of_life(self, member: Member) -> None:
        if member.state == READY:
            self.retire(member)
            self._pump.wake()

    def _watch_idle(self, fleet: Fleet) -> None:
        if fleet.idle_timer is None and fleet.function in self._plant.functions:
            delay = self._plant.functions[fleet.function].spec.idle_timeout
            fleet.idle_timer = asyncio.get_running_loop().call_later(delay, self._end_idle, fleet)

    def _end_idle(self, fleet: Fleet) -> None:
        """End instances that were idle for too long, and set the timer for the next one."""
        fleet.idle_timer = None
        function = self._plant.functions.get(fleet.function)
        if function is None:
            return
        now = self._plant.clock()
        limit = function.spec.idle_timeout
        spare = fleet.present - function.spec.min_instances
        rest = None
        for member in list(fleet.members.values()):
            if spare <= 0:
                break
            if member.state == READY and not member.busy:
                left = member.idle_since + limit - now
                if left <= 0:
                    self.retire(member)
                    spare -= 1
                else:
                    rest = left if rest is None else min(rest, left)
        if rest is not None:
            fleet.idle_timer = asyncio.get_running_loop().call_later(rest, self._end_idle, fleet)
