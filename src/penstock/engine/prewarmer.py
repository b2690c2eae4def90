"""Pre-warming: an instance is started shortly before work is expected, where there is none.

Expected are tasks that come due, and, for functions with `prewarm: history`, calls at the end of a rest like earlier ones.
What was learned outlives the server.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from functools import partial
from heapq import heappop, heappush
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.errors import PenstockError
from penstock.domain.prewarming import REMEMBERED, Window, windows

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.domain.task import Task
    from penstock.engine.loops import Loops
    from penstock.engine.model import Fleet, Plant

LEAD: Final = 2.0
"""Seconds before a task is due at which an instance is started."""

LATE: Final = 1.0
"""Seconds after that for which it is kept in any case."""

NOTE: Final = "rests "

log = logging.getLogger(__name__)


class Rests:
    """Hold how long a fleet has rested before, in seconds, and since when (wall clock) it rests now, None if it works."""

    def __init__(self, lengths: list[float], since: float | None) -> None:
        self.lengths = deque(lengths, maxlen=REMEMBERED)
        self.since = since


class Prewarmer:
    """Start instances before they are wanted. Moments are wall-clock seconds."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._rests: dict[str, Rests] = {}
        self._due: list[tuple[int, str]] = []  # seconds in which tasks of a pipeline come due
        self._known: set[tuple[int, str]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._timer_at = inf
        self._jobs: set[asyncio.Task[None]] = set()

    def join(self, loops: Loops) -> None:
        """Get to know who starts instances."""
        self._scaler, self._lives = loops.scaler, loops.lives

    async def open(self) -> None:
        """Read what was learned before."""
        for name, body in (await self._plant.store.notes(self._plant.project_id, NOTE)).items():
            read = json.loads(body)
            self._rests[name.removeprefix(NOTE)] = Rests(read["lengths"], read["since"])
        for fleet in self._plant.fleets.values():
            self._plan(fleet)

    def close(self) -> None:
        """Start nothing more."""
        for timer in self._timers.values():
            timer.cancel()

    # tasks that come due ------------------------------------------------------------------------------------------
    def expect(self, task: Task) -> None:
        """Have an instance ready when a delayed task is due."""
        assert task.due is not None
        entry = (int(task.due), task.pipeline)
        if entry not in self._known and task.due - self._plant.wall() > LEAD:
            self._known.add(entry)
            heappush(self._due, entry)
            self._arm()

    def _arm(self) -> None:
        at = self._due[0][0] - LEAD if self._due else inf
        if at < self._timer_at:
            self._timer_at = at
            self._set("", at, self._look)

    def _look(self) -> None:
        self._timer_at = inf
        while self._due and self._due[0][0] - LEAD <= self._plant.wall():
            entry = heappop(self._due)
            self._known.discard(entry)
            pipe = self._plant.pipes.get(entry[1])
            if pipe is not None and pipe.counts.delayed and not pipe.spec.paused:
                self._warm(pipe.fleet, LEAD + LATE)
        self._arm()

    # habits -------------------------------------------------------------------------------------------------------
    def works(self, fleet: Fleet) -> None:
        """Hear that a fleet begins to work after a rest."""
        function = self._plant.functions[fleet.function]
        rests = self._rests.get(fleet.name)
        if rests is None or not function.spec.prewarm:
            return
        since, rests.since = rests.since, None
        timer = self._timers.pop(fleet.name, None)
        if timer is not None:
            timer.cancel()
        if since is not None and (length := self._plant.wall() - since) > function.spec.idle_timeout:
            rests.lengths.append(length)

    def cold(self, fleet: Fleet) -> None:
        """Hear that the last instance of a fleet has gone; it rests since its last task."""
        function = self._plant.functions.get(fleet.function)
        if function is None or not function.spec.prewarm or fleet.running:
            return
        rests = self._rests.setdefault(fleet.name, Rests([], None))
        if rests.since is None and fleet.progress:
            rests.since = self._plant.wall() - (self._plant.clock() - fleet.progress)
            self._keep(fleet.name, rests)
        self._plan(fleet)

    def _plan(self, fleet: Fleet) -> None:
        """Let the next window of a fleet's rest begin in time."""
        rests = self._rests.get(fleet.name)
        if rests is None or rests.since is None:
            return
        age = self._plant.wall() - rests.since
        for window in windows(rests.lengths):
            if window.end > age:
                self._set(fleet.name, rests.since + window.begin, partial(self._begin, fleet, window))
                return

    def _begin(self, fleet: Fleet, window: Window) -> None:
        rests = self._rests.get(fleet.name)
        function = self._plant.functions.get(fleet.function)
        if rests is None or rests.since is None or function is None or not function.spec.prewarm:
            return
        left = rests.since + window.end - self._plant.wall()
        if left > 0:
            self._warm(fleet, left)

    def _warm(self, fleet: Fleet, seconds: float) -> None:
        """Keep an instance ready for some seconds."""
        if self._plant.accepting and fleet.blueprint is not None and self._plant.fleets.get(fleet.name) is fleet:
            fleet.warm_until = max(fleet.warm_until, self._plant.clock() + seconds)
            self._scaler.keep_warm(fleet)
            asyncio.get_running_loop().call_later(seconds, self._lives.watch_idle, fleet)

    def _set(self, name: str, at: float, call: Callable[[], None]) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        self._timers[name] = asyncio.get_running_loop().call_later(max(0.0, at - self._plant.wall()), call)

    def _keep(self, name: str, rests: Rests) -> None:
        body = json.dumps({"lengths": [round(length, 1) for length in rests.lengths], "since": rests.since}).encode()
        job = asyncio.get_running_loop().create_task(self._save(name, body))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _save(self, name: str, body: bytes) -> None:
        try:
            await self._plant.store.save_note(self._plant.project_id, NOTE + name, body)
        except PenstockError as error:  # it is learned anew after the next restart
            log.warning("What '%s' was learned to do could not be written down: %s", name, error)
