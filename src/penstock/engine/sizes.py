"""Sizes: how much memory instances get whose functions say `memory: auto`.

Each function's need is learned from the ends of its instances, and outlives the server. A change of size is a change of the
blueprint of its fleets, without a new version: old instances finish what they have.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Final

from penstock.domain.errors import PenstockError
from penstock.domain.sizes import Need
from penstock.domain.units import AUTO, format_size
from penstock.engine.configuration import SLICE, in_slices

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator, Iterator

    from penstock.compute.protocol import Blueprint, Exit
    from penstock.domain.pools import Pool
    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Member, Plant

NOTE: Final = "memory "

PART: Final = 0.75
"""The part of the machine's memory that one instance may get where its pool says nothing."""

MOST: Final = 2**44
"""Bytes that one instance may get of a machine of which nothing is known: as many as can be written."""

log = logging.getLogger(__name__)


class Sizes:
    """Say which size the instances of a function have, and learn it."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._needs: dict[str, Need] = {}
        self._unsaved: set[str] = set()
        self._jobs: set[asyncio.Task[None]] = set()

    def join(self, loops: Loops) -> None:
        """Get to know who makes instances."""
        self._scaler, self._reconciler = loops.scaler, loops.reconciler

    async def open(self) -> None:
        """Read what was learned before, if anybody learns; nothing has been launched yet."""
        plant = self._plant
        fleets = [fleet for fleet in plant.fleets.values() if fleet.blueprint and self._learns(fleet.blueprint)]
        if not fleets:
            return
        for key, body in (await plant.store.notes(plant.project_id, NOTE)).items():
            name = key.removeprefix(NOTE)
            if name in plant.functions:
                self._needs[name] = Need(**json.loads(body))
            else:
                self.forget(name)
        for fleet in fleets:
            self.fit(fleet)

    async def close(self) -> None:
        """Write down what was learned and is not written yet."""
        if self._jobs:
            await asyncio.wait(self._jobs)
        for name in sorted(self._unsaved):
            await self._save(name)

    def need(self, function: str) -> Need:
        """Return what is known of a function's need."""
        return self._needs.get(function) or Need()

    def size(self, function: str, pool: Pool) -> int:
        """Return how many bytes the next instance of a function may use in a pool."""
        return min(self.need(function).size, self._most(pool)[0])

    def advice(self, member: Member) -> str:
        """Return what to do about an instance that ran out of memory."""
        if not self._learns(member.blueprint):
            return "Raise `memory`, or hold less at a time."
        most, whose = self._most(member.fleet.pool)
        assert member.blueprint.memory is not None
        if member.blueprint.memory < most:
            return "`memory: auto` makes the next ones larger."
        return f"`memory: auto` gives no more than {format_size(most)} here, {whose}. Hold less at a time."

    def ended(self, member: Member, exit: Exit) -> bool:  # noqa: A002 - the protocol's word
        """Learn from the end of an instance; return True if it ran out of memory and there are larger ones now."""
        name, size = member.fleet.function, member.blueprint.memory
        function = self._plant.functions.get(name)
        if function is None or function.usage is not member.fleet.usage or not self._learns(member.blueprint):
            return False  # what an earlier function of this name ran teaches nothing: its versions had the same numbers
        need = self._needs.setdefault(name, Need())
        if exit.overran is None:
            if member.served and exit.peak and not member.apart:  # alone, it used less than those who share need
                self._unsaved.add(name)
                if need.used(exit.peak, member.served):
                    self._resize(name)
            return False
        if exit.killed or size is None or size >= self._most(member.fleet.pool)[0]:
            return False
        need.overran(size)
        self._unsaved.add(name)
        self._resize(name)
        return True

    def fit(self, fleet: Fleet) -> Blueprint | None:
        """Give a fleet the size that is known for its pool; return the blueprint that it had if that is another one now."""
        old = fleet.blueprint
        if old is None or not self._learns(old):
            return None
        size = self.size(fleet.function, fleet.pool)
        if size == old.memory:
            return None
        fleet.blueprint = replace(old, memory=size)
        return old

    def refit(self, pool: Pool) -> Iterator[None]:
        """Let the fleets of a pool whose memory has changed have the sizes that fit there, yielding often."""
        for fleet in [fleet for fleet in self._plant.fleets.values() if fleet.pool is pool]:
            old = self.fit(fleet)
            if old is not None:
                yield from self._replace(fleet, old)
            yield

    def forget(self, function: str) -> None:
        """Forget a function that was removed: another one may get its name."""
        self._needs.pop(function, None)
        self._begin(self._save(function))  # even if it was not read: it may have learned before the last restart

    def _learns(self, blueprint: Blueprint) -> bool:
        function = self._plant.functions.get(blueprint.function)
        version = None if function is None else function.versions.get(blueprint.version)
        return version is not None and version.settings.get("memory") == AUTO

    def _most(self, pool: Pool) -> tuple[int, str]:
        """Return how many bytes an instance in a pool gets at most, and whose they are."""
        known = self._plant.compute.memory_left()
        machine = MOST if known is None else int(known[1] * PART) // 10**6 * 10**6
        if pool.spec.memory is not None and pool.spec.memory <= machine:
            return pool.spec.memory, f"the memory of the pool '{pool.name}'"
        return machine, "three quarters of the machine's memory"

    def _resize(self, name: str) -> None:
        """Let the next instances of a function have the size that is known now."""
        if not self._plant.accepting:
            return
        for fleet in list(self._plant.fleets.values()):
            old = self.fit(fleet) if fleet.function == name else None
            if old is not None:
                self._switch(fleet, old)
        self._begin(self._save(name))

    def _switch(self, fleet: Fleet, old: Blueprint) -> None:
        """Let the old instances take nothing more: at once, so that no task finds one of them, unless they are very many."""
        loop = asyncio.get_running_loop()
        until, steps = loop.time() + SLICE, self._replace(fleet, old)
        for _ in steps:
            if loop.time() > until:
                self._begin(in_slices(steps))
                return

    def _replace(self, fleet: Fleet, old: Blueprint) -> Generator[None, None, None]:
        yield from self._scaler.switch(fleet)
        self._reconciler.retire(old, fleet.env)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _save(self, name: str) -> None:
        self._unsaved.discard(name)
        need = self._needs.get(name)
        body = None if need is None else json.dumps(asdict(need)).encode()
        try:
            await self._plant.store.save_note(self._plant.project_id, NOTE + name, body)
        except PenstockError as error:  # it is learned anew after the next restart
            self._unsaved.add(name)
            log.warning("How much memory '%s' needs could not be written down: %s", name, error)
