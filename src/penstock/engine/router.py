"""The router: fleets that name no pool go where their measured tasks belong, by the routes of pools.

A task is measured when it ends, and what its fleet's instances have used at most a moment later, if a route asks for that.
Then the fleet is looked at, once a second at most, and more rarely if that takes long. One that moves starts its next
instances there; those it has finish what they do. What was measured outlives the server, as far as there are routes: it is
written down when a fleet moves, and at a clean stop.
"""

from __future__ import annotations

import asyncio
import json
import logging
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from penstock.domain.durations import Durations
from penstock.domain.errors import PenstockError
from penstock.domain.routing import REST
from penstock.domain.scaling import learned

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from penstock.domain.pools import Pool
    from penstock.domain.specs import PoolSpec, RouteSpec
    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Member, Plant

LOOK: Final = 1.0
"""Seconds from the end of a task until its fleet is looked at, with all that have ended meanwhile."""

SHARE: Final = 0.02
"""The part of the time that measuring instances may take: that of large ones takes some 25 ms for each GB."""

WEIGHED: Final = 8
"""How many instances of a fleet are measured at a time."""

SLICE: Final = 20
"""Instances that are let go, or fleets that are looked at, before the event loop may do something else."""

NOTE: Final = "route "

log = logging.getLogger(__name__)


class Placed(NamedTuple):
    """Say in which pool a fleet starts its instances, and why: `routed` says whether it was measured to belong there."""

    pool: str
    routed: bool
    why: str


