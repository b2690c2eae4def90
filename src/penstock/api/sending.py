"""`POST /v1/pipelines/{p}/tasks`: from the bytes of a request to tasks, with payloads that are never decoded.

One task object, a JSON list of them, or one a line. A payload is checked to be JSON while it is skipped over, and kept as
the bytes that came in.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw

from penstock.api.exchange import JSON as JSON_TYPE
from penstock.api.exchange import (
    MOST_KEY,
    Headers,
    Receive,
    Send,
    answer,
    check_text,
    idempotency_key,
    not_understood,
    read_body,
)
from penstock.domain.errors import BadRequest, TooLarge
from penstock.domain.units import UnitError, parse_duration
from penstock.engine.engine import Engine
from penstock.engine.intake import Item, Sent

MOST_TASKS: Final = 10_000
"""Tasks that one request may bring: they become durable together, and none of the others may wait long for it."""

SLICE_BYTES: Final = 1 << 20
"""How much of a long body is read between two looks at everything else."""

_NULL: Final = Raw(b"null")
_LINES: Final = (b"application/x-ndjson", b"application/ndjson", b"application/jsonl")


class Task(msgspec.Struct, forbid_unknown_fields=True):
    """Describe a task as it is sent."""

    payload: Raw = _NULL
    delay: str | float | None = None
    at: datetime | None = None
    key: Annotated[str, Meta(min_length=1, max_length=MOST_KEY)] | None = None
    cost: Annotated[float, Meta(gt=0, le=1e12)] = 1.0
    priority: Annotated[int, Meta(ge=-(2**31), le=2**31)] = 0
    expires_after: str | float | None = None


_one: Final = msgspec.json.Decoder(Task)
_list: Final = msgspec.json.Decoder(list[Task])
_WHAT: Final = "The body"


async def send_tasks(engine: Engine, name: str, headers: Headers, receive: Receive, send: Send) -> None:
    """Put the tasks of a request into a pipeline, and answer with their ids when they are on disk."""
    body = await read_body(receive, headers)
    debounces = engine.intake.pipe(name).spec.debounce is not None
    items, key = await read_tasks(body, headers, engine.plant.wall(), apart=debounces)
    sent = await engine.intake.send(name, items, key)
    await answer(send, 202, _ids(sent), JSON_TYPE)


async def read_tasks(
    body: bytes, headers: Headers, wall: float, *, apart: bool = False
) -> tuple[list[Item], str | None]:
    """Return the tasks in a body, and the key of them all if it is a list of tasks that has one.

    The request's key becomes that of a single task, unless they are kept `apart`. `wall` is the moment from which delays
    count. Raises `BadRequest` and `TooLarge`.
    """
    check_text(body, _WHAT)
    key = idempotency_key(headers)
    try:
        if headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower() in _LINES:
            return await _read_lines(body, wall), key
        if body[:64].lstrip()[:1] == b"[":
            tasks = _list.decode(body)
            _check_number(len(tasks))
            return _items(tasks, 0, wall), key
        task = _one.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_understood(_WHAT, error) from error
    if apart:
        return [_item(task, "", wall)], key
    task.key = task.key or key
    return [_item(task, "", wall)], None


async def _read_lines(body: bytes, wall: float) -> list[Item]:
    """Read a task a line, a slice of the body at a time."""
    if len(body) <= SLICE_BYTES:
        tasks = _one.decode_lines(body)
        _check_number(len(tasks))
        return _items(tasks, 0, wall)
    items: list[Item] = []
    start = 0
    while start < len(body):
        end = body.find(b"\n", start + SLICE_BYTES) + 1 or len(body)
        tasks = _one.decode_lines(body[start:end])
        _check_number(len(items) + len(tasks))
        items += _items(tasks, len(items), wall)
        start = end
        await asyncio.sleep(0)
    return items


def _items(tasks: Iterable[Task], first: int, wall: float) -> list[Item]:
    items = []
    for position, task in enumerate(tasks, first):
        if task.delay is None and task.at is None and task.expires_after is None:
            items.append(Item(bytes(task.payload), None, task.key, task.cost, task.priority))
        else:
            items.append(_item(task, f"Task {position}: ", wall))
    return items


def _item(task: Task, where: str, wall: float) -> Item:
    due = None if task.delay is None and task.at is None else _due(task, where, wall)
    expires_after = None if task.expires_after is None else _start_deadline(task.expires_after, where)
    return Item(bytes(task.payload), due, task.key, task.cost, task.priority, expires_after)


def _due(task: Task, where: str, wall: float) -> float | None:
    """Return the moment at which a task is due. Raises `BadRequest`."""
    if task.at is not None:
        if task.delay is not None:
            raise BadRequest(f"{where}delay and at say the same thing in two ways. Give one of them.")
        if task.at.tzinfo is None:
            raise BadRequest(f"{where}at needs a time zone, such as the Z in 2030-01-31T12:00:00Z.")
        return task.at.timestamp()
    try:
        return wall + parse_duration(task.delay)
    except UnitError as error:
        raise BadRequest(f"{where}delay is wrong: {error}.") from error


def _start_deadline(written: str | float, where: str) -> float:
    """Return how long a task may wait for its start, in seconds. Raises `BadRequest`."""
    try:
        seconds = parse_duration(written)
    except UnitError as error:
        raise BadRequest(f"{where}expires_after is wrong: {error}.") from error
    if seconds <= 0:
        raise BadRequest(f"{where}expires_after must be more than nothing: such a task could never start.")
    return seconds


def _check_number(tasks: int) -> None:
    if tasks > MOST_TASKS:
        raise TooLarge(
            f"A request may bring {MOST_TASKS} tasks; this one has more. Nothing was kept: send it in parts."
        )


def _ids(sent: Sent) -> bytes:
    """Return ids as the JSON answer; by hand, because this is every send."""
    if len(sent.ids) == 1 and not (sent.duplicates or sent.replaced):
        return b'{"ids":["%016x"]}' % sent.ids[0]
    names = '","'.join(map("{:016x}".format, sent.ids))
    ids = f'"{names}"' if sent.ids else ""
    duplicates = f',"duplicates":{sent.duplicates}' if sent.duplicates else ""
    replaced = f',"replaced":{sent.replaced}' if sent.replaced else ""
    return f'{{"ids":[{ids}]{duplicates}{replaced}}}'.encode()
