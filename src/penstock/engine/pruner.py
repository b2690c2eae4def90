"""The pruner: deletes what has been kept long enough, a little at a time."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from penstock.domain.errors import PenstockError

if TYPE_CHECKING:
    from penstock.engine.model import Plant

EVERY: Final = 60.0
BATCH: Final = 1000
PAUSE: Final = 0.1
"""Seconds between two batches, so that pruning never holds up the work."""

log = logging.getLogger(__name__)


class Pruner:
    """Delete results and history that are older than `keep` seconds."""

    def __init__(self, plant: Plant, keep: float) -> None:
        self._plant = plant
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

    async def _run(self) -> None:
        while True:
            more = 0
            try:
                more = await self.run_once()
            except PenstockError as error:
                log.warning("Old results could not be pruned, and will be later: %s", error)
            await asyncio.sleep(PAUSE if more else EVERY)
