"""The settings of functions, limits, pools and pipelines as users write them. Pydantic, at the border only.

A model checks and normalises: every quantity comes out in its one shortest spelling, so that "30s", 30 and "0.5m" are
equal, and `stored` gives back what was written as plain JSON. Defaults are not written in; `specs` knows them.
"""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from penstock.domain import checks
from penstock.domain.mistakes import problem
from penstock.domain.specs import MAX_INSTANCES, MAX_PROCESSES
from penstock.domain.units import UNLIMITED_HINT, format_duration, parse_duration, parse_rate

_MILLISECOND: Final = 0.001

Handler = Annotated[str, BeforeValidator(checks.handler)]
Name = Annotated[str, BeforeValidator(checks.name)]
Names = Annotated[list[str], BeforeValidator(checks.names)]
Description = Annotated[str, BeforeValidator(checks.description)]
Timeout = Annotated[str, BeforeValidator(checks.duration(_MILLISECOND, 30 * checks.DAY))]
Concurrency = Annotated[int, BeforeValidator(checks.whole(1, 1_000_000, UNLIMITED_HINT))]
Folders = Annotated[list[str], BeforeValidator(checks.folders)]
Environment = Annotated[dict[str, Any], BeforeValidator(checks.environment)]


class Written(BaseModel):
    """Be the base of what users write: nothing unknown, no guessing of types."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True, regex_engine="python-re")

    def stored(self) -> Any:
        """Return what was written as plain JSON, normalised; what is null was not written."""
        written = ((name, getattr(self, name)) for name in type(self).model_fields if name in self.model_fields_set)
        return {name: _stored(value) for name, value in written if value is not None}


class RateSettings(Written):
    """Allow so many per period, in one style."""

    rate: Annotated[str, BeforeValidator(checks.rate)] = Field(examples=["rate: 10/s"])
    style: Literal["smooth", "window"] = "smooth"
    burst: Annotated[int, BeforeValidator(checks.whole(1, 10**12))] | None = None
    margin: Annotated[str, BeforeValidator(checks.duration(0, 366 * checks.DAY))] | None = None
    meter: Literal["tasks", "cost"] = "tasks"

    @field_validator("burst")
    @classmethod
    def _burst_within_law(cls, burst: int | None, info: ValidationInfo) -> int | None:
        if burst is not None and info.data.get("style") == "window":
            raise problem("has no meaning with style: window, which lets all of them start at once", "leave burst out")
        if burst is not None and "rate" in info.data and burst > (most := parse_rate(info.data["rate"]).n):
            raise problem(f"is {burst}, more than the {most} that {info.data['rate']} allows", f"at most {most}")
        return burst

    @field_validator("margin")
    @classmethod
    def _margin_within_period(cls, margin: str | None, info: ValidationInfo) -> str | None:
        if margin is not None and "rate" in info.data:
            period = parse_rate(info.data["rate"]).period
            if parse_duration(margin) > period:
                raise problem(
                    f"is {margin}, longer than the period of {info.data['rate']}", f"at most {format_duration(period)}"
                )
        return margin

    def stored(self) -> Any:
        """Return the text alone if nothing else was written."""
        settings = super().stored()
        return settings["rate"] if len(settings) == 1 else settings


Rates = Annotated[list[RateSettings], BeforeValidator(checks.rates)]


class RetrySettings(Written):
    """Say how often, and with which waits between, a task is tried."""

    attempts: Annotated[int, BeforeValidator(checks.whole(1, 1000))] | None = None
    backoff: Annotated[str, BeforeValidator(checks.backoff)] | None = None


class BatchSettings(Written):
    """Say how many tasks one call of the handler may have, and how long the oldest waits for the others."""

    size: Annotated[int, BeforeValidator(checks.whole(1, 1000))] = Field(examples=["size: 100"])
    wait: Annotated[str, BeforeValidator(checks.duration(0, 3600))] = "1s"

    def stored(self) -> Any:
        """Return the number alone if nothing else was written."""
        settings = super().stored()
        return settings["size"] if len(settings) == 1 else settings


class DebounceSettings(Written):
    """Say how long a task waits for others with its key that replace it."""

    wait: Annotated[str, BeforeValidator(checks.duration(_MILLISECOND, 7 * checks.DAY))] = Field(
        examples=["debounce: 5s"]
    )
    most: Annotated[str, BeforeValidator(checks.duration(_MILLISECOND, 30 * checks.DAY))] | None = None

    @field_validator("most")
    @classmethod
    def _at_least_one_wait(cls, most: str | None, info: ValidationInfo) -> str | None:
        wait = info.data.get("wait", most)
        if most is not None and parse_duration(most) < parse_duration(wait):
            raise problem(f"is {most}, shorter than the wait of {wait}", f"at least {wait}")
        return most

    def stored(self) -> Any:
        """Return the wait alone if nothing else was written."""
        settings = super().stored()
        return settings["wait"] if len(settings) == 1 else settings


Debounce = Annotated[
    DebounceSettings, BeforeValidator(lambda value: value if isinstance(value, dict) else {"wait": value})
]


class SourceSettings(Written):
    """Say where a function's code comes from; all but `url` are about a bucket."""

    url: Annotated[str, BeforeValidator(checks.source_url)] = Field(examples=["url: s3://bucket/code"])
    endpoint: Annotated[str, BeforeValidator(checks.endpoint)] | None = None
    region: str | None = None
    access_key: str | None = None
    secret_key: Annotated[dict[str, str], BeforeValidator(checks.secret_key)] | None = None
    every: Annotated[str, BeforeValidator(checks.duration(1, checks.DAY))] | None = None

    @model_validator(mode="after")
    def _of_a_bucket(self) -> Self:
        if not self.url.startswith("s3://") and self.model_fields_set != {"url"}:
            raise problem("a folder has no settings of its own", "write the folder alone, or s3://bucket/…")
        if (self.access_key is None) != (self.secret_key is None):
            raise problem("has one of access_key and secret_key", "write both, or none: then the server's own are used")
        return self

    def stored(self) -> Any:
        """Return the place alone if nothing else was written."""
        settings = super().stored()
        return settings["url"] if len(settings) == 1 else settings


