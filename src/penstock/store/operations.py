"""What the writer does inside its transactions: each verb takes the arguments of all who asked for it, at once.

A new task is *fresh*: it is written at the end of the table and into no index by pipeline, because such an index would
cost a page per task and most tasks have ended before anybody looks for them there. *Filing* moves a piece of the fresh
ones into the indexes by pipeline, in bulk: when many have gathered, and before a page of waiting tasks is read. Readers
look into the indexes and through the few fresh ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.domain.task import Attempt, State, Task
from penstock.store.protocol import Standing
from penstock.store.rows import (
    APART,
    CODES,
    encode_attempts,
    encode_history,
    encode_replacements,
    encode_tasks,
    encode_untraced,
)
from penstock.store.session import Session
from penstock.store.statements import Rows, join

FILING: Final = 4096
"""How many tasks are filed at once."""

WINDOW: Final = "debounce\n"
"""What stands before a key while a task waits for others with it."""

ALL: Final = -1
"""The position of a key that stands for all tasks of an `enqueue`."""

_encode = msgspec.json.encode
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True, eq=False)
class Verb:
    """Say how a verb is run. `run` gets a list of arguments and returns as many answers.

    Calls of a `joined` verb that stand side by side are run as one; those of a `free` one wherever they stand, since
    nothing that waits for the same commit can depend on them. Those that `send` are refused while the disk is full.
    """

    run: Callable[[Session, int, list[Any]], Sequence[Any]]
    joined: bool = False
    free: bool = False
    sends: bool = False


# tasks ------------------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Sending:
    """Hold the rows of one `enqueue`, and its tasks with a key by their positions; `ALL` stands for all together."""

    rows: Rows
    keyed: Mapping[int, tuple[str, str, float, int]]
    remember: float | None = None


def sending(tasks: Sequence[Task], key: str | None, remember: float | None = None) -> Sending:
    """Return what `ENQUEUE` takes."""
    keyed = {place: (t.pipeline, t.key, t.created, t.id) for place, t in enumerate(tasks) if t.key}
    if key and tasks and not keyed:
        first = tasks[0]
        keyed = {ALL: (first.pipeline, f"{len(tasks)} tasks\n{key}", first.created, first.id)}
    elif key:
        for place, t in enumerate(tasks):
            keyed.setdefault(place, (t.pipeline, f"{key}#{place}", t.created, t.id))
    return Sending(encode_tasks(tasks), keyed, remember)


def _enqueue(session: Session, project: int, sendings: list[Sending]) -> list[dict[int, int]]:
    known: list[dict[int, int]] = [{} for _ in sendings]
    if any(each.keyed for each in sendings):
        known = _keep_keys(session, project, sendings)
    rows = join([_without(each.rows, places) for each, places in zip(sendings, known, strict=True)])
    session.run_rows("enqueue", rows, project)
    count_fresh(session, project, rows.flat[:: rows.width], rows.flat[1 :: rows.width])
    return known


def _without(rows: Rows, places: Iterable[int]) -> Rows:
    """Leave out rows at some places."""
    left_out = frozenset(places)
    if not left_out:
        return rows
    kept = [place for place in range(len(rows)) if place not in left_out]
    flat = [value for place in kept for value in rows.flat[place * rows.width : (place + 1) * rows.width]]
    return Rows(rows.width, flat, {column: [every[place] for place in kept] for column, every in rows.bodies.items()})


def _keep_keys(session: Session, project: int, sendings: list[Sending]) -> list[dict[int, int]]:
    """Remember the keys that are new; return the tasks that were sent before, per sending, by position."""
    asked = [(n, place, *value) for n, each in enumerate(sendings) for place, value in each.keyed.items()]
    rows = Rows(4, [v for i, (_, _, pipeline, key, at, _) in enumerate(asked, 1) for v in (i, pipeline, key, at)], {})
    answers = session.run_rows("known_keys", rows, project)
    before = {place: task for answer in answers for place, task in _decode(answer)}
    known: list[dict[int, int]] = [{} for _ in sendings]
    first: dict[tuple[str, str], int] = {}
    added: list[Any] = []
    for i, (n, place, pipeline, key, created, task) in enumerate(asked):
        earlier = before.get(i) or first.get((pipeline, key))
        if earlier is None:
            first[pipeline, key] = task
            added += (task, pipeline, key, created + (sendings[n].remember or session.key_ttl))
        elif place == ALL:
            known[n] = {nth: earlier + nth for nth in range(len(sendings[n].rows))}
        else:
            known[n][place] = earlier
    session.run_rows("add_keys", Rows(4, added, {}), project)
    return known


@dataclass(frozen=True, slots=True)
class Debouncing:
    """Hold the arguments of one `debounce`."""

    tasks: Sequence[Task]
    most: float
    key: str | None

    def named(self) -> list[str]:
        """Return the keys that make the whole send safe to repeat, one for each task."""
        return [f"{self.key}#{place}" for place in range(len(self.tasks))]


def _debounce(session: Session, project: int, arguments: list[Debouncing]) -> list[list[Standing]]:
    """Write each task, or replace the one whose window is open; a window is a key like any other, under a name of its own."""
    (asked,) = arguments
    names = asked.named()
    known = _known_keys(session, project, asked.tasks, names) if asked.key else {}
    fresh = [(place, task) for place, task in enumerate(asked.tasks) if place not in known]
    looked_for = [v for place, task in fresh for v in (place + 1, task.pipeline, _window(task), task.created)]
    answers = session.run_rows("open_windows", Rows(4, looked_for, {}), project)
    opened = {place: (task, float(created)) for answer in answers for place, task, created in _decode(answer)}
    standings = {place: Standing(task, 0.0, known=True) for place, task in known.items()}
    kept: list[Any] = []
    for place, task in fresh:
        earlier, created = opened.get(place, (task.id, task.created))
        due = min(task.due or 0.0, created + asked.most)
        standings[place] = Standing(earlier, due, place in opened)
        kept += (earlier, task.pipeline, _window(task), max(due, created + asked.most))
        if asked.key:
            kept += (earlier, task.pipeline, names[place], task.created + session.key_ttl)
    new = [task for place, task in fresh if place not in opened]
    session.run_rows("enqueue", encode_tasks(new), project)
    count_fresh(session, project, [task.id for task in new], [task.pipeline for task in new])
    replaced = [(asked.tasks[place], standings[place]) for place in opened]
    session.run_rows("replace", encode_replacements(replaced), project)
    session.run_rows("add_keys", Rows(4, kept, {}), project)
    return [[standings[place] for place in range(len(asked.tasks))]]


def _window(task: Task) -> str:
    return WINDOW + (task.key or "")


def _known_keys(session: Session, project: int, tasks: Sequence[Task], keys: Sequence[str]) -> dict[int, int]:
    """Return the tasks that keys stand for, by position."""
    flat = [v for i, (t, key) in enumerate(zip(tasks, keys, strict=True), 1) for v in (i, t.pipeline, key, t.created)]
    answers = session.run_rows("known_keys", Rows(4, flat, {}), project)
    return {place: task for answer in answers for place, task in _decode(answer)}


def count_fresh(session: Session, project: int, ids: list[int], pipelines: list[str]) -> None:
    """Note that tasks were inserted; those that filing has already passed by are filed at once."""
    if not ids:
        return
    session.fresh[project] = session.fresh.get(project, 0) + len(ids)
    if min(ids) <= session.filed.get(project, 0):
        late = Rows(2, [value for pair in zip(ids, pipelines, strict=True) for value in pair], {})
        session.run_rows("file_late", late, project)


@dataclass(slots=True)
class Recording:
    """Hold the rows of one `record`: of tasks that are known, of those that left no trace before, and of history."""

    known: Rows
    untraced: Rows
    history: Rows


def recording(attempts: Sequence[Attempt]) -> Recording:
    """Return what `RECORD` takes."""
    known, untraced, going_on = encode_attempts(attempts)
    return Recording(known, encode_untraced(untraced), encode_history(going_on))


def _record(session: Session, project: int, recordings: list[Recording]) -> list[None]:
    untraced = join([each.untraced for each in recordings])
    for rows in _apart(untraced):
        session.run_rows("record_untraced", rows, project)
    count_fresh(session, project, untraced.flat[:: untraced.width], untraced.flat[11 :: untraced.width])
    for rows in _apart(join([each.known for each in recordings])):
        session.run_rows("record", rows, project)
    history = join([each.history for each in recordings])
    history.flat[1 :: history.width] = [session.next_position() for _ in range(len(history))]
    session.run_rows("add_history", history, project)
    return [None] * len(recordings)


def _apart(rows: Rows) -> Iterable[Rows]:
    """Split a batch so that no id occurs twice in a piece: within one statement nothing comes first."""
    ids = rows.flat[:: rows.width]
    if len(set(ids)) == len(ids):
        return (rows,)
    pieces: list[list[int]] = []
    times: dict[int, int] = {}
    for place, task in enumerate(ids):
        nth = times[task] = times.get(task, -1) + 1
        if nth == len(pieces):
            pieces.append([])
        pieces[nth].append(place)
    every = frozenset(range(len(ids)))
    return [_without(rows, every.difference(piece)) for piece in pieces]


def _joined_rows(name: str) -> Callable[[Session, int, list[Rows]], list[None]]:
    """Return what runs one statement over the rows of all who asked."""

    def run(session: Session, project: int, batches: list[Rows]) -> list[None]:
        for rows in _apart(join(batches)):
            session.run_rows(name, rows, project)
        return [None] * len(batches)

    return run


def _recover(session: Session, project: int, _: list[None]) -> list[int]:
    return [session.run("recover", project).rowcount]


# filing -----------------------------------------------------------------------------------------------------------------
def _file(session: Session, project: int, _: list[None]) -> list[int]:
    """File a piece of the fresh tasks, oldest first; return how many may be left."""
    until, count = session.run("next_filing", project, FILING).fetchone()
    if until is None:
        session.fresh[project] = 0
        return [0]
    session.run("file_queued", project, until)
    session.run("file_all", project, until)
    session.run("file_until", project, until)
    session.filed[project] = max(until, session.filed.get(project, 0))
    left = max(session.fresh.get(project, 0) - count, 0) if count == FILING else 0
    session.fresh[project] = left
    return [left]


# dead letters, discarding and pruning -------------------------------------------------------------------------------------
def _redrive(
    session: Session, project: int, arguments: list[tuple[str, Sequence[int] | None, float, int]]
) -> list[int]:
    """Redrive dead tasks, those named or at most a number of them; return how many went."""
    ((pipeline, ids, expires, most),) = arguments
    chosen = session.value("choose_dead", project, pipeline, most) if ids is None else _encode(ids).decode()
    session.run("remember_dead", project, pipeline, chosen, session.next_position())
    session.run("reopen_maps", project, chosen)
    return [session.run("redrive", project, pipeline, chosen, expires).rowcount]


def _discard(session: Session, project: int, arguments: list[tuple[str, State, int]]) -> list[int]:
    """Delete at most a number of a pipeline's tasks in one state, all of them filed; return how many went."""
    ((pipeline, state, most),) = arguments
    if state in APART:
        chosen = session.value("choose_apart", project, pipeline, CODES[state], most)
    elif state is State.QUEUED:
        chosen = session.value("choose_queued", project, pipeline, most)
    else:
        chosen = session.value("choose_done", project, pipeline, most)
    if chosen == "[]":
        return [0]
    session.run("forget_keys", project, chosen)
    return [_forget(session, project, chosen)]


