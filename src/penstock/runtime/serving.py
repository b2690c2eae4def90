"""What every way to serve has in common: frames become executions, executions become ends."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from penstock.runtime import wire, within
from penstock.runtime.batches import Tasks
from penstock.runtime.bodies import Receiver
from penstock.runtime.channel import Channel
from penstock.runtime.context import Context, Place
from penstock.runtime.frames import Close, Piece, Visit, Word
from penstock.runtime.orders import Orders
from penstock.runtime.output import Capture
from penstock.runtime.results import Result, decode_event, encode_result
from penstock.runtime.taking import Taking
from penstock.runtime.wire import CANCELLED, Define, Entry, Frame, Open

now = time.monotonic

_AHEAD = 0.001
"""Seconds by which the date of a start is ahead of the moment at which it is told."""


class NoWebApp(Exception):
    """Report a web request to a handler that takes none."""


class WebApp(Exception):
    """Report a task for a handler that takes web requests only."""


class ClientGone(OSError):
    """Report that nobody takes the answer to a web request any more."""


class Execution:
    """Hold one execution from its arrival to its end. `started` is the moment of the handler's start."""

    __slots__ = ("batch", "capture", "opened", "payload", "started", "visit")

    def __init__(
        self, opened: Open, payload: bytes, batch: "Tasks | None" = None, visit: "Visit | None" = None
    ) -> None:
        self.batch = batch
        self.opened = opened
        self.payload = payload
        self.visit = visit
        self.capture = Capture(opened.attempt)
        self.started: float | None = None

    def decode(self) -> Any:
        """Return what the handler is called with: an event, or those of a batch. Raises `NotJSON` and `NoWebApp`."""
        if self.visit is not None:
            raise NoWebApp("the handler takes events, and no web requests: it is neither an ASGI nor a WSGI app")
        return decode_event(self.payload) if self.batch is None else self.batch.decode(self.payload)

    def encode(self, value: Any) -> Result:
        """Return what the handler's return value comes to."""
        return encode_result(value) if self.batch is None else self.batch.encode(value)


class Serving(ABC):
    """Serve executions until told to stop."""

    taking: Taking
    orders: Orders

    def __init__(self, channel: Channel, handler: Callable[..., Any], place: Place, slots: int) -> None:
        self.channel = channel
        self.handler = handler
        self.place = place
        self.slots = slots
        self.output = place.output
        self.stopping = False
        self._pipelines: dict[int, Define] = {}
        self._arriving: Receiver[Open | wire.Reply] = Receiver()
        self._batches: dict[int, tuple[Entry, ...]] = {}  # announced, and not here yet
        self._visits: dict[int, Visit] = {}  # the same

    def prepare(self) -> None:  # noqa: B027 - most have nothing to do
        """Do what is to be done before the first execution is asked for."""

    def told(self, word: Word) -> None:  # noqa: B027 - most serve no web requests
        """Take what comes for a web request."""

    @abstractmethod
    def serve(self) -> None:
        """Serve until there is nothing left to do after a stop."""

    @abstractmethod
    def begin(self, opened: Open, payload: bytes) -> None:
        """Take an execution whose payload is complete."""

    @abstractmethod
    def cancel(self, attempt: int) -> None:
        """Cancel an execution as far as that is possible."""

    def take(self, frames: "list[Frame] | None") -> None:
        """Act on frames; end the process if the server is gone. Raises `WireError` if they make no sense."""
        if frames is None:
            os._exit(0)
        for frame in frames:
            if isinstance(frame, (Open, wire.Reply)):
                if frame.size == len(frame.body):
                    self._arrived(frame, frame.body)
                else:
                    self._arriving.expect(frame)
            elif isinstance(frame, wire.Answer):
                self.taking.answer(frame)
            elif isinstance(frame, Visit):
                self._visits[frame.attempt] = frame
            elif isinstance(frame, (Piece, Close)):
                self.told(frame)
            else:
                self._take_other(frame)

    def _take_other(self, frame: Frame) -> None:
        if isinstance(frame, wire.Data):
            credit, complete = self._arriving.take(frame)
            if complete:
                self._arrived(*complete)
            elif credit:
                self.channel.send(credit)
        elif isinstance(frame, wire.Credit):
            self.channel.credit(frame)
            self.told(frame)
        elif isinstance(frame, Define):
            self._pipelines[frame.key] = frame
        elif isinstance(frame, wire.Cancel):
            if self._arriving.drop(frame.attempt):
                self._batches.pop(frame.attempt, None)
                self._visits.pop(frame.attempt, None)
                self.channel.send(self.encode_unstarted(frame.attempt))
            else:
                self.cancel(frame.attempt)
        elif isinstance(frame, wire.Batch):
            self._batches[frame.attempt] = frame.entries
        elif isinstance(frame, wire.Ping):
            self.channel.send(wire.encode_pong(now()))
        elif isinstance(frame, wire.Stop):
            self.stopping = True
        else:
            raise wire.WireError(f"a {type(frame).__name__} frame makes no sense to an instance")

    def _arrived(self, head: "Open | wire.Reply", body: bytes) -> None:
        if isinstance(head, Open):
            self.begin(head, body)
        else:
            self.taking.answer(head._replace(body=body))

    def execution(self, opened: Open, payload: bytes) -> Execution:
        """Return an execution that has arrived."""
        entries = self._batches.pop(opened.attempt, None) if self._batches else None
        visit = self._visits.pop(opened.attempt, None) if self._visits else None
        return Execution(opened, payload, None if entries is None else Tasks(entries), visit)

    def context(self, execution: Execution) -> Context:
        """Return what the handler is given; its clock starts now."""
        opened = execution.opened
        pipeline, until = self._pipelines[opened.pipeline], now() + opened.timeout
        self.taking.begin(opened.attempt)
        within.attempt.set(opened.attempt)
        return Context(self.place, opened, pipeline, execution.capture, until, self, execution.batch)

    def tell_start(self, execution: Execution) -> None:
        """Date the start of a handler that is called next, and tell of it if the server asked for that."""
        if execution.opened.dated:
            self.tell_ahead(partial(wire.encode_started, execution.opened.attempt))
        execution.started = now()

    def tell_ahead(self, encode: Callable[[float], bytes]) -> None:
        """Tell the moment at which a handler goes on next.

        It is a little ahead, and is told again if this process was interrupted for longer than that on the way: so the
        handler does not go on after it.
        """
        date = 0.0
        while now() > date:
            date = now() + _AHEAD
            self.channel.send(encode(date))

    def encode_end(self, execution: Execution, result: Result) -> bytes:
        """Send the last output of an execution; return the frames that tell of its end."""
        finished = now()
        started = finished if execution.started is None else execution.started
        ending, body, retry_after, limit = result
        attempt = execution.opened.attempt
        self.taking.end(attempt)
        self.output.end(execution.capture)
        return self.channel.encode_end(attempt, ending, started, finished, retry_after, limit, body)

    def encode_unstarted(self, attempt: int) -> bytes:
        """Return the frame that tells of the end of an execution that was cancelled before it started."""
        moment = now()
        return wire.encode_end(attempt, CANCELLED, moment, moment, None, "", 0, b"")

    @property
    def finished(self) -> bool:
        """Say whether a stop was asked for and no body is on its way any more."""
        return self.stopping and not self.channel.sending and not len(self._arriving)
