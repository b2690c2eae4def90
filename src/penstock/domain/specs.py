"""Settings as the engine uses them: plain numbers, defaults filled in, secrets in clear, nothing left to parse.

They are made from stored settings, which `settings.validate` has normalised; so nothing is checked here again, and ten
thousand pipelines are read in a fraction of a second. What is equal is shared: most pipelines have no params of their
own, and many have the same rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from json import dumps
from typing import Any, Final, Literal

from penstock.domain.censor import Hidden, Secret, secrets_of
from penstock.domain.redaction import reveal
from penstock.domain.units import AUTO, parse_backoff, parse_duration, parse_rate, parse_size

Settings = Mapping[str, Any]
Style = Literal["smooth", "window"]
Meter = Literal["tasks", "cost"]
Tier = Literal["realtime", "background", "batch"]
OnTimeout = Literal["wait", "kill"]
Sandbox = Literal["strict", "standard", "off"]

TIMEOUT: Final = 30.0
IDLE_TIMEOUT: Final = 60.0
MAX_INSTANCES: Final = 1000
TMPDIR: Final = 2 * 10**9
MAX_PROCESSES: Final = 1000
SANDBOX: Final = "standard"
ATTEMPTS: Final = 3
BACKOFF: Final = (1.0, 300.0)
MAX_AGE: Final = 14 * 86_400.0
DEFAULT_POOL: Final = "default"
"""The pool of what names none; it has no limits unless it is configured."""

DEBOUNCE_MOST: Final = 10
"""How many waits a task that is replaced again and again waits at most, unless stated."""

MAX_QUEUED: Final = 1_000_000
MAX_PAYLOAD: Final = 256 * 1024

BATCH_WAIT: Final = 1.0
LOOK_EVERY: Final = 30.0
"""Seconds between two looks at a bucket, unless stated."""

_NO_PARAMS: Final = b"{}"


@dataclass(frozen=True, slots=True)
class RateSpec:
    """Allow n units in any window of `period` + `margin` seconds.

    `burst` is how many may start at once: 1 is evenly paced (style `smooth`), and all n with style `window`. `meter` says
    whether a task takes one unit (`tasks`) or as many as its cost.
    """

    n: float
    period: float
    style: Style = "smooth"
    burst: float = 1.0
    margin: float = 0.0
    meter: Meter = "tasks"


@dataclass(frozen=True, slots=True)
class LimitSpec:
    """Describe a shared limit; one of the `project` is passed by every task, others by those that name it."""

    name: str
    rates: tuple[RateSpec, ...] = ()
    concurrency: int | None = None
    adaptive: bool = False
    project: bool = False


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """Say where a function's code comes from: a folder, or a bucket that is looked at `every` so many seconds.

    Without keys those of the server's environment count.
    """

    url: str
    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    every: float = LOOK_EVERY

    @property
    def is_bucket(self) -> bool:
        """Say whether it is a bucket."""
        return self.url.startswith("s3://")


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """Say what a pool takes: tasks that take longer (seconds), or instances that use more (bytes); None takes none for that."""

    longer_than: float | None = None
    larger_than: int | None = None


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Describe a pool: how many instances it has room for, and bytes of memory; None means without limit.

    With a `route` it takes what it describes of those that name no pool.
    """

    name: str
    max_instances: int | None = None
    memory: int | None = None
    route: RouteSpec | None = None


@dataclass(frozen=True, slots=True)
class FunctionSpec:
    """Describe a function's instances. Durations are in seconds, `memory` in bytes; None means without limit.

    With `learns_memory` that is not known beforehand.

    `tmpdir` is in bytes. `sandbox` is the level that is wanted, `writable` are folders that instances may change besides
    their own.

    `env` holds secrets in clear. `rates` and `concurrency` are ceilings over all that the function runs, whichever
    pipeline it comes through; `reserved_concurrency` are units of the project's ceilings that are its own. `ramp` is how fast
    instances may start, `prewarm` whether they are started for calls that earlier ones let expect. `web` says how it answers
    web requests ("asgi", "wsgi", "apigateway", "" to find out), `public` that anybody may ask, `hosts` its own names.
    """

    name: str
    handler: str
    timeout: float = TIMEOUT
    max_runtime: float | None = None
    max_parallel_requests: int = 0
    reuse: bool = True
    memory: int | None = None
    env: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    max_instances: int = MAX_INSTANCES
    min_instances: int = 0
    idle_timeout: float = IDLE_TIMEOUT
    on_timeout: OnTimeout = "wait"
    limits: tuple[str, ...] = ()
    rates: tuple[RateSpec, ...] = ()
    concurrency: int | None = None
    source: SourceSpec | None = None
    reserved_concurrency: int = 0
    aliases: Mapping[str, int] = field(default_factory=dict, hash=False)
    python: str | None = None
    tmpdir: int = TMPDIR
    max_processes: int = MAX_PROCESSES
    sandbox: Sandbox = SANDBOX
    writable: tuple[str, ...] = ()
    network: bool = True
    ramp: RateSpec | None = None
    web: str = ""
    public: bool = False
    hosts: tuple[str, ...] = ()
    prewarm: bool = False
    pool: str | None = None
    learns_memory: bool = False

    @property
    def slots(self) -> int:
        """Return how many tasks an instance serves at once, 1 at least."""
        return self.max_parallel_requests or 1


