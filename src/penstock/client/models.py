"""What the server answers, as dataclasses. Members that a newer server adds are passed over."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from penstock.client.errors import TaskFailed

ENDED = frozenset({"done", "dead", "cancelled", "expired"})


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """Tell of one execution of a task."""

    number: int
    outcome: str
    started: datetime | None = None
    finished: datetime | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """Tell of a task as it stood when the server was asked. Moments are in UTC."""

    id: str
    state: str
    pipeline: str | None = None
    function: str | None = None
    outcome: str | None = None
    attempts: int = 0
    interruptions: int = 0
    priority: int = 0
    cost: float = 1
    key: str | None = None
    created: datetime | None = None
    due: datetime | None = None
    expires: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    version: int | None = None
    result: Any = None
    error: dict[str, Any] | None = None
    history: list[AttemptRecord] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Return whether nothing more happens to the task by itself."""
        return self.state in ENDED

    @property
    def ok(self) -> bool:
        """Return whether the task ended with a result."""
        return self.outcome == "ok"

    def value(self) -> Any:
        """Return the task's result. Raises TaskFailed if it ended without one, ValueError if it has not ended."""
        if not self.ended:
            raise ValueError(f"Task {self.id} is {self.state}; it has no result yet. Wait for it first.")
        if self.ok:
            return self.result
        outcome = self.outcome or self.state
        error = self.error or {}
        what = f"{error.get('type')}: {error.get('message')}" if error.get("type") else error.get("message") or outcome
        raise TaskFailed(
            f"Task {self.id} ended as {outcome}: {what}",
            code="task-failed",
            extras={"outcome": outcome, "task": self.id, "error": self.error},
        )


@dataclass(frozen=True, slots=True)
class Why:
    """Tell what a task waits for, how many are ahead of it, and when it is expected to start.

    `kind` is what binds its pipeline now: rate, concurrency, limit (the shared one named in `limit`), held, paused, instances,
    pool, ramp, memory, batch, turn, code, delayed or nothing; `until` is when that ends, if it is known. With `exact` false
    it starts at `expected_start` at the earliest, and `because` says why there is no more to say.
    """

    state: str
    waits_for: str | None = None
    kind: str = "nothing"
    limit: str | None = None
    until: datetime | None = None
    position: int | None = None
    expected_start: datetime | None = None
    exact: bool = False
    because: str | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """Tell of a function: its settings as written, its live version and its instances.

    `pool` is where its instances start (`name`), whether by a `route`, `why`, and what was measured: `p90` of how long its
    tasks take, in seconds, and the bytes of `memory` that an instance uses.
    """

    name: str
    settings: dict[str, Any]
    live: int | None = None
    versions: int = 0
    source: dict[str, Any] | None = None
    sandbox: dict[str, Any] = field(default_factory=dict)
    created: datetime | None = None
    updated: datetime | None = None
    instances: dict[str, int] = field(default_factory=dict)
    usage: dict[str, float] = field(default_factory=dict)
    learned: dict[str, Any] | None = None
    pool: dict[str, Any] = field(default_factory=dict)
    web: dict[str, Any] = field(default_factory=dict)

    @property
    def saving(self) -> float | None:
        """Return the request-seconds served in each second of an instance, since the server started; None before the first."""
        lived = self.usage.get("instance_seconds", 0.0)
        return self.usage["request_seconds"] / lived if lived else None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Tell of a pipeline: its settings as written, its tasks by state, and what it waits for.

    `pool` is where the instances start that its tasks run in, as of a function.
    """

    name: str
    settings: dict[str, Any]
    created: datetime | None = None
    updated: datetime | None = None
    paused: bool = False
    draining: bool = False
    held_until: datetime | None = None
    learned: dict[str, Any] | None = None
    pool: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    waits_for: str | None = None
    kind: str = "nothing"
    limit: str | None = None
    until: datetime | None = None
    backlog: int = 0
    expected_end: datetime | None = None
    exact: bool = False
    because: str | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """Tell of a shared limit; `held_until` is set while downstream holds it, `waiting` is how many pipelines wait at it."""

    name: str
    settings: dict[str, Any]
    created: datetime | None = None
    updated: datetime | None = None
    held_until: datetime | None = None
    waiting: int = 0
    learned: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class MapCounts:
    """Tell how far a map is: how many of its items have ended, how many of them well, and the others by outcome.

    `rate` is how many end in a second, of late. What is told between results has no more than this. `running` is how many
    items run now, `rerun` how many ran a second time because they took too long.
    """

    items: int
    ended: int
    ok: int
    failed: dict[str, int] = field(default_factory=dict)
    rate: float | None = None
    id: str = ""
    state: str = ""
    pipeline: str | None = None
    function: str | None = None
    running: int = 0
    rerun: int = 0
    stragglers: float | None = None
    created: datetime | None = None
    cancelled: datetime | None = None
    finished: datetime | None = None

    @property
    def left(self) -> int:
        """Return how many items have not ended."""
        return self.items - self.ended

    @property
    def seconds_left(self) -> float | None:
        """Return about how long the rest takes at the rate of late; None if that is not known."""
        return self.left / self.rate if self.rate else None


@dataclass(frozen=True, slots=True)
class Pool:
    """Tell of a pool: its `instances`, in all and by the `functions` that they are of, and the bytes of `memory` they use.

    `waiting` is how many sorts of instances (of a function, or of a pipeline with `env` of its own) wait for a place.
    """

    name: str
    settings: dict[str, Any]
    created: datetime | None = None
    updated: datetime | None = None
    instances: int = 0
    functions: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Deployed:
    """Tell of code that has gone live.

    `environment` is None for code that names no packages; else it has its `digest`, how many `packages` there are, the
    `seconds` that their installation took, and `fresh`: whether that was now.
    """

    function: str
    version: int
    bundle: str
    live: bool = True
    environment: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """Tell of one immutable version of a function; `previous` is the one that it took over from, where a rollback leads.

    `aliases` are the names that point at it now.
    `environment` tells of its packages as in `Deployed`; None if it names none, or they are not installed now.
    """

    number: int
    bundle: str
    live: bool
    aliases: list[str] = field(default_factory=list)
    created: datetime | None = None
    previous: int | None = None
    environment: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """Tell of one change of a plan: `action` is create, change or remove."""

    action: str
    kind: str
    name: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Tell what applying a configuration changes, and whether it was applied; `change` is the last row of the log."""

    plan: list[Step]
    unchanged: int = 0
    applied: bool = False
    change: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """Tell of one row of the configuration's change log."""

    sequence: int
    at: datetime
    action: str
    kind: str
    name: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """Tell of one line that a task wrote; `stream` is stdout or stderr, or log."""

    position: int
    text: str
    at: datetime | None = None
    task: str | None = None
    pipeline: str | None = None
    function: str | None = None
    attempt: int | None = None
    stream: str = "stdout"
