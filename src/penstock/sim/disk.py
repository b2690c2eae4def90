"""A store on a simulated disk: a real one inside, on virtual time, with commits that take a while and crashes between them.

The laws. Writes are committed in the order in which they came, those that came during one commit with the next. A crash
before a commit loses it, a crash after it loses only the acknowledgement. The store inside must do every verb at once,
without waiting for anything, as `SqliteStore(inline=True)` does.
"""

import asyncio
import copy
import random
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Final

from penstock.domain.errors import DiskFull
from penstock.sim.ledger import Ledger
from penstock.sim.script import Spread

READS: Final = frozenset(
    {
        "waiting",
        "ahead",
        "due",
        "expiring",
        "payloads",
        "task",
        "tasks",
        "counts",
        "objects",
        "changes",
        "versions",
        "output",
        "note",
        "notes",
        "map",
        "maps",
        "ends",
        "results",
        "not_ended",
    }
)
WRITES: Final = frozenset(
    {"project", "enqueue", "debounce", "record", "note_starts", "recover", "promote", "redrive", "discard", "apply",
     "add_version", "drop_versions", "rotate", "write_output", "save_note", "prune", "start_map", "add_twin", "cancel_map",
     "finish_map"}
)  # fmt: skip
REFUSED_WHEN_FULL: Final = frozenset({"enqueue", "debounce", "apply", "add_version", "start_map", "add_twin"})


class _Operation:
    """Hold one write until it is committed."""

    __slots__ = ("answer", "error", "future", "work")

    def __init__(self, work: Coroutine[Any, Any, Any], future: asyncio.Future[Any]) -> None:
        self.work = work
        self.future = future
        self.answer: Any = None
        self.error: Exception | None = None


class SimStore:
    """Be the store of one life of a server. `full` makes the disk refuse what is new."""

    def __init__(self, inner: Any, rng: random.Random, ledger: Ledger, commit: Spread, read: Spread) -> None:
        self.full = False
        self._inner = inner
        self._rng = rng
        self._ledger = ledger
        self._commit_time, self._read_time = commit, read
        self._pending: list[_Operation] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._dead = False

    def __getattr__(self, name: str) -> Callable[..., Coroutine[Any, Any, Any]]:
        verb = getattr(self._inner, name)
        if name in READS:
            return lambda *values, **options: self._read(verb, values, options)
        if name in WRITES:
            return lambda *values, **options: self._write(name, verb, values, options)
        raise AttributeError(f"The simulated store does not know the verb '{name}': say whether it reads or writes.")

    async def open(self) -> None:
        """Open the store inside."""
        _at_once(self._inner.open())

    async def close(self) -> None:
        """Wait for what is pending, and close the store inside."""
        await self._idle.wait()
        self.die()

    @property
    def epoch(self) -> int:
        """Return the number of this ownership."""
        epoch: int = self._inner.epoch
        return epoch

    def watch_full(self, watch: Callable[[bool], None]) -> None:
        """Hear nothing: whoever asks `full` is told."""

    def die(self) -> None:
        """Lose what is not committed, as at the death of the server; every verb waits for ever from now on."""
        if not self._dead:
            self._dead = True
            for operation in self._pending:
                operation.work.close()
            _at_once(self._inner.close())

    async def _read(self, verb: Callable[..., Any], values: Any, options: Any) -> Any:
        await asyncio.sleep(self._read_time.draw(self._rng))
        await self._survive()
        return _at_once(verb(*values, **options))

    async def _write(self, name: str, verb: Callable[..., Any], values: Any, options: Any) -> Any:
        await self._survive()
        if self.full and name in REFUSED_WHEN_FULL:
            raise DiskFull("The simulated disk is full: nothing of what was sent was kept.")
        loop = asyncio.get_running_loop()
        # What is written is what it says now: its owner may change it before the commit.
        values = copy.deepcopy(values)
        operation = _Operation(verb(*values, **options), loop.create_future())
        self._pending.append(operation)
        if self._idle.is_set():
            self._begin()
        return await operation.future

    def _begin(self) -> None:
        self._idle.clear()
        asyncio.get_running_loop().call_later(self._commit_time.draw(self._rng), self._commit)

    def _commit(self) -> None:
        """Write what has gathered; it is acknowledged a little later."""
        if self._dead:
            return
        batch, self._pending = self._pending, []
        for operation in batch:
            try:
                operation.answer = _at_once(operation.work)
            except Exception as error:
                operation.error = error
        self._ledger.note(asyncio.get_running_loop().time(), f"store: {len(batch)} writes committed")
        asyncio.get_running_loop().call_later(self._commit_time.draw(self._rng), self._acknowledge, batch)

    def _acknowledge(self, batch: list[_Operation]) -> None:
        if self._dead:
            return
        for operation in batch:
            if operation.future.done():
                continue
            if operation.error is None:
                operation.future.set_result(operation.answer)
            else:
                operation.future.set_exception(operation.error)
        if self._pending:
            self._begin()
        else:
            self._idle.set()

    async def _survive(self) -> None:
        if self._dead:
            await asyncio.get_running_loop().create_future()


class SimBundles:
    """Take the body for the digest: the script knows bundles by such names."""

    async def add(self, body: bytes) -> str:
        """Keep nothing."""
        return body.decode()

    async def sweep(self, used: Collection[str]) -> int:  # noqa: ARG002 - nothing is kept
        """Delete nothing."""
        return 0


def _at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that waits for nothing, and return its result."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    work.close()
    raise RuntimeError(f"{work} waited for something: the store inside must do its verbs at once.")