def _forget(session: Session, project: int, chosen: str) -> int:
    for name in ("forget_filings", "forget_history", "forget_output"):
        session.run(name, project, chosen)
    return session.run("forget_tasks", project, chosen).rowcount


def _prune(session: Session, project: int, arguments: list[tuple[Sequence[int], float, float, int]]) -> list[int]:
    """Delete tasks by their ids, and what else is old; return how many rows went."""
    ((ids, ended_before, now, limit),) = arguments
    went = _forget(session, project, _encode(ids).decode()) if ids else 0
    went += session.run("prune_output", project, ended_before, limit).rowcount
    went += session.run("prune_keys", project, now, limit).rowcount
    maps = session.run("prune_maps", project, ended_before, limit).rowcount
    if maps:
        session.run("prune_twins", project)
    return [went + maps]


DEBOUNCE: Final = Verb(_debounce, sends=True)
ENQUEUE: Final = Verb(_enqueue, joined=True, free=True, sends=True)
RECORD: Final = Verb(_record, joined=True)
NOTE_STARTS: Final = Verb(_joined_rows("note_starts"), joined=True)
PROMOTE: Final = Verb(_joined_rows("promote"), joined=True)
RECOVER: Final = Verb(_recover)
FILE: Final = Verb(_file)
REDRIVE: Final = Verb(_redrive)
DISCARD: Final = Verb(_discard)
PRUNE: Final = Verb(_prune)
