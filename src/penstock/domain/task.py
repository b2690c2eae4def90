"""Tasks, and the one table of what may become of them. Every other place asks this one."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Say where a task stands."""

    DELAYED = "delayed"
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    DEAD = "dead"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Outcome(StrEnum):
    """Say how an attempt ended (or, for cancelled and expired, that there will be none)."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    INTERRUPTED = "interrupted"
    THROTTLED = "throttled"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


WAITING: Final = frozenset({State.DELAYED, State.QUEUED})
ENDED: Final = frozenset({State.DONE, State.DEAD, State.CANCELLED, State.EXPIRED})

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    State.DELAYED: frozenset({State.QUEUED, State.CANCELLED, State.EXPIRED}),
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.EXPIRED}),
    State.RUNNING: frozenset({State.QUEUED, State.DELAYED, State.DONE, State.DEAD, State.CANCELLED, State.EXPIRED}),
    State.DONE: frozenset(),
    State.DEAD: frozenset({State.QUEUED}),  # redrive
    State.CANCELLED: frozenset(),
    State.EXPIRED: frozenset(),
}

FREE_OF_CHARGE: Final = frozenset({Outcome.INTERRUPTED, Outcome.THROTTLED})
"""Outcomes that cost the task no attempt."""

RETRIED: Final = frozenset({Outcome.ERROR, Outcome.TIMEOUT, Outcome.OUT_OF_MEMORY, Outcome.CRASHED})
"""Outcomes after which the task is tried again while it has attempts left."""


class Task:
    """Hold one unit of work as admission sees it. Moments are wall-clock seconds; `id` is also its place in the queue.

    `payload` is the bytes that came in, never decoded; None means that they are on disk only. `durable` is False for a
    synchronous call, of which nothing is written before it has ended. `attempts` counts those that were charged. `apart`
    asks for an instance of its own: the task was in one that ended, and may be what ended it. `pinned` keeps it in memory:
    it has been out, and the store may still hold it as running or delayed. `start_by` is the moment by which it must have
    started the first time; None if there is none, and once it has. `since` is the moment from which it has waited: when it
    came, or was due last. `size` is the length of a payload that was left on disk. `depth` is how many tasks wait for it, one
    for the other: 0 for one that no running task has called.
    """

    __slots__ = (
        "apart", "attempts", "cost", "created", "depth", "due", "durable", "expires", "id", "interruptions", "key", "payload",
        "pinned", "pipeline", "priority", "since", "size", "start_by", "throttles",
    )  # fmt: skip

    def __init__(
        self,
        id: int,  # noqa: A002 - the glossary's word
        pipeline: str,
        payload: bytes | None,
        *,
        created: float,
        expires: float,
        due: float | None = None,
        priority: int = 0,
        cost: float = 1.0,
        key: str | None = None,
        durable: bool = True,
        attempts: int = 0,
        interruptions: int = 0,
        start_by: float | None = None,
        size: int = 0,
    ) -> None:
        self.id = id
        self.pipeline = pipeline
        self.payload = payload
        self.created = self.since = created
        self.expires = expires
        self.start_by = start_by
        self.due = due
        self.priority = priority
        self.cost = cost
        self.key = key
        self.durable = durable
        self.attempts = attempts
        self.interruptions = interruptions
        self.size = size
        self.pinned = False
        self.apart = interruptions > 0
        self.throttles = 0
        self.depth = 0

    def __repr__(self) -> str:
        return f"Task({name_of(self.id)}, {self.pipeline})"


@dataclass(slots=True)
class Attempt:
    """Record what became of a task: the end of one execution, or of its waiting (cancelled, expired).

    `state` is where the task stands now, `due` when it is tried again if that is `delayed`. `body` is the bytes of the
    JSON result (outcome ok) or of the JSON error `{"type", "message", "traceback"?}`. Moments are wall-clock seconds;
    `started` is None when the handler never started.
    """

    task: Task
    outcome: Outcome
    state: State
    body: bytes | None
    finished: float
    started: float | None = None
    due: float | None = None
    version: int = 0
    instance: str = ""


def name_of(task_id: int) -> str:
    """Return the public name of a task: 16 hexadecimal digits that sort as the tasks came."""
    return f"{task_id:016x}"


def id_of(name: str) -> int | None:
    """Return the task id that a public name stands for, or None if it can be none."""
    if len(name) != 16:
        return None
    try:
        value = int(name, 16)
    except ValueError:
        return None
    return value if value < 1 << 63 else None
