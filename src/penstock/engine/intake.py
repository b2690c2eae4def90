"""What comes in: sends, synchronous calls and cancellations.

A send is acknowledged when it is on disk; only then does admission hear of it. A synchronous call writes nothing before it
has run; it waits in its pipeline's queue like everything else, for a bounded time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.errors import (
    BadRequest,
    Conflict,
    DiskFull,
    NotFound,
    QueueFull,
    Saturated,
    TooLarge,
    Unavailable,
)
from penstock.domain.mistakes import nearest
from penstock.domain.task import ENDED, Attempt, Outcome, State, Task, name_of
from penstock.engine.model import DIRECT, MAPPED, MOST_CALL_PAYLOAD, Pipe, built_in_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.engine.loops import Loops
    from penstock.engine.model import Plant

MOST_START_WAIT: Final = 10.0
"""How long (seconds) a synchronous call waits for its start if its caller states no timeout."""

MOST_DELAY: Final = 366 * 86_400.0


@dataclass(slots=True)
class Item:
    """Hold one task to send: `payload` is JSON text as bytes, `due` a wall-clock moment or None for now.

    `expires_after` is how long (seconds) it may wait for its first start from then on; None: as long as all may.
    """

    payload: bytes
    due: float | None = None
    key: str | None = None
    cost: float = 1.0
    priority: int = 0
    expires_after: float | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """Report ids in the order of the items; `duplicates` are the positions whose key was known already.

    `replaced` are the positions of those that took the place of a task that had not run (debounce).
    """

    ids: list[int]
    duplicates: list[int]
    replaced: list[int] = field(default_factory=list)


class Intake:
    """Make tasks."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._ids = count(1)

    def join(self, loops: Loops) -> None:
        """Get to know the loops that tasks are passed on to."""
        self._pump, self._settle, self._scheduler = loops.pump, loops.settle, loops.scheduler
        self._deadlines, self._recorder = loops.deadlines, loops.recorder
        self._expiry, self._withdrawals, self._debouncer = loops.expiry, loops.withdrawals, loops.debouncer

    def open(self, epoch: int) -> None:
        """Begin to give ids: the epoch stands in front, so they are larger than all before and never used twice."""
        self._ids = count((epoch << 40) + 1)

    def reserve(self, number: int) -> int:
        """Take ids that follow each other; return the first."""
        first = next(self._ids)
        self._ids = count(first + number)
        return first

    def next_id(self) -> int:
        """Return an id that no other task has."""
        return next(self._ids)

    # sends --------------------------------------------------------------------------------------------------------
    async def send(self, name: str, items: Sequence[Item], key: str | None = None) -> Sent:
        """Put tasks into a pipeline's queue; return when they are on disk.

        `key` makes it safe to repeat the whole send: the second time, all answer with the ids of the first.
        """
        plant, pipe = self._plant, self.pipe(name)
        self.check_open(pipe)
        self._check_items(pipe, items)
        if pipe.spec.debounce is not None:
            return await self._debounce(pipe, items, key)
        wall = plant.wall()
        expires = wall + pipe.spec.max_age
        tasks = [self._task(name, item, wall, expires) for item in items]
        counts = pipe.counts
        counts.queued += len(tasks)
        sending = [task.id for task in tasks]
        plant.sending.update(sending)
        try:
            known = await plant.store.enqueue(plant.project_id, tasks, key, pipe.spec.dedup)
        except BaseException:
            self._take_back(pipe, len(tasks))
            raise
        finally:
            plant.sending.difference_update(sending)
        if known:
            counts.queued -= len(known)
            self._settle.look_empty(pipe)
            ids = [known.get(position, task.id) for position, task in enumerate(tasks)]
            tasks = [task for position, task in enumerate(tasks) if position not in known]
        else:
            ids = [task.id for task in tasks]
        if plant.pipes.get(name) is not pipe:
            await self._refuse_removed(name, tasks)
        self.offer(name, pipe, tasks)
        return Sent(ids, sorted(known))

    async def _debounce(self, pipe: Pipe, items: Sequence[Item], key: str | None) -> Sent:
        """Send to a pipeline that debounces."""
        name = pipe.spec.name
        pipe.counts.queued += len(items)
        try:
            sent = await self._debouncer.send(
                pipe, items, key, lambda item, wall, due: self._delayed(pipe, item, wall, due)
            )
        except BaseException:
            self._take_back(pipe, len(items))
            raise
        pipe.counts.queued -= len(items) - len(sent.new)
        self._settle.look_empty(pipe)
        if self._plant.pipes.get(name) is not pipe:
            await self._refuse_removed(name, sent.new)
        self.offer(name, pipe, sent.new)
        return Sent(sent.ids, sent.known, sent.replaced)

    def _delayed(self, pipe: Pipe, item: Item, wall: float, due: float) -> Task:
        later = Item(item.payload, due, item.key, item.cost, item.priority, item.expires_after)
        return self._task(pipe.spec.name, later, wall, wall + pipe.spec.max_age)

    def _take_back(self, pipe: Pipe, number: int) -> None:
        """Count tasks no more whose send has failed; a pipeline that drains may have waited for them to go."""
        pipe.counts.queued -= number
        if pipe.spec.draining:
            self._settle.look_empty(pipe)

    async def _refuse_removed(self, name: str, tasks: list[Task]) -> None:
        """Undo a send into a pipeline that was removed meanwhile. Raises `Conflict`."""
        body = b'{"type": "Cancelled", "message": "The pipeline was removed while the task was being sent."}'
        for task in tasks:
            self._recorder.write(Attempt(task, Outcome.CANCELLED, State.CANCELLED, body, self._plant.wall()))
        raise Conflict(f"The pipeline '{name}' was removed while the tasks were being sent. None of them will run.")

    def offer(self, name: str, pipe: Pipe, tasks: Sequence[Task]) -> None:
        """Hand durable tasks to admission, and delayed ones to the scheduler."""
        for task in tasks:
            if task.start_by is not None:
                self._expiry.watch(task.start_by)
        if any(task.due is not None for task in tasks):
            for task in tasks:
                if task.due is not None:
                    pipe.counts.queued -= 1
                    pipe.counts.delayed += 1
                    self._scheduler.add(task)
            tasks = [task for task in tasks if task.due is None]
        if tasks and self._plant.pipes.get(name) is pipe:
            self._plant.admission.offer(name, tasks)
            self._pump.wake()

    def _task(self, name: str, item: Item, wall: float, expires: float) -> Task:
        due = item.due if item.due is not None and item.due > wall else None
        begins = wall if due is None else due
        expires += begins - wall
        return Task(
            next(self._ids), name, item.payload, created=wall, expires=expires, due=due, priority=item.priority,
            cost=item.cost, key=item.key,
            start_by=None if item.expires_after is None else min(begins + item.expires_after, expires),
        )  # fmt: skip

    def check_open(self, pipe: Pipe) -> None:
        """Check that a pipeline takes tasks now. Raises `Unavailable`, `DiskFull` and `Conflict`."""
        if not self._plant.accepting:
            raise Unavailable("The server is starting or stopping. Send again in a moment.", 1.0)
        if self._plant.store.full:
            raise DiskFull(
                "The disk is full: nothing new is taken until there is room. Nothing that was taken is lost."
            )
        if pipe.closed:
            raise Conflict(f"The pipeline '{pipe.spec.name}' is being removed and takes no more tasks.")
        if pipe.spec.draining:
            raise Conflict(f"The pipeline '{pipe.spec.name}' drains: it takes no more tasks until it is resumed.")

    def _check_items(self, pipe: Pipe, items: Sequence[Item]) -> None:
        largest = max((len(item.payload) for item in items), default=0)
        dearest = max((item.cost for item in items), default=0.0)
        self.check_room(pipe, len(items), largest, dearest)
        latest = self._plant.wall() + MOST_DELAY
        if any(item.due is not None and item.due > latest for item in items):
            raise BadRequest("A task can be delayed for a year at most.")

    def check_room(self, pipe: Pipe, number: int, largest: int, dearest: float) -> None:
        """Check that a pipeline has room for tasks, the largest of so many bytes, the dearest of that cost.

        Raises `QueueFull`, `TooLarge` and `BadRequest`.
        """
        spec = pipe.spec
        if pipe.counts.waiting + number > spec.max_queued:
            raise QueueFull(
                f"The pipeline '{spec.name}' holds {pipe.counts.waiting} tasks and may hold {spec.max_queued}. "
                "Send again later, or raise max_queued.",
                self._retry_after(pipe),
            )
        if largest > spec.max_payload:
            function = built_in_of(spec.name)
            who = f"the pipeline '{spec.name}'" if function is None else f"'{function}'"
            hint = "." if function else ", or raise max_payload."
            raise TooLarge(
                f"A payload has {largest} bytes; {who} takes {spec.max_payload}. Send a reference to the data instead{hint}"
            )
        most_cost = self._plant.admission.pipelines[spec.name].most_cost()
        if dearest > most_cost:
            raise BadRequest(
                f"A task costs {dearest:g}, but a limit of '{spec.name}' never lets more than {most_cost:g} pass."
            )

    @staticmethod
    def _retry_after(pipe: Pipe) -> float:
        """Return about when (seconds) there is room: one unit of the slowest rate, between 1 s and a minute."""
        return min(60.0, max((rate.period / rate.n for rate in pipe.spec.rates), default=1.0) or 1.0)

    # synchronous calls ----------------------------------------------------------------------------------------------
    async def call(
        self, name: str, payload: bytes, timeout: float | None, *, start_wait: float = MOST_START_WAIT, depth: int = 0
    ) -> Attempt:
        """Run one task through a pipeline and return its end. `timeout` (seconds) bounds waiting and running together.

        Without one, it may wait for `start_wait` seconds for its start. `depth` is how many tasks wait for it, one for the
        other. Raises `Saturated` if it could not start in time. A caller that goes away cancels its task.
        """
        plant, pipe = self._plant, self.pipe(name)
        self._check_call(pipe, payload)
        wall = plant.wall()
        task = Task(next(self._ids), name, payload, created=wall, expires=inf, durable=False)
        task.depth = depth
        answer: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
        plant.calls[task.id] = answer
        pipe.counts.queued += 1
        plant.admission.offer(name, (task,))
        self._pump.wake()
        loop = asyncio.get_running_loop()
        timers = [loop.call_later(start_wait if timeout is None else timeout, self._give_up, task, pipe)]
        if timeout is not None:
            timers.append(loop.call_later(timeout, self._stop, task, Outcome.TIMEOUT))
        try:
            return await answer
        except asyncio.CancelledError:
            self._give_up(task, pipe)
            self._stop(task, Outcome.CANCELLED)
            raise
        finally:
            for timer in timers:
                timer.cancel()
            del plant.calls[task.id]

    def _check_call(self, pipe: Pipe, payload: bytes) -> None:
        self.check_open(pipe)
        if len(payload) > MOST_CALL_PAYLOAD:
            raise TooLarge(f"The body has {len(payload)} bytes; a synchronous call takes {MOST_CALL_PAYLOAD}.")
        if pipe.spec.paused:
            raise Conflict(f"The pipeline '{pipe.spec.name}' is paused. Resume it, or send the task to wait there.")
        if pipe.fleet.blueprint is None:
            raise Conflict(f"The function '{pipe.spec.function}' has no code yet. Deploy it first.")

    def _give_up(self, task: Task, pipe: Pipe) -> None:
        """Let a call that has not started go."""
        if self._plant.pipes.get(task.pipeline) is not pipe:
            return
        if self._plant.admission.withdraw(task.pipeline, (task.id,)):
            pipe.counts.queued -= 1
            self._pump.wake()  # it may have been what others waited behind
        elif self._scheduler.remove(task.id) is not None:  # it was put off
            pipe.counts.delayed -= 1
        else:
            return
        self._settle.look_empty(pipe)
        answer = self._plant.calls.get(task.id)
        if answer is not None and not answer.done():
            waited = self._plant.wall() - task.created
            answer.set_exception(
                Saturated(
                    f"The call waited {waited:.1f} s and could not start: '{pipe.spec.name}' is busy or at its limit. "
                    "Call again later, raise the limit, or send it as a task.",
                    self._retry_after(pipe),
                )
            )

    def _stop(self, task: Task, outcome: Outcome) -> None:
        attempt = self._plant.running_attempt(task.id)
        if attempt is not None:
            self._deadlines.end(attempt, self._plant.running[attempt], outcome, task.id)

    # cancellation -----------------------------------------------------------------------------------------------------
    async def cancel(self, task_id: int) -> None:
        """Cancel a task wherever it is. Raises `NotFound`, or `Conflict` if it has ended."""
        plant = self._plant
        running = plant.running_attempt(task_id)
        if running is not None:
            self._deadlines.end(running, plant.running[running], Outcome.CANCELLED, task_id)
            return
        if self._recorder.pends(task_id):  # it may have ended, or go on later
            await self._recorder.catch_up()
        stored = await plant.store.task(plant.project_id, task_id)
        if stored is None:
            raise NotFound("task", name_of(task_id))
        running = plant.running_attempt(task_id)
        if running is not None:
            self._deadlines.end(running, plant.running[running], Outcome.CANCELLED, task_id)
        elif stored.state in ENDED or task_id in self._recorder.uncommitted():
            raise Conflict(f"The task {name_of(task_id)} has ended already.")
        else:
            self._withdrawals.cancel(stored)
        await self._recorder.wait_for(task_id)

    def pipe(self, name: str) -> Pipe:
        """Return a pipeline by name. Raises `NotFound` with the nearest name."""
        pipe = self._plant.pipes.get(name)
        if pipe is None:
            if name.startswith(DIRECT):
                raise self._not_callable(name.removeprefix(MAPPED).removeprefix(DIRECT))
            if name in self._plant.functions:
                raise NotFound("pipeline", name, other="function: invoke it, or make a pipeline for it")
            raise NotFound("pipeline", name, nearest(name, (one for one in self._plant.pipes if one[0] != DIRECT)))
        return pipe

    def _not_callable(self, name: str) -> NotFound:
        """Return the error for a function, or an alias of one, that there is not."""
        function, at, alias = name.partition(DIRECT)
        functions = self._plant.functions
        if function not in functions and function in self._plant.pipes:
            return NotFound("function", function, other="pipeline, and called as one (in commands with --pipeline)")
        if not at or function not in functions:
            return NotFound("function", function, nearest(function, functions))
        close = nearest(alias, functions[function].spec.aliases)
        return NotFound("alias", name, close and f"{function}{DIRECT}{close}")
