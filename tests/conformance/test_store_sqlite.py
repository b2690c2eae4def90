"""What only the store in a SQLite file promises: its lock, its disk, its threads, and its life through SIGKILL."""

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.conformance.stores import NOW, all_waiting, done, ids, task, tasks

from penstock.artifacts.vault import FileVault
from penstock.domain.errors import DiskFull, Locked, PenstockError
from penstock.domain.task import State
from penstock.store import writer
from penstock.store.operations import ENQUEUE, FILE, NOTE_STARTS, PROMOTE, RECORD, Verb
from penstock.store.protocol import Line, Write
from penstock.store.sqlite import SqliteStore
from penstock.store.statements import migrations
from penstock.store.writer import Operation, grouped


# who owns it ----------------------------------------------------------------------------------------------------------
def test_the_second_server_is_told_who_has_the_directory(tmp_path: Path) -> None:
    async def body() -> None:
        first, second = SqliteStore(tmp_path), SqliteStore(tmp_path)
        await first.open()
        with pytest.raises(Locked, match=f"{tmp_path} is in use by the server with pid {os.getpid()}"):
            await second.open()
        await first.close()
        await second.open()
        assert second.epoch == 2
        await second.close()

    asyncio.run(body())


def test_nobody_else_may_read_what_is_kept(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path / "data")
        await store.open()
        await store.project("default")
        modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "data").glob("penstock.sqlite*")}
        assert modes == {"penstock.sqlite": 0, "penstock.sqlite-wal": 0, "penstock.sqlite-shm": 0}
        assert (tmp_path / "data").stat().st_mode & 0o077 == 0
        await store.close()

    asyncio.run(body())


def test_a_setting_that_looks_like_a_sealed_one_is_not_sealed_anew_at_every_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"function": "f", "params": {"box": {"sealed": "with wax"}, "key": {"secret": "text"}}}

    async def body() -> None:
        store = SqliteStore(tmp_path, vault=FileVault(tmp_path / "secrets.key"))
        await store.open()
        project = await store.project("default")
        await store.apply(project, [Write("pipeline", "p", "create", settings, None, settings)], NOW)
        assert [one.settings for one in await store.objects(project, "pipeline", "", 9)] == [settings]
        await store.close()

    asyncio.run(body())
    asyncio.run(body())
    assert "were sealed" not in caplog.text


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    asyncio.run(open_and_close(tmp_path))
    connection = sqlite3.connect(tmp_path / "penstock.sqlite")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(PenstockError, match="written by a newer Penstock"):
        asyncio.run(open_and_close(tmp_path))


def test_an_older_database_learns_what_versions_took_over_from_and_which_pipelines_drain(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "penstock.sqlite")
    connection.executescript(dict(migrations())[1])
    rows = [
        (1, None, '{"version": 1}'),
        (2, '{"version": 1}', '{"version": 3}'),
        (3, '{"version": 3}', '{"version": 1}'),
    ]
    for sequence, before, after in rows:
        connection.execute(
            "INSERT INTO changes VALUES (1, ?, 0, 'deploy', 'function', 'f', ?, ?)", (sequence, before, after)
        )
    for number in (1, 2, 3):
        connection.execute("INSERT INTO versions VALUES (1, 'f', ?, 'd', '{}', 0, ?)", (number, number == 1))
    for name in ("a", "b"):
        settings = '{"function": "f", "rate": "1/s"}'
        connection.execute("INSERT INTO objects VALUES (1, 'pipeline', ?, ?, 0, 0)", (name, settings))
    connection.execute("INSERT INTO notes VALUES (1, 'draining pipelines', ?)", (b'["b"]',))
    connection.execute("INSERT INTO projects (name) VALUES ('default')")
    connection.execute("PRAGMA user_version = 1")
    connection.commit()
    connection.close()

    async def body() -> None:
        store = SqliteStore(tmp_path)
        await store.open()
        assert [each.previous for each in await store.versions(1, "f")] == [None, None, 1]
        pipelines = await store.objects(1, "pipeline", "", 9)
        known = {"function": "f", "rate": "1/s"}
        assert [each.settings for each in pipelines] == [known, {**known, "draining": True, "remove_when_empty": True}]
        assert await store.note(1, "draining pipelines") is None
        await store.close()

    asyncio.run(body())


