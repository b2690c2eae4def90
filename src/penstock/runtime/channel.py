"""An instance's way to the server: frames out, from any thread; frames in, for the one thread that reads."""

import os
import socket
from collections import deque
from threading import Lock
from typing import NoReturn

from penstock.runtime.bodies import Sender
from penstock.runtime.wire import INLINE, ORDERS, Credit, Decoder, Frame, encode_end, encode_order

_CHUNK = 64 * 1024


class Channel:
    """Send and receive frames. Whoever finds the line free sends for all who came meanwhile.

    The socket blocks: the server never waits for an instance, so it always reads on.
    """

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._pending: deque[bytes] = deque()
        self._lock = Lock()
        self._bodies = Sender()
        self._decoder = Decoder()
        self.abandoned = False  # this is another process, which the handler has forked

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait on."""
        return self._line.fileno()

    @property
    def sending(self) -> bool:
        """Say whether a long result is still on its way."""
        return len(self._bodies) > 0

    def send(self, frames: bytes) -> None:
        """Send frames, after all that were sent before. Ends the process if the server is gone."""
        pending = self._pending
        pending.append(frames)
        while pending and self._lock.acquire(blocking=False):
            try:
                batch = []
                while pending:
                    batch.append(pending.popleft())
                self._line.sendall(b"".join(batch))
            except OSError:
                os._exit(1)
            finally:
                self._lock.release()

    def end_process(self, code: int) -> NoReturn:
        """End this process when all that was sent before is on its way."""
        with self._lock:
            rest = b"".join(self._pending)
            try:
                self._line.sendall(rest)
            finally:
                os._exit(code)

    def abandon(self) -> None:
        """Let go of the socket, in a process that the handler forked: it is not this process's to use."""
        self.abandoned = True
        self._line.close()

    def receive(self, wait: bool = True) -> "list[Frame] | None":
        """Return the frames that came; None when the server is gone. Without `wait`, an empty list if there are none."""
        try:
            chunk = self._line.recv(_CHUNK, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except ConnectionError:
            return None
        return self._decoder.feed(chunk) if chunk else None

    def encode_end(
        self,
        attempt: int,
        ending: int,
        started: float,
        finished: float,
        retry_after: "float | None",
        limit: str,
        body: bytes,
    ) -> bytes:
        """Return the frames that report an end; a long body follows them by itself, at the pace of its credit."""
        size = len(body)
        if size <= INLINE:
            return encode_end(attempt, ending, started, finished, retry_after, limit, size, body)
        head = encode_end(attempt, ending, started, finished, retry_after, limit, size, b"")
        return head + self._bodies.begin(attempt, body)

    def encode_order(
        self, attempt: int, number: int, verb: int, waits: bool, target: str, options: bytes, payload: bytes
    ) -> bytes:
        """Return the frames of an order; a long payload follows them by itself, at the pace of its credit."""
        size = len(payload)
        if size <= INLINE:
            return encode_order(attempt, number, verb, waits, target, options, size, payload)
        head = encode_order(attempt, number, verb, waits, target, options, size, b"")
        return head + self._bodies.begin(ORDERS | number, payload)

    def credit(self, frame: Credit) -> None:
        """Send on a long result."""
        more = self._bodies.credit(frame.attempt, frame.granted)
        if more:
            self.send(more)
