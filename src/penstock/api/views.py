"""How things look from outside: the one place that turns objects of the domain and the store into the API's JSON.

Moments are RFC 3339 in UTC with milliseconds, names of tasks hexadecimal, results the bytes that handlers gave. Settings
leave through `redact` only.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, Final

import msgspec

from penstock.compute.protocol import Environment, Isolation, Level
from penstock.domain.explain import Reason
from penstock.domain.forecast import PLAYED, Forecast
from penstock.domain.limits import Gate
from penstock.domain.plan import Step
from penstock.domain.settings import redact
from penstock.domain.task import ENDED, Outcome, State, name_of
from penstock.domain.units import format_size
from penstock.engine.configuration import Applied, Deployed
from penstock.engine.engine import Engine
from penstock.engine.model import PRESENT, Fleet, Function, Member, Source, built_in_of, direct
from penstock.engine.outlook import Expected
from penstock.store.protocol import Change, Line, StoredAttempt, StoredObject, StoredTask, Version

View = dict[str, Any]

SANDBOXES: Final[tuple[Level, ...]] = ("standard", "strict")
"""The levels of which the status says what this machine gives them."""

encode = msgspec.json.Encoder().encode


def moment(at: float | None) -> str | None:
    """Return a wall-clock moment as text; None for one that is not, or never comes."""
    if at is None or not isfinite(at):
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


# configuration --------------------------------------------------------------------------------------------------------
def limit_view(engine: Engine, stored: StoredObject) -> View:
    """Show a shared limit; `waiting` is how many pipelines wait at it."""
    gate = engine.plant.admission.gates.get(stored.name)
    return {
        "name": stored.name,
        "settings": redact(stored.settings),
        "created": moment(stored.created),
        "updated": moment(stored.updated),
        "held_until": _held_until(engine, gate),
        "waiting": 0 if gate is None or gate.waiters is None else gate.waiters.count,
        "learned": _learned(gate),
    }


def pool_view(engine: Engine, stored: StoredObject) -> View:
    """Show a pool: its instances by function, the fleets that wait for a place there, and the memory that it uses."""
    pool = engine.pools.of(stored.name)
    held: Counter[str] = Counter()
    for name, count in pool.held.items():
        held[engine.plant.fleets[name].function] += count
    return {
        "name": stored.name,
        "settings": redact(stored.settings),
        "created": moment(stored.created),
        "updated": moment(stored.updated),
        "instances": pool.present,
        "functions": dict(held),
        "waiting": pool.waiting,
        "memory": pool.used,
    }


def _held_until(engine: Engine, gate: Gate | None) -> str | None:
    held = gate is not None and gate.held_until > engine.plant.clock()
    return moment(_wall(engine, gate.held_until)) if gate is not None and held else None


def _learned(gate: Gate | None) -> View | None:
    """Show what an adaptive gate holds to now; None for one that is not adaptive, or has had no task yet."""
    if gate is None or gate.adaptive is None:
        return None
    learned = gate.adaptive.learned
    return {"rate": learned.pace, "concurrency": learned.concurrency}


def function_view(engine: Engine, stored: StoredObject, members: Mapping[str, Sequence[Member]]) -> View:
    """Show a function; `members` comes from `members_by_function`. One in its last phase counts as draining."""
    function, mine = engine.plant.functions[stored.name], members.get(stored.name, ())
    states = Counter(member.state if member.state in PRESENT else "draining" for member in mine)
    return {
        "name": stored.name,
        "settings": redact(stored.settings),
        "live": None if function.live is None else function.live.number,
        "versions": len(function.versions),
        "source": None if function.spec.source is None else _source_view(function.spec.source.url, function.source),
        "sandbox": {
            "wanted": function.spec.sandbox,
            **_isolation_view(engine.plant.compute.isolation(function.spec.sandbox)),
        },
        "created": moment(stored.created),
        "updated": moment(stored.updated),
        "instances": {state: states[state] for state in ("ready", "starting", "draining")},
        "usage": _usage_view(engine, function, mine),
        "learned": _learned_view(engine, function),
        "pool": _placed_view(engine, engine.plant.pipes[direct(stored.name)].fleet),
        "web": _web_view(function),
    }


def _learned_view(engine: Engine, function: Function) -> View | None:
    """Show how much memory the next instance may use, and from how many runs that is known; None if it is not learned."""
    if not function.spec.learns_memory:
        return None
    size = engine.sizes.size(function.name, engine.plant.pipes[direct(function.name)].fleet.pool)
    return {"memory": format_size(size), "runs": engine.sizes.need(function.name).runs}


def _web_view(function: Function) -> View:
    """Show where a function's web app is found, and its requests since the server started."""
    traffic = function.traffic
    return {
        "path": f"/web/{function.name}/",
        "open": traffic.open,
        "answered": traffic.answered,
        "failed": traffic.failed,
        "seconds": round(traffic.seconds, 3),
    }