@dataclass(frozen=True, slots=True)
class BatchSpec:
    """Let one call of the handler have up to `size` tasks; the oldest waits at most `wait` seconds for the others."""

    size: int
    wait: float = BATCH_WAIT


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """Describe a pipeline. Durations are in seconds, `max_payload` in bytes, `backoff` is (first, longest) wait.

    `params` is the bytes of a JSON object, `secrets` are the names and texts of those in it, and `env` is what its own
    instances get besides the function's; all of them in clear. `timeout` None takes the function's; `version` is a number, an
    alias, or None for the live one; `batch` None calls the handler for each task, `dedup` None remembers keys as long as the
    store does. `debounce` is (wait, longest wait of a first one). Without `dead_letters`, a task that
    failed for good is done: somebody has been told, and nobody redrives it.
    """

    name: str
    function: str
    rates: tuple[RateSpec, ...] = ()
    concurrency: int | None = None
    adaptive: bool = False
    limits: tuple[str, ...] = ()
    params: bytes = field(default=_NO_PARAMS, repr=False)
    secrets: tuple[Secret, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False)
    attempts: int = ATTEMPTS
    backoff: tuple[float, float] = BACKOFF
    tier: Tier = "background"
    max_age: float = MAX_AGE
    dedup: float | None = None
    debounce: tuple[float, float] | None = None
    max_queued: int = MAX_QUEUED
    max_payload: int = MAX_PAYLOAD
    paused: bool = False
    draining: bool = False
    remove_when_empty: bool = False
    timeout: float | None = None
    weight: float = 1.0
    version: int | str | None = None
    batch: BatchSpec | None = None
    dead_letters: bool = True
    pool: str | None = None


def function_spec(name: str, settings: Settings) -> FunctionSpec:
    """Return what the engine needs to know of a function, from its stored settings."""
    get = settings.get
    memory, max_runtime = get("memory"), get("max_runtime")
    return FunctionSpec(
        name=name,
        handler=settings["handler"],
        timeout=parse_duration(get("timeout", TIMEOUT)),
        max_runtime=None if max_runtime is None else parse_duration(max_runtime),
        max_parallel_requests=get("max_parallel_requests", 0),
        reuse=get("reuse", True),
        memory=None if memory in {None, AUTO} else parse_size(memory),
        learns_memory=memory == AUTO,
        tmpdir=parse_size(get("tmpdir", TMPDIR)),
        max_processes=get("max_processes", MAX_PROCESSES),
        sandbox=get("sandbox", SANDBOX),
        writable=_names(get("writable")),
        network=get("network", get("sandbox") != "strict"),
        env=_environment(get("env")),
        max_instances=get("max_instances", MAX_INSTANCES),
        min_instances=get("min_instances", 0),
        idle_timeout=parse_duration(get("idle_timeout", IDLE_TIMEOUT)),
        on_timeout=get("on_timeout", "wait"),
        source=_source(get("source")),
        limits=_names(get("limits")),
        rates=rate_specs(get("rate")),
        concurrency=get("concurrency"),
        reserved_concurrency=get("reserved_concurrency", 0),
        aliases=get("aliases", {}),
        python=get("python"),
        ramp=_single_rate(get("ramp"))[0] if get("ramp") else None,
        web=get("web") or get("event") or "",
        public=get("public", False),
        hosts=_names(get("hosts")),
        prewarm=get("prewarm") == "history",
        pool=get("pool"),
    )


def limit_spec(name: str, settings: Settings) -> LimitSpec:
    """Return what the engine needs to know of a shared limit, from its stored settings."""
    get = settings.get
    project = get("scope") == "project"
    return LimitSpec(name, rate_specs(get("rate")), get("concurrency"), get("adaptive", False), project)