class FunctionSettings(Written):
    """Describe a function: its handler, and what its instances are like."""

    handler: Handler = Field(examples=["handler: tasks:handler"])
    timeout: Timeout = "30s"
    max_runtime: Timeout | None = None
    max_parallel_requests: Annotated[int, BeforeValidator(checks.whole(0, 1000))] = 0
    reuse: bool = True
    memory: Annotated[str, BeforeValidator(checks.size_or_auto(16 * 10**6, 2**44))] | None = None
    tmpdir: Annotated[str, BeforeValidator(checks.size(10**6, 2**44))] = "2GB"
    max_processes: Annotated[int, BeforeValidator(checks.whole(1, 100_000))] = MAX_PROCESSES
    sandbox: Literal["strict", "standard", "off"] = "standard"
    network: bool | None = None
    writable: Folders = Field(default_factory=list)
    env: Environment = Field(default_factory=dict)
    max_instances: Annotated[int, BeforeValidator(checks.whole(1, 100_000))] = MAX_INSTANCES
    min_instances: Annotated[int, BeforeValidator(checks.whole(0, 100_000))] = 0
    ramp: Annotated[str, BeforeValidator(checks.rate)] | None = None
    prewarm: Literal["history"] | None = None
    idle_timeout: Annotated[str, BeforeValidator(checks.duration(0, 7 * checks.DAY))] = "1m"
    on_timeout: Literal["wait", "kill"] = "wait"
    source: Annotated[SourceSettings, BeforeValidator(checks.source)] | None = None
    python: Annotated[str, BeforeValidator(checks.python)] | None = None
    aliases: Annotated[dict[str, int], BeforeValidator(checks.aliases)] = Field(default_factory=dict)
    pool: Name | None = None
    limits: Names = Field(default_factory=list)
    rate: Rates | None = None
    concurrency: Concurrency | None = None
    reserved_concurrency: Annotated[int, BeforeValidator(checks.whole(1, 1_000_000))] | None = None
    web: Literal["asgi", "wsgi"] | None = None
    event: Literal["apigateway"] | None = None
    public: bool = False
    hosts: Annotated[list[str], BeforeValidator(checks.hosts)] = Field(default_factory=list)
    description: Description = ""

    @field_validator("network")
    @classmethod
    def _walls_for_no_network(cls, network: bool | None, info: ValidationInfo) -> bool | None:
        if network is False and info.data.get("sandbox") == "off":
            raise problem("cannot be off without a sandbox", "leave out sandbox: off")
        return network

    @field_validator("writable")
    @classmethod
    def _walls_for_doors(cls, writable: list[str], info: ValidationInfo) -> list[str]:
        if writable and info.data.get("sandbox") == "off":
            raise problem("has no meaning with sandbox: off, which lets a function write anywhere", "leave it out")
        return writable

    @field_validator("event")
    @classmethod
    def _app_or_events(cls, event: str | None, info: ValidationInfo) -> str | None:
        if event is not None and info.data.get("web") is not None:
            raise problem("is for handlers of events, and web for web apps", "leave one of them out")
        return event

    @field_validator("reuse")
    @classmethod
    def _fresh_for_one(cls, reuse: bool, info: ValidationInfo) -> bool:
        at_once = info.data.get("max_parallel_requests", 0)
        if not reuse and at_once > 1:
            raise problem(
                f"a fresh instance for each task (reuse: false) cannot serve {at_once} at once",
                "leave out reuse or max_parallel_requests",
            )
        return reuse

    @field_validator("min_instances")
    @classmethod
    def _no_more_than_most(cls, least: int, info: ValidationInfo) -> int:
        most = info.data.get("max_instances", least)
        if least > most:
            raise problem(f"is {least}, more than max_instances, which is {most}", f"at most {most}")
        return least


