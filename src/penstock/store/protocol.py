"""What durable state can do. Every adapter passes the same conformance suite.

The laws. A coroutine that writes returns when its rows are on disk (fsync); what arrives while one commit runs goes
into the next one. Every write carries the epoch of the owner that opened the store: after a newer owner has opened it,
writes raise `Fenced`. A write that finds no room on the disk raises `DiskFull` and leaves nothing behind. Ids and
sequences are given by the engine. Every key starts with the project. Moments are wall-clock seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

from penstock.domain.task import Attempt, Outcome, State, Task

Kind = Literal["function", "pipeline", "limit", "pool"]
Action = Literal["create", "change", "remove", "deploy"]


@dataclass(frozen=True, slots=True)
class Change:
    """Describe one row of the ordered change log. `before` and `after` are settings with secrets already redacted."""

    sequence: int
    at: float
    action: Action
    kind: Kind
    name: str
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Write:
    """Ask for one object to be put (settings given) or removed (settings None), and for its row in the change log.

    `settings` is stored as it is, secrets included; `before` and `after` go to the log and must be redacted.
    """

    kind: Kind
    name: str
    action: Action
    settings: Mapping[str, Any] | None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StoredObject:
    """Hold a configuration object as it was written, secrets included."""

    kind: Kind
    name: str
    settings: Mapping[str, Any]
    created: float
    updated: float


@dataclass(frozen=True, slots=True)
class Version:
    """Hold one immutable (bundle, settings) of a function; `previous` is the version that it first took over from."""

    function: str
    number: int
    bundle: str
    settings: Mapping[str, Any]
    created: float
    live: bool
    previous: int | None = None


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """Hold what the store remembers of one attempt."""

    number: int
    outcome: Outcome
    started: float | None
    finished: float
    error: bytes | None
    version: int
    instance: str


@dataclass(frozen=True, slots=True)
class StoredTask:
    """Hold all the store knows of a task. `result` is the JSON result or error of its last attempt.

    `start_by` is the moment by which it must have started the first time; None once it has.
    """

    id: int
    pipeline: str
    state: State
    outcome: Outcome | None
    priority: int
    cost: float
    key: str | None
    attempts: int
    interruptions: int
    created: float
    due: float | None
    expires: float
    start_by: float | None
    started: float | None
    finished: float | None
    version: int
    result: bytes | None
    history: Sequence[StoredAttempt] = field(default=())


@dataclass(frozen=True, slots=True)
class StoredMap:
    """Hold one map: its items are the tasks with the ids behind its own.

    `ended` counts them by outcome once all have ended (`finished`). `twins` are the second runs of items that took too
    long, by the ids of these; a map that is asked for with others has none. `cancelled` is when that was asked for.
    """

    id: int
    pipeline: str
    items: int
    created: float
    stragglers: float | None = None
    cancelled: float | None = None
    finished: float | None = None
    ended: Mapping[str, int] = field(default_factory=dict)
    twins: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """Hold a piece of output that a task wrote. `task` is 0 for output that belongs to no task."""

    task: int
    pipeline: str
    function: str
    attempt: int
    at: float
    stream: Literal["stdout", "stderr", "log"]
    text: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Say which task stands for one that was debounced, and when it is due.

    `replaced` says that it was there before, `known` that the whole send was, which then changed nothing.
    """

    id: int
    due: float
    replaced: bool = False
    known: bool = False


