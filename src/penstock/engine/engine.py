"""The engine of one project: joins admission, the store and instances, and is what surfaces call."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from typing import TYPE_CHECKING, Final

from penstock.domain.errors import NotFound, Unavailable
from penstock.domain.explain import Reason, reason
from penstock.domain.task import ENDED, State, name_of
from penstock.engine.configuration import Bundles, Configurer
from penstock.engine.deadlines import Deadlines
from penstock.engine.intake import Intake
from penstock.engine.model import DIRECT, Plant
from penstock.engine.pruner import Pruner
from penstock.engine.pump import Pump
from penstock.engine.reconciler import Reconciler
from penstock.engine.scaler import Scaler
from penstock.engine.scheduler import Scheduler
from penstock.engine.settle import Settle

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from penstock.compute.protocol import Compute
    from penstock.domain.limits import Gate
    from penstock.store.protocol import Store, StoredTask

LIMITS: Final = "limits"
"""The note that keeps what limits have used, over a clean stop."""

DRAIN: Final = 10.0
"""How long (seconds) a stopping server tries to write outcomes to a disk that does not take them."""

log = logging.getLogger(__name__)


class Engine:
    """Run one project. `intake` takes tasks, `configurer` changes the configuration, `reconciler` and `plant` are read."""

    def __init__(
        self,
        store: Store,
        compute: Compute,
        bundles: Bundles,
        *,
        project: str = "default",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        rng: random.Random | None = None,
        keep_results: float = 7 * 86_400.0,
    ) -> None:
        plant = self.plant = Plant(store, compute, project=project, clock=clock, wall=wall, rng=rng or random.Random())
        self.pump = Pump(plant)
        self.scaler = Scaler(plant, self.pump.wake)
        self.settle = Settle(plant)
        self.scheduler = Scheduler(plant)
        self.deadlines = Deadlines(plant, self.scaler, self.settle.give)
        self.intake = Intake(plant)
        self.reconciler = Reconciler(plant)
        self.configurer = Configurer(plant, self.reconciler, bundles)
        self.pruner = Pruner(plant, keep_results)
        self.pump.join(self.scaler, self.settle, self.deadlines)
        self.settle.join(self.pump, self.scaler, self.deadlines, self.scheduler)
        self.settle.emptied = self.configurer.emptied
        self.scheduler.join(self.pump)
        self.intake.join(self.pump, self.settle, self.scheduler, self.deadlines)
        self.reconciler.join(self.scaler, self.scheduler, self.pump)

    # life -----------------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Take ownership, end what an earlier server left running, and take up its work."""
        plant = self.plant
        await plant.store.open()
        plant.project_id = await plant.store.project(plant.project)
        self.intake.open(plant.store.epoch)
        await plant.compute.open(self.settle)
        interrupted = await plant.store.recover(plant.project_id)
        if interrupted:
            log.warning("%d tasks were running when the server ended last time; they run again.", interrupted)
        await self.scheduler.promote()
        await self.reconciler.open()
        await self._restore_limits()
        await self.scheduler.open()
        plant.accepting = True
        await self.configurer.open()
        for fleet in plant.fleets.values():
            self.scaler.keep_warm(fleet)
        self.pruner.open()
        self.pump.wake()

    async def close(self, grace: float = 5.0) -> None:
        """Stop admitting, let what runs finish for `grace` seconds, end the rest, and write everything down."""
        plant = self.plant
        plant.accepting = False
        self.pump.halt()
        self.scheduler.close()
        self.pruner.close()
        self.configurer.close()
        await self.settle.nothing_runs(grace)
        plant.stopping = True
        await plant.compute.close()
        for call in plant.calls.values():
            if not call.done():
                call.set_exception(Unavailable("The server stops. Call again in a moment.", 1.0))
        await asyncio.wait([asyncio.ensure_future(self.settle.drain())], timeout=DRAIN)
        await self._save_limits()
        await plant.store.close()

    async def _save_limits(self) -> None:
        plant = self.plant
        now = plant.clock()
        used = {name: gate.dates(now) for name, gate in self._gates().items()}
        body = json.dumps({"at": plant.wall(), "used": {name: dates for name, dates in used.items() if any(dates)}})
        await plant.store.save_note(plant.project_id, LIMITS, body.encode())

    async def _restore_limits(self) -> None:
        """Let limits go on where a clean stop left them; after a crash they begin as if just used up."""
        plant = self.plant
        note = await plant.store.note(plant.project_id, LIMITS)
        await plant.store.save_note(plant.project_id, LIMITS, None)
        now = plant.clock()
        if note is None:
            if plant.store.epoch > 1:
                for gate in self._gates().values():
                    gate.use_up(now)
            return
        saved = json.loads(note)
        away = max(0.0, plant.wall() - saved["at"])
        gates = self._gates()
        for name, dates in saved["used"].items():
            if name in gates:
                gates[name].restore(now, dates, away)

    def _gates(self) -> dict[str, Gate]:
        """Return all gates, each by a name of its own."""
        plant = self.plant
        gates = {f"limit {name}": gate for name, gate in plant.admission.gates.items()}
        for name, pipeline in plant.admission.pipelines.items():
            if pipeline.own is not None:
                gates[f"pipeline {name}"] = pipeline.own
        return gates

    # tasks ----------------------------------------------------------------------------------------------------------
    async def task(self, task_id: int, wait: float = 0.0) -> StoredTask:
        """Return a task; wait up to `wait` seconds for its end if it has none yet. Raises `NotFound`."""
        plant = self.plant
        until = plant.clock() + wait
        while True:
            ended = self.settle.wait_for(task_id) if wait else None
            try:
                stored = await plant.store.task(plant.project_id, task_id)
                if stored is None:
                    raise NotFound("task", name_of(task_id))
                left = until - plant.clock()
                if ended is None or stored.state in ENDED or left <= 0:
                    return stored
                await asyncio.wait([ended], timeout=left)
            finally:
                if ended is not None:
                    self.settle.forget(task_id, ended)

    def state_of(self, stored: StoredTask, running: Collection[int] | None = None) -> State:
        """Return where a task stands now: what the store has of one that has not ended may be behind.

        `running`, the ids of all tasks that run, spares the search where many are asked for.
        """
        if stored.state in ENDED:
            return stored.state
        runs = self.plant.running_attempt(stored.id) is not None if running is None else stored.id in running
        if runs:
            return State.RUNNING
        if stored.state is State.DELAYED and stored.due is not None and stored.due > self.plant.wall():
            return State.DELAYED
        return State.QUEUED

    def why(self, stored: StoredTask) -> Reason:
        """Return what a task waits for."""
        state = self.state_of(stored)
        now = self.plant.clock()
        if state is State.DELAYED and stored.due is not None:
            return Reason("delayed", "its time has not come", until=now + stored.due - self.plant.wall())
        if state is not State.QUEUED:
            return Reason("nothing", f"it does not wait: it is {state.value}")
        return self.waits_for(stored.pipeline)

    def waits_for(self, pipeline: str) -> Reason:
        """Return what a pipeline's next task waits for."""
        pipe = self.intake.pipe(pipeline)
        if pipe.fleet.blueprint is None and pipe.counts.queued:
            return Reason("code", f"the function '{pipe.spec.function}' has no code yet", pipe.spec.function)
        return reason(self.plant.admission, pipeline, self.plant.clock())

    async def redrive(self, pipeline: str, ids: Sequence[int] | None) -> int:
        """Let dead tasks (all of a pipeline's, or those named) wait again with no attempts spent; return how many."""
        plant, pipe = self.plant, self.intake.pipe(pipeline)
        await self.settle.drain()
        number = await plant.store.redrive(plant.project_id, pipeline, ids, plant.wall() + pipe.spec.max_age)
        pipe.counts.dead -= number
        pipe.counts.queued += number
        plant.admission.reread(pipeline)
        self.pump.wake()
        return number

    async def purge(self, pipeline: str) -> int:
        """Delete a pipeline's dead tasks; return how many."""
        plant, pipe = self.plant, self.intake.pipe(pipeline)
        await self.settle.drain()
        number = await plant.store.discard(plant.project_id, pipeline, (State.DEAD,))
        pipe.counts.dead -= number
        return number

    async def pause(self, pipeline: str, *, paused: bool) -> None:
        """Pause or resume a pipeline; it is a setting, so it outlives the server."""
        await self.configurer.patch("pipeline", pipeline, {"paused": True if paused else None})
        if not paused:
            self.plant.admission.resume(pipeline)
            self.pump.wake()

    @staticmethod
    def direct(function: str) -> str:
        """Return the name of the built-in pipeline for calls of a function itself."""
        return DIRECT + function
