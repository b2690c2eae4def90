"""The engine of one project: joins admission, the store and instances, and is what surfaces call."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import fields
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.errors import Conflict, NotFound, PenstockError, Unavailable
from penstock.domain.task import ENDED, State, name_of
from penstock.engine.configuration import Bundles, Configurer
from penstock.engine.deadlines import Deadlines
from penstock.engine.debouncer import Debouncer
from penstock.engine.errands import Errands
from penstock.engine.expiry import Expiry
from penstock.engine.headroom import Headroom
from penstock.engine.intake import Intake
from penstock.engine.lender import Lender
from penstock.engine.lives import Lives
from penstock.engine.loops import Loops
from penstock.engine.maps import Maps
from penstock.engine.model import Plant
from penstock.engine.orders import Orders
from penstock.engine.outlook import Expected, Outlook
from penstock.engine.pools import Pools
from penstock.engine.prewarmer import Prewarmer
from penstock.engine.pruner import Pruner
from penstock.engine.pump import Pump
from penstock.engine.reconciler import Reconciler
from penstock.engine.recorder import Recorder
from penstock.engine.reserver import Reserver
from penstock.engine.router import Router
from penstock.engine.scaler import Scaler
from penstock.engine.scheduler import Scheduler
from penstock.engine.settle import Settle
from penstock.engine.sizes import Sizes
from penstock.engine.sleepers import Sleepers
from penstock.engine.stragglers import Stragglers
from penstock.engine.visits import Visits
from penstock.engine.withdrawals import Withdrawals
from penstock.store.protocol import StoredTask

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from penstock.compute.protocol import Compute
    from penstock.store.protocol import Store

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
        boot: str = "",
        rng: random.Random | None = None,
        keep_results: float = 7 * 86_400.0,
    ) -> None:
        plant = self.plant = Plant(
            store, compute, project=project, clock=clock, wall=wall, boot=boot, rng=rng or random.Random()
        )
        self.reconciler = Reconciler(plant)
        self.configurer = Configurer(plant, self.reconciler, bundles)
        self.debouncer = Debouncer(plant)
        self.deadlines = Deadlines(plant)
        self.errands = Errands(plant)
        self.expiry = Expiry(plant)
        self.headroom = Headroom(plant)
        self.intake = Intake(plant)
        self.lender = Lender(plant)
        self.lives = Lives(plant)
        self.maps = Maps(plant)
        self.orders = Orders(plant)
        self.outlook = Outlook(plant)
        self.prewarmer = Prewarmer(plant)
        self.pruner = Pruner(plant, keep_results, self.configurer.archive)
        self.pools = Pools(plant)
        self.pump = Pump(plant)
        self.recorder = Recorder(plant)
        self.reserver = Reserver(plant)
        self.router = Router(plant)
        self.scaler = Scaler(plant)
        self.scheduler = Scheduler(plant)
        self.settle = Settle(plant)
        self.sizes = Sizes(plant)
        self.stragglers = Stragglers(plant)
        self.sleepers = Sleepers(plant)
        self.visits = Visits(plant)
        self.withdrawals = Withdrawals(plant)
        self._join()

    def _join(self) -> None:
        """Let the loops get to know each other."""
        loops = Loops(**{one.name: getattr(self, one.name) for one in fields(Loops)})
        for one in fields(Loops):
            getattr(loops, one.name).join(loops)

    # life -----------------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Take ownership, end what an earlier server left running, and take up its work.

        If that fails, what was opened is closed again.
        """
        plant = self.plant
        async with contextlib.AsyncExitStack() as opened:
            await plant.store.open()
            opened.push_async_callback(plant.store.close)
            plant.project_id = await plant.store.project(plant.project)
            self.intake.open(plant.store.epoch)
            await plant.compute.open(self.settle)
            opened.push_async_callback(plant.compute.close)
            await self._take_up()
            opened.pop_all()

    async def _take_up(self) -> None:
        """Take up the work where the last server left it."""
        plant = self.plant
        interrupted = await plant.store.recover(plant.project_id)
        if interrupted:
            log.warning("%d tasks were running when the server ended last time; they run again.", interrupted)
        await self.scheduler.promote()
        await self.reconciler.open()
        await self.router.open()
        await self.sizes.open()  # they follow the pools
        await self.reserver.open()
        await self.scheduler.open()
        self.expiry.open()
        plant.accepting = True
        await self.prewarmer.open()
        await self.maps.open()
        self.configurer.open()
        for fleet in plant.fleets.values():
            self.scaler.keep_warm(fleet)
        self.pruner.open()
        self.pump.wake()

    async def close(self, grace: float = 5.0) -> None:
        """Stop admitting, let what runs finish for `grace` seconds, end the rest, and write everything down."""
        plant = self.plant
        plant.accepting = False
        self.pump.halt(lends=True)
        self.visits.close()
        self.scheduler.close()
        self.prewarmer.close()
        self.router.close()
        self.expiry.close()
        self.pruner.close()
        self.maps.close()
        self.configurer.close()
        await self.settle.nothing_runs(grace)
        plant.stopping = True
        await plant.compute.close()
        for call in plant.calls.values():
            if not call.done():
                call.set_exception(Unavailable("The server stops. Call again in a moment.", 1.0))
        await asyncio.wait([asyncio.ensure_future(self.recorder.drain())], timeout=DRAIN)
        await self.sizes.close()
        await self.router.keep()
        try:
            await self.reserver.close()
        except PenstockError as error:  # then the next start takes the limits for used up, as after a crash
            log.warning("What limits have used could not be written down: %s", error)
        await plant.store.close()

    # tasks ----------------------------------------------------------------------------------------------------------
    async def task(self, task_id: int, wait: float = 0.0) -> StoredTask:
        """Return a task; wait up to `wait` seconds for its end if it has none yet. Raises `NotFound`."""
        plant = self.plant
        until = plant.clock() + wait
        while True:
            ended = self.recorder.wait_for(task_id) if wait else None
            try:
                if self.recorder.pends(task_id):
                    await self.recorder.catch_up()
                stored = await plant.store.task(plant.project_id, task_id)
                if stored is None and self.recorder.pends(task_id):
                    continue
                stored = stored or self._running_call(task_id)
                left = until - plant.clock()
                if ended is None or stored.state in ENDED or left <= 0:
                    return stored
                await asyncio.wait([ended], timeout=left)
            finally:
                if ended is not None:
                    self.recorder.forget(task_id, ended)

    def _running_call(self, task_id: int) -> StoredTask:
        """Return a synchronous call as it runs: the store hears of it at its end. Raises `NotFound`."""
        attempt = self.plant.running_attempt(task_id)
        if attempt is None:
            raise NotFound("task", name_of(task_id))
        running = self.plant.running[attempt]
        task, started = next(task for task in running.tasks if task.id == task_id), running.started
        return StoredTask(
            id=task.id, pipeline=task.pipeline, state=State.RUNNING, outcome=None, priority=task.priority, cost=task.cost,
            key=task.key, attempts=task.attempts, interruptions=task.interruptions, created=task.created, due=None,
            expires=task.expires, start_by=None,
            started=None if started is None else started - self.plant.clock() + self.plant.wall(), finished=None,
            version=running.version, result=None,
        )  # fmt: skip

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

    async def why(self, stored: StoredTask) -> Expected:
        """Return what a task waits for, its place in the queue, and when it is expected to start."""
        return await self.outlook.of_task(stored, self.state_of(stored))

    async def redrive(self, pipeline: str, ids: Sequence[int] | None) -> int:
        """Let dead tasks (all of a pipeline's, or those named) wait again with no attempts spent; return how many."""
        plant, pipe = self.plant, self.intake.pipe(pipeline)
        await self.recorder.catch_up()
        number = await plant.store.redrive(plant.project_id, pipeline, ids, plant.wall() + pipe.spec.max_age)
        if plant.pipes.get(pipeline) is not pipe:
            raise Conflict(f"The pipeline '{pipeline}' was removed meanwhile, and its tasks with it.")
        pipe.counts.dead -= number
        pipe.counts.queued += number
        plant.admission.reread(pipeline)
        self.pump.wake()
        await self.maps.look_again(pipeline)
        return number

    async def purge(self, pipeline: str) -> int:
        """Delete a pipeline's dead tasks; return how many."""
        plant, pipe = self.plant, self.intake.pipe(pipeline)
        await self.recorder.catch_up()
        number = await plant.store.discard(plant.project_id, pipeline, (State.DEAD,))
        pipe.counts.dead -= number
        return number

    # flow: settings, so that they outlive the server ----------------------------------------------------------------
    async def pause(self, pipeline: str) -> None:
        """Start nothing more of a pipeline; it still takes tasks."""
        await self.configurer.patch("pipeline", pipeline, {"paused": True})

    async def drain(self, pipeline: str) -> None:
        """Take no more tasks into a pipeline; what it has goes on, also if it was paused."""
        await self.configurer.patch("pipeline", pipeline, {"draining": True, "paused": None})

    async def resume(self, pipeline: str) -> None:
        """Undo `pause` and `drain`, also that of a removal, and any hold."""
        flow = {"paused": None, "draining": None}
        if self.configurer.lookup("pipeline", pipeline).settings.get("draining"):
            flow["remove_when_empty"] = None  # or it would take tasks until it happens to be empty, and then be gone
        await self.configurer.patch("pipeline", pipeline, flow)
        if pipeline in self.plant.pipes:  # else it was removed just now
            self.plant.admission.resume(pipeline)
            self.pump.wake()

    def resume_limit(self, name: str) -> None:
        """Undo the hold of a shared limit: downstream asked for it. Raises `NotFound`."""
        self.configurer.lookup("limit", name)
        gate = self.plant.admission.gates.get(name)
        if gate is not None:
            gate.held_until = -inf
            self.plant.admission.limit(gate)
            self.pump.wake()