@pytest.mark.parametrize("inline", [False, True])
def test_what_is_no_database_is_left_alone(tmp_path: Path, inline: bool) -> None:
    (tmp_path / "penstock.sqlite").write_bytes(b"This is a letter and no database. " * 99)
    for _ in range(2):
        with pytest.raises(PenstockError, match="cannot be opened"):
            asyncio.run(open_and_close(tmp_path, inline=inline))
    assert (tmp_path / "penstock.sqlite").read_bytes().startswith(b"This is a letter")


async def open_and_close(directory: Path, **options: Any) -> None:
    store = SqliteStore(directory, **options)
    try:
        await store.open()
    finally:
        await store.close()


# group commit ---------------------------------------------------------------------------------------------------------
def verbs(operations: list[tuple[Verb, int]]) -> list[list[int]]:
    numbered = [Operation(verb, project, number, None) for number, (verb, project) in enumerate(operations)]
    return [[operation.argument for operation in group] for group in grouped(numbered)]


def test_sends_are_joined_wherever_they_stand_and_outcomes_where_they_are_neighbours() -> None:
    assert verbs([(ENQUEUE, 1)] * 4) == [[0, 1, 2, 3]]
    assert verbs([(ENQUEUE, 1), (RECORD, 1), (ENQUEUE, 1), (RECORD, 1)]) == [[0, 2], [1, 3]]
    assert verbs([(RECORD, 1), (NOTE_STARTS, 1), (RECORD, 1), (RECORD, 1)]) == [[0], [1], [2, 3]]
    assert verbs([(RECORD, 1), (PROMOTE, 1), (ENQUEUE, 1), (PROMOTE, 1)]) == [[0], [1, 3], [2]]


def test_projects_are_not_joined() -> None:
    assert verbs([(ENQUEUE, 1), (ENQUEUE, 2), (ENQUEUE, 1), (RECORD, 2), (RECORD, 1)]) == [[0, 2], [1], [3], [4]]


def test_nothing_is_moved_across_a_verb_that_stands_alone() -> None:
    alone = Verb(FILE.run)
    assert verbs([(ENQUEUE, 1), (alone, 1), (ENQUEUE, 1), (alone, 1), (alone, 1), (RECORD, 1)]) == [
        [0], [1], [2], [3], [4], [5],
    ]  # fmt: skip


def test_what_arrives_during_a_commit_goes_into_the_next_one(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path)
        await store.open()
        project = await store.project("default")
        said: Counter[str] = Counter()
        session = store._write.session
        session.connection.set_trace_callback(lambda text: said.update([text.split()[0]]))
        await asyncio.gather(*[store.enqueue(project, [task(number)]) for number in range(1, 501)])
        session.connection.set_trace_callback(None)
        assert said["COMMIT"] < 250
        assert said["INSERT"] < 250
        assert len(await all_waiting(store, project, "a")) == 500
        await store.close()

    asyncio.run(body())


def test_inline_every_verb_is_done_at_once(tmp_path: Path) -> None:
    def now(work: Any) -> Any:
        with pytest.raises(StopIteration) as stop:
            work.send(None)
        return stop.value.value

    store = SqliteStore(tmp_path, inline=True)
    now(store.open())
    project = now(store.project("default"))
    assert now(store.enqueue(project, tasks(3))) == {}
    now(store.record(project, [done(task(2))]))
    assert ids(now(store.waiting(project, "a", None, 9, 9))) == [1, 3]
    assert [each.state for each in now(store.tasks(project))] == [State.QUEUED, State.DONE, State.QUEUED]
    now(store.write_output(project, [Line(1, "a", "f", 1, NOW, "stdout", "x")]))
    assert len(now(store.output(project))) == 1
    now(store.close())


