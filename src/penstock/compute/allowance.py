"""What an instance may send of the answers to its web requests: no more than was granted, whatever its code does.

What it sends waits here until the client has room, so one that does not keep to its window would fill the server's memory.
"""

from __future__ import annotations

from typing import Final

from penstock.runtime.frames import Credit, Piece, Word
from penstock.runtime.packing import CHUNK, WINDOW, WireError

_OVERDRAFT: Final = 4 * CHUNK
"""Bytes beyond the window: the piece that uses it up, a whole answer, a head and a close."""


class Allowance:
    """Count for each request what its instance may still send."""

    def __init__(self) -> None:
        self._left: dict[int, int] = {}

    def __contains__(self, attempt: int) -> bool:
        """Say whether a request is in the instance."""
        return attempt in self._left

    def begin(self, attempt: int) -> None:
        """Take note of a request that is sent there."""
        self._left[attempt] = WINDOW + _OVERDRAFT

    def end(self, attempt: int) -> None:
        """Forget a request that has ended."""
        self._left.pop(attempt, None)

    def clear(self) -> None:
        """Forget all."""
        self._left.clear()

    def grant(self, credit: Credit) -> None:
        """Take note that a client has room for more."""
        self._left[credit.attempt] += credit.granted

    def take(self, word: Word) -> None:
        """Count what came. Raises `WireError` for what is more than was granted."""
        if isinstance(word, Credit):
            return
        left = self._left[word.attempt] - ((len(word.data) or 1) if isinstance(word, Piece) else CHUNK)
        if left < 0:
            raise WireError("a web app sent more than its client has room for")
        self._left[word.attempt] = left
