"""Tasks as rows, and rows as tasks. Encoding runs on the event loop, for every task: each line here is counted in nanoseconds.

-1 stands for a moment or a body that there is none of, and '' for no key. A result is read as one JSON text and one blob
in which the bodies follow each other.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from penstock.domain.task import Attempt, Outcome, State, Task
from penstock.store.protocol import Line, Standing, StoredAttempt, StoredTask
from penstock.store.statements import Rows

FRESH: Final = 1
FILED: Final = 2
CODES: Final = {
    State.DELAYED: 0,
    State.QUEUED: FRESH,
    State.RUNNING: 3,
    State.DONE: 4,
    State.DEAD: 5,
    State.CANCELLED: 6,
    State.EXPIRED: 7,
}
ENDED: Final = 4
"""Codes from here on are those of tasks that have ended."""
STATES: Final = {**{code: state for state, code in CODES.items()}, FILED: State.QUEUED}
OUTCOMES: Final = tuple(Outcome)
OUTCOME_CODES: Final = {outcome: code for code, outcome in enumerate(OUTCOMES)}
APART: Final = frozenset({State.DELAYED, State.RUNNING, State.DEAD, State.CANCELLED, State.EXPIRED})
"""States that few tasks are in; the index `tasks_apart` knows all of them."""

COUNTED: Final = (State.DELAYED, State.QUEUED, State.RUNNING, State.DEAD)

_TICK: Final = 2.0**-31
MOST: Final = (1 << 63) - 1
FIRST: Final = (-MOST, -MOST)
"""A place before every other one in the order of waiting."""

_decode = msgspec.json.decode


def encode_tasks(tasks: Sequence[Task]) -> Rows:
    """Return new tasks as rows of `enqueue`."""
    flat: list[Any] = []
    extend = flat.extend
    bodies: list[bytes | None] = []
    body = bodies.append
    for task in tasks:
        due = task.due
        extend(
            (
                task.id,
                task.pipeline,
                -task.priority,
                task.cost,
                task.key or "",
                task.created,
                -1.0 if due is None else due,
                task.expires,
                -1.0 if task.start_by is None else task.start_by,
                0,
                0,
            )
        )
        body(task.payload)
    if None in bodies:
        raise ValueError("A task whose payload is on disk cannot be sent anew: read its payload first.")
    return Rows(11, flat, {9: bodies})


def encode_replacements(pairs: Sequence[tuple[Task, Standing]]) -> Rows:
    """Return tasks that take the place of earlier ones as rows of `replace`; the moments of their end move with their due."""
    flat: list[Any] = []
    for task, standing in pairs:
        sooner = (task.due or 0.0) - standing.due
        start_by = -1.0 if task.start_by is None else task.start_by - sooner
        flat += (standing.id, -task.priority, task.cost, standing.due, task.expires - sooner, start_by, 0, 0)
    return Rows(8, flat, {6: [task.payload for task, _ in pairs]})


def encode_attempts(attempts: Iterable[Attempt]) -> tuple[Rows, list[Attempt], list[Attempt]]:
    """Return attempts as rows of `record`, those left out because their tasks left no trace, and those for the history."""
    flat: list[Any] = []
    bodies: list[bytes | None] = []
    untraced: list[Attempt] = []
    going_on: list[Attempt] = []
    extend = flat.extend
    body = bodies.append
    for attempt in attempts:
        task = attempt.task
        code = CODES[attempt.state]
        if code < ENDED:
            going_on.append(attempt)
        if not task.durable:
            untraced.append(attempt)
            continue
        started = attempt.started
        due = attempt.due
        extend(
            (
                task.id,
                code,
                OUTCOME_CODES[attempt.outcome],
                task.attempts,
                task.interruptions,
                -1.0 if started is None else started,
                -1.0 if code < ENDED else attempt.finished,
                -1.0 if due is None else due,
                attempt.version,
                0,
                0,
            )
        )
        body(attempt.body)
    return Rows(11, flat, {9: bodies}), untraced, going_on


def encode_untraced(attempts: Iterable[Attempt]) -> Rows:
    """Return attempts at tasks of which nothing was written before as rows of `record_untraced`."""
    flat: list[Any] = []
    bodies: list[bytes | None] = []
    payloads: list[bytes | None] = []
    for attempt in attempts:
        task, code, due = attempt.task, CODES[attempt.state], attempt.due
        flat += (task.id, code, OUTCOME_CODES[attempt.outcome], task.attempts, task.interruptions)
        flat += (-1.0 if attempt.started is None else attempt.started, -1.0 if code < ENDED else attempt.finished)
        flat += (-1.0 if due is None else due, attempt.version, 0, 0)
        flat += (task.pipeline, -task.priority, task.cost, task.key or "", task.created, task.expires, 0, 0)
        bodies.append(attempt.body)
        payloads.append(task.payload)
    return Rows(19, flat, {9: bodies, 17: payloads})


def encode_history(attempts: Sequence[Attempt]) -> Rows:
    """Return attempts after which their tasks go on as rows of `add_history`; their positions are filled in later."""
    flat: list[Any] = []
    for attempt in attempts:
        started = -1.0 if attempt.started is None else attempt.started
        outcome = OUTCOME_CODES[attempt.outcome]
        flat += (attempt.task.id, 0, outcome, started, attempt.finished, attempt.version, attempt.instance, 0, 0)
    return Rows(9, flat, {7: [attempt.body for attempt in attempts]})


def _bodies(blob: bytes | None, sizes: Iterable[int | None]) -> list[bytes | None]:
    """Cut a blob into the bodies it was joined from."""
    found: list[bytes | None] = []
    whole = blob or b""
    at = 0
    for size in sizes:
        found.append(None if size is None else whole[at : at + size])
        at += size or 0
    return found


def _moment(ticks: int | None) -> float | None:
    return None if ticks is None else ticks * _TICK


def decode_tasks(row: tuple[str, bytes | None]) -> list[Task]:
    """Return the tasks of a read; payloads that were left on disk are None."""
    rows: list[Any] = _decode(row[0])
    payloads = _bodies(row[1], (size for *_, size in rows))
    return [
        Task(
            id_,
            pipeline,
            payload,
            created=created * _TICK,
            expires=expires * _TICK,
            due=None if due is None else float(due),
            priority=-rank,
            cost=float(cost),
            key=key,
            attempts=attempts,
            interruptions=interruptions,
            start_by=None if start_by is None else float(start_by),
            size=length,
        )
        for (
            id_, pipeline, rank, cost, key, attempts, interruptions, created, due, expires, start_by, length, _,
        ), payload in zip(rows, payloads, strict=True)
    ]  # fmt: skip


def decode_stored(row: tuple[str, bytes | None]) -> list[StoredTask]:
    """Return the tasks of a listing."""
    rows: list[Any] = _decode(row[0])
    results = _bodies(row[1], (each[-1] for each in rows))
    return [
        StoredTask(
            id=id_,
            pipeline=pipeline,
            state=STATES[state],
            outcome=None if outcome is None else OUTCOMES[outcome],
            priority=-rank,
            cost=float(cost),
            key=key,
            attempts=attempts,
            interruptions=interruptions,
            created=created * _TICK,
            due=None if due is None else float(due),
            expires=expires * _TICK,
            start_by=None if start_by is None else float(start_by),
            started=_moment(started),
            finished=_moment(finished),
            version=version,
            result=result,
        )
        for (
            id_, pipeline, state, outcome, rank, cost, key, attempts, interruptions, created, due, expires, start_by, started,
            finished, version, _,
        ), result in zip(rows, results, strict=True)
    ]  # fmt: skip


def decode_history(row: tuple[str, bytes | None]) -> list[StoredAttempt]:
    """Return the earlier attempts of a task, numbered as they came."""
    rows: list[Any] = _decode(row[0])
    errors = _bodies(row[1], (each[-1] for each in rows))
    return [
        StoredAttempt(number, OUTCOMES[outcome], _moment(started), finished * _TICK, error, version, instance)
        for number, ((outcome, started, finished, version, instance, _), error) in enumerate(
            zip(rows, errors, strict=True), 1
        )
    ]


def decode_payloads(row: tuple[str, bytes | None]) -> dict[int, bytes]:
    """Return payloads by the ids of their tasks."""
    rows: list[Any] = _decode(row[0])
    payloads = _bodies(row[1], (size for _, size in rows))
    return {id_: payload for (id_, _), payload in zip(rows, payloads, strict=True) if payload is not None}


def decode_output(row: tuple[str]) -> list[tuple[int, Line]]:
    """Return lines of output with their positions."""
    return [
        (position, Line(task, pipeline, function, attempt, at * _TICK, stream, text))
        for position, task, pipeline, function, attempt, at, stream, text in _decode(row[0])
    ]