def test_a_pause_is_used_to_move_the_log_into_the_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MOST_COMMITS", 2)

    async def body() -> None:
        store = SqliteStore(tmp_path)
        await store.open()
        project = await store.project("default")
        moved = asyncio.Event()
        loop = asyncio.get_running_loop()
        session = store._write.session
        checkpoint = session.checkpoint

        def watched() -> None:
            checkpoint()
            loop.call_soon_threadsafe(moved.set)

        monkeypatch.setattr(session, "checkpoint", watched)
        for number in range(1, 5):
            await store.enqueue(project, [task(number, payload=b"x" * 10_000)])
        await asyncio.wait_for(moved.wait(), 60)
        assert (tmp_path / "penstock.sqlite").stat().st_size > 40_000
        await store.close()

    asyncio.run(body())


# a full disk ----------------------------------------------------------------------------------------------------------
class Disk(Protocol):
    """Be a place with little room, of which more can be had."""

    path: Path

    def bound(self, store: SqliteStore) -> None:
        """Let the room end; called once the store is open."""

    def make_room(self, store: SqliteStore) -> None:
        """Let there be room again."""


class BoundedDatabase:
    """Bound the pages of the database: SQLite then says what it says on a full disk, on every machine."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def bound(self, store: SqliteStore) -> None:
        store._write.session.connection.execute("PRAGMA max_page_count = 800").fetchall()

    def make_room(self, store: SqliteStore) -> None:
        store._write.session.connection.execute("PRAGMA max_page_count = 1000000").fetchall()


class SmallDisk:
    """Be a real file system of 24 MiB, a third of which is taken by somebody else."""

    def __init__(self, path: Path) -> None:
        self.path = path / "data"
        self.path.mkdir()
        self._filler = path / "filler"
        self._filler.write_bytes(b"x" * (8 << 20))

    def bound(self, store: SqliteStore) -> None:
        pass

    def make_room(self, store: SqliteStore) -> None:
        self._filler.unlink()


@pytest.fixture(params=["bounded database", "small disk"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    """Give a disk that can be full; where file systems cannot be mounted, the bounded database stands in."""
    options = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(tmp_path)]
    mounted = (
        request.param == "small disk" and subprocess.run(options, check=False, capture_output=True).returncode == 0
    )
    try:
        yield SmallDisk(tmp_path) if mounted else BoundedDatabase(tmp_path)
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


def test_on_a_full_disk_sends_are_refused_and_outcomes_are_not(disk: Disk) -> None:
    async def body() -> None:
        store = SqliteStore(disk.path, ballast=6 << 20)
        await store.open()
        project = await store.project("default")
        room = asyncio.Event()
        store.watch_full(lambda full: room.clear() if full else room.set())
        disk.bound(store)
        kept = await fill(store, project)
        assert store.full
        results = await asyncio.gather(
            store.enqueue(project, [task(900_001)]),
            store.apply(project, [Write("limit", "l", "create", {"rate": "9" * 9_999_999})], NOW),
            return_exceptions=True,
        )
        assert [type(each) for each in results][1] is DiskFull
        acknowledged = kept + ([900_001] if results[0] == {} else [])
        await store.record(project, [done(task(number)) for number in kept])
        assert ids(await store.tasks(project, limit=9999)) == acknowledged[::-1]
        assert await store.objects(project, "function", "", 9) == []
        assert {each.state for each in await store.tasks(project, before=900_001, limit=9999)} == {State.DONE}
        disk.make_room(store)
        while store.full:
            await asyncio.wait_for(room.wait(), 60)
        await store.enqueue(project, [task(900_002, payload=b"y" * 1_000_000)])
        assert (disk.path / "ballast").stat().st_size == 6 << 20
        await store.close()
        await store.open()
        assert ids(await store.tasks(project, limit=9999)) == [900_002, *acknowledged[::-1]]
        await store.close()

    asyncio.run(body())


async def fill(store: SqliteStore, project: int) -> list[int]:
    """Send until there is no room; return the ids of what was acknowledged."""
    kept: list[int] = []
    first = 1
    while True:
        batches = [[task(first + n * 4 + i, payload=b"x" * 30_000) for i in range(4)] for n in range(4)]
        first += 16
        results = await asyncio.gather(*[store.enqueue(project, batch) for batch in batches], return_exceptions=True)
        kept += [each.id for batch, result in zip(batches, results, strict=True) for each in batch if result == {}]
        refused = [result for result in results if result != {}]
        assert all(isinstance(result, DiskFull) for result in refused)
        if refused:
            return kept


def test_a_store_that_opens_on_a_full_disk_knows_it(tmp_path: Path) -> None:
    async def body() -> None:
        store = SqliteStore(tmp_path, ballast=1 << 60)
        await store.open()
        project = await store.project("default") if not store.full else 1
        assert store.full
        with pytest.raises(DiskFull):
            await store.enqueue(project, tasks(1))
        await store.save_note(project, "limits", b"kept")
        assert await store.note(project, "limits") == b"kept"
        await store.close()

    asyncio.run(body())


# SIGKILL --------------------------------------------------------------------------------------------------------------
CHILD = """
import asyncio, os, sys
from pathlib import Path
from tests.conformance.stores import done, task
from penstock.store.sqlite import SqliteStore
from penstock.store.statements import migrations

