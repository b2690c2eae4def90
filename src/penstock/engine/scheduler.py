"""What is due later: delayed tasks and retries.

They live in the store, by due time; a heap holds those of the next minute. When a moment comes, its tasks wait in their
queues again, at the place their ids give them.
"""

from __future__ import annotations

import asyncio
import logging
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.errors import PenstockError
from penstock.domain.task import State

if TYPE_CHECKING:
    from penstock.domain.task import Attempt, Task
    from penstock.engine.loops import Loops
    from penstock.engine.model import Pipe, Plant

AHEAD: Final = 60.0
"""Seconds ahead of time that due tasks are read from the store."""

PAGE: Final = 5000
READ_PAUSE: Final = 1.0
"""Seconds until delayed tasks that could not be read are asked for again."""

log = logging.getLogger(__name__)


class Scheduler:
    """Wake delayed tasks when they are due. Moments are wall-clock seconds."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._heap: list[tuple[float, int]] = []
        self._tasks: dict[int, Task] = {}
        self._loaded_until = 0.0  # all that is due up to this moment is in the heap
        self._next_load = inf  # the earliest moment that is known to be in the store only
        self._loading = False
        self._left: set[int] = set()  # what left the heap while it was being loaded
        self._awake: set[int] = set()  # what has been woken, and is still delayed in the store
        self._held: dict[str, list[tuple[float, int]]] = {}  # what is due, but may be replaced by a send under way
        self._closing: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = inf
        self._job: asyncio.Task[None] | None = None

    def join(self, loops: Loops) -> None:
        """Get to know the loop that starts what is due, and the one that has an instance ready then."""
        self._pump, self._prewarmer = loops.pump, loops.prewarmer

    async def promote(self) -> None:
        """Let what came due while nobody was here wait in its queues, before these are counted."""
        plant = self._plant
        wall = plant.wall()
        after: tuple[float, int] | None = None
        while page := await plant.store.due(plant.project_id, wall, after, PAGE):
            await plant.store.promote(plant.project_id, [task.id for task in page])
            after = (page[-1].due or 0.0, page[-1].id)

    async def open(self) -> None:
        """Read what is due soon."""
        await self._load()

    def close(self) -> None:
        """Wake nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._job is not None:
            self._job.cancel()

    def add(self, task: Task) -> None:
        """Let a task wait until its due moment; it is in the store, or will be with the next batch."""
        assert task.due is not None
        if task.due <= max(self._loaded_until, self._plant.wall() + AHEAD):
            self._left.discard(task.id)
            self._keep(task)
            self._set_timer(task.due)
        else:
            task.payload = None
            self._next_load = min(self._next_load, task.due)
            self._set_timer(self._next_load - AHEAD / 2)

    def move(self, task: Task) -> None:
        """Let a delayed task be another one with its id."""
        self.remove(task.id)
        self.add(task)

    def written_anew(self, pipe: Pipe) -> None:
        """Hear that a debounced send was written, or failed: what waited for that may be woken."""
        if pipe.spec.name in self._held:
            for entry in self._held.pop(pipe.spec.name):
                heappush(self._heap, entry)
            self._set_timer(self._heap[0][0])

    def remove(self, task_id: int) -> Task | None:
        """Take a delayed task out (it is cancelled); None if it is not in memory."""
        if self._loading:
            self._left.add(task_id)
        return self._tasks.pop(task_id, None)

    def has(self, task_id: int) -> bool:
        """Say whether a task waits here, whatever the store has of it: one that was put off is queued there."""
        return task_id in self._tasks

    def written(self, attempts: list[Attempt]) -> None:
        """Hear that the store knows what became of tasks."""
        if self._awake:
            for attempt in attempts:
                if attempt.state is not State.DELAYED or attempt.task.due == attempt.due:
                    self._awake.discard(attempt.task.id)

    def discard(self, pipeline: str, woken: list[Task]) -> list[Task]:
        """Forget the delayed tasks of a pipeline that is removed, and those that wait in its queue; return the former."""
        self._awake.difference_update(task.id for task in woken)
        gone = [task for task in self._tasks.values() if task.pipeline == pipeline]
        for task in gone:
            self.remove(task.id)
        return gone

    def run_once(self) -> None:
        """Let everything that is due wait in its queue."""
        self._timer, self._timer_at = None, inf
        wall = self._plant.wall()
        due: list[Task] = []
        while self._heap and self._heap[0][0] <= wall:
            entry = heappop(self._heap)
            task = self._tasks.get(entry[1])
            if task is None or task.due != entry[0]:  # it was cancelled, or moved
                continue
            if self._may_be_replaced(task):
                self._held.setdefault(task.pipeline, []).append(entry)
                continue
            self.remove(task.id)
            due.append(task)
        if due:
            self._wake(due)
        if self._heap:
            self._set_timer(self._heap[0][0])
        if self._next_load - AHEAD / 2 <= wall and not self._loading:
            self._job = asyncio.get_running_loop().create_task(self._load())
        elif self._next_load < inf:
            self._set_timer(self._next_load - AHEAD / 2)

    def _may_be_replaced(self, task: Task) -> bool:
        """Say whether a send is being written that came before a task's moment, and may take its place."""
        pipe = self._plant.pipes.get(task.pipeline)
        return pipe is not None and any(came < (task.due or 0.0) for came in pipe.debouncing)

    def _keep(self, task: Task) -> None:
        if task.id not in self._tasks and task.id not in self._left:
            assert task.due is not None
            self._tasks[task.id] = task
            heappush(self._heap, (task.due, task.id))
            self._prewarmer.expect(task)

    def _wake(self, due: list[Task]) -> None:
        plant, wall = self._plant, self._plant.wall()
        present = [task for task in due if task.pipeline in plant.pipes]
        for task in present:
            counts = plant.pipes[task.pipeline].counts
            counts.delayed -= 1
            counts.queued += 1
            task.due, task.since = None, task.due or wall
            self._awake.add(task.id)
        plant.admission.put_back(present)
        debounced = [task.id for task in present if plant.pipes[task.pipeline].spec.debounce is not None]
        if debounced:
            job = asyncio.get_running_loop().create_task(self._close_windows(debounced))
            self._closing.add(job)
            job.add_done_callback(self._closing.discard)
        self._pump.wake()

    async def _close_windows(self, ids: list[int]) -> None:
        """Let the store know that tasks are woken: no later send may take their place, wherever the clock is set."""
        try:
            await self._plant.store.promote(self._plant.project_id, ids)
        except PenstockError as error:
            log.warning("That %d tasks are due could not be written down: %s", len(ids), error)

    async def _load(self) -> None:
        """Read what is due in the time ahead, a page at a time, and look when the next one after that is due."""
        self._loading = True
        plant = self._plant
        try:
            self._left |= self._awake
            until = plant.wall() + AHEAD
            after = (self._loaded_until, 1 << 62)
            self._next_load = inf
            while True:
                page = await plant.store.due(plant.project_id, until, after, PAGE)
                for task in page:
                    self._keep(task)
                if len(page) < PAGE:
                    break
                assert page[-1].due is not None
                after = (page[-1].due, page[-1].id)
            self._loaded_until = until
            later = await plant.store.due(plant.project_id, inf, (until, 1 << 62), 1)
            if later and later[0].due is not None:
                self._next_load = min(self._next_load, later[0].due)
        except PenstockError as error:
            log.warning("Delayed tasks could not be read, and will be later: %s", error)
            self._next_load = plant.wall() + AHEAD / 2 + READ_PAUSE
        finally:
            self._loading = False
            self._left.clear()
        self.run_once()

    def _set_timer(self, at: float) -> None:
        if at < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = at
            # A wall clock that is set forward is noticed within the minute.
            delay = min(AHEAD, max(0.0, at - self._plant.wall()))
            self._timer = asyncio.get_running_loop().call_later(delay, self.run_once)
