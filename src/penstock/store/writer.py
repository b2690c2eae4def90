"""Group commit: one thread and one connection do every write; what arrives while a commit runs goes into the next one.

An operation that fails does so alone: when a group fails, it is undone as a whole and its operations are run one by one.
When the disk is full the ballast is given up, so that outcomes still find room; what sends is refused until there is
room for the ballast again.
"""

import asyncio
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from penstock.domain.errors import Conflict, DiskFull, Fenced, Unavailable
from penstock.store.disk import Ballast
from penstock.store.operations import FILE, Verb
from penstock.store.session import Session

SWITCH_INTERVAL: Final = 20e-6
"""Seconds. A commit asks for Python's global lock some ten times. With the default of 5 ms, an event loop that is busy but
lets go of the lock at each system call, for an instant, starves every other thread: on two cores a commit beside such a loop
was measured to take 530 ms, and a page of 1000 waiting tasks 410 ms. With this they take 3 and 11 ms."""

MOST_OPERATIONS: Final = 4096
MOST_FRESH: Final = 32768
"""Fresh tasks of a project; above this a piece of them is filed with every commit."""
SCARCE: Final = 1 << 20
"""Bytes. An I/O error on a disk with less room than this is taken for a full disk."""
CHECK_ROOM: Final = 0.5
"""Seconds between two looks for room while the disk is full."""
PAUSE: Final = 0.05
MOST_COMMITS: Final = 64
"""After this many commits a pause of that many seconds is used to move the log into the database."""


class Operation:
    """Hold one call of a verb, its answer, and who waits for it."""

    __slots__ = ("answer", "argument", "error", "future", "project", "verb")

    def __init__(self, verb: Verb, project: int, argument: Any, future: asyncio.Future[Any] | None) -> None:
        self.verb = verb
        self.project = project
        self.argument = argument
        self.future = future
        self.answer: Any = None
        self.error: BaseException | None = None


def grouped(operations: Iterable[Operation]) -> list[list[Operation]]:
    """Return operations in the order in which they are run, those that are run as one together."""
    groups: list[list[Operation]] = []
    free: dict[tuple[Verb, int], list[Operation]] = {}
    last: tuple[Verb, int] | None = None
    joined: list[Operation] = []
    for operation in operations:
        verb = operation.verb
        key = (verb, operation.project)
        if verb.free:
            if key not in free:
                groups.append(free.setdefault(key, []))
            free[key].append(operation)
        elif verb.joined and key == last:
            joined.append(operation)
        else:
            joined = [operation]
            groups.append(joined)
            last = key
            if not verb.joined:
                free = {}
    return groups


def complete(operations: Iterable[Operation]) -> None:
    """Hand the answers to those who still wait for them."""
    for operation in operations:
        future = operation.future
        if future is None or future.done():
            continue
        if operation.error is None:
            future.set_result(operation.answer)
        else:
            future.set_exception(operation.error)


