"""Reading the results of a map while they come: in the order of the items, or in that of their ends.

A reader holds a place and no results: it asks the store for a page when the one before it was taken. So whoever stops
reading costs nothing, and two readers of one map do not disturb each other. Only ends that are on disk are told.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from penstock.engine.engine import Engine
    from penstock.engine.livemap import LiveMap
    from penstock.store.protocol import StoredTask

PAGE: Final = 500
PAGE_BYTES: Final = 1 << 20
"""How many bytes of results are read at once; a single one may be larger."""

PACE: Final = 0.02
"""Seconds between two pages where there is not enough for a whole one: results gather, and reading costs little."""

FEW: Final = 32
"""While so few items are left, their ends are written at once: somebody waits for each of them."""

Found = tuple[int, "StoredTask | None"]


class Harvest:
    """Read a map's results behind the item `after`. Use it with `async with`: the map stays live for that long.

    In the order of their ends (`in_order` false), items up to `after` are left out, wherever they come.
    """

    def __init__(self, engine: Engine, map_id: int, *, in_order: bool, after: int = -1) -> None:
        self._engine = engine
        self._map_id = map_id
        self._in_order = in_order
        self._next = after + 1
        self._live: LiveMap | None = None

    async def __aenter__(self) -> Harvest:
        """Find the map. Raises `NotFound`."""
        live = self._live = await self._engine.maps.enter(self._map_id)
        self._told = bytearray(live.tally.items)
        skipped = min(self._next, live.tally.items)
        self._told[:skipped] = b"\1" * skipped
        self._left = live.tally.items - skipped
        self._place = 0
        self._generation = live.tally.generation
        self._rung = live.bell.rung
        self._paged = 0.0
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the map go."""
        self._engine.maps.leave(self.live)

    @property
    def live(self) -> LiveMap:
        """Return the map."""
        assert self._live is not None
        return self._live

    @property
    def done(self) -> bool:
        """Say whether every item was told of."""
        return not self._left

    async def page(self) -> list[Found]:
        """Return the next items that have ended, with the tasks that have their results; none if there are none yet.

        A task that is no longer kept is None.
        """
        tally = self.live.tally
        self._rung = self.live.bell.rung
        items = self._chosen()
        if not items:
            return []
        plant = self._engine.plant
        ids = [tally.task_of(item) for item in items]
        found = await plant.store.results(plant.project_id, ids, PAGE_BYTES)
        told = list(zip(items, found, strict=False))
        for item, _ in told:
            self._told[item] = 1
        self._left -= len(told)
        if self._in_order:
            self._next += len(told)
        self._paged = asyncio.get_running_loop().time()
        return told

    def _chosen(self) -> list[int]:
        """Return the items that are told of next."""
        tally = self.live.tally
        if self._in_order:
            return list(tally.in_order(self._next, PAGE))
        if tally.generation != self._generation:
            self._generation, self._place = tally.generation, 0
        while items := tally.as_they_came(self._place, PAGE):
            if chosen := [item for item in items if not self._told[item]]:
                return chosen
            self._place += len(items)
        return []

    async def news(self, timeout: float) -> bool:
        """Return when there may be more, or after `timeout` seconds; say whether there may be."""
        recorder, live = self._engine.recorder, self.live
        soon = self._paged + PACE - asyncio.get_running_loop().time()
        if soon > 0 and live.tally.items - live.tally.ended > FEW:
            await asyncio.sleep(soon)
        waits = {}
        if live.tally.items - live.tally.ended <= FEW:
            waits = {
                task: recorder.wait_for(task) for item in live.tally.open(FEW) for task in live.tally.tasks_of(item)
            }
        try:
            await live.bell.wait(self._rung, timeout)
        finally:
            for task, future in waits.items():
                recorder.forget(task, future)
        return live.bell.rung != self._rung
