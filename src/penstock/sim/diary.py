"""What was done to the engine in a simulated world, to be compared with what it made of it. Moments are virtual seconds."""

from dataclasses import dataclass, field
from math import inf

from penstock.domain.task import Attempt
from penstock.sim.laws import Allowance
from penstock.store.protocol import StoredTask


@dataclass(slots=True)
class Sending:
    """Remember an acknowledged task.

    `start_by` is a wall-clock moment; so are, of a debounced one, `first`, when the first with its key came, and `due`.
    """

    pipeline: str
    payload: bytes
    cost: float
    priority: int
    at: float
    delayed: bool
    start_by: float | None = None
    first: float | None = None
    due: float | None = None


@dataclass(slots=True)
class Called:
    """Remember a synchronous call and how it ended: an attempt, or an error."""

    pipeline: str
    payload: bytes
    timeout: float | None
    began: float
    ended: float = inf
    answer: Attempt | None = None
    error: Exception | None = None


@dataclass(slots=True)
class Diary:
    """Keep what was done to the engine, to be compared with what it made of it."""

    tasks: dict[int, Sending] = field(default_factory=dict)
    calls: list[Called] = field(default_factory=list)
    allowances: dict[tuple[str, str], list[Allowance]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)  # the most tasks that a call of a pipeline may ever have had
    paused: list[tuple[str, float, float]] = field(default_factory=list)
    resumed: list[tuple[str, float]] = field(default_factory=list)
    asked_to_cancel: set[int] = field(default_factory=set)
    cancelled: dict[int, float] = field(default_factory=dict)
    redriven: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    crashes: list[float] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    unheard: dict[str, set[bytes]] = field(default_factory=dict)  # what was sent and not acknowledged, by pipeline
    surprises: list[str] = field(default_factory=list)
    stored: dict[int, StoredTask | None] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    digits: int = 0
