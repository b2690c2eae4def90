"""A pipeline as admission sees it: where it is, what waits in it, and what an admitted task took."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.queue import Queue

if TYPE_CHECKING:
    from penstock.domain.limits import Gate, Slots
    from penstock.domain.settings import RateSpec
    from penstock.domain.task import Task

IDLE: Final = "idle"
READY: Final = "ready"
MOMENT: Final = "moment"
OWN: Final = "own"
WAITING: Final = "waiting"
PAUSED: Final = "paused"


class Pipeline:
    """Hold what admission knows of a pipeline; `ticket` changes with its place, so that old entries are void."""

    __slots__ = (
        "adaptive", "again", "alarm", "concurrency", "credit", "gates", "name", "own", "place", "queue", "rates", "resumes",
        "since", "slots", "ticket", "tier", "ungated", "waits_at", "wakes_at", "weight",
    )  # fmt: skip

    def __init__(self, name: str, slots: Slots) -> None:
        self.name = name
        self.queue = Queue()
        self.slots = slots
        self.rates: tuple[RateSpec, ...] = ()
        self.concurrency: int | None = None
        self.adaptive = False
        self.own: Gate | None = None
        self.ungated = 0  # running tasks that were started when it had no gate of its own
        self.gates: tuple[Gate, ...] = ()
        self.tier = 1
        self.weight = 1.0
        self.credit = 0.0
        self.since = inf  # since when its head has been blocked
        self.again = -inf  # when it may become the elder again after it was one in vain
        self.resumes = False  # it was blocked within its turn, which goes on when it is called
        self.ticket = 0
        self.place = IDLE
        self.waits_at: Gate | Slots | None = None  # the gate that blocked it last
        self.wakes_at = inf  # its moment, while its place is the heap
        self.alarm = inf  # when its head expires, if it is anywhere but in the heap

    def most_cost(self) -> float:
        """Return the largest cost that a task may have."""
        own = min((rate.n for rate in self.rates if rate.meter == "cost"), default=inf)
        return min(own, *(gate.most_cost() for gate in self.gates), inf)

    def adapts_by(self) -> str | None:
        """Return the name of the adaptive shared limit that stands for downstream here; None if there is none."""
        if self.own is not None and self.own.adaptive is not None:
            return None
        return next((gate.name for gate in self.gates if gate.adaptive is not None), None)

    def wants(self, now: float) -> float:
        """Return how many slots it could use at once, one at least."""
        room = min((gate.room(now) for gate in self.gates), default=inf)
        backlog = inf if self.queue.more else len(self.queue)
        return max(1.0, min(room, backlog))


class Start:
    """Hold what one admitted task took; `undated` until the start of its handler is known.

    `rated` are those of its gates that had rates when it was admitted: only these charge units to it, and date them.
    """

    __slots__ = ("date", "gates", "own", "pipeline", "rated", "slots", "task", "undated")

    def __init__(self, task: Task, pipeline: Pipeline) -> None:
        self.task = task
        self.pipeline = pipeline
        self.gates = pipeline.gates
        self.own = pipeline.own
        self.slots = pipeline.slots
        self.rated = tuple(gate for gate in pipeline.gates if gate.rates)
        self.date = inf  # the moment of the handler's start, as told last
        self.undated = bool(self.rated)

    @property
    def dated(self) -> bool:
        """Say whether the moment of the handler's start matters to a limit."""
        return self.undated


@dataclass(slots=True)
class Admitted:
    """Report what one call of `admit` decided: starts, tasks past their age, and tasks that could never start.

    `most` bounds what one call does. `moves` counts pipelines that had a turn and went to wait elsewhere, `passed` the
    moments that were reached.
    """

    most: int
    starts: list[Start] = field(default_factory=list)
    expired: list[Task] = field(default_factory=list)
    impossible: list[tuple[Task, str]] = field(default_factory=list)
    moves: int = 0
    passed: int = 0

    @property
    def full(self) -> bool:
        """Say whether the call has done as much as it may."""
        return len(self.starts) + len(self.expired) + len(self.impossible) + self.moves >= self.most
