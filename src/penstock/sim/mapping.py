"""Maps in a simulated world: they are started, read, cancelled, and judged.

The law: each item of an acknowledged map ends exactly once in its results, and none is invented. What was told before a
crash is told after it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from penstock.domain.errors import Conflict, DiskFull, NotFound, QueueFull, TooLarge, Unavailable
from penstock.domain.tally import GONE
from penstock.domain.task import Outcome
from penstock.engine.harvest import Harvest
from penstock.sim.diary import Sending

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.sim.world import World
    from penstock.store.protocol import StoredTask

REFUSALS: Final = (QueueFull, DiskFull, Conflict, Unavailable, NotFound, TooLarge)

Told = tuple[str, bytes | None]


@dataclass(slots=True)
class Mapped:
    """Remember an acknowledged map: its items, what readers were told of each, and what is told at the end."""

    pipeline: str
    payloads: list[bytes]
    key: str | None
    told: dict[int, Told] = field(default_factory=dict)
    last: dict[int, Told] = field(default_factory=dict)
    may_be_cancelled: bool = False


class Mapper:
    """Do what clients do with maps."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.maps: dict[int, Mapped] = {}

    async def start(self, name: str, **details: Any) -> None:
        """Map something, as a client that may be refused."""
        if name not in self._world.diary.removed:
            self._world.client(self._start(name, **details))

    async def _start(
        self,
        name: str,
        count: int,
        key: str | None = None,
        stragglers: float | None = None,
        in_order: bool = True,
        cancel_after: float | None = None,
    ) -> None:
        world, diary = self._world, self._world.diary
        payloads = []
        for _ in range(count):
            diary.digits += 1
            payloads.append(b'"%d"' % diary.digits)
        try:
            stored = await world.engine.maps.start(name, payloads, key, stragglers)
        except REFUSALS as error:
            world.note(f"mapping {count} on {name} was refused: {error.code}")
            return
        world.note(f"{count} items mapped on {name}, from {stored.id + 1:016x} on")
        known = self.maps.get(stored.id)
        if known is None:
            known = self.maps[stored.id] = Mapped(name, payloads, key)
            self._remember(stored.id, known)
        elif known.key != key or len(known.payloads) != count:
            diary.surprises.append(f"the map {stored.id:016x} was given for another one")
        if stragglers is not None:
            diary.asked_to_cancel.update(range(stored.id + 1, stored.id + 1 + count))
        if cancel_after is not None:
            world.client(self._cancel(stored.id, cancel_after))
        await self._read(stored.id, known, in_order=in_order)

    def _remember(self, map_id: int, mapped: Mapped) -> None:
        """Let the laws of tasks hold for items, too, where a pipeline that the scenario made has them."""
        world = self._world
        if mapped.pipeline in world.scenario.pipelines:
            for task, payload in enumerate(mapped.payloads, map_id + 1):
                world.diary.tasks[task] = Sending(mapped.pipeline, payload, 1.0, 0, world.now, False)

    async def _cancel(self, map_id: int, after: float) -> None:
        world, mapped = self._world, self.maps[map_id]
        await asyncio.sleep(after)
        mapped.may_be_cancelled = True
        world.diary.asked_to_cancel.update(range(map_id + 1, map_id + 1 + len(mapped.payloads)))
        try:
            live = await world.engine.maps.cancel(map_id)
        except REFUSALS as error:
            world.note(f"the map {map_id:016x} was not cancelled: {error}")
            return
        if not live.tally.whole:
            world.diary.surprises.append(
                f"the map {map_id:016x} was cancelled, and {live.tally.open(3)} have not ended"
            )

    async def _read(self, map_id: int, mapped: Mapped, *, in_order: bool) -> None:
        """Follow a map until all of it has come, or the server dies."""
        seen: list[int] = []
        async with Harvest(self._world.engine, map_id, in_order=in_order) as harvest:
            while not harvest.done:
                found = await harvest.page()
                for item, task in found:
                    seen.append(item)
                    self._tell(mapped, item, _told(task))
                if not found:
                    await harvest.news(60.0)
        if in_order and seen != sorted(seen):
            self._world.diary.surprises.append(f"results of the map {map_id:016x} came out of order")
        if sorted(seen) != list(range(len(mapped.payloads))):
            self._world.diary.surprises.append(f"a reader of the map {map_id:016x} was told of {len(seen)} results")

    def _tell(self, mapped: Mapped, item: int, told: Told) -> None:
        diary = self._world.diary
        before = mapped.told.setdefault(item, told)
        may_change = mapped.pipeline in diary.redriven or mapped.pipeline in diary.removed
        if before != told and not may_change:
            diary.surprises.append(f"item {item} was told as {told} after {before}")

    # the end ----------------------------------------------------------------------------------------------------------
    async def read_all(self) -> None:
        """Take down what each map says when nothing happens any more."""
        engine = self._world.engine
        for map_id, mapped in self.maps.items():
            async with Harvest(engine, map_id, in_order=False) as harvest:
                while found := await harvest.page():
                    for item, task in found:
                        if item in mapped.last:
                            self._world.diary.surprises.append(f"item {item} of {map_id:016x} was told of twice")
                        mapped.last[item] = _told(task)
                        self._tell(mapped, item, mapped.last[item])
        await asyncio.sleep(5.0)  # by then the store knows that they have ended
        for map_id in self.maps:
            if engine.maps.kept(map_id) is not None:
                self._world.diary.left.append(f"the map {map_id:016x} is still held, though it has ended")

    def breaches(self) -> Iterator[str]:
        """Say what is wrong with maps."""
        for map_id, mapped in self.maps.items():
            missing = [item for item in range(len(mapped.payloads)) if item not in mapped.last]
            if missing:
                yield f"the map {map_id:016x} of {mapped.pipeline}: items {missing[:5]} have not ended"
            for item, (ending, body) in mapped.last.items():
                if item >= len(mapped.payloads):
                    yield f"the map {map_id:016x}: nobody sent item {item}"
                elif ending == Outcome.OK and body != mapped.payloads[item]:
                    yield f"the map {map_id:016x}: item {item} came to {body!r}, not {mapped.payloads[item]!r}"
                elif ending == GONE and mapped.pipeline not in self._world.diary.removed:
                    yield f"the map {map_id:016x}: item {item} is gone, and nobody removed {mapped.pipeline}"
                elif ending == Outcome.CANCELLED and not mapped.may_be_cancelled and self._alone(mapped, map_id, item):
                    yield f"the map {map_id:016x}: item {item} is cancelled, and nobody cancelled it"

    def _alone(self, mapped: Mapped, map_id: int, item: int) -> bool:
        """Say whether nothing else that was done can have cancelled an item."""
        diary = self._world.diary
        return mapped.pipeline not in diary.removed and map_id + 1 + item not in diary.asked_to_cancel


def _told(task: StoredTask | None) -> Told:
    """Return what a reader makes of a task."""
    if task is None or task.outcome is None:
        return GONE, None
    return task.outcome.value, task.result
