"""Debouncing: of tasks with one key that come shortly after each other only the last runs, and all answer with its id.

A new task is delayed by the pipeline's wait; one that comes meanwhile takes its place in the store, in the same commit that
acknowledges it. The law: a task is not woken while a send that came before its moment is still being written, so the last
one that was acknowledged is the one that runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.domain.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from penstock.domain.task import Task
    from penstock.engine.intake import Item
    from penstock.engine.loops import Loops
    from penstock.engine.model import Pipe, Plant
    from penstock.store.protocol import Standing


@dataclass(frozen=True, slots=True)
class Debounced:
    """Report ids in the order of the items, and the positions of those that took an earlier one's place.

    `new` are the tasks that were made, `known` the positions of those that were sent before, and changed nothing.
    """

    ids: list[int]
    replaced: list[int]
    new: list[Task]
    known: list[int]


class Debouncer:
    """Send to pipelines that debounce."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def join(self, loops: Loops) -> None:
        """Get to know where tasks wait for their moments, and what the store is about to hear."""
        self._scheduler, self._recorder, self._expiry = loops.scheduler, loops.recorder, loops.expiry

    async def send(
        self, pipe: Pipe, items: Sequence[Item], key: str | None, make: Callable[[Item, float, float], Task]
    ) -> Debounced:
        """Write items, of which those with one key are one task; `make` makes it of (item, moment, due)."""
        plant = self._plant
        assert pipe.spec.debounce is not None
        wait, most = pipe.spec.debounce
        if any(item.due is not None for item in items):
            raise BadRequest(
                f"The pipeline '{pipe.spec.name}' debounces: it gives its tasks their moment. Leave delay and at out."
            )
        await self._recorder.catch_up()  # one that was cancelled just now must not be replaced
        wall = plant.wall()
        last = {item.key: item for item in items}
        tasks = {each: make(item, wall, wall + wait) for each, item in last.items()}
        sending = [task.id for task in tasks.values()]
        plant.sending.update(sending)
        pipe.debouncing.append(wall)
        try:
            found = await plant.store.debounce(plant.project_id, list(tasks.values()), most, key)
        finally:
            pipe.debouncing.remove(wall)
            plant.sending.difference_update(sending)
            self._scheduler.written_anew(pipe)
        standings = dict(zip(tasks, found, strict=True))
        new = [tasks[each] for each, standing in standings.items() if not (standing.replaced or standing.known)]
        ended = self._recorder.uncommitted()
        for each, standing in standings.items():
            if standing.replaced and standing.id not in ended:
                self._put_in_place(tasks[each], standing)
        ids = [standings[item.key].id for item in items]
        known = [position for position, item in enumerate(items) if standings[item.key].known]
        return Debounced(ids, _replaced(items, standings), new, known)

    def _put_in_place(self, task: Task, standing: Standing) -> None:
        """Let the earlier task be what the new one is. Its payload is on disk."""
        sooner = (task.due or 0.0) - standing.due
        task.id, task.due, task.payload = standing.id, standing.due, None
        task.expires -= sooner
        if task.start_by is not None:
            task.start_by -= sooner
            self._expiry.watch(task.start_by)
        self._scheduler.move(task)


def _replaced(items: Sequence[Item], standings: Mapping[str | None, Standing]) -> list[int]:
    """Return the positions of items that took the place of one that came before, in an earlier send or in this one."""
    seen = {each for each, standing in standings.items() if standing.replaced}
    positions = []
    for position, item in enumerate(items):
        if item.key in seen:
            positions.append(position)
        elif not standings[item.key].known:
            seen.add(item.key)
    return positions
