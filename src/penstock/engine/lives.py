"""Lives of instances: from the launch to the end.

What an instance has room for is given to admission when it is ready, and taken back when it takes nothing more: when it
drains or is tainted. One that idles for long goes.

Two clocks. `timeout` limits a task, `max_runtime` the age of an instance, which counts from when it is ready. It takes
tasks only while its age and the longest timeout of those who use its fleet are within `max_runtime`; then it finishes what
it has. Shortly before, it begins its last phase: it counts no more among those that there may be, and its replacement is
started, early enough to be warm in time, if there is work for it or `min_instances` wants it.
"""

from __future__ import annotations

import asyncio
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.engine.model import DRAINING, LEAVING, PRESENT, READY, STARTING, TAINTED, TAKING, Member

if TYPE_CHECKING:
    from penstock.compute.protocol import Instance
    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Plant

LATELY: Final = 10.0
"""Seconds within which an instance must have worked for there to be work for its replacement."""

LEAST_LEAD: Final = 0.25
"""By how many seconds, at least, a replacement is started early; else by twice what starts take here."""

SPREAD: Final = 0.1
"""The part of its time to take tasks by which an instance may close early, so that a whole burst does not at once."""

PATIENCE: Final = 10.0
"""Seconds that an instance may take to end by itself when it was told to and has nothing left to do."""


