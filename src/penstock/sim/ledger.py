"""What really happened, as the scripted world saw it: the ground truth that laws are checked against.

Penstock never reads it. Moments are virtual monotonic seconds.
"""

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf


class Fate(StrEnum):
    """Say what became of one execution, as the world saw it."""

    OK = "ok"
    ERROR = "error"
    THROTTLED = "throttled"
    CANCELLED = "cancelled"
    DIED = "died"  # its instance ended by itself, and this with it
    OVERRAN = "overran"  # its instance was ended for the memory that it used
    BESIDE = "beside"  # it was in such an instance, too
    KILLED = "killed"  # Penstock ended its instance
    LOST = "lost"  # it never started: its instance was gone before


@dataclass(slots=True)
class Execution:
    """Follow one execution: when it was sent, started and ended, and when the engine could know of its end.

    `started` is None if the handler never did; `ended` is None while it runs. `told` stays None if it ended by itself and
    the report died with the instance. `epoch` numbers the server's lives. A task that had to be prepared was sent up to
    `prepared` seconds after it was admitted. `retry_after` and `limit` are what a throttled one said. A batch has several
    `tasks`, `task` is the first of them, and `parts` is what its handler said of each, if it came that far. It told that
    it `spent` another cost than its tasks', which the engine heard at the moment `corrected`. `cost` is that of a use of a
    limit within an execution, which laws see as a start. It `rests` from moments to moments, while it waits for others. One is
    `held_up` that has ended, and cannot tell because another holds the GIL of its instance.
    """

    attempt: int
    task: int
    number: int
    pipeline: str
    function: str
    version: int
    instance: int
    epoch: int
    sent: float
    timeout: float
    started: float | None = None
    ended: float | None = None
    told: float | None = None
    prepared: float = 0.0
    fate: Fate | None = None
    body: bytes = b""
    retry_after: float | None = None
    limit: str | None = None
    tasks: tuple[int, ...] = ()
    parts: dict[int, tuple[Fate, bytes]] = field(default_factory=dict)
    cost: float | None = None
    spent: float | None = None
    corrected: float = inf
    rests: list[tuple[float, float]] = field(default_factory=list)
    held_up: bool = False

    def __post_init__(self) -> None:
        self.tasks = self.tasks or (self.task,)

    def each(self) -> "Iterator[Execution]":
        """Yield it as each of its tasks saw it."""
        if len(self.tasks) == 1 and not self.parts:
            yield self
            return
        for task in self.tasks:
            fate, body = self.parts.get(task, (self.fate, self.body))
            yield replace(self, task=task, tasks=(task,), parts={}, fate=fate, body=body)

    def working(self) -> "Iterator[Execution]":
        """Yield it as executions of which each works all the time, from when it comes back from a rest to the next one."""
        begun, sent, prepared = self.started, self.sent, self.prepared
        for begin, end in self.rests:
            yield replace(self, started=begun, ended=begin, sent=sent, prepared=prepared, rests=[])
            begun, sent, prepared = end, begin, 0.0
        if begun is None or begun < inf:
            yield replace(self, started=begun, sent=sent, prepared=prepared, rests=[])

    @property
    def admitted(self) -> float:
        """Return the earliest moment at which it can have been admitted."""
        return self.sent - self.prepared


@dataclass(slots=True)
class Use:
    """Follow what an execution took from a shared limit within: `cost` of its rates, or one unit of concurrency (a `slot`).

    It was `asked` for, and the handler went on with it at the moment `at`; a unit was held until `ended`.
    """

    execution: Execution
    limit: str
    slot: bool
    cost: float
    asked: float
    at: float
    ended: float | None = None

    def as_start(self) -> Execution:
        """Return it as an execution that started when the handler went on: laws of limits are about those."""
        return replace(
            self.execution, sent=self.asked, prepared=0.0, started=self.at, ended=self.ended, cost=self.cost, spent=None
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Be one line of the trace."""

    at: float
    what: str


class Ledger:
    """Collect executions, the breaches of protocol that were seen on the way, and a trace for people."""

    def __init__(self, trace_length: int | None = None) -> None:
        self.executions: list[Execution] = []
        self.uses: list[Use] = []
        self.breaches: list[str] = []
        self.trace: deque[Event] = deque(maxlen=trace_length)
        self._digest = hashlib.sha256()

    def note(self, at: float, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(Event(at, what))
        self._digest.update(f"{at!r} {what}\n".encode())

    def breach(self, at: float, what: str) -> None:
        """Note that a law was broken."""
        self.breaches.append(f"at {at:.6f}: {what}")
        self.note(at, f"BREACH {what}")

    def digest(self) -> str:
        """Return a fingerprint of all that was noted; equal for two runs of one seed."""
        return self._digest.hexdigest()

    def of_tasks(self) -> dict[int, list[Execution]]:
        """Return the executions of every task, in the order in which they were sent."""
        found: dict[int, list[Execution]] = defaultdict(list)
        for execution in self.executions:
            for one in execution.each():
                found[one.task].append(one)
        return found

    def started(self) -> Iterator[tuple[Execution, float]]:
        """Yield the executions whose handler started, with that moment, in the order of starting."""
        pairs = [(execution.started, execution) for execution in self.executions if execution.started is not None]
        for moment, execution in sorted(pairs, key=lambda pair: pair[0]):
            yield execution, moment

    def tell(self, lines: int = 60) -> str:
        """Return the last lines of the trace for people."""
        return "\n".join(f"{event.at:14.6f}  {event.what}" for event in list(self.trace)[-lines:])
