"""What is written down of tasks while they run and when they end: outcomes, starts and output, in batches.

Outcomes wait a moment for each other, unless somebody waits for one of them. A crash before the write runs the task again,
which is what "at least once" allows.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from penstock.domain.errors import DiskFull, Fenced, PenstockError, Unavailable
from penstock.engine.bell import Bell

if TYPE_CHECKING:
    from penstock.domain.task import Attempt
    from penstock.engine.loops import Loops
    from penstock.engine.model import Plant
    from penstock.store.protocol import Line

LINGER: Final = 0.05
"""How long (seconds) an outcome that nobody waits for may wait for others before it is written."""

LARGE_BATCH: Final = 1000
RETRY_PAUSE: Final = 0.25
KNOWN_AFTER: Final = 1.0
"""Seconds after which a task that still runs is written down as running."""

log = logging.getLogger(__name__)


class Recorder:
    """Write down. `told` is rung when output of tasks can be read from the store."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self.told = Bell()
        self._pending: list[Attempt] = []
        self._writing: list[Attempt] = []
        self._lines: list[Line] = []
        self._notes: list[tuple[int, asyncio.Future[None] | None]] = []
        self._noted = 0
        self._waiters: dict[int, list[asyncio.Future[None]]] = {}
        self._flusher: asyncio.Task[None] | None = None
        self._linger: asyncio.TimerHandle | None = None
        self._noting: asyncio.TimerHandle | None = None

    def join(self, loops: Loops) -> None:
        """Get to know the loops that hear of what was written."""
        self._pump, self._scheduler, self._maps = loops.pump, loops.scheduler, loops.maps

    def write(self, attempt: Attempt) -> None:
        """Let an outcome be written with the next batch."""
        self._pending.append(attempt)
        self._flush_soon(urgent=attempt.task.id in self._waiters or len(self._pending) >= LARGE_BATCH)

    def keep(self, line: Line) -> None:
        """Let a piece of output be written with the next batch."""
        self._lines.append(line)
        self._flush_soon(urgent=False)

    def uncommitted(self) -> set[int]:
        """Return the ids of tasks whose outcome the store does not know yet."""
        return {attempt.task.id for attempt in self._pending} | {attempt.task.id for attempt in self._writing}

    def pends(self, task_id: int) -> bool:
        """Say whether the store is about to hear of a task."""
        return any(one.task.id == task_id for batch in (self._pending, self._writing) for one in batch)

    async def catch_up(self) -> None:
        """Return when all outcomes that there are now are in the store."""
        batch = self._pending or self._writing
        if batch:
            await self.wait_for(batch[-1].task.id)

    def wait_for(self, task_id: int) -> asyncio.Future[None]:
        """Return a future that is done when the next outcome of a task is in the store."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(task_id, []).append(future)
        if any(attempt.task.id == task_id for attempt in self._pending):
            self._flush_soon(urgent=True)
        return future

    def forget(self, task_id: int, future: asyncio.Future[None]) -> None:
        """Wait no more."""
        waiters = self._waiters.get(task_id)
        if waiters is not None and future in waiters:
            waiters.remove(future)
            if not waiters:
                del self._waiters[task_id]

    async def drain(self) -> None:
        """Write all that is pending and return when it is in the store."""
        while self._dirty or self._flusher is not None:
            self._flush_soon(urgent=True)
            if self._flusher is not None:
                await asyncio.shield(self._flusher)
        for timer in (self._linger, self._noting):
            if timer is not None:
                timer.cancel()

    def _flush_soon(self, *, urgent: bool) -> None:
        if self._flusher is not None or (self._linger is not None and not urgent):
            return
        loop = asyncio.get_running_loop()
        if urgent:
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            self._flusher = loop.create_task(self._flush())
        else:
            self._linger = loop.call_later(LINGER, self._linger_over)

    def _linger_over(self) -> None:
        self._linger = None
        self._flush_soon(urgent=True)

    async def _flush(self) -> None:
        """Write batch after batch, each with what came while the one before was written."""
        try:
            while self._dirty:
                self._writing, self._pending = self._pending, []
                lines, self._lines = self._lines, []
                await self._write_batch(lines)
                if self._notes:
                    await self._write_notes()
                done, self._writing = self._writing, []
                self._scheduler.written(done)
                self._maps.written(done)
                for attempt in done if self._waiters else ():
                    for future in self._waiters.pop(attempt.task.id, ()):
                        if not future.done():
                            future.set_result(None)
                if len(self._pending) < LARGE_BATCH and not self._urgent():
                    break
        finally:
            self._flusher = None
            if self._dirty:
                self._flush_soon(urgent=False)

    @property
    def _dirty(self) -> bool:
        return bool(self._pending or self._lines or self._notes)

    def _urgent(self) -> bool:
        if self._notes:
            return True
        return bool(self._waiters) and any(attempt.task.id in self._waiters for attempt in self._pending)

    async def _write_batch(self, lines: list[Line]) -> None:
        """Write outcomes, for as long as it takes: they must not be lost while the server lives."""
        store, project = self._plant.store, self._plant.project_id
        while self._writing:
            try:
                await store.record(project, self._writing)
                break
            except (DiskFull, Unavailable) as error:
                log.warning("%d outcomes wait to be written: %s", len(self._writing), error)
                await asyncio.sleep(RETRY_PAUSE)
            except Fenced as error:
                log.critical("Another server has taken over. This one starts and takes nothing more: %s", error)
                self._plant.accepting = False
                self._pump.halt()
                break
        if lines:
            try:
                await store.write_output(project, lines)
                self.told.ring()
            except PenstockError as error:
                log.warning("Output of tasks was not kept: %s", error)

    # starts that are written down -----------------------------------------------------------------------------------
    def note_start(self, attempt: int) -> asyncio.Future[None]:
        """Write that an attempt runs; the future is done when the store knows."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._notes.append((attempt, future))
        self._flush_soon(urgent=True)
        return future

    def note_later(self) -> None:
        """See to it that tasks which run for long are written down as running."""
        if self._noting is None:
            self._noting = asyncio.get_running_loop().call_later(KNOWN_AFTER, self._note_long)

    def _note_long(self) -> None:
        self._noting = None
        before = self._plant.clock() - KNOWN_AFTER
        for attempt, running in self._plant.running.items():
            if running.sent > before:
                break
            if attempt > self._noted:
                self._noted = attempt
                self._notes.append((attempt, None))
        if self._notes:
            self._flush_soon(urgent=False)
        if self._plant.running:
            self.note_later()

    async def _write_notes(self) -> None:
        """Write starts, after the outcomes before them and only of what still runs: so the order is that of events."""
        notes, self._notes = self._notes, []
        running = [self._plant.running[attempt] for attempt, _ in notes if attempt in self._plant.running]
        tasks = [task for one in running for task in one.tasks if task.durable]
        if tasks:
            try:
                await self._plant.store.note_starts(self._plant.project_id, tasks)
            except PenstockError as error:
                log.warning("That %d tasks run could not be written down: %s", len(tasks), error)
        for _, future in notes:
            if future is not None and not future.done():
                future.set_result(None)
