"""Changes of the configuration: validated whole, planned, written in one transaction, then carried out.

One change at a time. What is written is what the reconciler then makes true; nothing is applied of a change that cannot
be applied whole.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from penstock.compute.protocol import ImportFailed
from penstock.domain.errors import BadRequest, Conflict, DeployFailed, InvalidSettings, Mistake, NotFound, PenstockError
from penstock.domain.mistakes import nearest
from penstock.domain.plan import Plan, Step, plan_in_steps, plan_removal
from penstock.domain.settings import SECTIONS, Configuration, Kind, merge, redact, validate_in_steps, validate_one
from penstock.domain.task import State
from penstock.engine.bell import Bell
from penstock.store.protocol import Change, StoredObject, Write

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping
    from typing import TypeVar

    from penstock.engine.model import Plant
    from penstock.engine.reconciler import Reconciler
    from penstock.store.protocol import Version

    T = TypeVar("T")

Removal = Literal["refuse", "drain", "discard"]

PREPARE_TIMEOUT: Final = 60.0
"""How long (seconds) new code may take to import before its deploy is refused."""

SLICE: Final = 0.002
"""Seconds of work on a large configuration between two looks at everything else."""

REMOVAL_PAUSE: Final = 1.0
"""Seconds until the removal of an empty pipeline is tried again that the store did not take."""

DRAINING: Final = "draining pipelines"

log = logging.getLogger(__name__)


class Bundles(Protocol):
    """Keep code by its digest."""

    async def add(self, body: bytes) -> str:
        """Keep a zip of code; return its digest. Raises `BadRequest` or `TooLarge` if it is none to keep."""


@dataclass(frozen=True, slots=True)
class Applied:
    """Report a plan, and the rows of the change log that carrying it out wrote (none for a dry run)."""

    plan: Plan
    changes: list[Change]


class Configurer:
    """Change the configuration."""

    def __init__(
        self, plant: Plant, reconciler: Reconciler, bundles: Bundles, catch_up: Callable[[], Awaitable[None]]
    ) -> None:
        self._plant = plant
        self._reconciler = reconciler
        self._bundles = bundles
        self._catch_up = catch_up  # returns when the store knows all outcomes that there are
        self._lock = asyncio.Lock()
        self._changed = Bell()
        self._jobs: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Take up removals that were under way."""
        note = await self._plant.store.note(self._plant.project_id, DRAINING)
        for name in json.loads(note or b"[]"):
            pipe = self._plant.pipes.get(name)
            if pipe is not None:
                pipe.draining = True
                self.emptied(name)

    def close(self) -> None:
        """Change nothing more."""
        for job in self._jobs:
            job.cancel()

    # objects ------------------------------------------------------------------------------------------------------
    async def apply(self, document: object, *, prune: bool, dry_run: bool, tasks: Removal) -> Applied:
        """Make the configuration what a document says. Raises `InvalidSettings` with every mistake, having changed nothing."""
        async with self._lock:
            wanted = await _in_slices(validate_in_steps(document, self._known()))
            plan = await _in_slices(plan_in_steps(self._current(), wanted, prune))
            return Applied(plan, [] if dry_run else await self._carry_out(plan, tasks))

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
            await self._carry_out(plan_removal(self._current(), kind, name), tasks)

    def lookup(self, kind: Kind, name: str) -> StoredObject:
        """Return one object. Raises `NotFound` with the nearest name."""
        objects = self._reconciler.objects[kind]
        if name not in objects:
            raise NotFound(kind, name, nearest(name, objects))
        return objects[name]

    async def _put(self, kind: Kind, name: str, settings: object) -> StoredObject:
        clean = validate_one(kind, name, settings, self._known())
        plan = await _in_slices(plan_in_steps(self._current(), Configuration.of(kind, name, clean)))
        await self._carry_out(plan, "refuse")
        return self.lookup(kind, name)

    # code ---------------------------------------------------------------------------------------------------------
    async def deploy(self, function: str, body: bytes, settings: object | None) -> Version:
        """Make code the live version of a function, with its settings if given; return that version.

        Raises `DeployFailed` with the traceback if it does not import: what was live stays live.
        """
        async with self._lock:
            if settings is not None:
                known = self._reconciler.objects["function"].get(function)
                clean = validate_one("function", function, settings, self._known())
                before = None if known is None else known.settings
            else:
                clean = before = dict(self.lookup("function", function).settings)
            digest = await self._bundles.add(body)
            version = await self._prepare(function, digest, clean)
            if clean != before:
                plan = await _in_slices(plan_in_steps(self._current(), Configuration.of("function", function, clean)))
                await self._write(plan, "refuse")
            await self._flip(version)
            return version

    async def _prepare(self, function: str, bundle: str, settings: Mapping[str, Any]) -> Version:
        """Write a version and see that it imports."""
        plant = self._plant
        version = await plant.store.add_version(plant.project_id, function, bundle, settings, plant.wall())
        blueprint = self._reconciler.blueprint(version, {})
        try:
            await plant.compute.prepare(blueprint, PREPARE_TIMEOUT)
        except ImportFailed as error:
            plant.compute.retire(blueprint)
            raise DeployFailed(f"The code of '{function}' does not import: {error.message}", error.traceback) from error
        return version

    async def _flip(self, version: Version) -> None:
        plant = self._plant
        await plant.store.set_live(plant.project_id, version.function, version.number, plant.wall())
        await self._reconciler.flip(version)
        self._changed.ring()

    # carrying out ---------------------------------------------------------------------------------------------------
    async def _carry_out(self, plan: Plan, tasks: Removal) -> list[Change]:
        """Carry a plan out. New settings of a function that has code are a new version, which has to import too."""
        self._check_pins(plan)
        self._check_removals(plan, tasks)
        versions: list[Version] = []
        try:
            for step in plan.steps:
                function = self._plant.functions.get(step.name) if step.kind == "function" else None
                if function is not None and function.live is not None and step.settings is not None:
                    versions.append(await self._prepare(step.name, function.live.bundle, step.settings))
            changes = await self._write(plan, tasks)
        except PenstockError:
            for version in versions:  # nobody will run them
                self._plant.compute.retire(self._reconciler.blueprint(version, {}))
            raise
        for version in versions:
            await self._flip(version)
        return changes

    def _check_pins(self, plan: Plan) -> None:
        """Refuse pins to versions that there are not. Raises `InvalidSettings`."""
        mistakes = []
        for step in plan.steps:
            pin = step.settings.get("version") if step.kind == "pipeline" and step.settings is not None else None
            if step.settings is None or pin is None:
                continue
            function = self._plant.functions.get(step.settings["function"])
            versions = () if function is None else function.versions
            if pin not in versions:
                known = ", ".join(map(str, versions)) or "none yet"
                name = step.settings["function"]
                mistakes.append(
                    Mistake(f"pipelines.{step.name}.version", f"'{name}' has no version {pin}", f"known are {known}")
                )
        if mistakes:
            raise InvalidSettings(mistakes)

    async def _write(self, plan: Plan, tasks: Removal) -> list[Change]:
        plant = self._plant
        draining = self._check_removals(plan, tasks)
        steps = [step for step in plan.steps if step.name not in draining or step.kind != "pipeline"]
        writes = [Write(step.kind, step.name, step.action, step.settings, step.before, step.after) for step in steps]
        wall = plant.wall()
        changes = await plant.store.apply(plant.project_id, writes, wall) if writes else []
        began = plant.clock()
        for step in steps:
            await self._reconcile(step, wall)
            if plant.clock() - began > SLICE:
                await asyncio.sleep(0)
                began = plant.clock()
        if draining:
            await self._drain(draining)
        if changes:
            self._changed.ring()
        return changes

    async def _reconcile(self, step: Step, wall: float) -> None:
        if step.settings is not None:
            known = self._reconciler.objects[step.kind].get(step.name)
            created = wall if known is None else known.created
            self._reconciler.put(StoredObject(step.kind, step.name, step.settings, created, wall))
        else:
            self._reconciler.remove(step.kind, step.name)
            if step.kind == "pipeline":
                await self._catch_up()  # else what has just ended would be taken for waiting
                waiting = (State.QUEUED, State.DELAYED)
                await self._plant.store.discard(self._plant.project_id, step.name, waiting)

    def _check_removals(self, plan: Plan, tasks: Removal) -> set[str]:
        """Return the pipelines that are to go when their work is done. Raises `Conflict` if some have work and may not."""
        busy = set()
        for step in plan.steps:
            if step.kind == "pipeline" and step.action == "remove":
                counts = self._plant.pipes[step.name].counts
                if counts.waiting or counts.running:
                    busy.add(step.name)
        if busy and tasks == "refuse":
            left = Counter({name: self._plant.pipes[name].counts.waiting for name in busy})
            some = ", ".join(f"'{name}' ({number} waiting)" for name, number in left.most_common(5))
            raise Conflict(f"Pipelines still have tasks: {some}. Say whether to drain or to discard them.")
        if (
            any(step.kind in {"function", "limit"} and step.action == "remove" for step in plan.steps)
            and tasks == "drain"
            and busy
        ):
            raise Conflict(
                "A function or limit cannot go before the pipelines that use it have drained. Remove these first."
            )
        return busy if tasks == "drain" else set()

    async def _drain(self, names: set[str]) -> None:
        for name in names:
            self._plant.pipes[name].draining = True
        await self._save_draining()
        for name in names:
            self.emptied(name)

    async def _save_draining(self) -> None:
        names = [name for name, pipe in self._plant.pipes.items() if pipe.draining]
        body = json.dumps(names).encode() if names else None
        await self._plant.store.save_note(self._plant.project_id, DRAINING, body)

    def emptied(self, name: str) -> None:
        """Remove a pipeline that was to go when its work is done, if it still has none."""
        job = asyncio.get_running_loop().create_task(self._remove_empty(name))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _remove_empty(self, name: str) -> None:
        while True:
            try:
                await self._remove_if_empty(name)
            except PenstockError as error:
                log.warning("The pipeline '%s' is done and could not be removed yet: %s", name, error)
                await asyncio.sleep(REMOVAL_PAUSE)
            else:
                return

    async def _remove_if_empty(self, name: str) -> None:
        async with self._lock:
            pipe = self._plant.pipes.get(name)
            if pipe is None or not pipe.leaving or pipe.counts.waiting or pipe.counts.running:
                return
            was_draining = pipe.draining
            await self._write(plan_removal(self._current(), "pipeline", name), "discard")
            if was_draining:
                await self._save_draining()

    # the change stream ------------------------------------------------------------------------------------------------
    async def changes(self, after: int, limit: int, wait: float = 0.0) -> list[Change]:
        """Return rows of the change log behind a sequence; wait up to `wait` seconds for one if there is none yet."""
        store, project = self._plant.store, self._plant.project_id
        rung = self._changed.rung
        rows = await store.changes(project, after, limit)
        if rows or not wait:
            return rows
        await self._changed.wait(rung, wait)
        return await store.changes(project, after, limit)

    def _known(self) -> dict[Kind, dict[str, Mapping[str, Any]]]:
        return {
            kind: {name: stored.settings for name, stored in self._reconciler.objects[kind].items()}
            for kind in SECTIONS
        }

    def _current(self) -> dict[tuple[Kind, str], Mapping[str, Any]]:
        return {
            (kind, name): stored.settings
            for kind in SECTIONS
            for name, stored in self._reconciler.objects[kind].items()
        }


async def _in_slices(steps: Generator[None, None, T]) -> T:
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
