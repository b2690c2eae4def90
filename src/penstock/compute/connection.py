"""One instance's stream of frames, on the server's event loop: many frames in one read, one write for many frames."""

import asyncio
import socket
from collections.abc import Callable

from penstock.runtime.wire import Decoder, Frame, WireError

_CHUNK = 128 * 1024
_DRAINED = 64  # chunks that a socket's buffers can hold at most, and then some


class Connection:
    """Carry frames over a socket that never blocks. What does not fit waits here and is bounded by the frames' credit.

    `hear` gets the frames of each read. `lost` is called once, when the other side has closed its end (with "") or has
    sent something that is no frame (with what that was).
    """

    __slots__ = ("_backlog", "_decoder", "_file", "_hear", "_loop", "_lost", "_reading", "_socket")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        line: socket.socket,
        hear: Callable[[list[Frame]], None],
        lost: Callable[[str], None],
    ) -> None:
        line.setblocking(False)
        self._loop = loop
        self._socket = line
        self._file = line.fileno()
        self._hear = hear
        self._lost = lost
        self._decoder = Decoder()
        self._backlog = bytearray()
        self._reading = True
        loop.add_reader(self._file, self._read)

    def send(self, frames: bytes) -> None:
        """Send frames now, or as soon as there is room. What is sent to a side that is gone is lost."""
        if self._backlog:
            self._backlog += frames
            return
        try:
            sent = self._socket.send(frames)
        except BlockingIOError:
            sent = 0
        except OSError:  # gone: the reader will find out
            return
        if sent < len(frames):
            self._backlog += memoryview(frames)[sent:]
            self._loop.add_writer(self._file, self._write)

    def drain(self) -> None:
        """Read what is left of a side that can send no more."""
        for _ in range(_DRAINED):
            if not self._reading or not self._read():
                return

    def close(self) -> None:
        """Close this end."""
        self._stop_reading()
        self._stop_writing()
        self._socket.close()

    def _read(self) -> bool:
        """Read once; return whether there was anything."""
        try:
            chunk = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        trouble = ""
        if chunk:
            try:
                self._hear(self._decoder.feed(chunk))
            except WireError as error:
                trouble = str(error)
            else:
                return True
        self._stop_reading()
        self._lost(trouble)
        return False

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._backlog)
        except BlockingIOError:
            return
        except OSError:
            self._stop_writing()
            return
        del self._backlog[:sent]
        if not self._backlog:
            self._loop.remove_writer(self._file)

    def _stop_reading(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._file)

    def _stop_writing(self) -> None:
        if self._backlog:
            self._backlog.clear()
            self._loop.remove_writer(self._file)


class NoConnection:
    """Stand in where there is no process to talk to."""

    def send(self, frames: bytes) -> None:
        """Lose the frames."""

    def drain(self) -> None:
        """Do nothing: there is nothing to read."""

    def close(self) -> None:
        """Do nothing: there is nothing to close."""
