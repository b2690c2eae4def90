"""Tasks that end before they start: cancelled, expired, or dearer than a limit ever lets pass. None goes without a word."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

from penstock.domain.task import Attempt, Outcome, State, Task

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.engine.loops import Loops
    from penstock.engine.model import Plant
    from penstock.store.protocol import StoredTask


class Withdrawals:
    """Take waiting tasks out wherever they are, and end them."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def join(self, loops: Loops) -> None:
        """Get to know where tasks wait, who writes their ends down, and who starts those that waited behind them."""
        self._settle, self._scheduler, self._recorder, self._pump = (
            loops.settle,
            loops.scheduler,
            loops.recorder,
            loops.pump,
        )

    def cancel(self, *stored: StoredTask) -> None:
        """End waiting tasks as cancelled."""
        self._take_and_end(stored, Outcome.CANCELLED, State.CANCELLED, "The task was cancelled before it started.")

    def expire(self, late: Sequence[StoredTask]) -> None:
        """End tasks that have not started by the moment they had to."""
        message = "The task had not started by the moment that it was given when it was sent (expires_after)."
        self._take_and_end(late, Outcome.EXPIRED, State.EXPIRED, message)

    def drop_old(self, task: Task) -> None:
        """End a task as expired that admission has taken out of its queue."""
        message = "The task waited longer than its pipeline's max_age."
        if task.start_by is not None:
            message = "The task had not started by the moment that it was given when it was sent (expires_after)."
        self._end(task, Outcome.EXPIRED, State.EXPIRED, _body(Outcome.EXPIRED, message), delayed=False)

    def drop_dear(self, task: Task, limit: str) -> None:
        """End a task as dead that costs more than a limit ever lets pass."""
        message = f"The task costs {task.cost:g}, more than the limit '{limit}' ever lets pass at once."
        self._end(task, Outcome.ERROR, State.DEAD, _body(Outcome.ERROR, message), delayed=False)

    def _take_and_end(self, several: Sequence[StoredTask], outcome: Outcome, state: State, message: str) -> None:
        """Take tasks out of memory, if they are there, and end them; those of one pipeline in one go."""
        body = _body(outcome, message)
        by_pipeline: dict[str, dict[int, StoredTask]] = defaultdict(dict)
        for stored in several:
            by_pipeline[stored.pipeline][stored.id] = stored
        for name, group in by_pipeline.items():
            known = name in self._plant.pipes
            queued = {task.id: task for task in self._plant.admission.withdraw(name, group.keys())} if known else {}
            for stored in group.values():
                delayed = self._scheduler.remove(stored.id)
                task = delayed or queued.get(stored.id) or _on_disk(stored)
                was_delayed = delayed is not None or (stored.state is State.DELAYED and stored.id not in queued)
                self._end(task, outcome, state, body, delayed=was_delayed)
        self._pump.wake()

    def _end(self, task: Task, outcome: Outcome, state: State, body: bytes, *, delayed: bool) -> None:
        attempt = Attempt(task, outcome, state, body, self._plant.wall())
        pipe = self._plant.pipes.get(task.pipeline)
        if pipe is not None:
            if delayed:
                pipe.counts.delayed -= 1
            else:
                pipe.counts.queued -= 1
            pipe.counts.dead += state is State.DEAD
            self._settle.look_empty(pipe)
        self._plant.answer(attempt)
        self._recorder.write(attempt)


def _body(outcome: Outcome, message: str) -> bytes:
    return json.dumps({"type": outcome.value.capitalize(), "message": message}).encode()


def _on_disk(stored: StoredTask) -> Task:
    """Return a task that is not in memory, as far as its end needs it."""
    return Task(
        stored.id, stored.pipeline, None, created=stored.created, expires=stored.expires, attempts=stored.attempts,
        interruptions=stored.interruptions,
    )  # fmt: skip
