"""Simulated instances: the compute protocol on virtual time, with scripted handlers and seeded delays.

A `Machine` outlives the servers that use it, as a real one does: when a server dies, its instances live on until their
parent's death ends them, or until the next server's `open` does.
"""

import asyncio
import contextvars
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from penstock.compute.protocol import (
    Blueprint,
    Code,
    Environment,
    Exit,
    ImportFailed,
    Instance,
    Isolation,
    Level,
    Listener,
    PipelineContext,
)
from penstock.sim.ledger import Ledger
from penstock.sim.process import SimInstance
from penstock.sim.script import AT_ONCE, Handler, Script, Spread

WEIGHT: Final = 100 * 2**20
SPARED: Final = 2**30
"""Bytes that a process uses, and that the machine has beside room for them."""


class Machine:
    """Hold the processes, the clock and the chance of one simulated machine."""

    def __init__(self, script: Script, rng: random.Random, ledger: Ledger, orphans_live: Spread = AT_ONCE) -> None:
        self.script, self.rng, self.ledger = script, rng, ledger
        self.processes: dict[int, SimInstance] = {}
        self.attempts: set[int] = set()
        self.slots: dict[int, int] = {}
        self.ready: dict[int, float] = {}  # by instance: from when on it served
        self.epoch = 0
        self._orphans_live = orphans_live
        self._numbers = 0
        self._owner: SimCompute | None = None
        self._contexts: dict[int, tuple[str, bytes]] = {}
        self._loop = asyncio.get_running_loop()
        # Processes go on when the server that made them is killed: their timers belong to no life.
        self._context = contextvars.Context()

    # time and chance ------------------------------------------------------------------------------------------------------
    def now(self) -> float:
        """Return the virtual moment."""
        return self._loop.time()

    def at(self, moment: float, call: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call at a moment."""
        return self._loop.call_at(moment, call, *args, context=self._context)

    def later(self, seconds: float, call: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call after some seconds."""
        return self._loop.call_at(self._loop.time() + seconds, call, *args, context=self._context)

    def draw(self, name: str) -> float:
        """Return a duration from the script's delays."""
        spread: Spread = getattr(self.script.delays, name)
        return spread.draw(self.rng)

    # processes ------------------------------------------------------------------------------------------------------------
    def fork(self, blueprint: Blueprint, handler: Handler, wait: float, import_error: str) -> SimInstance:
        """Start a process that is ready after its boot time and `wait` seconds."""
        self._numbers += 1
        process = SimInstance(self, self._numbers, blueprint, handler, self.epoch)
        self.processes[process.id] = process
        self.slots[process.id] = blueprint.slots
        self.ledger.note(self.now(), f"{process}: launched for {blueprint.function}:{blueprint.version}")
        process.boot(wait + self.draw("fork") + handler.boot.draw(self.rng), import_error)
        return process

    def bury(self, process: SimInstance) -> None:
        """Forget a process that was reaped."""
        del self.processes[process.id]
        if self._owner is not None:
            self._owner.someone_left()

    def check_context(self, pipeline: PipelineContext) -> None:
        """Note a breach if a pipeline context's key was used for other contents before."""
        known = self._contexts.setdefault(pipeline.key, (pipeline.name, pipeline.params))
        if known != (pipeline.name, pipeline.params):
            self.ledger.breach(self.now(), f"context key {pipeline.key} stands for {known} and for {pipeline}")

    # servers --------------------------------------------------------------------------------------------------------------
    def own(self, compute: "SimCompute") -> None:
        """Let a new server own the machine; keys and attempts are unique within a server's life only."""
        self.epoch += 1
        self.attempts.clear()
        self._contexts.clear()
        self._owner = compute

    def orphan(self) -> None:
        """Let the owner be dead: its processes die a little later, unless the next server is faster."""
        self._owner = None
        for process in self.processes.values():
            self.later(self._orphans_live.draw(self.rng), process.die, Exit(None, 9, killed=True, detail="orphaned"))

    def severed(self, process: SimInstance) -> bool:
        """Say whether the server that made a process is dead."""
        return self._owner is None or self._owner.epoch != process.epoch

    def listener(self, process: SimInstance) -> Listener | None:
        """Return who hears of a process; None when that server is dead."""
        return None if self._owner is None or self._owner.epoch != process.epoch else self._owner.listener

    def tell(self, call: Callable[[], None]) -> None:
        """Call into the server, as part of its life."""
        assert self._owner is not None
        self._owner.context.run(call)


class SimCompute:
    """Make simulated instances, for one life of a server."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.epoch = 0
        self.listener: Listener | None = None
        self.context = contextvars.copy_context()
        self._prepared: set[tuple[str, int, str]] = set()
        self._changed = asyncio.Event()
        self._dead = False
        self._closed = False

    @property
    def enforcement(self) -> str:
        """Return by what means an instance is kept within its `memory`."""
        return "simulated"

    def isolation(self, level: Level) -> Isolation:
        """Return what this machine gives a level of the sandbox: nothing is missing."""
        return Isolation(level)

    async def open(self, listener: Listener) -> None:
        """Own the machine, and end what an earlier server left running."""
        self.machine.own(self)
        self.context = contextvars.copy_context()
        self.listener = listener
        self.epoch = self.machine.epoch
        for process in list(self.machine.processes.values()):
            process.die(Exit(None, 9, killed=True, detail="left by an earlier server"))
        await self._wait_until_empty()

    async def close(self) -> None:
        """End every instance, and wait until all are gone."""
        self._closed = True
        for process in list(self.machine.processes.values()):
            process.kill()
        await self._wait_until_empty()

    async def furnish(self, code: Code) -> Environment | None:  # noqa: ARG002
        """Install nothing: scripts need no packages."""
        return None

    async def environments(self, codes: Collection[Code]) -> Mapping[Code, Environment]:  # noqa: ARG002
        """Return none."""
        return {}

    async def tidy(self, codes: Collection[Code]) -> None:
        """Delete nothing: there is nothing."""

    async def prepare(self, blueprint: Blueprint, timeout: float) -> None:
        """Import the code."""
        handler = self._handler(blueprint)
        seconds = handler.import_time.draw(self.machine.rng)
        await asyncio.sleep(min(seconds, timeout))
        if seconds > timeout:
            raise ImportFailed(f"The import of {blueprint.handler} takes longer than {timeout} s.")
        if handler.import_error:
            raise ImportFailed(handler.import_error, f"Traceback: {handler.import_error}")
        self._prepared.add(_key(blueprint))

    def launch(self, blueprint: Blueprint) -> Instance:
        """Start one instance."""
        machine = self.machine
        if self._closed:
            machine.ledger.breach(machine.now(), f"{blueprint.function} was launched after close")
        handler = self._handler(blueprint)
        prepared = _key(blueprint) in self._prepared
        wait = 0.0 if prepared else handler.import_time.draw(machine.rng)
        if not handler.import_error:
            self._prepared.add(_key(blueprint))
        process = machine.fork(blueprint, handler, wait, handler.import_error)
        if self._dead:
            process.die(Exit(None, 9, killed=True, detail="made by a dead server"))
        return process

    def retire(self, blueprint: Blueprint) -> None:
        """Forget that the code is imported."""
        self._prepared.discard(_key(blueprint))

    def memory_left(self) -> tuple[int, int] | None:
        """Return what the processes that there are leave of the memory."""
        fitting = self.machine.script.fitting
        if fitting is None:
            return None
        total = SPARED + fitting * WEIGHT
        return total - len(self.machine.processes) * WEIGHT, total

    async def weigh(self, instances: Collection[Instance]) -> Sequence[int]:
        """Return what processes weigh: all the same."""
        return [WEIGHT if instance.id in self.machine.processes else 0 for instance in instances]

    async def peaks(self, instances: Collection[Instance]) -> Sequence[int]:
        """Return what processes have weighed at most: all the same."""
        return await self.weigh(instances)

    def ping(self, instance: Instance) -> None:
        """Ask for a sign of life."""
        assert isinstance(instance, SimInstance)
        instance.ping()

    async def holder(self, instance: Instance) -> int | None:
        """Return the attempt that keeps an instance from answering, most of the time."""
        assert isinstance(instance, SimInstance)
        await asyncio.sleep(0.06)
        return instance.holder() if self.machine.rng.random() < 0.8 else None

    def die(self) -> None:
        """Be cut off from the machine, as a killed server is; what is asked of it now does nothing."""
        self._dead = True
        self.machine.orphan()

    def someone_left(self) -> None:
        """Hear that a process was reaped."""
        self._changed.set()

    async def _wait_until_empty(self) -> None:
        while self.machine.processes and not self._dead:
            self._changed.clear()
            await self._changed.wait()

    def _handler(self, blueprint: Blueprint) -> Handler:
        handlers = self.machine.script.handlers
        for name in (f"{blueprint.bundle}/{blueprint.handler}", blueprint.handler):
            if name in handlers:
                return handlers[name]
        module, _, name = blueprint.handler.partition(":")
        return Handler(_never, import_error=f"The module '{module}' has no '{name}'.")


def _never(call: Any) -> Any:
    raise AssertionError(f"{call} reached a handler that does not exist")


def _key(blueprint: Blueprint) -> tuple[str, int, str]:
    return blueprint.function, blueprint.version, blueprint.bundle
