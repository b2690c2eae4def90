"""One local instance: runs become frames, frames become events."""

import asyncio
import json
import math
import os
import socket
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from penstock.compute.allowance import Allowance
from penstock.compute.connection import Connection, NoConnection
from penstock.compute.protocol import Blueprint, End, Ending, Exit, Listener, Part, Run
from penstock.runtime import blackbox, wire
from penstock.runtime.bodies import Receiver, Sender
from penstock.runtime.frames import Credit, Word
from penstock.runtime.wire import INLINE, MAX_BODY, STREAMS, Frame
from penstock.runtime.wire_web import encode_visit

_ENDINGS = (*Ending, Ending.OK)  # by number; the last is that of a batch, whose parts have their own
_TAIL = 16 * 1024
_AHEAD = 1.0  # seconds by which two readings of the clock may differ, and much more
_MOST_ERROR = 2 << 20
_LAST_MOMENTS = 1.0  # seconds between the end of a stream and that of its process


class LocalInstance:
    """Be one process, or one that is about to run."""

    def __init__(
        self,
        number: int,
        blueprint: Blueprint,
        listener: Listener,
        kill: Callable[["LocalInstance"], None],
        loop: asyncio.AbstractEventLoop,
        line: socket.socket | None,
    ) -> None:
        self.id = number
        self.blueprint = blueprint
        self.pid = 0
        self.killed = False
        self.gone = False
        self.trouble = ""
        self._listener = listener
        self._ask_to_kill = kill
        self._running: dict[int, int] = {}  # how many tasks of a batch each execution has, 0 if it is none
        self._visits = Allowance()
        self._defined: set[int] = set()
        self._sending = Sender()
        self._arriving: Receiver[wire.End | wire.Order] = Receiver()
        self._stopped = False
        self._lost = line is None
        self._then: Callable[[], None] | None = None
        self._connection = NoConnection() if line is None else Connection(loop, line, self._take, self.lose)
        self._loop = loop

    def __repr__(self) -> str:
        return f"LocalInstance({self.id} of {self.blueprint.function} version {self.blueprint.version})"

    def run(self, runs: Sequence[Run]) -> None:
        """Send executions, in one write."""
        if self.gone:
            return
        frames: list[bytes] = []
        for run in runs:
            pipeline, payload = run.pipeline, run.payload
            size = len(payload)
            if size > MAX_BODY:
                self._refuse(run, f"The payload is {size} bytes; an instance takes at most {MAX_BODY}.")
                continue
            if pipeline.key not in self._defined:
                try:
                    frames.append(wire.encode_define(pipeline.key, pipeline.name, pipeline.params))
                except wire.WireError as error:
                    self._refuse(run, str(error))
                    continue
                self._defined.add(pipeline.key)
            self._running[run.attempt] = len(run.batch)
            if run.batch:
                frames.append(wire.encode_batch(run.attempt, run.batch))
            if run.head is not None:
                self._visits.begin(run.attempt)
                frames.append(encode_visit(run.attempt, run.more, run.head))
            body = payload if size <= INLINE else b""
            frames.append(
                wire.encode_open(run.attempt, run.task, run.number, run.dated, run.timeout, pipeline.key, size, body)
            )
            if size > INLINE:
                frames.append(self._sending.begin(run.attempt, payload))
        self._connection.send(b"".join(frames))

    def cancel(self, attempts: Sequence[int]) -> None:
        """Cancel executions."""
        for attempt in attempts:
            self._sending.drop(attempt)
        self._connection.send(b"".join([wire.encode_cancel(attempt) for attempt in attempts]))

    def answer(self, answers: Sequence[wire.Answer | wire.Reply]) -> None:
        """Answer what executions have asked of limits, and reply to orders."""
        frames = []
        for answer in answers:
            if isinstance(answer, wire.Answer):
                frames.append(wire.encode_answer(*answer))
                continue
            frames.append(wire.announce_reply(answer))
            if answer.size > INLINE:
                frames.append(self._sending.begin(wire.ORDERS | answer.number, answer.body))
        self._connection.send(b"".join(frames))

    def tell(self, words: Sequence[Word]) -> None:
        """Tell web requests what came for them."""
        mine = [word for word in words if word.attempt in self._visits]
        for word in mine:
            if isinstance(word, Credit):
                self._visits.grant(word)
        self._connection.send(b"".join(map(wire.encode, mine)))

    def stop(self) -> None:
        """Let it end by itself when it has finished what it has."""
        if not self._stopped:
            self._stopped = True
            self._connection.send(wire.encode_stop())

    def kill(self) -> None:
        """End it now."""
        if not self.killed and not self.gone:
            self.killed = True
            self._ask_to_kill(self)

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._connection.send(wire.encode_ping())

    def depart(self, exit: Exit, home: Path | None) -> None:  # noqa: A002
        """Tell the rest of what there is to tell of a process that has ended, and then that it is gone.

        `home` is its own folder, None if it never had one.
        """
        if self.gone:
            return
        self._connection.drain()
        self.gone = True
        self._connection.close()
        detail = exit.detail or self.trouble
        if home is not None and (exit.code != 0 or self._running):
            detail = f"{detail}\n{self._tell_last_output(home)}".strip()
        self._running.clear()
        self._visits.clear()
        killed = self.killed and exit.code is None
        self._listener.gone(self, replace(exit, killed=killed, detail=detail))

    def _tell_last_output(self, home: Path) -> str:
        """Tell of output that the process could not send any more; return the end of its file."""
        for frame in blackbox.recover(_end_of(home / "box", blackbox.SIZE)):
            if frame.attempt in self._running or not frame.attempt:
                self._listener.output(self, frame.attempt, STREAMS[frame.stream], frame.text)
        text = _end_of(home / "output", _TAIL).decode("utf-8", "replace")
        if text:
            alone = len(self._running) == 1 and self.blueprint.slots == 1
            self._listener.output(self, next(iter(self._running)) if alone else 0, "stderr", text)
        return text

    def _take(self, frames: list[Frame]) -> None:
        """Act on the frames of one read: each kind of event is told once, for all of them."""
        ends: list[End] = []
        starts: list[tuple[int, float]] = []
        requests: list[wire.Request] = []
        words: list[Word] = []
        latest = time.monotonic() + _AHEAD
        for frame in frames:
            if isinstance(frame, wire.End):
                _check_end(frame, latest)
                if frame.size == len(frame.body):
                    self._end(frame, frame.body, ends)
                else:
                    self._arriving.expect(frame)
            elif isinstance(frame, wire.Started):
                _check_moment(frame.at, latest)
                if frame.attempt in self._running:
                    starts.append((frame.attempt, frame.at))
            elif isinstance(frame, Word) and self._is_for_visit(frame):
                self._visits.take(frame)
                words.append(frame)
            elif isinstance(frame, wire.Request):
                self._request(frame, requests)
            elif isinstance(frame, wire.Log):
                if starts:
                    self._listener.started(self, starts)
                    starts = []
                attempt = frame.attempt if frame.attempt in self._running else 0
                self._listener.output(self, attempt, STREAMS[frame.stream], frame.text)
            else:
                self._take_other(frame, ends, requests)
        self._tell_all(starts, words, requests, ends)

    def _tell_all(
        self,
        starts: list[tuple[int, float]],
        words: list[Word],
        requests: list[wire.Request],
        ends: list[End],
    ) -> None:
        if starts:
            self._listener.started(self, starts)
        if words:
            self._listener.heard(self, words)
        if requests:
            self._listener.asked(self, requests)
        if ends:
            self._listener.finished(self, ends)

    def _is_for_visit(self, word: Word) -> bool:
        """Say whether a word is for a web request, and not about a long body that is on its way to it otherwise."""
        return word.attempt in self._visits and not (isinstance(word, wire.Credit) and word.attempt in self._sending)

    def _request(self, frame: wire.Request, requests: list[wire.Request]) -> None:
        if isinstance(frame, wire.Order) and frame.size != len(frame.body):
            self._arriving.expect(frame)
        else:
            if isinstance(frame, wire.Took):
                _check_moment(frame.at, time.monotonic() + _AHEAD)
            requests.append(frame)

    def _take_other(self, frame: Frame, ends: list[End], requests: list[wire.Request]) -> None:
        if isinstance(frame, wire.Data):
            credit, complete = self._arriving.take(frame)
            if complete:
                head, body = complete
                if isinstance(head, wire.End):
                    self._end(head, body, ends)
                else:
                    requests.append(head._replace(body=body))
            elif credit:
                self._connection.send(credit)
        elif isinstance(frame, wire.Credit):
            self._connection.send(self._sending.credit(frame.attempt, frame.granted))
        elif isinstance(frame, wire.Hello):
            self.pid = frame.pid
            self._listener.ready(self, frame.at)
        elif isinstance(frame, wire.Pong):
            self._listener.answers(self, frame.at)
        else:
            raise wire.WireError(f"a {type(frame).__name__} frame makes no sense to the server")

    def _end(self, frame: wire.End, body: bytes, ends: list[End]) -> None:
        """Note an end; one of an execution that does not run here is not believed."""
        attempt = frame.attempt
        tasks = self._running.pop(attempt, None)
        if tasks is not None:
            self._visits.end(attempt)
            if frame.ending in {wire.ERROR, wire.THROTTLED} or (body and frame.ending == wire.CANCELLED):
                _check_error(body)
            ends.append(
                End(
                    attempt,
                    _ENDINGS[frame.ending],
                    body,
                    frame.started,
                    frame.finished,
                    frame.retry_after,
                    frame.limit or None,
                    _parts(frame, body, tasks) if tasks or frame.ending == wire.PARTS else (),
                )
            )

    def _refuse(self, run: Run, message: str) -> None:
        """Report soon that an execution cannot be sent."""
        now = time.monotonic()
        body = json.dumps({"type": "TooLarge", "message": message, "traceback": ""}).encode()
        self._loop.call_soon(self._report, End(run.attempt, Ending.ERROR, body, now, now))

    def _report(self, end: End) -> None:
        if not self.gone:
            self._listener.finished(self, [end])

    def lose(self, trouble: str) -> None:
        """Act on the end of the stream: the process is ending, or breaks the rules."""
        self._lost = True
        if trouble:
            self.trouble = f"The instance was ended because it broke the protocol: {trouble}."
            self._ask_to_kill(self)
        elif not self.gone:
            self._loop.call_later(_LAST_MOMENTS, self._end_without_line)
        if self._then is not None:
            self._then()

    def _end_without_line(self) -> None:
        """End a process that has closed its stream and goes on: nobody will ever hear of what it does."""
        if not self.gone:
            self.trouble = "The instance was ended because it had closed its line to the server."
            self._ask_to_kill(self)

    def when_lost(self, then: Callable[[], None]) -> None:
        """Call back when the stream has ended; soon if it has already."""
        if self._lost:
            self._loop.call_soon(then)
        self._then = then