class Store(Protocol):
    """Keep what must survive. All verbs are coroutines; reads see every write that was awaited before them."""

    async def open(self) -> None:
        """Open, migrate forward, take ownership. Raises `Locked` while another owner is alive."""

    async def close(self) -> None:
        """Write what is pending and give ownership back."""

    @property
    def epoch(self) -> int:
        """Return the number of this ownership: larger than every one before, and at most 2**23."""

    @property
    def full(self) -> bool:
        """Say whether the disk is full: outcomes are still written, from what was kept back for them, and sends are not."""

    async def project(self, name: str) -> int:
        """Return the id of a project, making it if it is new."""

    # tasks ------------------------------------------------------------------------------------------------------------
    async def enqueue(
        self, project: int, tasks: Sequence[Task], key: str | None = None, remember: float | None = None
    ) -> Mapping[int, int]:
        """Write new tasks, `delayed` if they have a `due` moment, else `queued`.

        Returns {position in `tasks`: id of the earlier task} for those whose (pipeline, key) was already known; these
        were not written. Keys are remembered for `remember` seconds after they were first seen, or else for `key_ttl` seconds
        of the adapter's settings.
        `key` is one for all of them, whose ids must follow each other: if it is known, nothing is written. It does not
        touch tasks with keys of their own, and stands for as many tasks as came with it.
        """

    async def debounce(
        self, project: int, tasks: Sequence[Task], most: float, key: str | None = None
    ) -> list[Standing]:
        """Write new delayed tasks of one pipeline, each with another key (None is one too); return what stands for each.

        Where an earlier one with that key is delayed, not due yet and never tried, that one stays, with its id: it gets the
        payload, cost and priority of the new one and is due when that is, but at most `most` seconds after it was created
        itself; the moments of its end move with it. `key` makes it safe to repeat the whole send, as with `enqueue`.
        """

    async def record(self, project: int, attempts: Sequence[Attempt]) -> None:
        """Write what became of tasks: state, outcome, result, counters, due moment.

        A task that is not `durable` is inserted, having left no trace before; one that was deleted meanwhile stays so. An
        attempt after which the task goes on (queued, delayed) is kept in its history. The same task may occur more than
        once, in order. Payloads of tasks that have ended are forgotten, those of dead ones kept for a redrive. A moment by
        which the task must have started is forgotten: it has, or it never will.
        """

    async def note_starts(self, project: int, tasks: Sequence[Task]) -> None:
        """Write that tasks are running, with their `attempts` and `interruptions` as they are now.

        A moment by which they must have started is forgotten."""

    async def recover(self, project: int) -> int:
        """Turn tasks that were noted as running into queued ones with one interruption more; return how many."""

    async def waiting(
        self, project: int, pipeline: str, after: tuple[int, int] | None, limit: int, payload_bytes: int
    ) -> list[Task]:
        """Return queued tasks of a pipeline in the order of (-priority, id), those after the given pair only.

        Payloads larger than `payload_bytes` are left on disk (None).
        """

    async def ahead(
        self,
        project: int,
        pipeline: str,
        after: tuple[int, int] | None,
        before: tuple[int, int],
        without: Sequence[int],
        limit: int,
    ) -> int:
        """Return how many queued tasks of a pipeline sort between two pairs (-priority, id), both left out; at most `limit`.

        Those with the ids in `without` do not count."""

    async def due(self, project: int, until: float, after: tuple[float, int] | None, limit: int) -> list[Task]:
        """Return delayed tasks whose moment is at or before `until`, in the order of (due, id), after the given pair only.

        Their payloads are left on disk."""

    async def expiring(self, project: int, after: tuple[float, int] | None, limit: int) -> list[StoredTask]:
        """Return tasks that must have started by a moment and have not, in the order of (start_by, id), without history.

        Those after the given pair only."""

    async def promote(self, project: int, ids: Sequence[int]) -> None:
        """Turn delayed tasks into queued ones."""

    async def payloads(self, project: int, ids: Sequence[int]) -> Mapping[int, bytes]:
        """Return payloads from disk; unknown ids are left out."""

    async def task(self, project: int, task_id: int) -> StoredTask | None:
        """Return one task with the history of its earlier attempts, or None."""

    async def tasks(
        self,
        project: int,
        *,
        pipeline: str | None = None,
        state: State | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[StoredTask]:
        """Return tasks, newest id first, without history; those with an id smaller than `before` only."""

    async def counts(self, project: int) -> Mapping[str, Mapping[State, int]]:
        """Return how many tasks each pipeline has in the states delayed, queued, running and dead."""

    async def redrive(self, project: int, pipeline: str, ids: Sequence[int] | None, expires: float) -> int:
        """Turn dead tasks (all of the pipeline's, or those named) into queued ones with no attempts spent.

        Their `expires` becomes the given moment. Returns how many."""

    async def discard(self, project: int, pipeline: str, states: Sequence[State]) -> int:
        """Delete a pipeline's tasks in the given states, with their keys and history; return how many."""

    # maps -------------------------------------------------------------------------------------------------------------
    async def start_map(
        self, project: int, made: StoredMap, tasks: Sequence[Task], key: str | None, remember: float | None
    ) -> int | None:
        """Write a map and all its items, or nothing. Their ids follow its own.

        If `key` was given to a map of that pipeline within `remember` seconds (None: `key_ttl` of the adapter's settings),
        nothing is written, and the id of that map returned.
        """

    async def add_twin(self, project: int, made: int, item: int, task: Task) -> None:
        """Write a task that is the second run of one of a map's items, given by its id."""

    async def cancel_map(self, project: int, made: int, at: float) -> None:
        """Write that a map is being cancelled; its items are told one by one."""

    async def finish_map(self, project: int, made: int, at: float, ended: Mapping[str, int]) -> None:
        """Write that all items of a map have ended, and how many in which way. A redrive of one of them undoes it."""

    async def map(self, project: int, made: int) -> StoredMap | None:
        """Return one map, or None."""

    async def maps(self, project: int, before: int | None, limit: int, *, unfinished: bool = False) -> list[StoredMap]:
        """Return maps, newest first, those with an id smaller than `before` only; or those only that have not finished."""

    async def ends(self, project: int, after: int, last: int, limit: int) -> list[tuple[int, State, Outcome | None]]:
        """Return (id, state, outcome) of tasks in the order of their ids, behind `after` and up to `last`."""

    async def results(self, project: int, ids: Sequence[int], most: int) -> list[StoredTask | None]:
        """Return tasks in the order in which they are asked for, without history; None for one that is not there.

        It stops before the results have more than `most` bytes together, but not before the first."""

    async def not_ended(self, project: int, after: int, last: int, limit: int) -> list[StoredTask]:
        """Return tasks that have not ended in the order of their ids: behind `after`, up to `last`; without history."""

    # configuration ----------------------------------------------------------------------------------------------------
    async def objects(self, project: int, kind: Kind, after: str, limit: int) -> list[StoredObject]:
        """Return functions, pipelines or limits in the order of their names, those behind the given name only."""

    async def apply(
        self, project: int, writes: Sequence[Write], at: float, live: Mapping[str, int] = MappingProxyType({})
    ) -> list[Change]:
        """Write objects, make versions live, and write their rows in the change log, in one transaction; return the rows.

        A function takes its versions with it. `live` has a version's number by its function; each is a `deploy` row
        ({"version": n} before and after) behind the rows of the objects. A version that goes live in the place of an
        older one remembers that one as its `previous`, the first time. Raises `NotFound` if there is no such version.
        """

    async def changes(self, project: int, after: int, limit: int) -> list[Change]:
        """Return rows of the change log with a sequence larger than `after`, in order."""

    async def add_version(
        self, project: int, function: str, bundle: str, settings: Mapping[str, Any], at: float
    ) -> Version:
        """Write the next version of a function, not live yet. Numbers are 1, 2, 3…"""

    async def drop_versions(self, project: int, function: str, numbers: Sequence[int]) -> None:
        """Forget versions of a function; the live one stays."""

    async def versions(self, project: int, function: str | None = None) -> list[Version]:
        """Return the versions of a function (or of all), oldest first."""

    async def rotate(self) -> int:
        """Seal every secret with a new key, in one transaction; return how many settings were written anew.

        Raises `Conflict` if the key is not the store's to make. Ends it half way, what was sealed opens still."""

    # the rest -----------------------------------------------------------------------------------------------------------
    async def write_output(self, project: int, lines: Sequence[Line]) -> None:
        """Append output. It is the one write that need not be on disk when it returns."""

    async def output(
        self, project: int, *, task: int | None = None, pipeline: str | None = None, function: str | None = None,
        after: int = 0, limit: int = 1000,
    ) -> list[tuple[int, Line]]:  # fmt: skip
        """Return (position, line) pairs in order, those behind position `after` only."""

    async def save_note(self, project: int, name: str, body: bytes | None) -> None:
        """Keep a small named body (None forgets it); the state of the limits at a clean stop, for one."""

    async def note(self, project: int, name: str) -> bytes | None:
        """Return a named body, or None."""

    async def notes(self, project: int, prefix: str) -> Mapping[str, bytes]:
        """Return the bodies whose names begin with a prefix, by name."""

    async def prune(self, project: int, ended_before: float, now: float, limit: int) -> int:
        """Delete at most `limit` tasks that ended before a moment (dead ones stay), with what belongs to them.

        Output of a deleted task and of the same age goes too, keys that have expired at `now`, and maps without any item
        left. Returns how many rows went; 0 means that there is nothing left to prune."""