class Lives:
    """Begin, follow and end instances."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._moments: list[tuple[float, int, Member]] = []  # when something happens to whom; some are stale
        self._numbers = count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf

    def join(self, loops: Loops) -> None:
        """Get to know who starts tasks, and who starts instances."""
        self._pump, self._scaler = loops.pump, loops.scaler
        self._headroom, self._sleepers = loops.headroom, loops.sleepers
        self._prewarmer, self._pools = loops.prewarmer, loops.pools

    # from the launch to the end -----------------------------------------------------------------------------------
    def launch(self, fleet: Fleet, now: float, *, apart: bool = False, grows: bool = False) -> Member:
        """Start one instance, for one suspected task alone if it is to be apart; one by which its fleet `grows` is ramped."""
        assert fleet.blueprint is not None
        instance = self._plant.compute.launch(fleet.blueprint)
        self._headroom.launched(fleet, now, ramped=grows or apart or not fleet.blueprint.reuse)
        member = Member(fleet, instance, now, apart=apart)
        fleet.members[instance.id] = self._plant.members[instance.id] = member
        return member

    def ready(self, member: Member, at: float) -> None:
        """Let admission fill the slots of an instance that is ready; a suspect's has none to give."""
        fleet = member.fleet
        member.reads = True
        fleet.failures = 0
        if member.state != STARTING:
            return
        member.become(READY)
        member.ready = member.idle_since = at
        took = self._plant.clock() - member.born
        fleet.warmup = took if fleet.warmup is None else fleet.warmup + 0.2 * (took - fleet.warmup)
        self._plan_life(member)
        if member.apart:
            return
        if member.blueprint != fleet.blueprint:
            self.retire(member)
            return
        if self._sleepers.makes_room(member, self._plant.clock()):
            return
        self.give(member, member.blueprint.slots)
        self.watch_idle(fleet)
        self._pools.rests(member)

    def give(self, member: Member, number: int) -> None:
        """Let admission use slots of a member again."""
        member.fleet.give(member, number)
        self._plant.admission.provide(member.fleet.name, number)

    def freed(self, member: Member, number: int, now: float) -> None:
        """Take note that tasks of a member have ended."""
        member.worked = now
        if not member.busy:
            member.idle_since = now
        if member.state == DRAINING and not member.busy:
            self._plan(member, now + PATIENCE)
        if member.yields and not member.recount():
            self._sleepers.look_soon(member.fleet)
        if member.state not in TAKING:
            return
        if member.apart or not member.blueprint.reuse:
            self.retire(member)
            return
        if self._sleepers.makes_room(member, now):
            return
        self.give(member, number)
        if not member.busy:
            self.watch_idle(member.fleet)
            self._pools.rests(member)

    def retire(self, member: Member) -> None:
        """Let an instance finish what it has and go; it never keeps a new one from starting."""
        if member.state != TAINTED:  # that one is to be killed, and must not be spared now
            self._close(member, DRAINING)
            self._plan(member, member.ends if member.busy else self._plant.clock() + PATIENCE)
        member.instance.stop()

    def taint(self, member: Member) -> None:
        """Put nothing new into an instance in which something overstays."""
        self._close(member, TAINTED)
        self._plan(member, member.ends)

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
        came = member.state != STARTING
        self._close(member, TAINTED)
        member.turn = inf
        del fleet.members[instance.id]
        fleet.usage.instances += now - member.born
        self._scaler.left(fleet, now, came=came)
        if not fleet.members:
            self._prewarmer.cold(fleet)
        return member

    def _close(self, member: Member, state: str) -> None:
        fleet = member.fleet
        free = fleet.close(member)
        if free:
            self._plant.admission.provide(fleet.name, -free)
        left = member.yields or member.state in {*PRESENT, LEAVING}
        member.yields = False
        member.become(state)
        if left:  # there is room for another instance now
            self._plant.admission.short[fleet.name] = None
            self._pump.wake()
            self._sleepers.look_soon(fleet)

    # age ----------------------------------------------------------------------------------------------------------
    def age(self, fleet: Fleet) -> None:
        """Take note that `max_runtime`, or the longest timeout of those who use a fleet, is another one now."""
        fleet.last_to_close = -inf
        for member in fleet.members.values():
            if member.reads:
                self._plan_life(member)

    def run_once(self, now: float) -> None:
        """Let happen to instances what their age says. The pump calls it before it starts anything."""
        if now < self._timer_at:
            return
        while self._moments and self._moments[0][0] <= now:
            moment, _, member = heappop(self._moments)
            if moment == member.turn and member.instance.id in self._plant.members:
                member.turn = inf
                self._pass(member, now)
        self._timer_at = inf
        self._arm()

    def _pass(self, member: Member, now: float) -> None:
        """Pass to the next phase of a life."""
        if member.state not in TAKING or member.apart:
            self.kill(member)  # it should have ended by now
        elif now >= member.closes:
            self.retire(member)
        else:
            member.become(LEAVING)
            self._replace(member, now)
            self._pools.look(member.pool)
            self._plan(member, member.closes)

    def _replace(self, member: Member, now: float) -> None:
        fleet, plant = member.fleet, self._plant
        used = bool(member.busy) or now - member.worked < LATELY
        current = member.blueprint == fleet.blueprint and plant.fleets.get(fleet.name) is fleet
        if not (plant.accepting and current) or fleet.blocked_until > now:
            return
        used = used or fleet.present < plant.functions[fleet.function].spec.min_instances
        if used and self._pools.may_replace(fleet):
            self.launch(fleet, now)

    def _plan_life(self, member: Member) -> None:
        """Say when a member takes its last task, and when it ends."""
        fleet = member.fleet
        function = self._plant.functions.get(fleet.function)
        runtime = None if function is None else function.spec.max_runtime
        if runtime is None:
            member.closes = member.ends = inf
            return
        member.ends = member.ready + runtime
        if member.state not in TAKING or member.apart:
            self._plan(member, min(member.turn, member.ends))
            return
        window = runtime - fleet.longest
        member.closes = member.ready + window
        if member.closes < fleet.last_to_close + window * SPREAD:
            member.closes -= window * SPREAD * self._plant.rng.random()
        fleet.last_to_close = max(fleet.last_to_close, member.closes)
        lead = min(window / 2, max(LEAST_LEAD, 2 * (fleet.warmup or 0.0)))
        self._plan(member, member.closes if member.state == LEAVING else member.closes - lead)

    def _plan(self, member: Member, moment: float) -> None:
        """Let something happen to a member at a moment, and at no other that was planned before."""
        member.turn = moment
        if moment < inf:
            heappush(self._moments, (moment, next(self._numbers), member))
            if len(self._moments) > 100 + 2 * len(self._plant.members):  # most are those of instances that are gone
                self._moments = [entry for entry in self._moments if entry[0] == entry[2].turn]
                heapify(self._moments)
            self._arm()

    def _arm(self) -> None:
        at = self._moments[0][0] if self._moments else inf
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self._plant.clock()), self._look)

    def _look(self) -> None:
        self._timer_at = -inf  # it may have come a little early
        self.run_once(self._plant.clock())

    # idleness -----------------------------------------------------------------------------------------------------
    def watch_idle(self, fleet: Fleet) -> None:
        """End the instances of a fleet that idle for too long, from now on."""
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
        spare = fleet.present - fleet.least(function.spec, now)
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
