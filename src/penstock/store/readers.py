"""Reads, off the event loop: a few connections that only read, so that a long listing stops neither loop nor writer."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from penstock.domain.errors import Unavailable
from penstock.store.session import connect
from penstock.store.statements import statements

T = TypeVar("T")
THREADS: Final = 2


class Reader:
    """Run named statements that only read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._statements = statements()

    def rows(self, name: str, *values: Any) -> list[Any]:
        """Return all rows of a statement."""
        return self.connection.execute(self._statements[name].text, values).fetchall()

    def row(self, name: str, *values: Any) -> Any:
        """Return the only row of a statement that answers in one."""
        return self.connection.execute(self._statements[name].text, values).fetchone()


class Readers:
    """Run reads in a few threads; or (`inline`, given a connection) at once on the calling loop."""

    def __init__(self, path: Path, inline: sqlite3.Connection | None) -> None:
        self._inline = None if inline is None else Reader(inline)
        self._threads: ThreadPoolExecutor | None = None
        self._idle: list[Reader] = []
        self._all: list[Reader] = []
        self._path = path

    def open(self) -> None:
        """Open the connections."""
        if self._inline is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="penstock-reader")
            for _ in range(THREADS):
                connection = connect(self._path, fsync=False)
                connection.execute("PRAGMA query_only = ON")
                self._all.append(Reader(connection))
            self._idle = list(self._all)

    async def read(self, function: Callable[[Reader], T]) -> T:
        """Return what a function reads; it sees every write that was awaited before. Raises `Unavailable`."""
        if self._inline is not None:
            return _ask(self._inline, function)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._read, function)

    def _read(self, function: Callable[[Reader], T]) -> T:
        reader = self._idle.pop()
        try:
            return _ask(reader, function)
        finally:
            self._idle.append(reader)

    def close(self) -> None:
        """Wait for reads that run, and close the connections."""
        if self._threads is not None:
            self._threads.shutdown()
        for reader in self._all:
            reader.connection.close()
        self._all.clear()
        self._idle.clear()


def _ask(reader: Reader, function: Callable[[Reader], T]) -> T:
    try:
        return function(reader)
    except sqlite3.Error as error:
        raise Unavailable(f"The store could not read: {error}. Try again.", retry_after=1.0) from error
