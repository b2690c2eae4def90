"""The pruner: deletes what has been kept long enough, a little at a time, and the environments that nothing uses."""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.errors import PenstockError

if TYPE_CHECKING:
    from penstock.engine.archive import Archive
    from penstock.engine.model import Plant

EVERY: Final = 60.0
BATCH: Final = 1000
PAUSE: Final = 0.1
"""Seconds between two batches, so that pruning never holds up the work."""

TIDY_EVERY: Final = 3600.0
"""Seconds between two looks at which versions, bundles and environments are in use."""

log = logging.getLogger(__name__)


class Pruner:
    """Delete results and history that are older than `keep` seconds."""

    def __init__(self, plant: Plant, keep: float, archive: Archive) -> None:
        self._plant = plant
        self._archive = archive
        self._keep = keep
        self._job: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin."""
        self._job = asyncio.get_running_loop().create_task(self._run())

    def close(self) -> None:
        """Prune nothing more."""
        if self._job is not None:
            self._job.cancel()

    async def run_once(self) -> int:
        """Delete one batch; return how many rows went."""
        wall = self._plant.wall()
        return await self._plant.store.prune(self._plant.project_id, wall - self._keep, wall, BATCH)

    async def tidy(self) -> None:
        """Let old code go, and what compute keeps for code that is neither live, pinned nor running."""
        plant = self._plant
        try:
            await self._archive.tidy()
        except (PenstockError, OSError) as error:
            log.warning("Old versions and bundles could not be pruned, and will be later: %s", error)
        wanted = {fleet.blueprint.code for fleet in plant.fleets.values() if fleet.blueprint is not None}
        running = {member.blueprint.code for member in plant.members.values()}
        try:
            await plant.compute.tidy(wanted | running)
        except (PenstockError, OSError) as error:
            log.warning("Environments that nothing uses could not be deleted, and will be later: %s", error)

    async def _run(self) -> None:
        tidied = -inf
        while True:
            more = 0
            if self._plant.clock() - tidied >= TIDY_EVERY:
                tidied = self._plant.clock()
                await self.tidy()
            try:
                more = await self.run_once()
            except PenstockError as error:
                log.warning("Old results could not be pruned, and will be later: %s", error)
            await asyncio.sleep(PAUSE if more else EVERY)
