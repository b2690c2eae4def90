"""Serve `def` handlers one at a time: read, run, answer, in the main thread and without an event loop.

While a handler waits for a limit or for a call, the thread that waits reads on; where several wait, one of them reads for all.
"""

import os
import traceback
from collections import deque
from collections.abc import Callable
from threading import Condition
from typing import TYPE_CHECKING, Any

from penstock.runtime.channel import Channel
from penstock.runtime.context import Place
from penstock.runtime.orders import SyncOrders
from penstock.runtime.results import Result, encode_exception
from penstock.runtime.serving import Execution, Serving
from penstock.runtime.taking import SyncTaking
from penstock.runtime.wire import Open, WireError

if TYPE_CHECKING:
    from queue import SimpleQueue


class Serial(Serving):
    """Run one execution after the other."""

    def __init__(self, channel: Channel, handler: Callable[..., Any], place: Place, slots: int) -> None:
        super().__init__(channel, handler, place, slots)
        self.taking = SyncTaking(channel, self._wait, self.tell_ahead)
        self.orders = SyncOrders(self.taking, self._wait)
        self._queue: deque[Execution] = deque()
        self._turn = Condition()
        self._read_by_other = False

    def serve(self) -> None:
        """Serve until there is nothing left to do after a stop."""
        while (execution := self._next()) is not None:
            self._execute(execution)

    def _next(self) -> "Execution | None":
        """Return the next execution; None when there is none left to come."""
        queue = self._queue
        with self._turn:
            if queue and not self._read_by_other:
                self.take(self.channel.receive(wait=False))  # it may have been cancelled
            self._read_until(lambda: queue or self.finished)
            return queue.popleft() if queue else None

    def _wait(self, answers: "SimpleQueue[Any]") -> Any:
        """Return the answer that comes, and act on all that comes before it."""
        with self._turn:
            try:
                self._read_until(lambda: not answers.empty())
            except WireError:  # not the handler's to see
                traceback.print_exc()
                os._exit(1)
        return answers.get()

    def _read_until(self, arrived: Callable[[], object]) -> None:
        """Read frames until something has arrived; whoever comes while another thread reads waits for that one."""
        while not arrived():
            if self._read_by_other:
                self._turn.wait()
                continue
            self._read_by_other = True
            self._turn.release()
            try:
                frames = self.channel.receive()
            finally:
                self._turn.acquire()
                self._read_by_other = False
                self._turn.notify_all()
            self.take(frames)

    def begin(self, opened: Open, payload: bytes) -> None:
        """Take an execution whose payload is complete."""
        self._queue.append(self.execution(opened, payload))

    def cancel(self, attempt: int) -> None:
        """Take an execution that has not started out of the queue."""
        for execution in self._queue:
            if execution.opened.attempt == attempt:
                self._queue.remove(execution)
                self.channel.send(self.encode_unstarted(attempt))
                return

    def _execute(self, execution: Execution) -> None:
        self.output.only = execution.capture
        result = self._run(execution)
        self.output.only = self.output.nobody
        attempt = execution.opened.attempt
        self.channel.send(self.output.raw(attempt) + self.encode_end(execution, result))

    def _run(self, execution: Execution) -> Result:
        try:
            event = execution.decode()
            context = self.context(execution)
            self.tell_start(execution)
            return execution.encode(self.handler(event, context))
        except BaseException as error:  # SystemExit too: it ends the task, not the instance
            return encode_exception(error)