def pool_spec(name: str, settings: Settings) -> PoolSpec:
    """Return what the engine needs to know of a pool, from its stored settings."""
    memory, route = settings.get("memory"), settings.get("route")
    return PoolSpec(
        name,
        settings.get("max_instances"),
        None if memory is None else parse_size(memory),
        None if route is None else _route_spec(route),
    )


def _route_spec(settings: Settings) -> RouteSpec:
    longer, larger = settings.get("longer_than"), settings.get("larger_than")
    return RouteSpec(
        None if longer is None else parse_duration(longer),
        None if larger is None else parse_size(larger),
    )


def pipeline_spec(name: str, settings: Settings) -> PipelineSpec:
    """Return what the engine needs to know of a pipeline, from its stored settings."""
    get = settings.get
    retry, params, timeout, dedup = get("retry") or {}, get("params"), get("timeout"), get("dedup")
    return PipelineSpec(
        name=name,
        function=settings["function"],
        rates=rate_specs(get("rate")),
        concurrency=get("concurrency"),
        adaptive=get("adaptive", False),
        limits=_names(get("limits")),
        params=dumps(_reveal_each(params), separators=(",", ":")).encode() if params else _NO_PARAMS,
        secrets=tuple(secrets_of(params)) if params else (),
        env=_environment(get("env")),
        attempts=retry.get("attempts", ATTEMPTS),
        backoff=parse_backoff(retry["backoff"]) if "backoff" in retry else BACKOFF,
        tier=get("tier", "background"),
        max_age=parse_duration(get("max_age", MAX_AGE)),
        dedup=None if dedup is None else parse_duration(dedup),
        debounce=_debounce(get("debounce")),
        max_queued=get("max_queued", MAX_QUEUED),
        max_payload=parse_size(get("max_payload", MAX_PAYLOAD)),
        paused=get("paused", False),
        draining=get("draining", False),
        remove_when_empty=get("remove_when_empty", False),
        timeout=None if timeout is None else parse_duration(timeout),
        weight=get("weight", 1.0),
        version=get("version"),
        batch=_batch_spec(get("batch")),
        pool=get("pool"),
    )


def rate_specs(written: Any) -> tuple[RateSpec, ...]:
    """Return the rates that a `rate` setting stands for: one or a list, each a text or a mapping."""
    if written is None:
        return ()
    if isinstance(written, str):
        return _single_rate(written)
    rates = written if isinstance(written, list) else [written]
    return tuple(_single_rate(rate)[0] if isinstance(rate, str) else _rate_spec(rate) for rate in rates)


@lru_cache(maxsize=4096)
def _single_rate(written: str) -> tuple[RateSpec]:
    rate = parse_rate(written)
    return (RateSpec(rate.n, rate.period),)


def _rate_spec(written: Settings) -> RateSpec:
    rate, style = parse_rate(written["rate"]), written.get("style", "smooth")
    return RateSpec(
        n=rate.n,
        period=rate.period,
        style=style,
        burst=float(rate.n if style == "window" else written.get("burst", 1)),
        margin=parse_duration(written.get("margin", 0)),
        meter=written.get("meter", "tasks"),
    )


def _batch_spec(written: int | Settings | None) -> BatchSpec | None:
    if written is None or isinstance(written, int):
        return None if written is None else BatchSpec(written)
    return BatchSpec(written["size"], parse_duration(written.get("wait", BATCH_WAIT)))


@lru_cache(maxsize=1024)
def _shared(names: tuple[str, ...]) -> tuple[str, ...]:
    return names


def _names(written: list[str] | None) -> tuple[str, ...]:
    return _shared(tuple(written)) if written else ()


def _debounce(written: Any) -> tuple[float, float] | None:
    if written is None:
        return None
    settings = written if isinstance(written, Mapping) else {"wait": written}
    wait = parse_duration(settings["wait"])
    return wait, parse_duration(settings["most"]) if "most" in settings else DEBOUNCE_MOST * wait


def _source(written: str | Settings | None) -> SourceSpec | None:
    if written is None or isinstance(written, str):
        return None if written is None else SourceSpec(written)
    get = written.get
    secret = reveal(get("secret_key"))
    every = parse_duration(get("every", LOOK_EVERY))
    return SourceSpec(written["url"], get("endpoint"), get("region"), get("access_key"), secret, every)


def _environment(written: Settings | None) -> dict[str, str]:
    secrets = dict(secrets_of(written or {}))
    return {name: Hidden(secrets[name]) if name in secrets else value for name, value in (written or {}).items()}


def _reveal_each(written: Settings) -> dict[str, Any]:
    """Return a mapping of names to values with secrets in clear; a name may itself be "secret"."""
    return {name: reveal(value) for name, value in written.items()}
