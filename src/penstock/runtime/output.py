"""Who printed what: text written while a task runs is that task's output, whichever thread or coroutine wrote it.

The laws. Text is sent when there is enough of it, soon after it was written, and before the end of its task; until then
it lies in a black box that outlives a crash. At most
`KEPT` bytes of an execution are kept; what is over is counted and dropped, so that no writer waits for a reader. What is
written to the descriptors 1 and 2 themselves (C code, subprocesses) goes to a file and is fetched from there.
"""

import io
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from threading import Event, Lock, Thread
from typing import Any, Final

from penstock.runtime.blackbox import SIZE, BlackBox
from penstock.runtime.wire import LOG, STDERR, STDOUT, encode_log

KEPT: Final = 1024 * 1024
ENOUGH: Final = SIZE // 2
SOON: Final = 0.05
RENEWED: Final = 10.0
"""Seconds after which output that belongs to no task has its `KEPT` bytes anew."""


class Capture:
    """Count the output of one execution; attempt 0 is for what belongs to none."""

    __slots__ = ("attempt", "dropped", "kept", "waits")

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.dropped = 0
        self.kept = 0
        self.waits = 0


class Output:
    """Collect what is written in this instance, and send it.

    It is sent with the lock held, so that nothing of an execution can come after its end.
    """

    def __init__(self, send: Callable[[bytes], None], file: int, box: str) -> None:
        self.current: ContextVar[Capture | None] = ContextVar("penstock_output", default=None)
        self.nobody = Capture(0)
        self.only = self.nobody
        self.forked = False  # True in a process that the handler forked: there, all goes to the file, line by line
        self._partial = ""
        self._send = send
        self._file = file
        self._path = box
        self._box: BlackBox | None = None
        self._turn = 1  # counts how often the box was emptied; a capture `waits` for the end of the turn it wrote in
        self._lock = Lock()
        self._wake = Event()
        self._asleep = True
        self._renewed = 0.0

    def write(self, stream: int, text: str, capture: "Capture | None" = None) -> None:
        """Take text for an execution: the one given, else the one that this thread or coroutine belongs to."""
        if self.forked:
            self._partial += text
            if "\n" in text:
                self.flush_partial()
            return
        owner = capture or self.current.get() or self.only
        if owner.kept >= KEPT:
            owner.dropped += _bytes_in(text)
            return
        data = _encode(text)
        with self._lock:
            data = self._bounded(owner, data)
            box = self._box or self._open_box()
            if not box.add(owner.attempt, stream, data):
                self._empty(box)
                if not box.add(owner.attempt, stream, data):
                    self._send(encode_log(owner.attempt, stream, data))
                    return
            owner.waits = self._turn
            if box.filled >= ENOUGH:
                self._empty(box)
                return
            if not self._asleep:
                return
            self._asleep = False
        self._wake.set()

    def end(self, capture: Capture) -> None:
        """Send what is left of an execution's output. What is written in its name later belongs to none."""
        if not capture.kept:
            capture.attempt = 0
            return
        with self._lock:
            if capture.waits == self._turn and self._box:
                self._empty(self._box)
            if capture.dropped:
                self._send(_note_of(capture))
            capture.attempt = capture.kept = capture.dropped = 0

    def flush_partial(self) -> None:
        """Write what a forked process has printed to the file, at once, so that lines of several are not mixed."""
        text, self._partial = self._partial, ""
        if text:
            os.write(self._file, _encode(text))

    def raw(self, attempt: int) -> bytes:
        """Return what came to the file since it was last asked, as output of that attempt, and empty the file."""
        size = os.fstat(self._file).st_size
        if not size:
            return b""
        data = os.pread(self._file, min(size, KEPT), 0)
        os.ftruncate(self._file, 0)
        frames = encode_log(attempt, STDOUT, data.decode("utf-8", "replace").encode())
        if size > KEPT:
            note = f"[penstock: {size - KEPT} bytes written to descriptors 1 and 2 were dropped; {KEPT} are kept]\n"
            frames += encode_log(attempt, LOG, note.encode())
        return frames

    def flush(self) -> bool:
        """Send what waits; return whether there was any. If not, the next writer wakes the flusher."""
        with self._lock:
            box = self._box
            waiting = box is not None and box.filled > 0
            self._asleep = not waiting
            if box is not None and waiting:
                self._empty(box)
            if time.monotonic() - self._renewed >= RENEWED:
                self._renewed = time.monotonic()
                if self.nobody.dropped:
                    self._send(_note_of(self.nobody))
                self.nobody.kept = self.nobody.dropped = 0
            return waiting

    def _bounded(self, owner: Capture, data: bytes) -> bytes:
        room = KEPT - owner.kept
        owner.kept += len(data)
        if len(data) <= room:
            return data
        owner.dropped += len(data) - room
        return data[:room].decode("utf-8", "ignore").encode()

    def _empty(self, box: BlackBox) -> None:
        self._turn += 1
        self._send(box.take())

    def _open_box(self) -> BlackBox:
        self._box = BlackBox(self._path)
        Thread(target=self._flush_soon, name="penstock-output", daemon=True).start()
        return self._box

    def _flush_soon(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while True:
                time.sleep(SOON)
                if not self.flush():
                    break


class Writer(io.TextIOBase):
    """Stand in for sys.stdout or sys.stderr. Before there is an `Output` (in the zygote), it writes to the descriptor."""

    output: "Output | None" = None

    def __init__(self, stream: int, descriptor: int) -> None:
        super().__init__()
        self._stream = stream
        self._descriptor = descriptor
        self.buffer = _Bytes(self)

    encoding = "utf-8"
    errors = "replace"

    def write(self, text: str) -> int:
        """Take text."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if not text:
            return 0
        if Writer.output is None:
            os.write(self._descriptor, _encode(text))
        else:
            Writer.output.write(self._stream, text)
        return len(text)

    def writelines(self, lines: "Iterable[str]") -> None:  # type: ignore[override]
        """Take several texts."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Do nothing, for what was written is on its way; but forked processes end without further notice."""
        if Writer.output is not None and Writer.output.forked:
            Writer.output.flush_partial()

    def fileno(self) -> int:
        """Return the descriptor, for those who need one: what is written to it is found too, but later."""
        return self._descriptor

    def writable(self) -> bool:
        """Say yes."""
        return True

    def reconfigure(self, **_: Any) -> None:
        """Accept what io.TextIOWrapper accepts; nothing of it matters here."""


class _Bytes(io.RawIOBase):
    """Take bytes for a `Writer`, as `sys.stdout.buffer` does."""

    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self._writer = writer

    def write(self, data: Any) -> int:
        taken = bytes(data)
        self._writer.write(taken.decode("utf-8", "replace"))
        return len(taken)

    def fileno(self) -> int:
        return self._writer.fileno()

    def writable(self) -> bool:
        return True


def replace_streams() -> None:
    """Put writers into the place of sys.stdout and sys.stderr, before the user's module can take hold of those."""
    sys.stdout = Writer(STDOUT, 1)
    sys.stderr = Writer(STDERR, 2)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _note_of(capture: Capture) -> bytes:
    text = f"[penstock: {capture.dropped} bytes of output were dropped; the first {KEPT} of an execution are kept]\n"
    return encode_log(capture.attempt, LOG, text.encode())


def _bytes_in(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
