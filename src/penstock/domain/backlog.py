"""What waits in memory, of all pipelines together: bounded in bytes, and filled again from the store where it runs low."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.domain.queue import FRUGAL, HUNGRY, size_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from penstock.domain.pipeline import Pipeline
    from penstock.domain.task import Task


class Backlog:
    """Count the bytes of all queues. `most` bounds the tasks of a pipeline in memory, `memory` (bytes) those of all.

    `hungry` are pipelines whose next page should come from the store.
    """

    def __init__(self, most: int, memory: int) -> None:
        self.most = most
        self.memory = memory
        self.bytes = 0
        self.hungry: dict[str, None] = {}

    def offer(self, pipeline: Pipeline, tasks: Iterable[Task]) -> None:
        """Take in new tasks; those for which memory has no room stay in the store only."""
        queue = pipeline.queue
        before = queue.bytes
        most = self.most if self.bytes < self.memory else FRUGAL
        for task in tasks:
            queue.offer(task, most)
        self.bytes += queue.bytes - before

    def put_back(self, pipeline: Pipeline, task: Task) -> None:
        """Take in a task that has been out, at its old place."""
        before = pipeline.queue.bytes
        pipeline.queue.put_back(task)
        self.bytes += pipeline.queue.bytes - before

    def page_in(self, pipeline: Pipeline, tasks: list[Task], upto: tuple[int, int] | None) -> None:
        """Take in a page of the store."""
        before = pipeline.queue.bytes
        pipeline.queue.page_in(tasks, upto)
        self.bytes += pipeline.queue.bytes - before

    def forget_stored(self, pipeline: Pipeline) -> None:
        """Let go what the store has and may have in another order now."""
        self.bytes -= pipeline.queue.forget_stored()

    def remove(self, pipeline: Pipeline, ids: Collection[int]) -> list[Task]:
        """Take tasks out of a queue; return those that were in memory."""
        before = pipeline.queue.bytes
        tasks = pipeline.queue.remove(ids)
        self.bytes += pipeline.queue.bytes - before
        return tasks

    def clear(self, pipeline: Pipeline) -> list[Task]:
        """Forget a pipeline; return the tasks it had in memory."""
        self.hungry.pop(pipeline.name, None)
        self.bytes -= pipeline.queue.bytes
        return pipeline.queue.clear()

    def pop(self, pipeline: Pipeline) -> Task:
        """Take the first task out of a queue."""
        task = pipeline.queue.pop()
        self.bytes -= size_of(task)
        return task

    def look_hungry(self, pipeline: Pipeline) -> None:
        """Ask for a page of the store if a queue runs low that has more there."""
        if pipeline.queue.more and len(pipeline.queue) < min(HUNGRY, self.most / 2):
            self.hungry[pipeline.name] = None
