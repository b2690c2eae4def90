"""The requests that are inside, and how they leave when the server closes.

Nothing new comes in then. What waits for news (streams, long polls) is told at once; what works is given time.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from penstock.domain.errors import Unavailable

T = TypeVar("T")

_POLITE: Final = 1.0


class Lobby:
    """Count who is inside. `calls` are those of them that wait for a task, which the engine ends."""

    def __init__(self) -> None:
        self.closing = False
        self.inside = 0
        self.calls = 0
        self._waits: set[asyncio.Task[Any]] = set()
        self._empty: asyncio.Event | None = None

    def enter(self) -> None:
        """Come in. Raises `Unavailable` while the server closes."""
        if self.closing:
            raise Unavailable("The server stops. Ask again in a moment.", _POLITE)
        self.inside += 1

    def leave(self) -> None:
        """Go out."""
        self.inside -= 1
        if self._empty is not None and self.inside <= self.calls:
            self._empty.set()

    async def wait(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Return what waiting for something comes to; None if the server closes before."""
        if self.closing:
            work.close()
            return None
        waiting = asyncio.ensure_future(work)
        self._waits.add(waiting)
        try:
            await asyncio.wait([waiting])
        finally:
            self._waits.discard(waiting)
            if not waiting.done():
                waiting.cancel()
        return None if waiting.cancelled() else waiting.result()

    async def close(self, patience: float) -> None:
        """Let nobody in any more, and return when all but callers have left, or after `patience` seconds."""
        self.closing = True
        for waiting in self._waits:
            waiting.cancel()
        if self.inside > self.calls:
            self._empty = asyncio.Event()
            await asyncio.wait([asyncio.ensure_future(self._empty.wait())], timeout=patience)
