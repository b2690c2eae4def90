"""Changes of the configuration: validated whole, planned, written in one transaction, then carried out.

One change at a time. What is written is what the reconciler then makes true; nothing is applied of a change that cannot
be applied whole. Whatever may fail comes before the transaction, so that memory and store never disagree afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from weakref import WeakValueDictionary

from penstock.domain.errors import BadRequest, NotFound, PenstockError
from penstock.domain.mistakes import nearest
from penstock.domain.plan import Plan, Step, plan_in_steps, plan_removal_in_steps
from penstock.domain.settings import Configuration, Kind, merge, redact, validate_in_steps, validate_one_in_steps
from penstock.domain.task import State
from penstock.engine.archive import Archive
from penstock.engine.bell import Bell
from penstock.engine.feasible import Feasible
from penstock.engine.objects import SettingsByKey, SettingsByName
from penstock.engine.versions import Flip, Versions, settings_beside_versions, settings_of_version
from penstock.store.protocol import Change, StoredObject, Write

if TYPE_CHECKING:
    from collections.abc import Collection, Coroutine, Generator, Mapping, Sequence
    from typing import TypeVar

    from penstock.compute.protocol import Environment
    from penstock.engine.loops import Loops
    from penstock.engine.model import Plant
    from penstock.engine.reconciler import Reconciler
    from penstock.store.protocol import Version

    T = TypeVar("T")

Removal = Literal["refuse", "drain", "discard"]

SLICE: Final = 0.002
"""Seconds of work on a large configuration between two looks at everything else."""

LATER: Final = 1.0
"""Seconds until what the store did not take of a removal is tried again."""

log = logging.getLogger(__name__)


class Bundles(Protocol):
    """Keep code by its digest."""

    async def add(self, body: bytes) -> str:
        """Keep a zip of code; return its digest. Raises `BadRequest` or `TooLarge` if it is none to keep."""

    async def sweep(self, used: Collection[str]) -> int:
        """Delete what is not among these digests, and was not added just now; return how many went."""


@dataclass(frozen=True, slots=True)
class Applied:
    """Report a plan, and the rows of the change log that carrying it out wrote (none for a dry run)."""

    plan: Plan
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class Deployed:
    """Report the version that went live, and the environment that its code runs in, if it asks for one."""

    version: Version
    environment: Environment | None


class Configurer:
    """Change the configuration. `changed` is rung when something has changed."""

    def __init__(self, plant: Plant, reconciler: Reconciler, bundles: Bundles) -> None:
        self.changed = Bell()
        self._plant = plant
        self._reconciler = reconciler
        self._bundles = bundles
        self._versions = Versions(plant, reconciler)
        self._known = {kind: SettingsByName(objects) for kind, objects in reconciler.objects.items()}
        self._current = SettingsByKey(reconciler.objects)
        self._feasible = Feasible(plant, self._known)
        self._lock = asyncio.Lock()
        self.archive = Archive(plant, bundles, self._lock)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # of deploys, by function
        self._jobs: set[asyncio.Task[None]] = set()
        self._left = reconciler.left

    def join(self, loops: Loops) -> None:
        """Get to know who writes outcomes: some changes wait until the store has them all."""
        self._recorder, self._maps = loops.recorder, loops.maps

    def open(self) -> None:
        """Take up removals that were under way."""
        for name in self._plant.pipes:
            self._look_drained(name)

    def close(self) -> None:
        """Change nothing more."""
        for job in self._jobs:
            job.cancel()

    # objects ------------------------------------------------------------------------------------------------------
    async def apply(self, document: object, *, prune: bool, dry_run: bool, tasks: Removal) -> Applied:
        """Make the configuration what a document says. Raises `InvalidSettings` with every mistake, having changed nothing."""
        async with self._lock:
            wanted = await in_slices(validate_in_steps(document, self._known))
            plan = await in_slices(plan_in_steps(self._current, wanted, prune))
            await in_slices(self._feasible.check(plan))
            if dry_run:
                self._feasible.busy(plan, refuse=tasks == "refuse", drain=tasks == "drain")
                return Applied(plan, [])
            return Applied(plan, await self._carry_out(plan, tasks))

    async def put(self, kind: Kind, name: str, settings: object) -> StoredObject:
        """Make or replace one object."""
        async with self._lock:
            return await self._put(kind, name, settings)

    async def patch(self, kind: Kind, name: str, patch: object) -> StoredObject:
        """Change one object by a JSON merge patch (RFC 7396)."""
        async with self._lock:
            if not isinstance(patch, dict):
                raise BadRequest("A patch is a JSON object with the settings to change.")
            return await self._put(kind, name, merge(redact(self.lookup(kind, name).settings), patch))

    async def remove(self, kind: Kind, name: str, tasks: Removal) -> None:
        """Remove one object; `tasks` says what becomes of a pipeline's."""
        async with self._lock:
            plan = await in_slices(plan_removal_in_steps(self._current, kind, name))
            await in_slices(self._feasible.check(plan))
            await self._carry_out(plan, tasks)

    def lookup(self, kind: Kind, name: str) -> StoredObject:
        """Return one object. Raises `NotFound` with the nearest name."""
        objects = self._reconciler.objects[kind]
        if name not in objects:
            raise NotFound(kind, name, nearest(name, objects))
        return objects[name]

    async def _put(self, kind: Kind, name: str, settings: object) -> StoredObject:
        clean = await in_slices(validate_one_in_steps(kind, name, settings, self._known))
        plan = await self._plan_one(kind, name, clean)
        await in_slices(self._feasible.check(plan))
        await self._carry_out(plan, "refuse")
        return self.lookup(kind, name)

    async def _plan_one(self, kind: Kind, name: str, settings: Mapping[str, Any]) -> Plan:
        return await in_slices(plan_in_steps(self._current, Configuration.of(kind, name, settings)))

    # code ---------------------------------------------------------------------------------------------------------
    async def deploy(self, function: str, body: bytes, settings: object | None) -> Deployed:
        """Make code the live version of a function; return that version.

        Settings make the function if there is none, else they change those that it has (RFC 7396).

        Raises `DeployFailed` if its packages cannot be installed, or with the traceback if it does not import: what was live
        stays live. While packages are installed, other changes go on.
        """
        async with self._turn(function):  # what was sent last goes live last, however long it takes
            clean = await self._settings_of(function, settings)  # refused before anything is installed
            bundle = await self._bundles.add(body)
            environment = await self._versions.furnish(function, bundle, clean)
            async with self._lock:
                clean = await self._settings_of(function, settings)
                flip = await self._versions.make(function, bundle, clean)
                return Deployed(await self._make_live(flip, clean), environment)

    def _turn(self, function: str) -> asyncio.Lock:
        """Return what lets a function's deploys go one after the other; it is gone when none is under way."""
        turn = self._turns.get(function)
        if turn is None:
            turn = self._turns[function] = asyncio.Lock()
        return turn

    async def _settings_of(self, function: str, settings: object | None) -> Mapping[str, Any]:
        if settings is None:
            return dict(self.lookup("function", function).settings)
        known = self._reconciler.objects["function"].get(function)
        if known is not None and isinstance(settings, dict):
            settings = merge(redact(known.settings), settings)
        return await in_slices(validate_one_in_steps("function", function, settings, self._known))

    async def rollback(self, function: str, number: int | None = None) -> Deployed:
        """Make an earlier version live again, with the settings that it had; return it.

        Without a number that is the version which the live one took over from, so that each further rollback goes one
        further back. Raises `Conflict` if there is none, `NotFound`, and `DeployFailed` and `InvalidSettings` if the code
        or what its settings refer to is gone: what is live stays live.
        """
        async with self._turn(function):
            self.lookup("function", function)
            there = await self._versions.look_up(function, number)
            environment = await self._versions.furnish(function, there.version.bundle, there.version.settings)
            async with self._lock:
                beside = settings_beside_versions(self.lookup("function", function).settings)
                flip = await self._versions.find(function, number)
                settings = {**flip.version.settings, **beside}
                steps = validate_one_in_steps("function", function, settings, self._known)
                return Deployed(await self._make_live(flip, await in_slices(steps)), environment)

    async def _make_live(self, flip: Flip, settings: Mapping[str, Any]) -> Version:
        try:
            plan = await self._plan_one("function", flip.version.function, settings)
            await in_slices(self._feasible.check(plan))
            await self._write(plan.steps, [flip])
        except PenstockError:
            self._versions.forget(flip)
            raise
        return flip.version

    # carrying out ---------------------------------------------------------------------------------------------------
    async def _carry_out(self, plan: Plan, tasks: Removal) -> list[Change]:
        """Carry a plan out. New settings of a function that has code are a new version, which has to import too."""
        closed = [
            self._plant.pipes[step.name] for step in plan.steps if step.kind == "pipeline" and step.action == "remove"
        ]
        flips: list[Flip] = []
        try:
            for pipe in closed:  # what is sent from now on is refused, not taken and then discarded
                pipe.closed = True
            steps: Sequence[Step] = plan.steps
            if (
                busy := self._feasible.busy(plan, refuse=tasks == "refuse", drain=tasks == "drain")
            ) and tasks == "drain":
                steps = [self._drain(one) if one.name in busy and one.kind == "pipeline" else one for one in steps]
            for step in steps:
                function = self._plant.functions.get(step.name) if step.kind == "function" else None
                live = None if function is None else function.live
                if (
                    live is not None
                    and step.settings is not None
                    and settings_of_version(step.settings) != live.settings
                ):
                    flips.append(await self._versions.make(step.name, live.bundle, step.settings))
                if function is not None and step.settings is not None:
                    await self._versions.revive(function, step.settings.get("aliases", {}))
            return await self._write(steps, flips)
        except PenstockError:
            for flip in flips:
                self._versions.forget(flip)
            raise
        finally:
            for pipe in closed:
                pipe.closed = False

    def _drain(self, step: Step) -> Step:
        """Return the step that lets a pipeline drain, and then go, in the place of the one that removes it."""
        before = self.lookup("pipeline", step.name).settings
        after = {**before, "draining": True, "remove_when_empty": True}
        after.pop("paused", None)
        return Step("change", "pipeline", step.name, redact(before), redact(after), after)

    async def _write(self, steps: Sequence[Step], flips: Sequence[Flip]) -> list[Change]:
        """Write a change in one transaction, and then make it so: from there on nothing can fail."""
        plant = self._plant
        if self._left and any(step.action == "create" for step in steps):
            await self._discard_left()
        writes: list[Write] = []
        await in_slices(_add_writes(writes, steps))
        live = {flip.version.function: flip.version.number for flip in flips}
        wall = plant.wall()
        changes = await plant.store.apply(plant.project_id, writes, wall, live) if writes or live else []
        await in_slices(self._reconcile(steps, flips, wall))
        if changes:
            self.changed.ring()
        if self._left:
            await self._try_to_discard()
        return changes

    def _reconcile(self, steps: Sequence[Step], flips: Sequence[Flip], wall: float) -> Generator[None, None, None]:
        """Make what runs agree with what was written."""
        for step in steps:
            if step.settings is not None:
                known = self._reconciler.objects[step.kind].get(step.name)
                created = wall if known is None else known.created
                yield from self._reconciler.put(StoredObject(step.kind, step.name, step.settings, created, wall))
                if step.kind == "pipeline":
                    self._look_drained(step.name)
            else:
                yield from self._reconciler.remove(step.kind, step.name)
            yield
        for flip in flips:
            yield from self._reconciler.flip(flip)

    # pipelines that go --------------------------------------------------------------------------------------------------
    def _look_drained(self, name: str) -> None:
        """Let a pipeline go that takes no more tasks, has none, and was to be removed then."""
        pipe = self._plant.pipes[name]
        if pipe.spec.draining and pipe.leaving and not pipe.busy:
            self.emptied(name)

    def emptied(self, name: str) -> None:
        """Remove a pipeline that was to go when its work is done, if it still has none."""
        self._do_later(self._remove_empty(name))

    async def _remove_empty(self, name: str) -> None:
        while True:
            try:
                async with self._lock:
                    pipe = self._plant.pipes.get(name)
                    if pipe is not None and pipe.leaving and not pipe.busy:
                        pipe.closed = True
                        plan = await in_slices(plan_removal_in_steps(self._current, "pipeline", name))
                        await self._write(plan.steps, ())
            except PenstockError as error:
                if (pipe := self._plant.pipes.get(name)) is not None:
                    pipe.closed = False
                log.warning("The pipeline '%s' is done and could not be removed yet: %s", name, error)
                await asyncio.sleep(LATER)
            else:
                return

    async def _try_to_discard(self) -> None:
        """Delete what removed pipelines had waiting; what the store does not take now it gets later."""
        try:
            await self._discard_left()
        except PenstockError as error:
            log.warning("Tasks of removed pipelines could not be deleted yet: %s", error)
            self._do_later(self._discard_later())

    async def _discard_later(self) -> None:
        await asyncio.sleep(LATER)
        async with self._lock:
            if self._left:
                await self._try_to_discard()

    async def _discard_left(self) -> None:
        await self._recorder.catch_up()  # else what has just ended would be taken for waiting
        for name in sorted(self._left):
            await self._plant.store.discard(self._plant.project_id, name, (State.QUEUED, State.DELAYED))
            self._left.discard(name)
            await self._maps.look_again(name)

    def _do_later(self, work: Coroutine[Any, Any, None]) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    # the change stream ------------------------------------------------------------------------------------------------
    async def changes(self, after: int, limit: int, wait: float = 0.0) -> list[Change]:
        """Return rows of the change log behind a sequence; wait up to `wait` seconds for one if there is none yet."""
        store, project = self._plant.store, self._plant.project_id
        rung = self.changed.rung
        rows = await store.changes(project, after, limit)
        if rows or not wait:
            return rows
        await self.changed.wait(rung, wait)
        return await store.changes(project, after, limit)


def _add_writes(writes: list[Write], steps: Sequence[Step]) -> Generator[None, None, None]:
    for step in steps:
        writes.append(Write(step.kind, step.name, step.action, step.settings, step.before, step.after))
        yield


async def in_slices(steps: Generator[None, None, T]) -> T:
    """Do long work a little at a time, so that the event loop is never blocked for long."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result
        if loop.time() - began > SLICE:
            await asyncio.sleep(0)
            began = loop.time()
