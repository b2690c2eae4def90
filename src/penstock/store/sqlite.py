"""The store in one SQLite file: WAL, fsync at every commit, one writer, readers beside it."""

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec

from penstock.domain.errors import Conflict, PenstockError, Unavailable
from penstock.domain.task import Attempt, State, Task
from penstock.store import configuring as c
from penstock.store import operations as o
from penstock.store import rows
from penstock.store.disk import Ballast, DirectoryLock, sync
from penstock.store.mapping import MapVerbs
from penstock.store.protocol import Change, Kind, Line, Standing, StoredObject, StoredTask, Version, Write
from penstock.store.readers import Reader, Readers
from penstock.store.sealing import Vault, unseal
from penstock.store.session import Session
from penstock.store.statements import Rows
from penstock.store.writer import Writer

_decode = msgspec.json.decode
_encode = msgspec.json.encode

FEW: Final = 1024
"""Fresh tasks that a read may look through; if there are more, it has them filed first."""
PIECE: Final = 1000
"""Tasks that are redriven or discarded in one transaction."""
SCANNED: Final = 4096
"""Tasks that are looked through at once for those to prune."""


def unreadable(path: Path, error: sqlite3.Error) -> PenstockError:
    """Say that the database cannot be opened."""
    return PenstockError(
        f"The database {path} cannot be opened: {error}. Nothing was changed. Check that the disk has room and that the "
        "file is a Penstock database; if it was damaged, restore it from a backup."
    )


def ended(reader: Reader, project: int, start: int, ended_before: float, limit: int) -> tuple[list[int], int]:
    """Find tasks that ended before a moment, by looking through them in the order of their ids, behind `start`.

    An index by the moment of ending would cost every task a microsecond; this costs a reader 0.3 for each one that stays,
    once a round, and stops where all were created later. Returns ids and where to go on (0: from the beginning).
    """
    while True:
        last, created, chosen = reader.row("ended", project, start, ended_before, SCANNED)
        if last is None or created >= ended_before:
            return [], 0
        found: list[int] = _decode(chosen)
        if len(found) > limit:
            return found[:limit], found[limit - 1]
        if found:
            return found, last
        start = last


