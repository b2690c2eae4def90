"""A pipeline as admission sees it: where it is, what waits in it, and what an admitted task took."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, inf
from typing import TYPE_CHECKING, Final, NamedTuple

from penstock.domain.asks import Ask, Lent
from penstock.domain.queue import Queue

if TYPE_CHECKING:
    from penstock.domain.limits import Gate, Slots
    from penstock.domain.specs import BatchSpec, RateSpec
    from penstock.domain.task import Task

IDLE: Final = "idle"
READY: Final = "ready"
MOMENT: Final = "moment"
OWN: Final = "own"
WAITING: Final = "waiting"
PAUSED: Final = "paused"

MOST_BYTES: Final = 16 << 20
"""The most bytes that the payloads of one start may have together; a single one always may."""

ROUNDING: Final = 1e-6
"""What a difference of two wall-clock moments may be wrong by, as floats of this century (seconds)."""


EARLY: Final = 0.05
"""How long (seconds) before a task of it would expire a batch goes, whole or not."""


class Load(NamedTuple):
    """Say what the next start takes: how many tasks, what they cost together, and how long they wait for others still."""

    tasks: int
    cost: float
    wait: float = 0.0


class Pipeline:
    """Hold what admission knows of a pipeline; `ticket` changes with its place, so that old entries are void."""

    __slots__ = (
        "adaptive", "again", "alarm", "batch", "concurrency", "credit", "gates", "name", "own", "place", "queue", "rates",
        "resumes", "since", "slots", "ticket", "tier", "ungated", "waits_at", "wakes_at", "weight",
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
        self.batch: BatchSpec | None = None
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
        if self.batch is not None:
            backlog = ceil(backlog / self.batch.size) if backlog < inf else inf
        return max(1.0, min(room, backlog))

    # batches --------------------------------------------------------------------------------------------------------
    @property
    def ripens(self) -> bool:
        """Say whether its tasks wait for nothing but each other."""
        return self.place is MOMENT and self.waits_at is None

    @property
    def is_full(self) -> bool:
        """Say whether a whole batch waits."""
        return self.batch is None or len(self.queue) >= self.batch.size or self.queue.bytes >= MOST_BYTES

    def next_load(self, wall: float) -> Load:
        """Return what the next start of a pipeline with batches takes; there is a task.

        The first task always goes, and those behind it while they fit: in number, in bytes, and in cost, so that no task is
        impossible because of its neighbours. One that may have ended its instance goes alone.
        """
        assert self.batch is not None
        count, cost, bytes_, ripe = 0, 0.0, 0, inf
        most, wait = self.most_cost(), self.batch.wait
        for task in self.queue:
            size = task.size if task.payload is None else len(task.payload)
            crowded = count == self.batch.size or bytes_ + size > MOST_BYTES or cost + task.cost > most
            expires = task.start_by or task.expires
            if count and (crowded or task.apart or expires <= wall):
                return Load(count, cost)
            count, cost, bytes_ = count + 1, cost + task.cost, bytes_ + size
            if task.apart:
                return Load(count, cost)
            ripe = min(ripe, task.since + wait, expires - EARLY)
        if count == self.batch.size:
            return Load(count, cost)
        left = ripe - wall
        return Load(count, cost, 0.0 if left < ROUNDING else min(left, wait))


class Start:
    """Hold what was admitted at once, and what it took; `undated` until the start of its handler is known.

    It has one task, or those of a batch (`batched`: the handler gets a list, be it of one). `rated` are those of its gates
    that had rates when it was admitted: only these charge units to it, and date them. `cost` is what it really takes: that
    of its tasks, until the handler tells better. `asks` is what it asked for since, and `acquired` where
    it got something. One that `rests` waits for others of its own making and has no concurrency; `stands_at` are the gates
    where it stands in line to have it back.
    """

    __slots__ = (
        "acquired", "asks", "batched", "cost", "date", "gates", "own", "pipeline", "rated", "rests", "slots", "stands_at",
        "task", "tasks", "undated",
    )  # fmt: skip

    def __init__(self, tasks: tuple[Task, ...], cost: float, pipeline: Pipeline) -> None:
        self.task = tasks[0]
        self.tasks = tasks
        self.cost = cost
        self.batched = pipeline.batch is not None
        self.pipeline = pipeline
        self.gates = pipeline.gates
        self.own = pipeline.own
        self.slots = pipeline.slots
        self.rated = tuple(gate for gate in pipeline.gates if gate.rates)
        self.date = inf  # the moment of the handler's start, as told last
        self.undated = bool(self.rated)
        self.asks: dict[int, Ask] | None = None  # by number; made with the first
        self.acquired: tuple[Gate, ...] = ()
        self.rests = False
        self.stands_at: tuple[Gate, ...] = ()

    @property
    def dated(self) -> bool:
        """Say whether the moment of the handler's start matters to a limit."""
        return self.undated


@dataclass(slots=True)
class Admitted:
    """Report what one call of `admit` decided: starts, tasks past their age, and tasks that could never start.

    `most` bounds what one call does. `tasks` counts those of the starts, `moves` pipelines that had a turn and went to wait
    elsewhere, `passed` the moments that were reached. `lent` is what running tasks get that asked for it.
    """

    most: int
    starts: list[Start] = field(default_factory=list)
    tasks: int = 0
    expired: list[Task] = field(default_factory=list)
    impossible: list[tuple[Task, str]] = field(default_factory=list)
    lent: Lent = field(default_factory=Lent)
    moves: int = 0
    passed: int = 0

    @property
    def full(self) -> bool:
        """Say whether the call has done as much as it may."""
        return self.tasks + len(self.expired) + len(self.impossible) + self.moves >= self.most