def _placed_view(engine: Engine, fleet: Fleet) -> View:
    """Show the pool in which instances start, why there, and what was measured of tasks and instances."""
    placed, durations = engine.router.placed(fleet), fleet.measured.durations
    return {
        "name": placed.pool,
        "routed": placed.routed,
        "why": placed.why,
        "p90": round(durations.quantile(0.9), 3) if durations.count else None,
        "memory": fleet.measured.memory,
    }


def _usage_view(engine: Engine, function: Function, members: Sequence[Member]) -> View:
    """Show the seconds that instances have lived and that requests have run in them, those of now included."""
    now = engine.plant.clock()
    lived = sum(now - member.born for member in members)
    ran = sum(now - running.sent for member in members if member.reads for running in member.busy.values())
    return {
        "instance_seconds": round(function.usage.instances + lived, 3),
        "request_seconds": round(function.usage.requests + ran, 3),
    }


def _isolation_view(isolation: Isolation) -> View:
    return {"reached": isolation.reached, "by": list(isolation.by), "missing": dict(isolation.missing)}


def _source_view(path: str, source: Source) -> View:
    return {"path": path, "error": source.error, "at": moment(source.at)}


def members_by_function(engine: Engine) -> dict[str, list[Member]]:
    """Return each function's instances."""
    found: dict[str, list[Member]] = {}
    for member in engine.plant.members.values():
        found.setdefault(member.fleet.function, []).append(member)
    return found


def pipeline_view(engine: Engine, stored: StoredObject, most: int = PLAYED) -> View:
    """Show a pipeline, with what binds it and when its queue is expected to end; `most` bounds the work of foretelling that."""
    plant = engine.plant
    pipe, pipeline = plant.pipes[stored.name], plant.admission.pipelines[stored.name]
    counts, now = pipe.counts, plant.clock()
    held = pipeline.own is not None and pipeline.own.held_until > now
    expected = engine.outlook.of_pipeline(pipe, most)
    return {
        "name": stored.name,
        "settings": redact(stored.settings),
        "created": moment(stored.created),
        "updated": moment(stored.updated),
        "paused": pipe.spec.paused,
        "draining": pipe.spec.draining,
        "held_until": moment(_wall(engine, pipeline.own.held_until)) if held and pipeline.own is not None else None,
        "learned": _learned(pipeline.own),
        "pool": _placed_view(engine, pipe.fleet),
        "counts": {
            "delayed": counts.delayed,
            "queued": counts.queued,
            "running": counts.running,
            "dead": counts.dead,
            "done": counts.done,
        },
        **_binding(engine, expected.reason, waits=counts.queued > 0),
        "backlog": counts.waiting,
        "expected_end": _foretold(engine, expected.forecast),
        **_certainty(expected.forecast),
    }


def _binding(engine: Engine, reason: Reason, *, waits: bool) -> View:
    """Show what binds a task or a pipeline, in members that both have."""
    waits = waits and reason.kind != "nothing"
    return {
        "waits_for": reason.text if waits else None,
        "kind": reason.kind if waits else "nothing",
        "limit": reason.name if waits and reason.kind in {"limit", "held"} else None,
        "until": None if reason.until is None or not waits else moment(_wall(engine, reason.until)),
    }


def _foretold(engine: Engine, forecast: Forecast) -> str | None:
    return None if forecast.at is None else moment(_wall(engine, forecast.at))


def _certainty(forecast: Forecast) -> View:
    """Show whether what is expected is more than a lower bound; `because` says why it is not, or why nothing is."""
    return {"exact": forecast.exact, "because": forecast.because or None}


def live_view(deployed: Deployed) -> View:
    """Show the version that has just gone live, and the environment that its code runs in."""
    version, environment = deployed.version, deployed.environment
    made = None if environment is None else {**_environment_view(environment), "fresh": environment.fresh}
    return {
        "function": version.function,
        "version": version.number,
        "bundle": version.bundle,
        "live": True,
        "environment": made,
    }


def _environment_view(environment: Environment) -> View:
    return {"digest": environment.digest, "packages": environment.packages, "seconds": environment.seconds}


def version_view(version: Version, environment: Environment | None, aliases: Mapping[str, int]) -> View:
    """Show a version of a function, and the environment that its code runs in, if it asks for one that is there."""
    return {
        "number": version.number,
        "bundle": version.bundle,
        "live": version.live,
        "aliases": [alias for alias, number in aliases.items() if number == version.number],
        "previous": version.previous,
        "created": moment(version.created),
        "environment": None if environment is None else _environment_view(environment),
    }


