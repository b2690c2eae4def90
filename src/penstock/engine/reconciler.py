"""The reconciler: makes what runs agree with the configuration.

Pipelines appear, change and vanish with their configuration object. A new live version is one flip for all pipelines of
its function: they share fleets, and a fleet is told of the new blueprint once, however many pipelines run there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from itertools import count, product
from typing import TYPE_CHECKING, Any, Final

from penstock.compute.protocol import Blueprint, PipelineContext
from penstock.domain.censor import censor_of
from penstock.domain.errors import Conflict
from penstock.domain.limits import Gate
from penstock.domain.settings import (
    SECTIONS,
    FunctionSpec,
    Kind,
    LimitSpec,
    PipelineSpec,
    PoolSpec,
    finish,
    function_spec,
    limit_spec,
    pipeline_spec,
    pool_spec,
)
from penstock.domain.task import WAITING, State
from penstock.engine.model import MOST_CALL_PAYLOAD, Fleet, Function, Pipe, direct, mapped
from penstock.engine.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from penstock.domain.pools import Pool
    from penstock.domain.specs import Tier
    from penstock.engine.loops import Loops
    from penstock.engine.model import Plant
    from penstock.engine.versions import Flip
    from penstock.store.protocol import StoredObject, Version

CEILING: Final = "function "
"""Prefix of the gate that holds a function's own ceilings: no shared limit can have such a name."""

PAGE: Final = 500