class Router:
    """Measure tasks, and move fleets to the pools whose routes they meet."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._routes: dict[str, RouteSpec] = {}
        self._due: dict[str, Fleet] = {}
        self._looking: asyncio.Task[None] | None = None
        self._unwritten: dict[str, Fleet] = {}
        self._pause = LOOK
        self._writes: set[asyncio.Task[None]] = set()

    def join(self, loops: Loops) -> None:
        """Get to know who moves fleets."""
        self._pools = loops.pools

    async def open(self) -> None:
        """Let fleets be where they were, knowing what was measured before. Without routes that matters to nobody."""
        if not self._routes:
            return
        plant = self._plant
        for key, body in (await plant.store.notes(plant.project_id, NOTE)).items():
            name = key.removeprefix(NOTE)
            fleet = plant.fleets.get(name)
            if fleet is None:
                self._save(name, None)
                continue
            read = json.loads(body)
            weights = {int(bucket): weight for bucket, weight in read["weights"].items()}
            fleet.measured.durations = Durations(weights, read["count"])
            fleet.measured.memory = read["memory"]
            fleet.routed = self._destination(fleet, read["pool"])
            fleet.pool = self.pool_of(fleet)

    def close(self) -> None:
        """Move nothing more."""
        if self._looking is not None:
            self._looking.cancel()

    async def keep(self) -> None:
        """Write down what was measured, if it matters to any pool."""
        for fleet in list(self._unwritten.values()) if self._routes else ():
            self._write(fleet)
        if self._writes:
            await asyncio.wait(self._writes)

    # configuration ------------------------------------------------------------------------------------------------
    def put(self, spec: PoolSpec) -> Iterator[None]:
        """Let a pool have another route, or none, yielding often: fleets that belong elsewhere now move at once."""
        if self._routes.get(spec.name) == spec.route:
            return
        if spec.route is None:
            del self._routes[spec.name]
        else:
            self._routes[spec.name] = spec.route
        for fleet in list(self._plant.fleets.values()):
            yield from self.place(fleet, stays=fleet.routed != spec.name)
            yield

    def place(self, fleet: Fleet, *, stays: bool = True) -> Iterator[None]:
        """Let a fleet be in the pool where it belongs now, yielding often.

        What is neither in one nor out of it `stays` where it is, unless that pool's route is another one now.
        """
        if not self._is_there(fleet):
            return
        before, fleet.routed = fleet.routed, self._destination(fleet, fleet.routed if stays else None)
        if fleet.routed != before:
            fleet.measured.moved = self._plant.clock()
            self._write(fleet)
        yield from self._pools.move(fleet, self.pool_of(fleet))

    def pool_of(self, fleet: Fleet) -> Pool:
        """Return the pool that a fleet starts its instances in: the one that is named, else the one that takes it."""
        return self._pools.of(self._named(fleet) or fleet.routed)

    def forget(self, fleet: Fleet) -> None:
        """Forget a fleet that is gone: another one may get its name."""
        self._due.pop(fleet.name, None)
        self._unwritten.pop(fleet.name, None)
        self._save(fleet.name, None)  # even if it was not read: there may have been routes before the last restart

    def renew(self, fleet: Fleet) -> None:
        """Learn anew how long tasks take: the fleet has other code now. It stays where it is until that is known."""
        fleet.measured.durations = Durations()

    def placed(self, fleet: Fleet) -> Placed:
        """Say where a fleet's instances start, and why."""
        named, name = self._named(fleet), fleet.pool.name
        if named is not None:
            return Placed(name, routed=False, why="its settings name it")
        route = None if fleet.routed is None else self._routes.get(fleet.routed)
        if route is None:
            return Placed(name, routed=False, why="no other pool takes it" if self._routes else "it names no other")
        return Placed(name, routed=True, why=fleet.measured.why(route))

    def _named(self, fleet: Fleet) -> str | None:
        return fleet.chosen or self._plant.functions[fleet.function].spec.pool

    def _destination(self, fleet: Fleet, here: str | None) -> str | None:
        named = self._named(fleet) is not None
        return None if named else fleet.measured.destination(self._routes, here)

    def _is_there(self, fleet: Fleet) -> bool:
        return self._plant.fleets.get(fleet.name) is fleet

    # what is measured ---------------------------------------------------------------------------------------------
    def ran(self, member: Member, took: Iterable[float]) -> None:
        """Hear how long tasks took that have ended in an instance. Those of old code count no more."""
        if not self._is_current(member):
            return
        for seconds in took:
            member.fleet.measured.durations.add(seconds)
        self._look_soon(member.fleet)

    def used(self, member: Member, size: int) -> None:
        """Hear what an instance has used at most."""
        if not self._is_current(member):
            return
        measured = member.fleet.measured
        measured.memory = learned(measured.memory, [size])
        self._look_soon(member.fleet)

    def _is_current(self, member: Member) -> bool:
        """Say whether an instance has the code that its fleet has now, and its fleet is there."""
        blueprint = member.fleet.blueprint
        same = blueprint is not None and member.blueprint.version == blueprint.version
        return same and self._is_there(member.fleet)

    def _look_soon(self, fleet: Fleet) -> None:
        self._unwritten[fleet.name] = fleet
        if not self._routes or fleet.name in self._due:
            return
        self._due[fleet.name] = fleet
        if self._plant.accepting and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while self._due:
            await asyncio.sleep(self._pause)
            self._pause = max(LOOK, await self._look() / SHARE)

    async def _look(self) -> float:
        """Look at the fleets in which something has ended; return how many seconds it took to measure instances."""
        due, self._due = self._due, {}
        weighs = any(route.larger_than is not None for route in self._routes.values())
        took = 0.0
        for number, fleet in enumerate(due.values()):
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if self._plant.clock() - fleet.measured.moved < REST:
                continue
            if weighs:
                began = self._plant.clock()
                await self._weigh(fleet)
                took += self._plant.clock() - began
            if self._is_there(fleet):
                await self._move(fleet)
        return took

    async def _weigh(self, fleet: Fleet) -> None:
        """Find out what instances of a fleet have used at most."""
        if not self._is_there(fleet) or self._named(fleet) is not None:
            return
        current = (member.instance for member in fleet.members.values() if self._is_current(member))
        instances = list(islice(current, WEIGHED))
        if instances:
            fleet.measured.memory = learned(fleet.measured.memory, await self._plant.compute.peaks(instances))

    async def _move(self, fleet: Fleet) -> None:
        """Move a fleet where it belongs, some instances at a time."""
        steps = self.place(fleet)
        while self._is_there(fleet):
            for _ in range(SLICE):
                if next(steps, steps) is steps:
                    return
            await asyncio.sleep(0)

    # over restarts ------------------------------------------------------------------------------------------------
    def _write(self, fleet: Fleet) -> None:
        measured = fleet.measured
        weights = {bucket: round(weight, 4) for bucket, weight in measured.durations.weights().items()}
        count, memory = measured.durations.count, measured.memory
        known = {"weights": weights, "count": count, "memory": memory, "pool": fleet.routed}
        self._unwritten.pop(fleet.name, None)
        self._save(fleet.name, json.dumps(known).encode())

    def _save(self, name: str, body: bytes | None) -> None:
        job = asyncio.get_running_loop().create_task(self._try_to_save(name, body))
        self._writes.add(job)
        job.add_done_callback(self._writes.discard)

    async def _try_to_save(self, name: str, body: bytes | None) -> None:
        try:
            await self._plant.store.save_note(self._plant.project_id, NOTE + name, body)
        except PenstockError as error:  # it is learned anew after the next restart
            log.warning("How long the tasks of '%s' take could not be written down: %s", name, error)
