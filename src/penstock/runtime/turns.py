"""Whose turn it is in an instance, noted where others can read it: one whose handler holds the GIL answers nothing.

A mapped file with a row for each thread that runs handlers: its id, and the attempt that it runs (0: none). An event loop has
one row, and in it the attempt whose handler is taking a step.
"""

import mmap
import os
import threading
from functools import partial
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_ROW: Final = Struct("<QQ")
_ATTEMPT: Final = Struct("<Q")


class Turns:
    """Note turns."""

    def __init__(self, path: str, rows: int) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(file, rows * _ROW.size)
            self._memory = mmap.mmap(file, rows * _ROW.size)
        finally:
            os.close(file)

    def sit(self, row: int) -> None:
        """Take a row for the calling thread."""
        _ROW.pack_into(self._memory, row * _ROW.size, threading.get_native_id(), 0)

    def take(self, row: int, attempt: int) -> None:
        """Note that it is an attempt's turn; 0: nobody's."""
        _ATTEMPT.pack_into(self._memory, row * _ROW.size + _ATTEMPT.size, attempt)


def seat(turns: "Turns | None", row: int) -> "Callable[[int], None]":
    """Take a row for the calling thread; return what notes in it whose turn it is. Where there are no notes, nothing is."""
    if turns is None:
        return _note_nothing
    turns.sit(row)
    return partial(turns.take, row)


def _note_nothing(_: int) -> None:
    pass


def read(data: bytes) -> "dict[int, int]":
    """Return the attempts whose turn it is by thread, given a file's bytes, and those threads that have none with 0."""
    whole = len(data) - len(data) % _ROW.size
    return {thread: attempt for thread, attempt in _ROW.iter_unpack(data[:whole]) if thread}
