"""Maps in SQLite: an insert of all items at once, how each of them ended, and their results a piece at a time.

All rows of a map and its items are written in one transaction, a few hundred rows at a time, so that a map is there as
a whole or not at all. The items are encoded in the writer's thread: there may be a hundred thousand.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.domain.task import Outcome, State, Task
from penstock.store import rows
from penstock.store.operations import Verb, count_fresh
from penstock.store.protocol import StoredMap, StoredTask
from penstock.store.readers import Reader, Readers
from penstock.store.session import Session
from penstock.store.statements import Rows
from penstock.store.writer import Writer

PIECE: Final = 512
"""Items that are encoded at a time."""

KEY: Final = "map\n"
"""What stands before the key of a map, so that it is none of a task's."""

_encode = msgspec.json.encode
_decode = msgspec.json.decode


@dataclass(frozen=True, slots=True)
class Starting:
    """Hold the arguments of one `start_map`."""

    made: StoredMap
    tasks: Sequence[Task]
    key: str | None
    remember: float | None


def _start(session: Session, project: int, arguments: list[Starting]) -> list[int | None]:
    (asked,) = arguments
    made = asked.made
    if asked.key is not None:
        key = KEY + asked.key
        known = session.value("known_map", project, made.pipeline, key, made.created)
        if known is not None:
            return [int(known)]
        until = made.created + (asked.remember or session.key_ttl)
        session.run_rows("add_keys", Rows(4, [made.id, made.pipeline, key, until], {}), project)
    ended = None if made.finished is None else _encode(made.ended).decode()
    session.run(
        "add_map", project, made.id, made.pipeline, made.items, made.created, made.stragglers, made.finished, ended
    )
    for place in range(0, len(asked.tasks), PIECE):
        _insert(session, project, asked.tasks[place : place + PIECE])
    return [None]


def _insert(session: Session, project: int, tasks: Sequence[Task]) -> None:
    session.run_rows("enqueue", rows.encode_tasks(tasks), project)
    count_fresh(session, project, [task.id for task in tasks], [task.pipeline for task in tasks])


def _add_twin(session: Session, project: int, arguments: list[tuple[int, int, Task]]) -> list[None]:
    ((made, item, task),) = arguments
    session.run("add_twin", project, made, item, task.id)
    _insert(session, project, [task])
    return [None]


def _cancel(session: Session, project: int, arguments: list[tuple[int, float]]) -> list[None]:
    ((made, at),) = arguments
    session.run("cancel_map", project, made, at)
    return [None]


def _finish(session: Session, project: int, arguments: list[tuple[int, float, str]]) -> list[None]:
    ((made, at, ended),) = arguments
    session.run("finish_map", project, made, at, ended)
    return [None]


START: Final = Verb(_start, sends=True)
ADD_TWIN: Final = Verb(_add_twin, sends=True)
CANCEL: Final = Verb(_cancel)
FINISH: Final = Verb(_finish)


class MapVerbs(ABC):
    """Be the part of the store that knows of maps."""

    @property
    @abstractmethod
    def _write(self) -> Writer: ...

    @property
    @abstractmethod
    def _read(self) -> Readers: ...

    async def start_map(
        self, project: int, made: StoredMap, tasks: Sequence[Task], key: str | None, remember: float | None
    ) -> int | None:
        """Write a map and its items; return the id of the earlier one if the key was known."""
        known: int | None = await self._write.do(START, project, Starting(made, tasks, key, remember))
        return known

    async def add_twin(self, project: int, made: int, item: int, task: Task) -> None:
        """Write a second run of an item."""
        await self._write.do(ADD_TWIN, project, (made, item, task))

    async def cancel_map(self, project: int, made: int, at: float) -> None:
        """Write that a map is being cancelled."""
        await self._write.do(CANCEL, project, (made, at))

    async def finish_map(self, project: int, made: int, at: float, ended: Mapping[str, int]) -> None:
        """Write that all items have ended, and how many in which way."""
        await self._write.do(FINISH, project, (made, at, _encode(ended).decode()))

    async def map(self, project: int, made: int) -> StoredMap | None:
        """Return a map with its second runs, or None."""

        def read(reader: Reader) -> StoredMap | None:
            row = reader.row("map", project, made)
            return None if row is None else _stored(row, dict(reader.rows("twins", project, made)))

        return await self._read.read(read)

    async def maps(self, project: int, before: int | None, limit: int, *, unfinished: bool = False) -> list[StoredMap]:
        """Return maps, newest first, without their second runs."""
        last = rows.MOST if before is None else before
        found = await self._read.read(lambda reader: reader.rows("maps", project, last, int(unfinished), limit))
        return [_stored(row, {}) for row in found]

    async def ends(self, project: int, after: int, last: int, limit: int) -> list[tuple[int, State, Outcome | None]]:
        """Return how the tasks stand whose ids are in a range, in order."""

        def read(reader: Reader) -> list[tuple[int, State, Outcome | None]]:
            return [
                (task, rows.STATES[state], None if outcome is None else rows.OUTCOMES[outcome])
                for task, state, outcome in _decode(reader.row("ends", project, after, last, limit)[0])
            ]

        return await self._read.read(read)

    async def results(self, project: int, ids: Sequence[int], most: int) -> list[StoredTask | None]:
        """Return tasks in the order of their ids as given, only as many as have `most` bytes of results together."""

        def read(reader: Reader) -> list[StoredTask | None]:
            sizes = dict(_decode(reader.row("sizes", project, _encode(ids).decode())[0]))
            chosen: list[int] = []
            total = 0
            for task in ids:
                total += sizes.get(task, 0)
                if chosen and total > most:
                    break
                chosen.append(task)
            known = {
                one.id: one for one in rows.decode_stored(reader.row("results", project, _encode(chosen).decode()))
            }
            return [known.get(task) for task in chosen]

        return await self._read.read(read)

    async def not_ended(self, project: int, after: int, last: int, limit: int) -> list[StoredTask]:
        """Return tasks whose ids are in a range and that have not ended, in order."""
        found = await self._read.read(
            lambda reader: rows.decode_stored(reader.row("not_ended", project, after, last, limit))
        )
        return found[::-1]


def _stored(row: Sequence[Any], twins: Mapping[int, int]) -> StoredMap:
    made, pipeline, items, created, stragglers, cancelled, finished, ended = row
    return StoredMap(
        made, pipeline, items, created, stragglers, cancelled, finished, _decode(ended) if ended else {}, twins
    )
