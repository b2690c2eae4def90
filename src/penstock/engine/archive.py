"""What becomes of old code: versions that nothing can run any more go, and then bundles that no version has.

The law: a version stays while it is live, pinned, named by an alias, among the newest `KEEP` of its function, where a rollback
of the live one leads, or run by an instance. Tasks that wait run what their pipeline names, which is one of these.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from penstock.engine.configuration import Bundles
    from penstock.engine.model import Function, Plant
    from penstock.store.protocol import Version

KEEP: Final = 20
"""How many of the newest versions of a function are kept, whatever they are."""

PAUSE: Final = 0.05
"""Seconds between two functions that have something to prune."""

log = logging.getLogger(__name__)


class Archive:
    """Prune versions and bundles. `lock` is that of changes of the configuration; `versions` and `swept` count what went."""

    def __init__(self, plant: Plant, bundles: Bundles, lock: asyncio.Lock) -> None:
        self.versions = 0
        self.swept = 0
        self._plant = plant
        self._bundles = bundles
        self._lock = lock

    async def tidy(self) -> None:
        """Prune what can go, a function at a time. Raises `PenstockError`, OSError."""
        for name in list(self._plant.functions):
            async with self._lock:
                gone = await self._prune(name)
            if gone:
                await asyncio.sleep(PAUSE)
        plant = self._plant
        used = {version.bundle for version in await plant.store.versions(plant.project_id)}
        used |= {member.blueprint.bundle for member in plant.members.values()}
        used |= {fleet.blueprint.bundle for fleet in plant.fleets.values() if fleet.blueprint is not None}
        swept = await self._bundles.sweep(used)
        if swept:
            self.swept += swept
            log.info("%d bundles that no version has were deleted.", swept)

    async def _prune(self, name: str) -> int:
        plant, function = self._plant, self._plant.functions.get(name)
        if function is None or len(function.versions) <= KEEP:
            return 0
        versions = await plant.store.versions(plant.project_id, name)
        wanted = self._wanted(function, versions)
        gone = [version.number for version in versions if version.number not in wanted]
        if gone:
            await plant.store.drop_versions(plant.project_id, name, gone)
            function.versions = {number: one for number, one in function.versions.items() if number not in gone}
            self.versions += len(gone)
            log.info("%d old versions of '%s' were pruned.", len(gone), name)
        return len(gone)

    def _wanted(self, function: Function, versions: list[Version]) -> set[int | None]:
        plant, live = self._plant, function.live
        wanted: set[int | None] = {version.number for version in versions[-KEEP:]}
        wanted |= set(function.spec.aliases.values())
        if live is not None:
            wanted |= {live.number, *(version.previous for version in versions if version.number == live.number)}
        wanted |= {
            pipe.spec.version
            for pipe in plant.pipes.values()
            if pipe.spec.function == function.name and isinstance(pipe.spec.version, int)
        }
        wanted |= {one.blueprint.version for one in plant.members.values() if one.blueprint.function == function.name}
        return wanted