async def work(store, project, first):
    number = first
    while True:
        batch = [task(number + i, "p%d" % (i % 3), key=str(number) if i == 0 else None) for i in range(first % 5 + 1)]
        await store.enqueue(project, batch)
        os.write(1, b"".join(b"sent %d\\n" % each.id for each in batch))
        await store.record(project, [done(each, b"%d" % each.id) for each in batch[1:]])
        os.write(1, b"".join(b"done %d\\n" % each.id for each in batch[1:]))
        number += 5

async def main():
    store = SqliteStore(Path(sys.argv[1]))
    await store.open()
    project = await store.project("default")
    await asyncio.gather(*[work(store, project, (store.epoch << 40) + n * 10_000_000 + 1) for n in range(8)])

asyncio.run(main())
"""


def killed_after(directory: Path, lines: int) -> tuple[set[int], set[int]]:
    """Let a process write, kill it when it has acknowledged so much; return the ids it said were sent and done."""
    root = str(Path(__file__).resolve().parents[2])
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(directory)], stdout=subprocess.PIPE, cwd=root)
    try:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        os.kill(child.pid, signal.SIGKILL)
        said += child.stdout.read().splitlines(keepends=True)
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    words = [line.split() for line in said if line.endswith(b"\n")]
    return {int(n) for word, n in words if word == b"sent"}, {int(n) for word, n in words if word == b"done"}


def test_whatever_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    rng = random.Random(20)
    sent: set[int] = set()
    finished: set[int] = set()

    async def account() -> None:
        store = SqliteStore(tmp_path)
        await store.open()
        project = await store.project("default")
        rows = {each.id: each for each in await store.tasks(project, limit=1_000_000)}
        assert sent <= rows.keys()
        assert [rows[each].result for each in sorted(finished)] == [b"%d" % each for each in sorted(finished)]
        assert {rows[each].state for each in finished} <= {State.DONE}
        waiting = [each.id for name in ("p0", "p1", "p2") for each in await all_waiting(store, project, name, 5000)]
        assert sorted(waiting) == sorted(each.id for each in rows.values() if each.state is State.QUEUED)
        checked = store._write.session.connection.execute("PRAGMA integrity_check").fetchall()
        assert checked == [("ok",)]
        await store.close()

    for _ in range(4):
        more_sent, more_done = killed_after(tmp_path, rng.randrange(1, 8000))
        sent |= more_sent
        finished |= more_done
        asyncio.run(account())
    assert sent
