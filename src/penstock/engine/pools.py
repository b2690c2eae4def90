"""Pools at work: what keeps a fleet from growing, and who makes room for whom.

An idle instance goes at once when its pool is full and another fleet waits; one that works gives its place back at the end
of a task, when it has had it for a turn. Tasks that wait come before instances that are only kept warm.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.pools import Pool
from penstock.domain.scaling import Cap, lacking, learned
from penstock.domain.specs import DEFAULT_POOL, PoolSpec
from penstock.engine.model import READY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Member, Plant

FRESH: Final = 1.0
"""Seconds for which it is taken for known what the instances of a pool with `memory` use."""

TURN: Final = 1.0
"""Seconds that a working instance keeps its place at least, so that short tasks do not spend their time on starts."""


class Pools:
    """Hold the caps of pools, and let fleets take turns in them."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._weighing: dict[str, asyncio.Task[None]] = {}
        self._cold: dict[str, None] = {}  # fleets that have fewer instances than are to be kept warm

    def join(self, loops: Loops) -> None:
        """Get to know who starts and ends instances."""
        self._lives, self._scaler, self._pump = loops.lives, loops.scaler, loops.pump
        self._sleepers, self._sizes, self._reconciler = loops.sleepers, loops.sizes, loops.reconciler

    # configuration ------------------------------------------------------------------------------------------------
    def put(self, spec: PoolSpec) -> Iterator[None]:
        """Make a pool or change it, yielding often. A smaller cap holds from the next start on, a larger one at once."""
        pool = self.of(spec.name)
        resized = pool.spec.memory != spec.memory
        pool.spec = spec
        self.look(pool)
        if resized and self._plant.accepting:
            yield from self._sizes.refit(pool)

    def remove(self, name: str) -> Iterator[None]:
        """Let a pool go that nothing names any more, yielding often; the default one loses its limits."""
        yield from self.put(PoolSpec(name))
        if name != DEFAULT_POOL:
            del self._plant.pools[name]

    def of(self, name: str | None) -> Pool:
        """Return the pool of a name; None names the default one."""
        name = name or DEFAULT_POOL
        pool = self._plant.pools.get(name)
        if pool is None:
            pool = self._plant.pools[name] = Pool(name)
        return pool

    def move(self, fleet: Fleet, pool: Pool) -> Iterator[None]:
        """Let a fleet start its next instances in another pool, yielding often; those it has finish what they do."""
        if fleet.pool is pool:
            return
        fleet.pool.satisfied(fleet.name)
        self.holds_up_no_longer(fleet)
        fleet.pool = pool
        old = self._sizes.fit(fleet)
        yield from self._scaler.switch(fleet)
        if old is not None:
            self._reconciler.retire(old, fleet.env)

    # growth -------------------------------------------------------------------------------------------------------
    def may_wake(self, fleet: Fleet) -> bool:
        """Say whether one of a fleet's instances that slept may work again; an idle one of the pool goes if it has to."""
        pool = fleet.pool
        if pool.has_room or (self._end_idle(pool) and pool.has_room):
            return True
        pool.wakers[fleet.name] = None
        return False

    @staticmethod
    def holds_up_no_longer(fleet: Fleet) -> None:
        """Take note that something else than its pool keeps a fleet's instances asleep: others may have their places."""
        fleet.pool.wakers.pop(fleet.name, None)

    def _end_idle(self, pool: Pool) -> bool:
        for name in list(pool.held):
            idle = self._plant.fleets[name].idle() if name in self._plant.fleets else None
            if idle is not None and idle.pool is pool:
                self._lives.retire(idle)
                return True
        return False

    def _wake(self, pool: Pool) -> bool:
        """Let those who sleep look whether they may go on now; say whether there are any: they come before new ones."""
        for name in list(pool.wakers):
            fleet = self._plant.fleets.get(name)
            if fleet is None or not fleet.sleepers:
                del pool.wakers[name]
            elif pool.has_room:
                self._sleepers.wake_soon(fleet)
        return bool(pool.wakers)

    def passes(self, fleet: Fleet, now: float) -> bool:
        """Say whether a fleet passes its turn on: something else holds it back until it is looked at again."""
        cap = fleet.cap
        return (
            fleet.pool.limited and cap is not None and cap.kind != "pool" and cap.until is not None and cap.until > now
        )

    def cap(self, fleet: Fleet, now: float) -> Cap | None:
        """Return how much its pool lets a fleet grow; a fleet that wants more stands in line then. None: as it likes."""
        pool = fleet.pool
        if not pool.limited or fleet.blueprint is None:
            return None
        slots = fleet.blueprint.slots
        wanted = self._plant.admission.demand(fleet.name, now, slots * (fleet.starting + 1))
        if not lacking(wanted, slots, fleet.starting):
            pool.satisfied(fleet.name)
            return None
        pool.ask(fleet.name)
        if not self._knows(pool, now):
            return Cap("pool", f"the instances in the pool '{pool.name}' are being weighed", 0)
        room = 0.0 if self._wake(pool) else pool.share(fleet.name, fleet.typical)
        if not room and not pool.wakers and pool.first() == fleet.name and self._make_room(fleet):
            room = pool.share(fleet.name, fleet.typical)
            pool.weighed_at = -inf  # what is in use is another amount now
        if not room and pool.spec.memory is not None:
            self._weigh_soon(pool)
        return Cap("pool", pool.text(fleet.typical), room)

    # memory -----------------------------------------------------------------------------------------------------------
    def _knows(self, pool: Pool, now: float) -> bool:
        """Say whether it is known what a pool's instances use, if that matters; if not, they are weighed."""
        if pool.spec.memory is None or not pool.present or now - pool.weighed_at < FRESH:
            return True
        self._weigh_soon(pool)
        return False

    def _weigh_soon(self, pool: Pool) -> None:
        """Weigh a pool now, and again from time to time while somebody waits there, unless that goes on already."""
        if pool.name not in self._weighing and self._plant.accepting:
            self._begin(pool)

    def _begin(self, pool: Pool) -> None:
        job = self._weighing[pool.name] = asyncio.get_running_loop().create_task(self._weigh(pool))
        job.add_done_callback(lambda _: self._weighed(pool))

    async def _weigh(self, pool: Pool) -> None:
        plant, began = self._plant, pool.unweighed
        members = [member for member in plant.members.values() if member.pool is pool]
        weights = await plant.compute.weigh([member.instance for member in members])
        for member, weight in zip(members, weights, strict=True):
            member.fleet.typical = learned(member.fleet.typical, [weight])
        pool.weighed(sum(weights), began, plant.clock())

    def _weighed(self, pool: Pool) -> None:
        first = pool.first()
        if first is None or pool.spec.memory is None or not self._plant.accepting:
            del self._weighing[pool.name]
            self.look(pool)
            return
        self._plant.admission.short[first] = None
        self._pump.wake()
        asyncio.get_running_loop().call_later(FRESH, self._begin, pool)

    def asked(self, fleet: Fleet) -> None:
        """Take note that a fleet has started what it may; what is left of the room is for the next in line."""
        pool = fleet.pool
        if pool.limited:
            if fleet.cap is None or fleet.cap.kind != "pool":
                pool.satisfied(fleet.name)
            self.look(pool)

    def warm_room(self, fleet: Fleet, wanted: int) -> int:
        """Return how many of the instances that are to be kept warm may start; the others wait until there is room."""
        pool = fleet.pool
        if not pool.limited or wanted <= 0:
            return wanted
        room = 0 if pool.first() is not None else int(min(wanted, pool.free(fleet.typical)))
        if room < wanted:
            self._cold[fleet.name] = None
        return room

    def may_replace(self, fleet: Fleet) -> bool:
        """Say whether the place of an instance in its last phase is for its replacement, and not for one that waits."""
        pool = fleet.pool
        return not pool.limited or (not pool.wakers and pool.first() is None and pool.free(fleet.typical) >= 1)

    def look(self, pool: Pool) -> None:
        """Call the next in line if there is room; if nobody waits, start what is to be kept warm."""
        if not (pool.crowded or self._cold) or self._wake(pool):
            return
        first = pool.first()
        if first is not None:
            fleet = self._plant.fleets.get(first)
            if fleet is None:
                pool.satisfied(first)
                self.look(pool)
            elif pool.share(first, fleet.typical) > 0:
                self._plant.admission.short[first] = None
                self._pump.wake()
        elif self._cold and self._plant.accepting:
            cold = [self._plant.fleets[name] for name in self._cold if name in self._plant.fleets]
            self._cold = {fleet.name: None for fleet in cold if fleet.pool is not pool}
            for fleet in cold:
                if fleet.pool is pool:
                    self._scaler.keep_warm(fleet)

    # places that are given back -----------------------------------------------------------------------------------------
    def gives_way(self, member: Member, now: float) -> bool:
        """Say whether an instance that has just done something takes nothing more, for another fleet's sake."""
        pool = member.pool
        if not pool.limited or not pool.crowded or member.state != READY:
            return False
        return pool.gives_way_to_wakers or (now - member.born >= TURN and pool.gives_way(member.fleet.name))

    def rests(self, member: Member) -> None:
        """Let the next in line look at an instance that has nothing to do; its own fleet's tasks may fill it before."""
        pool = member.pool
        if pool.limited and (first := pool.first()) is not None:
            self._plant.admission.short[first] = None
            self._pump.wake()

    def _make_room(self, fleet: Fleet) -> bool:
        """End an idle instance of another fleet in the pool; return False if there is none that may go."""
        for name in fleet.pool.richer(fleet.name):
            other = self._plant.fleets.get(name)
            idle = None if other is None else other.idle()
            if other is not None and idle is not None and idle.pool is fleet.pool and self._spares(other, fleet.name):
                self._lives.retire(idle)
                return True
        return False

    def _spares(self, fleet: Fleet, waiter: str) -> bool:
        """Say whether an idle instance of a fleet may go. One that is kept warm goes for the first of another only."""
        least = fleet.least(self._plant.functions[fleet.function].spec, self._plant.clock())
        return fleet.present > least or not fleet.pool.held.get(waiter)
