"""The stores that the conformance suite runs against, and short ways to make what it writes.

A store joins by a `World` of its own: how one is made, and how its owner is pushed aside as after a lost lease.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from penstock.domain.task import Attempt, Outcome, State, Task
from penstock.store import operations, sqlite, statements, writer
from penstock.store.protocol import Store
from penstock.store.sqlite import SqliteStore

NOW = 1_763_665_483.1234567
DAY = 86400.0
KEY_TTL = 7 * DAY

Body = Callable[[Store], Awaitable[None]]


@dataclass(frozen=True)
class World:
    """Make stores that share one place, in which their state survives them."""

    make: Callable[[], Store]
    push_aside: Callable[[], None]

    def run(self, body: Body) -> None:
        """Run a body with an open store."""

        async def with_store() -> None:
            store = self.make()
            await store.open()
            try:
                await body(store)
            finally:
                await store.close()

        asyncio.run(with_store())


def sqlite_world(directory: Path, **options: Any) -> World:
    return World(
        lambda: SqliteStore(directory, key_ttl=KEY_TTL, fsync=False, ballast=1 << 16, **options),
        (directory / "lock").unlink,
    )


@contextmanager
def threaded(directory: Path) -> Iterator[World]:
    yield sqlite_world(directory)


@contextmanager
def inline(directory: Path) -> Iterator[World]:
    yield sqlite_world(directory, inline=True)


@contextmanager
def in_small_pieces(directory: Path) -> Iterator[World]:
    """Be the same store with every bound so small that little work already comes in many pieces."""
    with (
        mock.patch.object(operations, "FILING", 3),
        mock.patch.object(sqlite, "FEW", 2),
        mock.patch.object(sqlite, "PIECE", 2),
        mock.patch.object(sqlite, "SCANNED", 3),
        mock.patch.object(writer, "MOST_FRESH", 5),
        mock.patch.object(writer, "MOST_COMMITS", 3),
        mock.patch.object(statements, "MOST_ROWS", 4),
        mock.patch.object(statements, "MOST_BODIES", 64),
    ):
        yield sqlite_world(directory)


WORLDS = {"sqlite": threaded, "sqlite-inline": inline, "sqlite-in-small-pieces": in_small_pieces}


# what is written ------------------------------------------------------------------------------------------------------
def task(number: int, pipeline: str = "a", **given: Any) -> Task:
    given.setdefault("payload", b'{"n": %d}' % number)
    return Task(number, pipeline, created=given.pop("created", NOW), expires=given.pop("expires", NOW + DAY), **given)


def tasks(count: int, pipeline: str = "a", first: int = 1, **given: Any) -> list[Task]:
    return [task(number, pipeline, **given) for number in range(first, first + count)]


def done(of: Task, body: bytes | None = b"1", **given: Any) -> Attempt:
    return ended(of, Outcome.OK, State.DONE, body=body, **given)


def dead(of: Task, body: bytes | None = b'{"type": "E"}', **given: Any) -> Attempt:
    return ended(of, Outcome.ERROR, State.DEAD, body=body, **given)


def ended(of: Task, outcome: Outcome, state: State, **given: Any) -> Attempt:
    given.setdefault("body", None)
    given.setdefault("finished", NOW + 2.5)
    given.setdefault("started", NOW + 1.25)
    return Attempt(of, outcome, state, **given)


def ids(found: list[Any]) -> list[int]:
    return [each.id for each in found]


async def all_waiting(store: Store, project: int, pipeline: str, page: int = 100) -> list[Task]:
    """Read a pipeline's waiting tasks page by page, as admission does."""
    found: list[Task] = []
    while True:
        after = (-found[-1].priority, found[-1].id) if found else None
        more = await store.waiting(project, pipeline, after, page, 1 << 20)
        found += more
        if len(more) < page:
            return found
