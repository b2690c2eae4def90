"""Headroom: what a function's ramp and the machine's memory leave for more instances.

Memory is looked at only when a fleet wants to grow: what is available costs a few microseconds, and a few instances of the
fleet are weighed off the event loop, now and then.
"""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import TYPE_CHECKING, Final

from penstock.domain.scaling import PAUSE, Cap, Memory, Ramp, learned

if TYPE_CHECKING:
    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Plant

SPARE: Final = 0.05
"""The part of the machine's memory that is left alone, within `LEAST` and `MOST` bytes."""

LEAST: Final = 128 * 2**20
MOST: Final = 2**30

WEIGHED: Final = 8
"""How many instances of a fleet are weighed at a time."""


class Headroom:
    """Say how many instances may start, and keep count of those that do."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._memory = Memory()
        self._ramps: dict[str, Ramp] = {}
        self._jobs: set[asyncio.Task[None]] = set()

    def join(self, loops: Loops) -> None:
        """Get to know who ends instances."""
        self._lives = loops.lives

    def caps(self, fleet: Fleet, now: float) -> list[Cap]:
        """Return what ramp and memory leave for a fleet."""
        ramp = self._ramp(fleet).cap(fleet.function, now)
        memory = self._plant.compute.memory_left()
        if memory is None:
            return [ramp]
        available, total = memory
        spare = min(MOST, max(LEAST, SPARE * total))
        room = self._memory.room(available, spare, fleet.typical, now)
        if not self._plant.members:
            room = max(1, room)  # it is not instances that use the memory: waiting for them would be for ever
        if room <= 0:
            self._end_idle(fleet)
        self._weigh(fleet, now)
        left = f"the machine has {available / 1e6:,.0f} MB of memory left"
        return [
            ramp,
            Cap("memory", f"{left}, too little for another instance of '{fleet.function}'", room, now + PAUSE),
        ]

    def launched(self, fleet: Fleet, now: float, *, ramped: bool) -> None:
        """Count an instance that was started.

        What is kept warm, and what takes another one's place, never waits for a ramp. So it must not use it up either: with
        a short `max_runtime` it could leave nothing for fleets whose tasks wait. What is there for a single task does count,
        though it does not always wait: there is no more of it than there are tasks.
        """
        if ramped:
            self._ramp(fleet).launched(now)
        self._memory.launched(fleet.typical, now)

    def _ramp(self, fleet: Fleet) -> Ramp:
        ramp = self._ramps.get(fleet.function)
        if ramp is None:
            ramp = self._ramps[fleet.function] = Ramp()
        ramp.configure(self._plant.functions[fleet.function].spec.ramp)
        return ramp

    def _end_idle(self, fleet: Fleet) -> None:
        """End an idle instance of another fleet, so that its memory is free."""
        for other in self._plant.fleets.values():
            function = self._plant.functions.get(other.function)
            idle = None if other is fleet else other.idle()
            if idle is not None and function is not None and other.present > function.spec.min_instances:
                self._lives.retire(idle)
                return

    def _weigh(self, fleet: Fleet, now: float) -> None:
        """Find out soon what the instances of a fleet use, unless that was done a moment ago."""
        if fleet.members and now >= fleet.weighed + PAUSE:
            fleet.weighed = now
            job = asyncio.get_running_loop().create_task(self._learn(fleet))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _learn(self, fleet: Fleet) -> None:
        instances = [member.instance for member in islice(fleet.members.values(), WEIGHED)]
        fleet.typical = learned(fleet.typical, await self._plant.compute.weigh(instances))
