"""Start deadlines: tasks that were given a moment by which they must have started, and have not, end as expired.

The store knows them by that moment; what is kept here is the next one, and a timer. So a task is found wherever it waits:
in memory or on disk only, delayed, or in a pipeline that is paused or held. Moments are wall-clock seconds.
"""

from __future__ import annotations

import asyncio
import logging
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.errors import PenstockError

if TYPE_CHECKING:
    from penstock.domain.task import Task
    from penstock.engine.loops import Loops
    from penstock.engine.model import Plant

AHEAD: Final = 60.0
"""Seconds after which a wall clock that was set forward is noticed."""

PAUSE: Final = 0.25
"""Seconds between two looks: what is due between them ends together."""

AGAIN: Final = 1.0
"""Seconds until tasks are looked at again that run, or that could not be read."""

PAGE: Final = 250

log = logging.getLogger(__name__)


class Expiry:
    """Watch start deadlines."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._next = inf
        self._timer: asyncio.TimerHandle | None = None
        self._job: asyncio.Task[None] | None = None
        self._met: set[int] = set()  # tasks whose first attempt ended while a page was being read

    def join(self, loops: Loops) -> None:
        """Get to know who ends tasks, and who knows what the store is about to hear."""
        self._recorder, self._withdrawals = loops.recorder, loops.withdrawals

    def open(self) -> None:
        """Begin with what came due while nobody was here."""
        self.watch(self._plant.wall())

    def close(self) -> None:
        """End nothing more."""
        for running in (self._timer, self._job):
            if running is not None:
                running.cancel()

    def watch(self, moment: float) -> None:
        """Look at a moment; tasks that must start by then are in the store."""
        if moment < self._next:
            self._next = moment
            if self._job is None:
                self._set_timer(0.0)

    def met(self, task: Task) -> None:
        """Hear that a task has had its first attempt: what it must start by no longer counts."""
        task.start_by = None
        if self._job is not None:
            self._met.add(task.id)

    def _set_timer(self, least: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = min(AHEAD, max(least, self._next - self._plant.wall()))
        self._timer = asyncio.get_running_loop().call_later(delay, self._timer_over)

    def _timer_over(self) -> None:
        self._timer = None
        if self._next <= self._plant.wall():
            self._job = asyncio.get_running_loop().create_task(self._run())
        else:
            self._set_timer(0.0)

    async def _run(self) -> None:
        """End all that is late, a page at a time, and find out when to look again."""
        self._next = inf
        try:
            after: tuple[float, int] | None = None
            while (after := await self._end_page(after)) is not None:
                pass
        except PenstockError as error:
            log.warning("Tasks that must start by a moment could not be read, and will be later: %s", error)
            self.watch(self._plant.wall() + AGAIN)
        finally:
            self._job = None
            self._met.clear()
        if self._next < inf:
            self._set_timer(PAUSE)

    async def _end_page(self, after: tuple[float, int] | None) -> tuple[float, int] | None:
        """End what is late in the next page; return where to go on, or None at the end of what is late."""
        plant = self._plant
        elsewhere = self._elsewhere()
        page = await plant.store.expiring(plant.project_id, after, PAGE)
        elsewhere |= self._elsewhere()
        wall = plant.wall()
        late = [stored for stored in page if stored.start_by is not None and stored.start_by <= wall]
        ending = [stored for stored in late if stored.id not in elsewhere and stored.id not in self._met]
        self._withdrawals.expire(ending)
        if len(ending) < len(late):  # one that runs may still come back without having started
            self.watch(wall + AGAIN)
        if len(late) < len(page):
            self.watch(page[len(late)].start_by or inf)
        elif len(page) == PAGE:
            return page[-1].start_by or 0.0, page[-1].id
        return None

    def _elsewhere(self) -> set[int]:
        """Return the ids of tasks that do not wait, whatever the store has of them."""
        return self._plant.running_tasks() | self._recorder.uncommitted() | self._plant.sending
