"""Output on its way to the server, kept where it outlives the process: what a handler printed just before it crashed.

The box is a mapped file: four bytes that say how much is in it, then `Log` frames. After a crash, compute reads it.
"""

import mmap
import os
import struct
from struct import Struct
from typing import Final

from penstock.runtime.wire import Decoder, Log, WireError, encode_log

SIZE: Final = 16 * 1024

_LENGTH = Struct("<I")
_FRAME_LENGTH = Struct("<I")


class BlackBox:
    """Collect frames of output. Text that goes on where the last ended extends that frame."""

    def __init__(self, path: str) -> None:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(file, SIZE)
            self._memory = mmap.mmap(file, SIZE)
        finally:
            os.close(file)
        self._end = _LENGTH.size
        self._last = self._end
        self._owner = (-1, -1)

    def add(self, attempt: int, stream: int, text: bytes) -> bool:
        """Take text (UTF-8); return False if there is no room."""
        memory, at = self._memory, self._end
        extends = self._owner == (attempt, stream)
        data = text if extends else encode_log(attempt, stream, text)
        end = at + len(data)
        if end > SIZE:
            return False
        memory[at:end] = data
        if extends:
            _FRAME_LENGTH.pack_into(memory, self._last, end - self._last - 5)
        else:
            self._last, self._owner = at, (attempt, stream)
        self._end = end
        _LENGTH.pack_into(memory, 0, end - _LENGTH.size)
        return True

    @property
    def filled(self) -> int:
        """Return how many bytes are in the box."""
        return self._end - _LENGTH.size

    def take(self) -> bytes:
        """Empty the box; return the frames that were in it."""
        frames = self._memory[_LENGTH.size : self._end]
        self._end = _LENGTH.size
        self._owner = (-1, -1)
        _LENGTH.pack_into(self._memory, 0, 0)
        return frames


def recover(data: bytes) -> "list[Log]":
    """Return what was left in the box of a process that is gone, given its bytes; nothing if they make no sense."""
    try:
        (length,) = _LENGTH.unpack_from(data)
        frames = Decoder().feed(data[_LENGTH.size : _LENGTH.size + length])
    except (WireError, struct.error):
        return []
    return [frame for frame in frames if isinstance(frame, Log)]