def _check_moment(at: float, latest: float) -> None:
    """Check that something can have happened at a moment: limits count from it. Raises `WireError`."""
    if not 0.0 <= at <= latest:
        raise wire.WireError(f"something is said to have happened at {at}, which is yet to come")


def _check_end(end: wire.End, latest: float) -> None:
    _check_moment(end.started, latest)
    _check_moment(end.finished, latest)
    if end.retry_after is not None and not 0.0 <= end.retry_after < math.inf:
        raise wire.WireError(f"an execution is to be tried again in {end.retry_after} s")


def _check_error(body: bytes) -> None:
    """Check that an error can be told to people. Raises `WireError`."""
    try:
        error = json.loads(body) if len(body) <= _MOST_ERROR else None
    except (ValueError, RecursionError):
        error = None
    if not isinstance(error, dict) or not all(isinstance(error.get(part), str) for part in ("type", "message")):
        raise wire.WireError("an execution ended with an error that cannot be read")


def _parts(frame: wire.End, body: bytes, tasks: int) -> tuple[Part, ...]:
    """Return what an end tells of each task of a batch; nothing if it speaks of the whole. Raises `WireError`."""
    if frame.ending not in {wire.OK, wire.PARTS}:
        return ()
    parts = wire.decode_parts(body) if frame.ending == wire.PARTS else []
    if len(parts) != tasks:
        raise wire.WireError(f"the end of an execution with {tasks} tasks tells of {len(parts)}")
    return tuple(Part(_ENDINGS[ending], one) for ending, one in parts)


def _end_of(path: Path, limit: int) -> bytes:
    """Return the last bytes of a file that an instance wrote; nothing if it is no plain file any more."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        status = os.fstat(file)
        return os.pread(file, limit, max(0, status.st_size - limit)) if stat.S_ISREG(status.st_mode) else b""
    finally:
        os.close(file)