class Reconciler:
    """Carry out what the configuration says. `objects` is that configuration, secrets in clear."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self.objects: dict[Kind, Objects] = {kind: Objects(kind) for kind in SECTIONS}
        self._wide: dict[str, None] = {}  # the limits that every pipeline passes
        self.left: set[str] = set()  # removed pipelines whose tasks are still in the store
        self._contexts = count(1)

    def join(self, loops: Loops) -> None:
        """Get to know the loops that changes are passed on to."""
        self._scaler, self._lives, self._scheduler = loops.scaler, loops.lives, loops.scheduler
        self._pump, self._lender = loops.pump, loops.lender
        self._sleepers, self._visits, self._pools = loops.sleepers, loops.visits, loops.pools
        self._sizes = loops.sizes
        self._router = loops.router

    async def open(self) -> None:
        """Read the configuration, and how many tasks each pipeline has."""
        plant = self._plant
        for kind in SECTIONS:
            await self._load(kind)
        for name, states in (await plant.store.counts(plant.project_id)).items():
            pipe = plant.pipes.get(name)
            if pipe is None:
                await plant.store.discard(plant.project_id, name, tuple(WAITING))
                continue
            pipe.counts.queued = states.get(State.QUEUED, 0)
            pipe.counts.delayed = states.get(State.DELAYED, 0)
            pipe.counts.dead = states.get(State.DEAD, 0)
            if pipe.counts.queued:
                plant.admission.left_behind(name)

    async def _load(self, kind: Kind) -> None:
        """Read the objects of one kind, a page at a time: what is read is packed before the next page comes."""
        plant = self._plant
        after = ""
        while page := await plant.store.objects(plant.project_id, kind, after, PAGE):
            for stored in page:
                finish(self.put(stored))
                if kind == "function":
                    self._take_versions(stored.name, await plant.store.versions(plant.project_id, stored.name))
            after = page[-1].name

    # objects ------------------------------------------------------------------------------------------------------
    def put(self, stored: StoredObject) -> Generator[None, None, None]:
        """Make one object what it says now, yielding often: a function's may concern all its pipelines."""
        self.objects[stored.kind][stored.name] = stored
        if stored.kind == "limit":
            yield from self._put_limit(limit_spec(stored.name, stored.settings))
        elif stored.kind == "pool":
            spec = pool_spec(stored.name, stored.settings)
            yield from self._pools.put(spec)
            yield from self._router.put(spec)
        elif stored.kind == "function":
            yield from self._put_function(stored)
        else:
            self._put_pipeline(pipeline_spec(stored.name, stored.settings))
        self._pump.wake()

    def remove(self, kind: Kind, name: str) -> Iterator[None]:
        """Let one object go that nothing refers to any more, yielding often: a limit may be that of all pipelines."""
        del self.objects[kind][name]
        if kind == "limit":
            if name in self._wide:
                yield from self._spread(name, wide=False)
            self._remove_gate(name)
        elif kind == "pool":
            yield from self._router.put(PoolSpec(name))
            yield from self._pools.remove(name)
        elif kind == "function":
            for alias in (None, *self._plant.functions[name].spec.aliases):
                self._remove_built_in(name, alias)
            self._put_hosts(FunctionSpec(name, ""))
            self._sizes.forget(name)
            del self._plant.functions[name]
            if CEILING + name in self._plant.admission.gates:
                self._remove_gate(CEILING + name)
            self._plant.admission.reserve(name, 0)
        else:
            self._remove_pipeline(name)

    def _gate(self, name: str, rates: tuple[Any, ...], concurrency: int | None, *, adaptive: bool = False) -> None:
        admission = self._plant.admission
        gate = admission.gates.get(name) or admission.gone.take(f"limit {name}") or Gate(name)
        gate.configure(rates, concurrency, adaptive=adaptive)
        self._plant.admission.limit(gate)

    def _remove_gate(self, name: str) -> None:
        """Let a shared gate go; what it has used counts for one of the same name while it would have counted."""
        gate = self._plant.admission.gates.pop(name)
        self._lender.forget(gate)
        self._plant.admission.gone.keep(f"limit {name}", gate, self._plant.clock())

    def _put_limit(self, limit: LimitSpec) -> Iterator[None]:
        """Make a limit. A project-wide one of concurrency is a ceiling, unless downstream teaches it."""
        ceiling = limit.project and not limit.adaptive
        self._gate(limit.name, limit.rates, None if ceiling else limit.concurrency, adaptive=limit.adaptive)
        if limit.project:
            self._plant.admission.ceiling(limit.name, limit.concurrency if ceiling else None)
        if limit.project != (limit.name in self._wide):
            yield from self._spread(limit.name, wide=limit.project)

    def _spread(self, name: str, *, wide: bool) -> Iterator[None]:
        """Let every pipeline pass a project-wide limit from now on, or no longer."""
        plant = self._plant
        if wide:
            self._wide[name] = None
        else:
            del self._wide[name]
            plant.admission.remove_ceiling(name)
        for pipe in list(plant.pipes.values()):
            if plant.pipes.get(pipe.spec.name) is pipe:
                self._put_pipeline(pipe.spec)
                yield

    def _put_function(self, stored: StoredObject) -> Iterator[None]:
        plant = self._plant
        spec = function_spec(stored.name, stored.settings)
        gates = spec.limits
        if spec.rates or spec.concurrency is not None:
            self._gate(CEILING + spec.name, spec.rates, spec.concurrency)
            gates = (*gates, CEILING + spec.name)
        function = plant.functions.get(spec.name)
        self._put_hosts(spec)
        if spec.reserved_concurrency or function is not None:
            plant.admission.reserve(spec.name, spec.reserved_concurrency)
        if function is None:
            function = plant.functions[spec.name] = Function(spec.name, spec, gates)
            self._put_built_in(spec.name)
            yield from self._put_aliases(function, {})
            return
        same = function.gates == gates and function.spec.timeout == spec.timeout
        same = same and function.spec.reserved_concurrency == spec.reserved_concurrency
        same = same and function.spec.pool == spec.pool
        aliases = function.spec.aliases
        function.spec, function.gates = spec, gates
        if not same:
            for pipe in [pipe for pipe in plant.pipes.values() if pipe.spec.function == spec.name]:
                self._put_pipeline(pipe.spec)
                yield
        yield from self._put_aliases(function, aliases)
        for fleet in [fleet for fleet in plant.fleets.values() if fleet.function == spec.name]:
            self._lives.age(fleet)
            yield from self._router.place(fleet)
            self._scaler.keep_warm(fleet)
            self._sleepers.look_soon(fleet)
            yield

    def _put_aliases(self, function: Function, before: Mapping[str, int]) -> Iterator[None]:
        """Let calls and pipelines that name an alias go where it points now."""
        after = function.spec.aliases
        for alias in [alias for alias in before if alias not in after]:
            self._remove_built_in(function.name, alias)
        for alias in after:
            if direct(function.name, alias) not in self._plant.pipes:
                self._put_built_in(function.name, alias)
        turned = [alias for alias in after if before.get(alias) != after[alias]]
        for fleet in [one for one in self._plant.fleets.values() if one.function == function.name]:
            if fleet.pinned in turned:
                yield from self._turn(fleet, function)

    def _put_built_in(self, function: str, alias: str | None = None) -> None:
        """Make the pipelines for calls and maps of a function itself: who calls or maps hears of failures."""
        tiers: dict[str, Tier] = {direct(function, alias): "realtime", mapped(function, alias): "background"}
        for name, tier in tiers.items():
            spec = PipelineSpec(name, function, tier=tier, attempts=1, version=alias, dead_letters=False)
            self._put_pipeline(replace(spec, max_payload=MOST_CALL_PAYLOAD))

    def _remove_built_in(self, function: str, alias: str | None) -> None:
        for name in (direct(function, alias), mapped(function, alias)):
            self._remove_pipeline(name)

    def _put_hosts(self, spec: FunctionSpec) -> None:
        """Let host names lead to a function."""
        hosts = self._plant.hosts
        for host in [host for host, function in hosts.items() if function == spec.name and host not in spec.hosts]:
            del hosts[host]
        for host in spec.hosts:
            hosts[host] = spec.name

    def _put_pipeline(self, spec: PipelineSpec) -> None:
        plant = self._plant
        function = plant.functions[spec.function]
        pipe = plant.pipes.get(spec.name)
        fleet = self._fleet(spec, function)
        timeout = function.spec.timeout if spec.timeout is None else spec.timeout
        if pipe is None:
            context = PipelineContext(next(self._contexts), spec.name, spec.params)
            pipe = plant.pipes[spec.name] = Pipe(spec, context, fleet, timeout, censor_of(spec.secrets))
            aged = fleet.enter(timeout)
        else:
            if pipe.context.params != spec.params:
                pipe.context = PipelineContext(next(self._contexts), spec.name, spec.params)
            aged = fleet.enter(timeout)
            old, pipe.fleet = pipe.fleet, fleet
            if pipe.spec.secrets != spec.secrets:
                pipe.censor = censor_of(spec.secrets)
            before, pipe.spec, pipe.timeout = pipe.timeout, spec, timeout
            self._leave(old, before)
        if aged:
            self._lives.age(fleet)
        shared = tuple(dict.fromkeys((*spec.limits, *function.gates, *self._wide)))
        plant.admission.configure(spec, fleet.name, shared)

    def _remove_pipeline(self, name: str) -> None:
        plant = self._plant
        pipe = plant.pipes.pop(name)
        if pipe.busy:
            self.left.add(name)
        tasks = plant.admission.remove(name, plant.clock())
        self._visits.refuse(tasks, Conflict("The function was removed before the request could start."))
        for task in (*tasks, *self._scheduler.discard(name, tasks)):
            call = plant.calls.get(task.id)
            if call is not None and not call.done():
                call.set_exception(Conflict(f"The pipeline '{name}' was removed before the call could start."))
        self._leave(pipe.fleet, pipe.timeout)

    # fleets -------------------------------------------------------------------------------------------------------
    def _fleet(self, spec: PipelineSpec, function: Function) -> Fleet:
        """Return the fleet that a pipeline's tasks run in.

        There is one for each (function, pinned version or alias, environment, pool that the pipeline names itself).
        """
        own = None if spec.pool == function.spec.pool else spec.pool
        name = _fleet_name(spec.function, spec.version, spec.env, own)
        fleet = self._plant.fleets.get(name)
        if fleet is None:
            pool = self._pools.of(own or function.spec.pool)
            fleet = Fleet(name, spec.function, spec.version, spec.env, function.usage, pool, own)
            self._plant.fleets[name] = fleet
            version = function.version(spec.version)
            if version is not None:
                fleet.blueprint = self.blueprint(version, spec.env, pool)
        return fleet

    def _leave(self, fleet: Fleet, timeout: float) -> None:
        """Let a pipeline leave a fleet; one that no pipeline uses any more goes."""
        aged = fleet.leave(timeout)
        if fleet.users:
            if aged:
                self._lives.age(fleet)
            return
        for member in list(fleet.members.values()):
            self._lives.retire(member)
        self._plant.fleets.pop(fleet.name, None)
        fleet.pool.satisfied(fleet.name)
        self._router.forget(fleet)
        self._plant.admission.slots.pop(fleet.name, None)
        if fleet.blueprint is not None:
            self.retire(fleet.blueprint, fleet.env)

    def retire(self, blueprint: Blueprint, env: Mapping[str, str]) -> None:
        """Say that a blueprint is not wanted any more, unless a fleet runs on it: the live version may be pinned as well."""
        function = self._plant.functions.get(blueprint.function)
        pinned = (None, blueprint.version, *(() if function is None else function.spec.aliases))
        for version, pool in product(pinned, (None, *self._plant.pools)):
            fleet = self._plant.fleets.get(_fleet_name(blueprint.function, version, env, pool))
            if fleet is not None and fleet.blueprint == blueprint:
                return
        self._plant.compute.retire(blueprint)

    def blueprint(self, version: Version, env: Mapping[str, str], pool: Pool | None = None) -> Blueprint:
        """Return what instances of a version are made from, in a pool (None: the one that the version names)."""
        spec = function_spec(version.function, version.settings)
        memory = spec.memory
        if spec.learns_memory:
            memory = self._sizes.size(spec.name, pool or self._pools.of(spec.pool))
        return Blueprint(
            project=self._plant.project,
            function=version.function,
            version=version.number,
            bundle=version.bundle,
            handler=spec.handler,
            slots=spec.slots,
            reuse=spec.reuse,
            timeout=spec.timeout,
            memory=memory,
            tmpdir=spec.tmpdir,
            max_processes=spec.max_processes,
            sandbox=spec.sandbox,
            writable=spec.writable,
            network=spec.network,
            web=spec.web,
            env={**spec.env, **env},
            python=spec.python,
        )

    # versions -----------------------------------------------------------------------------------------------------
    def _take_versions(self, name: str, versions: list[Version]) -> None:
        function = self._plant.functions[name]
        function.versions = {version.number: version for version in versions}
        function.live = next((version for version in versions if version.live), None)
        for fleet in self._plant.fleets.values():
            if fleet.function == name and (version := function.version(fleet.pinned)) is not None:
                fleet.blueprint = self.blueprint(version, fleet.env, fleet.pool)

    def flip(self, flip: Flip) -> Iterator[None]:
        """Make a version the live one for every pipeline that is not pinned, yielding often."""
        plant = self._plant
        function = plant.functions[flip.version.function]
        function.versions = {one.number: one for one in flip.versions}
        function.live = flip.version
        for fleet in [one for one in plant.fleets.values() if one.function == function.name and one.pinned is None]:
            yield from self._turn(fleet, function)
        if flip.prepared is not None:  # the pool or the size may have been another one then
            self.retire(flip.prepared, {})

    def _turn(self, fleet: Fleet, function: Function) -> Iterator[None]:
        """Let a fleet run the version that its pipelines name now."""
        version = function.version(fleet.pinned)
        if version is None:  # they are still being read
            return
        old, fleet.blueprint = fleet.blueprint, self.blueprint(version, fleet.env, fleet.pool)
        self._router.renew(fleet)
        yield from self._scaler.switch(fleet)
        if old is not None:
            self.retire(old, fleet.env)
        self._pump.wake()
        yield


def _fleet_name(function: str, pinned: int | str | None, env: Mapping[str, str], pool: str | None) -> str:
    name = function if pinned is None else f"{function}@{pinned}"
    if pool is not None:
        name += f"%{pool}"
    if env:
        name += "#" + hashlib.sha256(json.dumps(env, sort_keys=True).encode()).hexdigest()[:16]
    return name
