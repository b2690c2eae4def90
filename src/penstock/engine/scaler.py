"""How many instances: as many as are wanted now, down to none.

What is wanted follows from `admission.demand`; nothing is ramped. Only where a function's tasks are so short that starting
an instance for each takes longer than they do, fewer are started.
"""

from __future__ import annotations

import asyncio
from math import ceil, inf, sqrt
from typing import TYPE_CHECKING, Final

from penstock.engine.model import DRAINING, READY, STARTING, TAINTED, Member

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.compute.protocol import Instance
    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Plant, Running

LAUNCH: Final = 0.002
"""About what the start of an instance costs, in seconds of this machine."""

PATIENCE: Final = 0.05
"""Seconds without an end of a task after which a fleet is taken to stand still, and a task to take long."""

MOST_APART: Final = 8
"""How many instances of a fleet may be there for one suspected task each."""

MOST_PAUSE: Final = 30.0
"""The longest wait, in seconds, before an instance is tried again whose predecessors ended before they were ready."""


class Scaler:
    """Start and end instances."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def join(self, loops: Loops) -> None:
        """Get to know the loop that fills instances."""
        self._pump = loops.pump

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
        counted = self._counted(fleet)
        room = self._plant.functions[fleet.function].spec.max_instances - counted
        if room <= 0:
            return
        coming = slots * sum(member.state == STARTING and member.suspect is None for member in fleet.members.values())
        wanted = self._plant.admission.demand(fleet.name, now, room * slots + coming)
        launches = min(room, ceil((wanted - coming) / slots))
        useful = self._useful(fleet, wanted, now)
        for _ in range(int(min(launches, useful))):
            self.launch(fleet, now)
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

    def _counted(self, fleet: Fleet) -> int:
        return sum(member.state in {STARTING, READY} for member in fleet.members.values())

    def _look_again(self, fleet: Fleet, delay: float) -> None:
        if fleet.looking:
            return
        fleet.looking = True

        def look() -> None:
            fleet.looking = False
            self._plant.admission.short[fleet.name] = None
            self._pump.wake()

        asyncio.get_running_loop().call_later(delay, look)

    def launch(self, fleet: Fleet, now: float, suspect: Running | None = None) -> Member:
        """Start one instance, for one suspected task alone if given."""
        assert fleet.blueprint is not None
        instance = self._plant.compute.launch(fleet.blueprint)
        member = Member(fleet, instance, now, suspect)
        fleet.members[instance.id] = self._plant.members[instance.id] = member
        return member

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
        for _ in range(self._plant.functions[fleet.function].spec.min_instances - self._counted(fleet)):
            self.launch(fleet, now)

    def ready(self, member: Member, now: float) -> None:
        """Let admission fill the slots of an instance that is ready; a suspect's has none to give."""
        fleet = member.fleet
        member.reads = True
        fleet.failures = 0
        if member.state != STARTING:
            return
        member.state = READY
        member.idle_since = now
        if member.suspect is not None:
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
        if member.suspect is not None or not member.blueprint.reuse:
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
        fleet = member.fleet
        if member.state == STARTING:
            fleet.failures += 1
            fleet.blocked_until = now + min(MOST_PAUSE, 0.1 * 2.0 ** min(fleet.failures, 10))
        self._close(member, TAINTED)
        del fleet.members[instance.id]
        if fleet.blocked_until > now:
            self._look_again(fleet, fleet.blocked_until - now)
        elif self._plant.accepting and self._plant.fleets.get(fleet.name) is fleet:
            self.keep_warm(fleet)
        return member

    def switch(self, fleet: Fleet) -> Iterator[None]:
        """Let the instances of an earlier blueprint go, yielding often; those of the present one come as they are wanted."""
        fleet.failures, fleet.blocked_until, fleet.mean = 0, 0.0, None
        self._plant.admission.short[fleet.name] = None
        for member in list(fleet.members.values()):
            if member.blueprint != fleet.blueprint and member.state in {STARTING, READY} and member.suspect is None:
                self.retire(member)
                yield
        self.keep_warm(fleet)

    def _close(self, member: Member, state: str) -> None:
        fleet = member.fleet
        free = fleet.close(member)
        if free:
            self._plant.admission.provide(fleet.name, -free)
        if member.state in {STARTING, READY}:  # there is room for another instance now
            self._plant.admission.short[fleet.name] = None
            self._pump.wake()
        member.state = state

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
        spare = self._counted(fleet) - function.spec.min_instances
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
