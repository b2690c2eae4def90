"""What is simulated: a configuration, a script of handlers, and steps in time, all drawn from one seed.

A scenario is plain data, so that a failing one can be read. What cannot be known beforehand (which task to cancel, say) is
drawn while it runs, from a generator of the same seed.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any, Final

from penstock.domain.settings import Kind
from penstock.sim.downstream import Downstream, Period, Quota, calls
from penstock.sim.script import (
    Act,
    Behaviour,
    Call,
    Delays,
    Script,
    Spread,
    crashes,
    echoes,
    fails,
    making,
    overruns,
    sometimes,
    stalls,
    taking,
    throttles,
)

Settings = dict[str, Any]
HANDLER = "tasks:work"
CEILING = "everything"


@dataclass(frozen=True, slots=True)
class Step:
    """Do something at a moment (seconds after the beginning)."""

    at: float
    action: str
    name: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.at:10.3f}  {self.action} {self.name} {dict(self.details) if self.details else ''}".rstrip()


@dataclass(slots=True)
class Scenario:
    """Hold everything that a world is made of. `prefix` bounds the tasks of a pipeline that are kept in memory."""

    seed: int
    limits: dict[str, Settings]
    pools: dict[str, Settings]
    functions: dict[str, Settings]
    pipelines: dict[str, Settings]
    bundles: dict[str, str]
    steps: list[Step]
    script: Script
    orphans_live: Spread
    commit: Spread
    read: Spread
    prefix: int = 2000

    def __str__(self) -> str:
        lines = [f"scenario {self.seed}, at most {self.prefix} waiting tasks of a pipeline in memory"]
        for kind, objects in self.configuration.items():
            lines += [f"  {kind} {name}: {settings}" for name, settings in objects.items()]
        return "\n".join([*lines, *map(str, self.steps)])

    @property
    def configuration(self) -> dict[Kind, dict[str, Settings]]:
        """Return all objects by kind, those that are referred to first."""
        return {"limit": self.limits, "pool": self.pools, "function": self.functions, "pipeline": self.pipelines}


def draw(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    rng = random.Random(seed)
    limits = {f"limit-{n}": _limits(rng, least=1) for n in range(rng.choice([0, 0, 1, 2]))}
    reserved = _ceiling(rng, limits)
    script = Script(delays=_delays(rng))
    pools = {name: _pool(rng) for name in rng.choice([[], [], ["pool-0"], ["pool-0", "pool-1"], ["default"]])}
    functions, bundles = {}, {}
    for n in range(rng.choice([1, 1, 2])):
        name = f"f{n}"
        functions[name] = _function(rng, list(limits), list(pools))
        if reserved and n == 0:
            functions[name]["reserved_concurrency"] = reserved
        bundles[name] = f"{name}-1"
    _hold_back(random.Random(f"growth {seed}"), script, functions)
    _learn_sizes(random.Random(f"sizes {seed}"), functions)
    pipelines = {f"p{n}": _pipeline(rng, list(functions), list(limits), list(pools)) for n in range(rng.randint(1, 5))}
    service = Downstream(
        quotas={name: Quota(rng.randint(1, 10), rng.choice([0.5, 1.0, 5.0])) for name in pipelines},
        duration=Spread(0.01, 0.5),
        outages=[
            Period(1000.0 + 10 * n, 1000.0 + 10 * n + rng.uniform(0, 4)) for n in range(1, 6) if rng.random() < 0.3
        ],
        slow=[Period(1000.0 + 7 * n, 1000.0 + 7 * n + 3, factor=20.0) for n in range(1, 6) if rng.random() < 0.2],
    )
    for n in range(1, 4):
        for name in functions:
            _add_code(rng, script, f"{name}-{n}", service, list(limits))
    callers = random.Random(f"callers {seed}")  # apart, so that it changes nothing else of a world
    if callers.random() < 0.3:
        targets = [*functions, *pipelines, "unheard-of"]
        for name, handler in script.handlers.items():
            if callers.random() < 0.7:
                script.handlers[name] = replace(handler, behaviour=making(handler.behaviour, targets))
    script.add("broken/" + HANDLER, echoes(0.0), import_error="No module named 'numpie'", import_time=Spread(0.0, 0.5))
    return Scenario(
        seed, limits, pools, functions, pipelines, bundles, _steps(rng, limits, pools, functions, pipelines), script,
        orphans_live=Spread(0.0, rng.choice([0.0, 0.05, 5.0])),
        commit=Spread(0.0, rng.choice([0.0, 0.001, 0.01, 0.1])), read=Spread(0.0, rng.choice([0.0, 0.001, 0.02])),
        prefix=rng.choice([2000, 2000, 5, 20]),
    )  # fmt: skip


def _hold_back(rng: random.Random, script: Script, functions: dict[str, dict[str, Any]]) -> None:
    """Let instances of some worlds start slowly, or find little memory. This has chance of its own: it came later."""
    script.fitting = rng.choice([None, None, None, 2, 8])
    for settings in functions.values():
        if rng.random() < 0.2:
            settings["ramp"] = rng.choice(["1/s", "20/s", "30/m"])
        if rng.random() < 0.3:
            settings["prewarm"] = "history"


def _learn_sizes(rng: random.Random, functions: dict[str, dict[str, Any]]) -> None:
    """Let some functions learn how much memory they need."""
    for settings in functions.values():
        if rng.random() < 0.25:
            settings["memory"] = "auto"


# the world's manners --------------------------------------------------------------------------------------------------
def _delays(rng: random.Random) -> Delays:
    scale = rng.choice([0.0, 0.0005, 0.005, 0.05])
    spike, odds = rng.choice([(0.0, 0.0), (1.0, 0.01)])
    return Delays(
        down=Spread(0.0, scale, spike, odds), up=Spread(0.0, scale, spike, odds), start=Spread(0.0, scale / 4),
        flush=Spread(0.0, scale / 2), fork=Spread(0.001, 0.005), kill=Spread(0.0, scale), reap=Spread(0.0, scale),
    )  # fmt: skip


def _add_code(rng: random.Random, script: Script, bundle: str, service: Downstream, limits: list[str]) -> None:
    """Draw what one version of a function does, and how its instances are."""
    well = echoes(Spread(0.0, rng.choice([0.0, 0.01, 0.2, 1.0])))
    if limits and rng.random() < 0.5:
        well = taking(well, [*limits, *rng.choice([[], ["unheard-of"]])])
    unruly: list[Behaviour] = [
        fails(Spread(0.0, 0.1)), throttles(Spread(0.0, 0.05), rng.choice([None, Spread(0.0, 3.0)])), stalls(grace=0.05),
        throttles(0.01, Spread(0.1, 1.0), "limit-0"),
        stalls(grace=None), stalls(grace=None, hogs=True), crashes(Spread(0.0, 0.5)), crashes(Spread(0.0, 0.1), code=1),
        overruns(Spread(0.0, 1.0)),
        echoes(Spread(0.5, 6.0)), _answering(calls(service)),
    ]  # fmt: skip
    behaviour: dict[Behaviour, float] = {well: 10.0}
    for one in rng.sample(unruly, rng.randint(0, 4)):
        behaviour[one] = rng.choice([0.1, 1.0, 3.0])
    lifetime: Callable[[random.Random], float] | None = None
    if rng.random() < 0.3:
        mean = rng.choice([2.0, 20.0])
        lifetime = lambda rng: rng.expovariate(1 / mean)  # noqa: E731 - a law of chance
    script.add(
        f"{bundle}/{HANDLER}", sometimes(behaviour), lifetime=lifetime,
        import_time=Spread(0.0, rng.choice([0.01, 1.0])), boot=Spread(0.0, rng.choice([0.001, 0.01, 1.0])),
    )  # fmt: skip


def _answering(behaviour: Behaviour) -> Behaviour:
    """Answer with the payload where a behaviour answers well, so that results can be told apart."""

    def act(call: Call) -> Act:
        done = behaviour(call)
        return Act(done.after, done.ending, call.payload if done.body == b"null" else done.body, done.retry_after)

    return act


# configuration --------------------------------------------------------------------------------------------------------
def _rate(rng: random.Random) -> Any:
    text = rng.choice(["1/s", "2/s", "5/s", "20/s", "3/500ms", "30/10s", "1/3s", "200/20s", "150/5s"])
    kind = rng.randrange(4)
    if kind == 0:
        return text
    if kind == 1:
        return {"rate": text, "style": "window"}
    settings: Settings = {"rate": text}
    if text[:2] != "1/":
        settings["burst"] = 2
    if kind == 3:
        settings["margin"] = "20ms"
    return settings


def _rates(rng: random.Random) -> Any:
    rates = [_rate(rng)]
    if rng.random() < 0.3:
        rates.append({"rate": rng.choice(["40/10s", "100/1m"]), "style": rng.choice(["smooth", "window"])})
    if rng.random() < 0.2:
        rates.append({"rate": rng.choice(["40/s", "100/2s"]), "meter": "cost"})
    return rates if len(rates) > 1 else rates[0]


def _limits(rng: random.Random, least: int = 0) -> Settings:
    settings: Settings = {}
    if rng.random() < 0.6:
        settings["rate"] = _rates(rng)
    if rng.random() < 0.4 or len(settings) < least:
        settings["concurrency"] = rng.choice([1, 2, 5, 20])
    if settings and rng.random() < 0.3:
        settings["adaptive"] = True
    return settings


def _ceiling(rng: random.Random, limits: dict[str, Settings]) -> int:
    """Make a ceiling of the project, sometimes; return how much of it is reserved for the first function."""
    if rng.random() < 0.7:
        return 0
    most = rng.choice([1, 3, 10])
    limits[CEILING] = {"scope": "project", "concurrency": most}
    if rng.random() < 0.3:
        limits[CEILING]["rate"] = _rates(rng)
    return rng.choice([0, 1, most - 1]) if most > 1 else 0


def _pool(rng: random.Random) -> Settings:
    return {"max_instances": rng.choice([1, 2, 5]), "memory": rng.choice([None, None, "100MB"])}


def _share(rng: random.Random, pools: list[str], odds: float) -> Settings:
    return {"pool": rng.choice(pools)} if pools and rng.random() < odds else {}


def _function(rng: random.Random, limits: list[str], pools: list[str]) -> Settings:
    settings: Settings = {
        "handler": HANDLER,
        "timeout": rng.choice(["500ms", "2s", "5s"]),
        "max_parallel_requests": rng.choice([0, 1, 3, 20]),
        "max_instances": rng.choice([1, 3, 10, 100]),
        "idle_timeout": rng.choice(["0s", "1s", "10s"]),
        "on_timeout": rng.choice(["wait", "kill"]),
        **_share(rng, pools, 0.7),
    }
    if rng.random() < 0.4:
        settings["max_runtime"] = rng.choice(["6s", "6s", "15s"])
    if rng.random() < 0.2 and settings["max_parallel_requests"] < 2:
        settings["reuse"] = False
    if rng.random() < 0.5:
        settings["memory"] = rng.choice(["128MB", "1GB"])
    if rng.random() < 0.2:
        settings["min_instances"] = 1
    if rng.random() < 0.2:
        settings["concurrency"] = rng.choice([1, 5])
    if rng.random() < 0.2:
        settings["rate"] = _rates(rng)
    if limits and rng.random() < 0.2:
        settings["limits"] = [rng.choice(limits)]
    return settings


def _pipeline(rng: random.Random, functions: list[str], limits: list[str], pools: list[str]) -> Settings:
    settings = {"function": rng.choice(functions), **_limits(rng), **_share(rng, pools, 0.2)}
    if limits:
        settings["limits"] = rng.sample(limits, rng.randint(0, len(limits)))
    if rng.random() < 0.5:
        settings["retry"] = {"attempts": rng.choice([1, 2, 5]), "backoff": rng.choice(["0s..0s", "100ms..5s"])}
    if rng.random() < 0.3:
        settings["tier"] = rng.choice(["realtime", "batch"])
    if rng.random() < 0.15:
        settings["max_age"] = rng.choice(["2s", "30s"])
    if rng.random() < 0.1:
        settings["max_queued"] = 30
    if rng.random() < 0.2:
        settings["timeout"] = rng.choice(["300ms", "3s"])
    if rng.random() < 0.2:
        settings["env"] = {"OWN": "1"}
    if rng.random() < 0.1:
        settings["version"] = 1
    if rng.random() < 0.2:
        settings["weight"] = rng.choice([0.5, 3])
    if rng.random() < 0.3:
        settings["batch"] = _batch(rng)
    if rng.random() < 0.15:
        settings["debounce"] = rng.choice(
            ["100ms", "1s", {"wait": "2s", "most": "3s"}, {"wait": "50ms", "most": "50ms"}]
        )
    return settings


def _batch(rng: random.Random) -> Any:
    return rng.choice([3, {"size": 10, "wait": 0}, {"size": 10, "wait": "200ms"}, {"size": 100, "wait": "900ms"}])


_NO_LIMITS: Final = {"rate": None, "concurrency": None, "adaptive": None}


# steps ----------------------------------------------------------------------------------------------------------------
def _steps(
    rng: random.Random,
    limits: dict[str, Settings],
    pools: dict[str, Settings],
    functions: dict[str, Settings],
    pipelines: dict[str, Settings],
) -> list[Step]:
    horizon = rng.choice([5.0, 20.0, 60.0])
    steps = []
    for name in pipelines:
        steps += _arrivals(rng, name, horizon)
    disturbances = {
        "crash": 1, "restart": 1, "limit": 2 * len(limits), "pool": len(pools), "pipeline": 3,
        "pause": 2, "drain": 1, "remove": 0.5, "deploy": 2,
        "break": 0.5, "rollback": 1, "cancel": 4, "call": 4, "redrive": 1, "block": 1, "full": 0.7, "function": 1, "clock": 0.5,
        "map": 4,
    }  # fmt: skip
    chosen = rng.sample(list(disturbances), rng.randint(0, len(disturbances)))
    weights = [disturbances[action] for action in chosen]
    for _ in range(rng.choice([0, 3, 10, 25]) if sum(weights) else 0):
        action = rng.choices(chosen, weights)[0]
        steps.append(_disturbance(rng, action, rng.uniform(0.1, horizon), limits, pools, functions, pipelines))
    return sorted(steps, key=lambda step: step.at)


def _arrivals(rng: random.Random, name: str, horizon: float) -> list[Step]:
    kind = rng.choice(["burst", "bursts", "trickle"])
    moments = {
        "burst": [rng.uniform(0, horizon / 4)],
        "bursts": [rng.uniform(0, horizon) for _ in range(3)],
        "trickle": [rng.uniform(0, horizon) for _ in range(25)],
    }[kind]
    most = {"burst": 150, "bursts": 40, "trickle": 2}[kind]
    return [Step(at, "send", name, _sending(rng, rng.randint(1, most))) for at in moments]


def _sending(rng: random.Random, count: int) -> Settings:
    details: Settings = {"count": count}
    if rng.random() < 0.1:
        details["delay"] = rng.choice([rng.uniform(0.0, 90.0), rng.uniform(0.0, 300.0)])
    if rng.random() < 0.1:
        details["priority"] = rng.choice([-1, 5])
    if rng.random() < 0.15:
        details["cost"] = rng.choice([0.5, 5.0, 20.0])
    if rng.random() < 0.1:
        details["key"] = rng.choice("abc")
    if rng.random() < 0.05:
        details["size"] = 20_000
    if rng.random() < 0.2:
        details["expires_after"] = rng.choice([0.05, 1.0, 5.0, 30.0])
    return details


def _mapping(rng: random.Random) -> Settings:
    details: Settings = {"count": rng.choice([0, 1, 5, 40, 300]), "in_order": rng.random() < 0.5}
    if rng.random() < 0.3:
        details["stragglers"] = rng.choice([1.1, 3.0])
    if rng.random() < 0.2:
        details["key"] = rng.choice("xy")
    if rng.random() < 0.3:
        details["cancel_after"] = rng.choice([0.0, rng.uniform(0.0, 10.0)])
    return details


def _disturbance(
    rng: random.Random,
    action: str,
    at: float,
    limits: dict[str, Settings],
    pools: dict[str, Settings],
    functions: dict[str, Settings],
    pipelines: dict[str, Settings],
) -> Step:
    pipeline, function = rng.choice(list(pipelines)), rng.choice(list(functions))
    down = rng.choice([0.0, rng.uniform(0, 3)])
    again = rng.choice([inf, inf, rng.uniform(0, 0.1)])
    called = rng.choice([pipeline, "@" + function])
    limit = rng.choice(list(limits)) if limits else ""
    batch = {"batch": rng.choice([None, _batch(rng)])} if rng.random() < 0.3 else {}
    details: dict[str, tuple[str, Settings]] = {
        "limit": (limit, {"concurrency": rng.choice([10, 20])} if limit == CEILING else _limits(rng, least=1)),
        "pool": (rng.choice(list(pools)) if pools else "", _pool(rng)),
        "pipeline": (pipeline, {**_NO_LIMITS, **_limits(rng), "weight": rng.choice([None, 2]), **batch}),
        "function": (function, {"concurrency": rng.choice([None, 2]), "timeout": rng.choice(["1s", "3s"])}),
        "pause": (pipeline, {"seconds": rng.uniform(0.1, 10)}),
        "drain": (pipeline, {"seconds": rng.uniform(0.1, 10)}),
        "remove": (pipeline, {"tasks": rng.choice(["drain", "discard"])}),
        "deploy": (function, {"version": rng.choice([1, 2, 3])}),
        "break": (function, {}),
        "rollback": (function, {}),
        "cancel": (pipeline, {}),
        "redrive": (pipeline, {}),
        "map": (pipeline if rng.random() < 0.6 else "@map @" + function, _mapping(rng)),
        "call": (called, {"timeout": rng.choice([None, 0.2, 3.0]), "count": rng.choice([1, 10])}),
        "block": ("", {"seconds": rng.choice([0.02, 0.5])}),
        "clock": ("", {"seconds": rng.choice([-3600.0, -30.0, -0.5, 0.5, 30.0, 3600.0])}),
        "full": ("", {"seconds": rng.uniform(0.1, 5)}),
        "crash": ("", {"down": down, "again": again}),
        "restart": (
            "",
            {
                "down": down,
                "grace": rng.choice([0.0, 1.0, 5.0]),
                "set_by": rng.choice([0.0, 0.0, -3600.0, -5.0, 5.0, 3600.0]),
            },
        ),
    }
    return Step(at, action, *details[action])
