"""What tasks and pipelines wait for, and when they are expected to start. It reads, and never writes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from penstock.domain.explain import Reason, reason
from penstock.domain.forecast import PLAYED, Forecast, Room, forecast
from penstock.domain.task import State

if TYPE_CHECKING:
    from penstock.domain.queue import Key
    from penstock.engine.loops import Loops
    from penstock.engine.model import Pipe, Plant
    from penstock.store.protocol import StoredTask

COUNTED: Final = 1_000_000
"""Tasks on disk that are counted at most to find a place in the queue."""

TRIES: Final = 3
"""How often a place is looked for again if what is in memory changed meanwhile."""

NONE: Final = Forecast(None, "nothing waits")


@dataclass(frozen=True, slots=True)
class Expected:
    """Hold what binds, how many tasks are ahead (None: not known), and when a task, or the last of a queue, starts."""

    reason: Reason
    position: int | None
    forecast: Forecast


class Outlook:
    """Say what is expected. Moments are monotonic."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def join(self, loops: Loops) -> None:
        """Get to know who knows what the store is about to hear."""
        self._recorder = loops.recorder

    async def of_task(self, stored: StoredTask, state: State) -> Expected:
        """Return what is expected of a task that is in a state."""
        if state is State.DELAYED and stored.due is not None:
            due = self._plant.clock() + stored.due - self._plant.wall()
            because = "its place in the queue is not known before it is due"
            return Expected(Reason("delayed", "its time has not come", until=due), None, Forecast(due, because))
        if state is State.RUNNING and (asks := self._asks(stored.id)) is not None:
            return asks
        pipes = self._plant.pipes
        pipe = pipes.get(stored.pipeline)
        position = await self._position(stored) if state is State.QUEUED and pipe is not None else 0
        if state is not State.QUEUED or pipe is None or pipes.get(stored.pipeline) is not pipe:
            text = f"it does not wait: it is {state.value}"
            return Expected(Reason("nothing", text), None, Forecast(None, text))
        return Expected(self.waits_for(pipe), position, self._forecast(pipe, position, PLAYED))

    def _asks(self, task_id: int) -> Expected | None:
        """Return what the handler of a running task waits for, if it does."""
        attempt = self._plant.running_attempt(task_id)
        if attempt is None:
            return None
        running = self._plant.running[attempt]
        if running.nest is not None and (text := running.nest.told()):
            return Expected(Reason("calls", text), None, Forecast(None, text))
        waiting = self._plant.admission.lending.waiting(running.start)
        if not waiting:
            return None
        name = waiting[0].gate.name
        text = f"it runs, and its handler waits for the limit '{name}'"
        return Expected(Reason("limit", text, name), None, Forecast(None, text))

    def of_pipeline(self, pipe: Pipe, most: int = PLAYED) -> Expected:
        """Return what is expected of a pipeline and its last waiting task; `most` bounds the work."""
        counts = pipe.counts
        if not counts.waiting:
            return Expected(self.waits_for(pipe), None, NONE)
        found = NONE if not counts.queued else self._forecast(pipe, counts.queued - 1, most)
        if counts.delayed:
            found = replace(found, because=f"tasks that are delayed come later ({counts.delayed})")
        return Expected(self.waits_for(pipe), None, found)

    def waits_for(self, pipe: Pipe) -> Reason:
        """Return what a pipeline's next task waits for."""
        function = pipe.spec.function
        if pipe.fleet.blueprint is None and pipe.counts.queued:
            return Reason("code", f"the function '{function}' has no code yet", function)
        found = reason(self._plant.admission, pipe.spec.name, self._plant.clock())
        cap = pipe.fleet.cap
        if found.kind != "instances" or cap is None:
            return found
        name = pipe.fleet.pool.name if cap.kind == "pool" else function
        return Reason(cap.kind, cap.text, name, cap.until)

    def _forecast(self, pipe: Pipe, position: int, most: int) -> Forecast:
        plant, fleet = self._plant, pipe.fleet
        if fleet.blueprint is None:
            return Forecast(None, f"the function '{pipe.spec.function}' has no code yet")
        most = fleet.pool.most(fleet.name, plant.functions[fleet.function].spec.max_instances)
        slots = most * fleet.blueprint.slots
        room = Room(slots - fleet.running, pipe.timeout)
        return forecast(plant.admission, pipe.spec.name, position, plant.clock(), plant.wall(), room, most)

    async def _position(self, stored: StoredTask) -> int:
        """Return how many tasks are ahead of one: those in memory, and those that are on disk only."""
        plant, name = self._plant, stored.pipeline
        queue, key = plant.admission.pipelines[name].queue, (-stored.priority, stored.id)
        position, here = queue.place_of(key)
        for _ in range(TRIES):
            if here or not queue.more:
                break
            horizon = queue.horizon
            elsewhere = self._elsewhere(name, horizon, key)
            behind = await plant.store.ahead(plant.project_id, name, horizon, key, elsewhere, COUNTED)
            position, here = queue.place_of(key)
            if queue.horizon == horizon:
                return position + (0 if here else behind)
        return position

    def _elsewhere(self, name: str, after: Key | None, before: Key) -> list[int]:
        """Return tasks between two keys that the store may still have as queued, but are not: or are in memory as well."""
        running = (one.tasks for one in self._plant.running.values() if one.pipe.spec.name == name)
        known = {task.id for tasks in running for task in tasks} | self._recorder.uncommitted()
        return [*known, *(task.id for task in self._plant.admission.pipelines[name].queue.between(after, before))]