def change_view(change: Change) -> View:
    """Show a row of the change log."""
    return {
        "sequence": change.sequence,
        "at": moment(change.at),
        "action": change.action,
        "kind": change.kind,
        "name": change.name,
        "before": redact(change.before),
        "after": redact(change.after),
    }


def encode_step(step: Step) -> msgspec.Raw:
    """Encode one step of a plan."""
    view = {"action": step.action, "kind": step.kind, "name": step.name, "before": step.before, "after": step.after}
    return msgspec.Raw(encode(view))


def applied_view(applied: Applied, *, dry_run: bool) -> View:
    """Show what applying a configuration did, or would do, as yet without its steps."""
    change = applied.changes[-1].sequence if applied.changes else None
    return {"plan": [], "unchanged": applied.plan.unchanged, "applied": not dry_run, "change": change}


# tasks ----------------------------------------------------------------------------------------------------------------
def task_view(engine: Engine, stored: StoredTask, running: Collection[int] | None = None) -> View:
    """Show a task; `running`, the ids of all that run now, spares looking for each of many."""
    state = engine.state_of(stored, running)
    ended = stored.state in ENDED
    direct = built_in_of(stored.pipeline)
    body = msgspec.Raw(stored.result) if stored.result else None
    ok = stored.outcome is Outcome.OK
    return {
        "id": name_of(stored.id),
        "pipeline": None if direct else stored.pipeline,
        "function": direct or function_of(engine, stored.pipeline),
        "state": state.value,
        "outcome": None if stored.outcome is None else stored.outcome.value,
        "attempts": stored.attempts,
        "interruptions": stored.interruptions,
        "priority": stored.priority,
        "cost": stored.cost,
        "key": stored.key,
        "created": moment(stored.created),
        "due": moment(stored.due) if state is State.DELAYED else None,
        "expires": None if ended else moment(stored.start_by or stored.expires),
        "started": moment(stored.started),
        "finished": moment(stored.finished),
        "version": stored.version or None,
        "result": body if ok else None,
        "error": None if ok else body,
        "history": [_attempt_view(attempt) for attempt in stored.history],
    }


def _attempt_view(attempt: StoredAttempt) -> View:
    return {
        "number": attempt.number,
        "outcome": attempt.outcome.value,
        "started": moment(attempt.started),
        "finished": moment(attempt.finished),
        "error": msgspec.Raw(attempt.error) if attempt.error and attempt.outcome is not Outcome.OK else None,
    }


def function_of(engine: Engine, pipeline: str) -> str | None:
    """Return the function that a pipeline is in front of, if it is there."""
    pipe = engine.plant.pipes.get(pipeline)
    return None if pipe is None else pipe.spec.function


def why_view(engine: Engine, stored: StoredTask, expected: Expected) -> View:
    """Show what a task waits for, and when it is expected to start."""
    return {
        "state": engine.state_of(stored).value,
        **_binding(engine, expected.reason, waits=True),
        "position": expected.position,
        "expected_start": _foretold(engine, expected.forecast),
        **_certainty(expected.forecast),
    }


def line_view(position: int, line: Line) -> View:
    """Show a piece of output."""
    direct = built_in_of(line.pipeline)
    return {
        "position": position,
        "task": name_of(line.task) if line.task else None,
        "pipeline": None if direct or not line.pipeline else line.pipeline,
        "function": line.function,
        "attempt": line.attempt,
        "at": moment(line.at),
        "stream": line.stream,
        "text": line.text,
    }


# the whole ------------------------------------------------------------------------------------------------------------
def status_view(engine: Engine, version: str, uptime: float) -> View:
    """Show how the server is; `uptime` is in seconds."""
    plant = engine.plant
    counts = [pipe.counts for pipe in plant.pipes.values()]
    return {
        "version": version,
        "epoch": plant.store.epoch,
        "uptime": round(uptime, 3),
        "disk_full": plant.store.full,
        "pipelines": len(engine.reconciler.objects["pipeline"]),
        "functions": len(plant.functions),
        "instances": len(plant.members),
        "pruned": {"versions": engine.configurer.archive.versions, "bundles": engine.configurer.archive.swept},
        "memory_limits": plant.compute.enforcement,
        "sandbox": {level: _isolation_view(plant.compute.isolation(level)) for level in SANDBOXES},
        "tasks": {
            "delayed": sum(one.delayed for one in counts),
            "queued": sum(one.queued for one in counts),
            "running": sum(one.running for one in counts),
            "dead": sum(one.dead for one in counts),
            "done": sum(one.done for one in counts),
        },
    }


def _wall(engine: Engine, at: float) -> float:
    """Return the wall-clock moment of a monotonic one."""
    return at - engine.plant.clock() + engine.plant.wall()