class LimitSettings(Written):
    """Describe a shared limit."""

    rate: Rates | None = None
    concurrency: Concurrency | None = None
    adaptive: bool = False
    scope: Literal["named", "project"] = "named"
    description: Description = ""


class RouteSettings(Written):
    """Say what a pool takes of those that name none: what takes longer, or uses more memory, or both."""

    longer_than: Annotated[str, BeforeValidator(checks.duration(_MILLISECOND, 30 * checks.DAY))] | None = None
    larger_than: Annotated[str, BeforeValidator(checks.size(10**6, 2**50))] | None = None


class PoolSettings(Written):
    """Describe a pool: a share of the machine, with caps of its own."""

    memory: Annotated[str, BeforeValidator(checks.size(16 * 10**6, 2**50))] | None = None
    max_instances: Annotated[int, BeforeValidator(checks.whole(1, 100_000, UNLIMITED_HINT))] | None = None
    route: RouteSettings | None = None
    description: Description = ""

    @field_validator("route")
    @classmethod
    def _routes_something(cls, route: RouteSettings | None) -> RouteSettings | None:
        if route is not None and route.longer_than is None and route.larger_than is None:
            raise problem("takes nothing", "give it longer_than, larger_than or both")
        return route


class PipelineSettings(Written):
    """Describe a pipeline: the function that it feeds, its limits, and how its tasks are treated."""

    function: Name = Field(examples=["function: call_api"])
    rate: Rates | None = None
    concurrency: Concurrency | None = None
    adaptive: bool = False
    limits: Names = Field(default_factory=list)
    params: Annotated[dict[str, Any], BeforeValidator(checks.params)] = Field(default_factory=dict)
    env: Environment = Field(default_factory=dict)
    retry: RetrySettings | None = None
    tier: Literal["realtime", "background", "batch"] = "background"
    max_age: Annotated[str, BeforeValidator(checks.duration(1, 366 * checks.DAY))] = "2w"
    batch: Annotated[BatchSettings, BeforeValidator(checks.batch)] | None = None
    dedup: Annotated[str, BeforeValidator(checks.duration(1, 366 * checks.DAY))] | None = None
    debounce: Debounce | None = None
    max_queued: Annotated[int, BeforeValidator(checks.whole(1, 10**9))] = 1_000_000
    max_payload: Annotated[str, BeforeValidator(checks.size(1, 64 * 2**20))] = "256KiB"
    paused: bool = False
    draining: bool = False
    remove_when_empty: bool = False
    timeout: Timeout | None = None
    weight: Annotated[int | float, BeforeValidator(checks.weight)] = 1
    version: Annotated[int | str, BeforeValidator(checks.version)] | None = None
    pool: Name | None = None
    description: Description = ""

    @field_validator("batch")
    @classmethod
    def _wait_within_age(cls, batch: BatchSettings | None, info: ValidationInfo) -> BatchSettings | None:
        max_age = info.data.get("max_age")
        if batch is not None and max_age is not None and parse_duration(batch.wait) >= parse_duration(max_age):
            raise problem(
                f"waits {batch.wait} for others, and a task expires after {max_age}", "set wait below max_age"
            )
        return batch

    @field_validator("debounce")
    @classmethod
    def _first_or_last(cls, debounce: DebounceSettings | None, info: ValidationInfo) -> DebounceSettings | None:
        if debounce is not None and info.data.get("dedup") is not None:
            raise problem(
                "goes without dedup: of tasks with one key, either the first one runs or the last",
                "leave out one of them",
            )
        return debounce


def _stored(value: Any) -> Any:
    if isinstance(value, Written):
        return value.stored()
    if isinstance(value, list):
        rates = [one.stored() if isinstance(one, Written) else one for one in value]
        return rates[0] if len(rates) == 1 and isinstance(value[0], RateSettings) else rates
    return value
