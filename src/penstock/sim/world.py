"""One simulated world: the real engine on a virtual clock, a scenario that happens to it, and what came of it.

A server's life is a process: what it does belongs to its `Life` and ends with it. Its disk and its machine outlive it.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from penstock.domain.errors import Conflict, DeployFailed, DiskFull, NotFound, QueueFull, Saturated, Unavailable
from penstock.domain.settings import Kind
from penstock.domain.specs import pipeline_spec, rate_specs
from penstock.engine.engine import Engine
from penstock.engine.intake import Item, Sent
from penstock.sim import pools, rest
from penstock.sim.compute import Machine, SimCompute
from penstock.sim.diary import Called, Diary, Sending
from penstock.sim.disk import SimBundles, SimStore
from penstock.sim.laws import Window, after_crash, amend
from penstock.sim.ledger import Ledger
from penstock.sim.loop import Life, VirtualLoop, virtual_loop
from penstock.sim.mapping import Mapper
from penstock.sim.scenario import Scenario, Settings, Step
from penstock.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from penstock.store.protocol import Store

T = TypeVar("T")

WALL: Final = 1.7e9
PATIENCE: Final = 6 * 3600.0
"""How long (virtual seconds) the work of a scenario may take after its last step before something is taken to starve."""


@dataclass(slots=True)
class Server:
    """Be one life of a server."""

    life: Life
    engine: Engine
    store: SimStore
    compute: SimCompute


class World:
    """Let a scenario happen."""

    def __init__(self, scenario: Scenario, directory: Path) -> None:
        self.scenario = scenario
        self.ledger = Ledger()
        self.diary = Diary()
        self.mapper = Mapper(self)
        self.machine: Machine
        self._directory = directory
        self._rng = random.Random(f"world {scenario.seed}")
        self._server: Server | None = None
        self._jobs: set[asyncio.Task[Any]] = set()
        self._keys: dict[tuple[str, str], list[int]] = {}
        self._loop: VirtualLoop
        self._start = 0.0
        self._skews = [(-inf, 0.0)]  # by how much the wall clock is off from a moment on

    # the whole ------------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Let every step happen, let the work end, and take down what is stored."""
        self._loop = virtual_loop()
        self._start = self._loop.time()
        self.machine = Machine(self.scenario.script, self._rng, self.ledger, self.scenario.orphans_live)
        await self._open(inf)
        await self._configure()
        for step in self.scenario.steps:
            await asyncio.sleep(self._start + step.at - self._loop.time())
            self.ledger.note(self._loop.time(), f"step: {step.action} {step.name} {dict(step.details)}")
            await self._do(step)
        await self._calm_down()
        await self._finish()

    def wall(self, at: float | None = None) -> float:
        """Return the wall clock, now or as it was at a moment."""
        moment = self._loop.time() if at is None else at
        skew = next(skew for since, skew in reversed(self._skews) if since <= moment)
        return WALL + moment - self._start + skew

    @property
    def now(self) -> float:
        """Return the moment that it is."""
        return self._loop.time()

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.ledger.note(self.now, what)

    @property
    def clock_was_set(self) -> bool:
        """Say whether the wall clock was ever set."""
        return len(self._skews) > 1

    @property
    def server(self) -> Server:
        """Return the server that lives now."""
        assert self._server is not None, "no server lives"
        return self._server

    @property
    def engine(self) -> Engine:
        """Return its engine."""
        return self.server.engine

    # lives ----------------------------------------------------------------------------------------------------------
    async def _open(self, crash_after: float) -> None:
        """Start a server; kill it again while it starts if that takes longer than `crash_after` seconds."""
        ledger, rng, scenario = self.ledger, self._rng, self.scenario
        life = Life(f"server {self.machine.epoch + 1}")
        inner = SqliteStore(self._directory, inline=True, fsync=False, ballast=4096)
        store = SimStore(inner, rng, ledger, scenario.commit, scenario.read)
        compute = SimCompute(self.machine)
        engine = Engine(
            cast("Store", store),
            compute,
            SimBundles(),
            clock=self._loop.time,
            wall=self.wall,
            boot="one",
            rng=random.Random(rng.random()),
        )
        engine.plant.admission.backlog.most = scenario.prefix
        pools.watch(engine, self.ledger, self._loop.time)
        self._server = Server(life, engine, store, compute)
        ledger.note(self._loop.time(), f"{life} starts")
        opening = self._loop.spawn(life, engine.open(), name="open")
        await asyncio.wait([opening], timeout=None if crash_after == inf else crash_after)
        if not opening.done():
            await self._crash()
            await self._open(inf)
            return
        opening.result()
        ledger.note(self._loop.time(), f"{life} is open")

    async def _crash(self) -> None:
        server = self.server
        self.diary.crashes.append(self._loop.time())
        for name, allowances in self.diary.allowances.items():
            self.diary.allowances[name] = after_crash(allowances)
        self.ledger.note(self._loop.time(), f"{server.life} is killed")
        server.store.die()
        server.compute.die()
        await self._loop.kill(server.life)
        self._server = None

    async def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something as the server, which must not die of it meanwhile."""
        return await self._loop.spawn(self.server.life, work)

    def client(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something as the server that may take long, or never end because it dies."""
        job = self._loop.spawn(self.server.life, work)
        self._jobs.add(job)
        job.add_done_callback(self._client_done)

    def _client_done(self, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and job.exception() is not None:
            self.diary.surprises.append(f"a client was surprised: {job.exception()!r}")

    # configuration --------------------------------------------------------------------------------------------------
    async def _configure(self) -> None:
        scenario = self.scenario
        for kind in ("limit", "pool"):
            for name, settings in scenario.configuration[kind].items():
                await self._change(kind, name, settings, self.engine.configurer.put(kind, name, settings))
        for name, settings in scenario.functions.items():
            body = scenario.bundles[name].encode()
            await self._change("function", name, settings, self.engine.configurer.deploy(name, body, settings))
        for name, settings in scenario.pipelines.items():
            await self._change("pipeline", name, settings, self.engine.configurer.put("pipeline", name, settings))

    async def _change(self, kind: str, name: str, settings: Settings, work: Coroutine[Any, Any, Any]) -> None:
        """Change an object, and note what it allows from then on."""
        began = self._loop.time()
        if kind == "pipeline":
            batch = pipeline_spec(name, settings).batch
            self.diary.sizes[name] = max(self.diary.sizes.get(name, 1), 1 if batch is None else batch.size)
        await self._ask(work)
        if kind != "pool":
            self._amend(kind, name, settings, began)

    def _amend(self, kind: str, name: str, settings: Mapping[str, Any], began: float) -> None:
        windows = tuple(
            Window(rate.n, rate.period + rate.margin, rate.meter == "cost") for rate in rate_specs(settings.get("rate"))
        )
        known = self.diary.allowances.get((kind, name), [])
        changed = amend(known, began, self._loop.time(), windows, settings.get("concurrency"))
        self.diary.allowances[kind, name] = changed

    async def _patch(self, kind: Kind, name: str, patch: Settings) -> None:
        if name in self.diary.removed:
            return
        objects = self.scenario.configuration
        merged = {**objects[kind][name], **patch}
        merged = {key: value for key, value in merged.items() if value is not None}
        try:
            await self._change(kind, name, merged, self.engine.configurer.put(kind, name, merged))
        except DiskFull:
            self.ledger.note(self._loop.time(), f"the change of {name} was refused: the disk is full")
        else:
            objects[kind][name] = merged

    # steps ----------------------------------------------------------------------------------------------------------
    async def _do(self, step: Step) -> None:
        verbs: dict[str, Callable[..., Awaitable[None]]] = {
            "send": self._do_send, "call": self._do_call, "cancel": self._do_cancel, "limit": self._do_limit,
            "pool": self._do_pool,
            "pipeline": self._do_pipeline, "function": self._do_function, "pause": self._do_pause,
            "drain": partial(self._do_pause, how="draining"), "remove": self._do_remove, "deploy": self._do_deploy,
            "break": self._do_break, "rollback": self._do_rollback, "redrive": self._do_redrive, "block": self._do_block,
            "full": self._do_full, "clock": self._do_clock, "crash": self._do_crash, "restart": self._do_restart,
            "map": self.mapper.start,
        }  # fmt: skip
        await verbs[step.action](step.name, **step.details)

    async def _do_send(self, name: str, count: int, **details: Any) -> None:
        if name not in self.diary.removed:
            self.client(self._send(name, count, **details))

    async def _send(
        self,
        name: str,
        count: int,
        delay: float | None = None,
        priority: int = 0,
        cost: float = 1.0,
        key: str = "",
        size: int = 0,
        expires_after: float | None = None,
    ) -> None:
        diary = self.diary
        items = []
        debounce = pipeline_spec(name, self.scenario.pipelines[name]).debounce
        if debounce is not None:
            delay = None
        start_by = None if expires_after is None else self.wall() + (delay or 0.0) + expires_after
        for n in range(count):
            diary.digits += 1
            payload = b'"%d%s"' % (diary.digits, b"x" * size)
            due = None if delay is None else self.wall() + delay
            items.append(Item(payload, due, f"{key}{n}" if key else None, cost, priority, expires_after))
        drained = self.scenario.pipelines[name].get("draining")
        unheard = diary.unheard.setdefault(name, set())
        unheard.update(item.payload for item in items)
        came = self.wall()
        try:
            sent = await self.engine.intake.send(name, items)
        except (QueueFull, DiskFull, Conflict, Unavailable, NotFound) as error:
            self.ledger.note(self._loop.time(), f"sending {count} to {name} was refused: {error.code}")
            return
        unheard.difference_update(item.payload for item in items)
        self.ledger.note(self._loop.time(), f"{count} tasks sent to {name}, from {sent.ids[0]:016x} on")
        if drained:
            diary.surprises.append(f"{name} took tasks while it drained")
        if debounce is not None:
            self._note_debounced(name, sent, items, came, debounce)
            return
        for position, (task, item) in enumerate(zip(sent.ids, items, strict=True)):
            if position not in sent.duplicates:
                diary.tasks[task] = Sending(
                    name, item.payload, cost, priority, self._loop.time(), delay is not None, start_by
                )
        if key:
            self._check_keys(name, key, sent.ids)

    def _note_debounced(
        self, name: str, sent: Sent, items: list[Item], came: float, debounce: tuple[float, float]
    ) -> None:
        """Note which task stands for each item now: it is what the last one says."""
        wait, most = debounce
        for position, (task, item) in enumerate(zip(sent.ids, items, strict=True)):
            known = self.diary.tasks.get(task)
            if (known is None) == (position in sent.replaced) and not self.diary.crashes:
                self.diary.surprises.append(f"task {task:016x} was {'not ' * (known is None)}there to be replaced")
            first = came if known is None or known.first is None else known.first
            self.diary.tasks[task] = Sending(
                name, item.payload, item.cost, item.priority, self._loop.time(), True,
                first=first, due=min(came + wait, first + most),
            )  # fmt: skip

    def _check_keys(self, name: str, key: str, ids: list[int]) -> None:
        known = self._keys.setdefault((name, key), [])
        if known[: len(ids)] != ids[: len(known)]:
            self.diary.surprises.append(f"the key {key} of {name} gave {ids[:3]}… after {known[:3]}…")
        self._keys[name, key] = max(known, ids, key=len)

    async def _do_call(self, name: str, timeout: float | None, count: int) -> None:
        for _ in range(count):
            if name not in self.diary.removed:
                self.client(self._call(name, timeout))

    async def _call(self, name: str, timeout: float | None) -> None:
        self.diary.digits += 1
        payload = b'"call %d"' % self.diary.digits
        called = Called(name, payload, timeout, self._loop.time())
        self.diary.calls.append(called)
        try:
            called.answer = await self.engine.intake.call(name, payload, timeout)
        except (Saturated, Unavailable, Conflict, DiskFull, NotFound) as error:
            called.error = error
        called.ended = self._loop.time()

    async def _do_cancel(self, name: str) -> None:
        tasks = [task for task, sending in self.diary.tasks.items() if sending.pipeline == name]
        if tasks:
            self.client(self._cancel(self._rng.choice(tasks[-20:])))

    async def _cancel(self, task: int) -> None:
        self.diary.asked_to_cancel.add(task)
        try:
            await self.engine.intake.cancel(task)
        except (NotFound, Conflict) as error:
            self.ledger.note(self._loop.time(), f"task {task:016x} was not cancelled: {error}")
            return
        self.ledger.note(self._loop.time(), f"task {task:016x} was cancelled")
        self.diary.cancelled[task] = self._loop.time()

    async def _do_limit(self, name: str, **settings: Any) -> None:
        await self._patch("limit", name, {"rate": None, "concurrency": None, "adaptive": None, **settings})

    async def _do_pool(self, name: str, **patch: Any) -> None:
        await self._patch("pool", name, patch)

    async def _do_pipeline(self, name: str, **patch: Any) -> None:
        await self._patch("pipeline", name, patch)

    async def _do_function(self, name: str, **patch: Any) -> None:
        await self._patch("function", name, patch)

    async def _do_pause(self, name: str, seconds: float, how: str = "paused") -> None:
        known = self.scenario.pipelines[name]
        if name in self.diary.removed or known.get("paused") or known.get("draining"):
            return
        try:
            await self._ask(self.engine.pause(name) if how == "paused" else self.engine.drain(name))
        except DiskFull:
            return
        known[how] = True
        stopped = self._loop.time() if how == "paused" else inf
        self._loop.call_later(seconds, self._resume_later, name, stopped)

    def _resume_later(self, name: str, paused: float) -> None:
        away = self._server is None or not self._server.engine.plant.accepting
        if away or self.server.store.full:
            self._loop.call_later(0.5, self._resume_later, name, paused)
        elif name not in self.diary.removed:
            self.diary.paused.append((name, paused, self._loop.time()))
            self.client(self._resume(name))

    async def _resume(self, name: str) -> None:
        self.diary.resumed.append((name, self._loop.time()))
        try:
            await self.engine.resume(name)
            self.diary.resumed.append((name, self._loop.time()))
        except NotFound:
            self.ledger.note(self._loop.time(), f"{name} went before it was resumed")
        except DiskFull:
            self._loop.call_later(0.5, self._resume_later, name, inf)
        else:
            for how in ("paused", "draining"):
                self.scenario.pipelines[name].pop(how, None)

    async def _do_remove(self, name: str, tasks: Any) -> None:
        if name in self.diary.removed or len(self.diary.removed) + 1 == len(self.scenario.pipelines):
            return
        if self.server.store.full:
            return
        self.diary.removed.add(name)
        if tasks == "drain" and self.scenario.pipelines[name].get("paused"):
            await self._ask(self.engine.resume(name))
            self.diary.resumed.append((name, self._loop.time()))
        await self._ask(self.engine.configurer.remove("pipeline", name, tasks))

    async def _do_deploy(self, name: str, version: int) -> None:
        if not self.server.store.full:
            await self._ask(self.engine.configurer.deploy(name, f"{name}-{version}".encode(), None))

    async def _do_break(self, name: str) -> None:
        """Deploy code that does not import; what was live stays live."""
        try:
            await self._ask(self.engine.configurer.deploy(name, b"broken", None))
        except (DeployFailed, DiskFull):
            return
        self.diary.surprises.append(f"broken code of {name} was deployed")

    async def _do_rollback(self, name: str) -> None:
        began = self._loop.time()
        with contextlib.suppress(Conflict, DiskFull):  # there may be no version before
            settings = (await self._ask(self.engine.configurer.rollback(name))).version.settings
            self.scenario.functions[name] = dict(settings)
            self._amend("function", name, settings, began)

    async def _do_redrive(self, name: str) -> None:
        if name not in self.diary.removed:
            self.diary.redriven.add(name)
            await self._ask(self.engine.redrive(name, None))

    async def _do_block(self, _: str, seconds: float) -> None:
        self._loop.block(seconds)

    async def _do_clock(self, _: str, seconds: float) -> None:
        """Set the wall clock."""
        self._skews.append((self._loop.time(), self._skews[-1][1] + seconds))

    async def _do_full(self, _: str, seconds: float) -> None:
        store = self.server.store
        store.full = True
        self._loop.call_later(seconds, setattr, store, "full", False)

    async def _do_crash(self, _: str, down: float, again: float) -> None:
        await self._crash()
        await asyncio.sleep(down)
        await self._open(again)

    async def _do_restart(self, _: str, down: float, grace: float, set_by: float) -> None:
        server = self.server
        self.diary.restarts.append(self._loop.time())
        await self._ask(server.engine.close(grace))
        await self._loop.kill(server.life)
        self.ledger.note(self._loop.time(), f"{server.life} has stopped")
        if set_by:
            await self._do_clock("", set_by)
        await asyncio.sleep(down)
        await self._open(inf)

    # the end --------------------------------------------------------------------------------------------------------
    async def _calm_down(self) -> None:
        """Wait until nothing waits or runs any more; say what is left if that takes too long."""
        await asyncio.sleep(15.0)  # by then every pause is over, unless its end was lost in a crash
        self.server.store.full = False
        for name, pipe in list(self.engine.plant.pipes.items()):
            if pipe.spec.paused or (pipe.spec.draining and not pipe.leaving):
                await self._ask(self.engine.resume(name))
                self.diary.resumed.append((name, self._loop.time()))
        set_back = sum(max(0.0, before[1] - after[1]) for before, after in pairwise(self._skews))
        until = self._loop.time() + PATIENCE + set_back  # what is due at a moment comes that much later
        pause = 0.5
        while self._loop.time() < until:
            await asyncio.sleep(pause)
            pause = min(60.0, pause * 1.2)
            self.server.store.full = False
            busy = [
                name for name, pipe in self.engine.plant.pipes.items() if pipe.counts.waiting or pipe.counts.running
            ]
            if not busy and not self._jobs and not any(name in self.engine.plant.pipes for name in self.diary.removed):
                return
        for name in busy:
            pipe = self.engine.plant.pipes[name]
            self.diary.left.append(f"{name} still has {pipe.counts}: {self.engine.outlook.waits_for(pipe)}")
        self.diary.left += [f"a client still waits: {job}" for job in self._jobs]

    async def _finish(self) -> None:
        """Let idle instances go, look into the engine and the store, and stop the server."""
        await self._ask(self.engine.recorder.drain())
        await asyncio.sleep(30.0)
        if not self.diary.left:
            self.diary.left += rest.at_rest(self.engine.plant)
        for task in self.diary.tasks:
            try:
                self.diary.stored[task] = await self._ask(self.engine.task(task))
            except NotFound:
                self.diary.stored[task] = None
        await self._ask(self.mapper.read_all())
        await self._ask(self.engine.close(5.0))
        await self._loop.kill(self.server.life)