class Writer:
    """Run operations in groups; in a thread, or (`inline`) at once on the calling loop, which is deterministic."""

    def __init__(self, session: Session, ballast: Ballast, *, inline: bool) -> None:
        self.session = session
        self.full = False
        self.watch_full: Callable[[bool], None] | None = None
        self._ballast = ballast
        self._inline = inline
        self._queue: queue.SimpleQueue[Operation | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="penstock-writer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = True
        self._commits = 0

    def start(self) -> None:
        """Begin to take operations from the running loop."""
        self._closed = False
        self._set_full(not self._ballast.held)
        if not self._inline:
            self._loop = asyncio.get_running_loop()
            sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL))
            self._thread.start()

    async def do(self, verb: Verb, project: int, argument: Any = None) -> Any:
        """Run one operation and return its answer when it is durable."""
        if self._closed:
            raise Unavailable("The store is closed: the server is starting or stopping. Try again.", retry_after=1.0)
        if self._inline or self._loop is None:
            operation = Operation(verb, project, argument, None)
            self.run([operation])
            if operation.error is not None:
                raise operation.error
            return operation.answer
        future = self._loop.create_future()
        self._queue.put(Operation(verb, project, argument, future))
        return await future

    def close(self) -> None:
        """Run what is pending and end the thread; blocks until it has ended."""
        if self._closed:
            return
        self._closed = True
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    # the thread ---------------------------------------------------------------------------------------------------------
    def _work(self) -> None:
        closing = False
        while not closing:
            operations, closing = self._take()
            if operations:
                self._run_surely(operations)
                self._call(complete, operations)
                self._commits += 1
            elif not closing:
                self._use_pause()

    def _run_surely(self, operations: Sequence[Operation]) -> None:
        """Run operations; whatever goes wrong, each of them ends, and the thread lives."""
        try:
            self.run(operations)
        except Exception as error:  # nobody else would tell those who wait
            for operation in operations:
                operation.error = operation.error or error

    def _take(self) -> tuple[list[Operation], bool]:
        """Wait for operations, and return all that are pending (a bounded number) and whether these are the last.

        Returns none if there is something to do in the pause.
        """
        pause = CHECK_ROOM if self.full else PAUSE if self._commits >= MOST_COMMITS else None
        try:
            found = [self._queue.get(timeout=pause)]
        except queue.Empty:
            return [], False
        found += [self._queue.get() for _ in range(min(self._queue.qsize(), MOST_OPERATIONS))]
        operations = [operation for operation in found if operation is not None]
        return operations, len(operations) < len(found)

    def _use_pause(self) -> None:
        """Do what would hold up commits while nobody waits for one."""
        if self.full:
            self._set_full(not self._ballast.restore())
            return
        self._commits = 0
        with suppress(sqlite3.Error):
            self.session.checkpoint()

    def _call(self, function: Callable[..., None], *values: Any) -> None:
        """Call a function on the loop, unless the loop has gone away with everybody who waited."""
        if self._loop is None:
            function(*values)
            return
        try:
            self._loop.call_soon_threadsafe(function, *values)
        except RuntimeError:
            self._closed = True

    # transactions ---------------------------------------------------------------------------------------------------------
    def run(self, operations: Sequence[Operation]) -> None:
        """Run operations in one transaction if that works, else one by one; each ends with an answer or an error."""
        if self.full:
            self._set_full(not self._ballast.restore())
        if not self.full:
            error = self._attempt(operations)
            if error is None:
                return
            if isinstance(error, Fenced):
                for operation in operations:
                    operation.error = error
                return
            if len(operations) == 1 and not isinstance(error, DiskFull):
                operations[0].error = error
                return
        for operation in operations:
            operation.error = self._run_alone(operation)

    def _run_alone(self, operation: Operation) -> BaseException | None:
        refused = DiskFull(
            "The disk is full: nothing of what was sent was kept. Free some space; it is taken up by itself."
        )
        if self.full and operation.verb.sends:
            return refused
        error = self._attempt([operation])
        if isinstance(error, DiskFull):
            if operation.verb.sends:
                return refused
            error = self._attempt([operation])
        return error

    def _attempt(self, operations: Sequence[Operation]) -> BaseException | None:
        """Run one transaction; return what went wrong, having undone it."""
        session = self.session
        try:
            session.begin()
            for group in grouped(operations):
                self._run_group(group)
            if not self.full:
                self._file_some()
            session.commit()
        except Exception as error:
            with suppress(sqlite3.Error):
                session.rollback()
            return self._translated(error)
        return None

    def _run_group(self, group: list[Operation]) -> None:
        first = group[0]
        answers = first.verb.run(self.session, first.project, [operation.argument for operation in group])
        for operation, answer in zip(group, answers, strict=True):
            operation.answer = answer

    def _file_some(self) -> None:
        """File a piece of what is fresh if that is much."""
        for project, fresh in self.session.fresh.items():
            if fresh > MOST_FRESH:
                FILE.run(self.session, project, [None])

    def _translated(self, error: Exception) -> Exception:
        """Return our own error for one of SQLite's; a full disk is answered by giving up the ballast."""
        if not isinstance(error, sqlite3.Error):
            return error
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and self._ballast.room() < SCARCE):
            self._ballast.give_up()
            self._set_full(True)
            return DiskFull("The disk is full.")
        if code == sqlite3.SQLITE_CONSTRAINT:
            return Conflict(f"The store refused to write what contradicts it: {error}.")
        if isinstance(error, sqlite3.OperationalError):
            return Unavailable(f"The store could not write: {error}. Nothing was kept; try again.", retry_after=1.0)
        return error

    def _set_full(self, full: bool) -> None:
        if full == self.full:
            return
        self.full = full
        with suppress(sqlite3.Error):
            self.session.spare(self._ballast.room() if full else None)
        if self.watch_full is not None:
            self._call(self.watch_full, full)