class SqliteStore(MapVerbs):
    """Keep a data directory's state in `penstock.sqlite`.

    `key_ttl` is how long idempotency keys are remembered, in seconds; `fsync=False` is for tests, `inline=True` runs every
    verb at once on the calling loop, without threads; `ballast` bytes are kept back so that outcomes can be written to a
    full disk. `vault` seals secrets; without one they lie on the disk as they are.
    """

    def __init__(
        self,
        directory: Path,
        *,
        key_ttl: float = 30 * 86400.0,
        fsync: bool = True,
        inline: bool = False,
        ballast: int = 8 << 20,
        vault: Vault | None = None,
    ) -> None:
        self._directory = directory
        self._path = directory / "penstock.sqlite"
        self._key_ttl = key_ttl
        self._fsync = fsync
        self._inline = inline
        self._vault = vault
        self._lock = DirectoryLock(directory)
        self._ballast = Ballast(directory / "ballast", ballast)
        self._writer: Writer | None = None
        self._readers: Readers | None = None
        self._watch_full: Callable[[bool], None] | None = None
        self._pruned: dict[int, int] = {}

    # life ---------------------------------------------------------------------------------------------------------------
    async def open(self) -> None:
        """Open, migrate forward, take ownership. Raises `Locked` while another owner is alive."""
        if self._inline:
            session = self._open()
        else:
            session = await asyncio.get_running_loop().run_in_executor(None, self._open)
        self._writer = Writer(session, self._ballast, inline=self._inline)
        self._writer.watch_full = self._watch_full
        self._writer.start()

    def _open(self) -> Session:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.take()
        session: Session | None = None
        try:
            self._path.touch(mode=0o600)  # it holds secrets; SQLite gives its other files the same mode
            session = Session(self._path, fsync=self._fsync, key_ttl=self._key_ttl, vault=self._vault)
            session.prepare()
            self._readers = Readers(self._path, session.connection if self._inline else None)
            self._readers.open()
            self._ballast.restore()
            sync(self._directory)
        except BaseException as error:
            if self._readers is not None:
                self._readers.close()
                self._readers = None
            if session is not None:
                session.close()
            self._lock.give_back()
            if isinstance(error, sqlite3.Error):
                raise unreadable(self._path, error) from error
            raise
        return session

    async def close(self) -> None:
        """Write what is pending and give ownership back."""
        if self._inline:
            self._close()
        else:
            await asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        writer, readers = self._writer, self._readers
        self._writer = self._readers = None
        if writer is not None:
            writer.close()
        if readers is not None:
            readers.close()
        if writer is not None:
            writer.session.close()
        self._lock.give_back()

    @property
    def epoch(self) -> int:
        """Return the number of this ownership."""
        return self._write.session.epoch

    @property
    def full(self) -> bool:
        """Tell whether the disk is full: sends are refused, outcomes live on the ballast. It ends by itself."""
        return self._writer is not None and self._writer.full

    def watch_full(self, watch: Callable[[bool], None]) -> None:
        """Call `watch(full)` on the loop whenever that changes."""
        self._watch_full = watch
        if self._writer is not None:
            self._writer.watch_full = watch

    @property
    def _write(self) -> Writer:
        if self._writer is None:
            raise Unavailable("The store is closed: the server is starting or stopping. Try again.", retry_after=1.0)
        return self._writer

    @property
    def _read(self) -> Readers:
        if self._readers is None:
            raise Unavailable("The store is closed: the server is starting or stopping. Try again.", retry_after=1.0)
        return self._readers

    async def project(self, name: str) -> int:
        """Return the id of a project, making it if it is new."""
        found: int = await self._write.do(c.PROJECT, 0, name)
        return found

    # tasks --------------------------------------------------------------------------------------------------------------
    async def enqueue(
        self, project: int, tasks: Sequence[Task], key: str | None = None, remember: float | None = None
    ) -> Mapping[int, int]:
        """Write new tasks; return the earlier tasks of those whose key was known, by position."""
        known: Mapping[int, int] = await self._write.do(o.ENQUEUE, project, o.sending(tasks, key, remember))
        return known

    async def debounce(
        self, project: int, tasks: Sequence[Task], most: float, key: str | None = None
    ) -> list[Standing]:
        """Write new delayed tasks, or put them in the place of earlier ones with their keys."""
        standings: list[Standing] = await self._write.do(o.DEBOUNCE, project, o.Debouncing(tasks, most, key))
        return standings

    async def record(self, project: int, attempts: Sequence[Attempt]) -> None:
        """Write what became of tasks."""
        await self._write.do(o.RECORD, project, o.recording(attempts))

    async def note_starts(self, project: int, tasks: Sequence[Task]) -> None:
        """Write that tasks are running."""
        flat = [value for task in tasks for value in (task.id, task.attempts, task.interruptions)]
        await self._write.do(o.NOTE_STARTS, project, Rows(3, flat, {}))

    async def recover(self, project: int) -> int:
        """Turn tasks that were noted as running into queued ones with one interruption more; return how many."""
        count: int = await self._write.do(o.RECOVER, project)
        return count

    async def waiting(
        self, project: int, pipeline: str, after: tuple[int, int] | None, limit: int, payload_bytes: int
    ) -> list[Task]:
        """Return a page of a pipeline's queued tasks, in order."""
        await self._file(project)
        rank, last = after or rows.FIRST
        return await self._read.read(
            lambda reader: rows.decode_tasks(reader.row("waiting", project, pipeline, rank, last, limit, payload_bytes))
        )

    async def ahead(
        self,
        project: int,
        pipeline: str,
        after: tuple[int, int] | None,
        before: tuple[int, int],
        without: Sequence[int],
        limit: int,
    ) -> int:
        """Return how many queued tasks of a pipeline sort between two pairs, at most `limit`."""
        await self._file(project)
        known = _encode(without).decode()
        first = after or rows.FIRST
        found = await self._read.read(
            lambda reader: reader.row("ahead", project, pipeline, *first, *before, known, limit)
        )
        return int(found[0])

    async def due(self, project: int, until: float, after: tuple[float, int] | None, limit: int) -> list[Task]:
        """Return a page of delayed tasks that are due until a moment, in order."""
        moment, last = after or (-1.0, 0)
        return await self._read.read(
            lambda reader: rows.decode_tasks(reader.row("due", project, until, moment, last, limit, -1))
        )

    async def expiring(self, project: int, after: tuple[float, int] | None, limit: int) -> list[StoredTask]:
        """Return a page of the tasks that must start by a moment, in order."""
        moment, last = after or (-1.0, 0)
        found = await self._read.read(
            lambda reader: rows.decode_stored(reader.row("expiring", project, moment, last, limit))
        )
        return sorted(found, key=lambda each: (each.start_by or 0.0, each.id))

    async def promote(self, project: int, ids: Sequence[int]) -> None:
        """Turn delayed tasks into queued ones."""
        await self._write.do(o.PROMOTE, project, Rows(1, list(ids), {}))

    async def payloads(self, project: int, ids: Sequence[int]) -> Mapping[int, bytes]:
        """Return payloads from disk; unknown ids are left out."""
        chosen = _encode(ids).decode()
        return await self._read.read(lambda reader: rows.decode_payloads(reader.row("payloads", project, chosen)))

    async def task(self, project: int, task_id: int) -> StoredTask | None:
        """Return one task with the history of its earlier attempts, or None."""

        def read(reader: Reader) -> StoredTask | None:
            for task in rows.decode_stored(reader.row("task", project, task_id)):
                return replace(task, history=rows.decode_history(reader.row("history", project, task_id)))
            return None

        return await self._read.read(read)

    async def tasks(
        self,
        project: int,
        *,
        pipeline: str | None = None,
        state: State | None = None,
        before: int | None = None,
        limit: int = 100,
    ) -> list[StoredTask]:
        """Return tasks, newest id first, without history."""
        if pipeline is not None or state is State.QUEUED:
            await self._file(project)
        if state is State.QUEUED:
            name = "list_queued" if pipeline is None else "list_pipeline_queued"
        elif state in rows.APART:
            name = "list_apart" if pipeline is None else "list_pipeline_apart"
        else:
            name = "list_all" if pipeline is None else "list_pipeline"
        code = None if state is None else rows.CODES[state]
        last = rows.MOST if before is None else before
        return await self._read.read(
            lambda reader: rows.decode_stored(reader.row(name, project, pipeline, code, last, limit))
        )

    async def counts(self, project: int) -> Mapping[str, Mapping[State, int]]:
        """Return how many tasks each pipeline has in the states delayed, queued, running and dead."""
        found: dict[str, dict[State, int]] = {}
        for pipeline, code, count in _decode((await self._read.read(lambda reader: reader.row("counts", project)))[0]):
            states = found.setdefault(pipeline, dict.fromkeys(rows.COUNTED, 0))
            states[rows.STATES[code]] += count
        return found

    async def redrive(self, project: int, pipeline: str, ids: Sequence[int] | None, expires: float) -> int:
        """Turn dead tasks (all of the pipeline's, or those named) into queued ones; return how many."""
        if ids is not None:
            count: int = await self._write.do(o.REDRIVE, project, (pipeline, list(ids), expires, len(ids)))
            return count
        return await self._repeat(o.REDRIVE, project, (pipeline, None, expires, PIECE))

    async def discard(self, project: int, pipeline: str, states: Sequence[State]) -> int:
        """Delete a pipeline's tasks in the given states, a piece at a time; return how many."""
        while self._write.session.fresh.get(project, 0) and await self._write.do(o.FILE, project):
            pass
        return sum([await self._repeat(o.DISCARD, project, (pipeline, state, PIECE)) for state in states])

    async def _repeat(self, verb: o.Verb, project: int, argument: Any) -> int:
        """Repeat a verb that does a piece of its work, until there is nothing left; other writes go in between."""
        total = 0
        while count := await self._write.do(verb, project, argument):
            total += count
        return total

    async def _file(self, project: int) -> None:
        """File fresh tasks until there are few left to look through."""
        while self._write.session.fresh.get(project, 0) > FEW and not self.full:
            await self._write.do(o.FILE, project)

    # configuration ------------------------------------------------------------------------------------------------------
    async def objects(self, project: int, kind: Kind, after: str, limit: int) -> list[StoredObject]:
        """Return a page of the objects of one kind, by name."""
        return await self._read.read(
            lambda reader: [
                StoredObject(kind, name, unseal(settings, self._vault), created, updated)
                for _, name, settings, created, updated in reader.rows("objects", project, kind, after, limit)
            ]
        )

    async def apply(
        self, project: int, writes: Sequence[Write], at: float, live: Mapping[str, int] = MappingProxyType({})
    ) -> list[Change]:
        """Write objects, make versions live, and write their rows in the change log, in one transaction; return the rows."""
        changes: list[Change] = await self._write.do(c.APPLY, project, (writes, at, live))
        return changes

    async def changes(self, project: int, after: int, limit: int) -> list[Change]:
        """Return rows of the change log with a sequence larger than `after`, in order."""
        return await self._read.read(
            lambda reader: [
                Change(sequence, at, action, kind, name, before and _decode(before), now and _decode(now))
                for sequence, at, action, kind, name, before, now in reader.rows("changes", project, after, limit)
            ]
        )

    async def add_version(
        self, project: int, function: str, bundle: str, settings: Mapping[str, Any], at: float
    ) -> Version:
        """Write the next version of a function, not live yet."""
        version: Version = await self._write.do(c.ADD_VERSION, project, c.NewVersion(function, bundle, settings, at))
        return version

    async def drop_versions(self, project: int, function: str, numbers: Sequence[int]) -> None:
        """Forget versions of a function; the live one stays."""
        await self._write.do(c.DROP_VERSIONS, project, (function, numbers))

    async def versions(self, project: int, function: str | None = None) -> list[Version]:
        """Return the versions of a function (or of all), oldest first."""
        return await self._read.read(
            lambda reader: [
                Version(name, number, bundle, unseal(settings, self._vault), created, bool(live), previous)
                for name, number, bundle, settings, created, live, previous in reader.rows(
                    "versions", project, function
                )
            ]
        )

    async def rotate(self) -> int:
        """Seal every secret with a new key; return how many settings were written anew."""
        if self._vault is None:
            raise Conflict("This store keeps no secrets sealed, so there is no key to rotate.")
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._vault.renew)
        count: int = await self._write.do(c.RESEAL, 0)
        await loop.run_in_executor(None, self._vault.forget)
        return count

    # the rest -------------------------------------------------------------------------------------------------------------
    async def write_output(self, project: int, lines: Sequence[Line]) -> None:
        """Append output."""
        if lines:
            await self._write.do(c.WRITE_OUTPUT, project, lines)

    async def output(
        self, project: int, *, task: int | None = None, pipeline: str | None = None, function: str | None = None,
        after: int = 0, limit: int = 1000,
    ) -> list[tuple[int, Line]]:  # fmt: skip
        """Return (position, line) pairs in order, those behind position `after` only."""
        name = "output"
        if task:
            name = "output_of_task"
        elif pipeline is not None:
            name = "output_of_pipeline"
        elif function is not None:
            name = "output_of_function"
        return await self._read.read(
            lambda reader: rows.decode_output(reader.row(name, project, task, pipeline, function, after, limit))
        )

    async def save_note(self, project: int, name: str, body: bytes | None) -> None:
        """Keep a small named body; None forgets it."""
        await self._write.do(c.SAVE_NOTE, project, (name, body))

    async def note(self, project: int, name: str) -> bytes | None:
        """Return a named body, or None."""
        row = await self._read.read(lambda reader: reader.row("note", project, name))
        return None if row is None else bytes(row[0])

    async def notes(self, project: int, prefix: str) -> Mapping[str, bytes]:
        """Return the bodies whose names begin with a prefix, by name."""
        found = await self._read.read(lambda reader: reader.rows("notes", project, prefix))
        return {name: bytes(body) for name, body in found}

    async def prune(self, project: int, ended_before: float, now: float, limit: int) -> int:
        """Delete at most `limit` tasks that ended before a moment, with what belongs to them; return how many rows went."""
        start = self._pruned.get(project, 0)
        found, last = await self._read.read(lambda reader: ended(reader, project, start, ended_before, limit))
        if not found and start:
            found, last = await self._read.read(lambda reader: ended(reader, project, 0, ended_before, limit))
        self._pruned[project] = last
        count: int = await self._write.do(o.PRUNE, project, (found, ended_before, now, limit))
        return count
