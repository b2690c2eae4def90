"""Serve `def` handlers several at a time, each in a thread of a pool; the main thread reads."""

from collections.abc import Callable
from contextvars import copy_context
from queue import SimpleQueue
from threading import Thread
from typing import Any

from penstock.runtime.channel import Channel
from penstock.runtime.context import Place
from penstock.runtime.orders import SyncOrders
from penstock.runtime.results import Result, encode_exception
from penstock.runtime.serving import Execution, Serving
from penstock.runtime.taking import SyncTaking
from penstock.runtime.turns import seat
from penstock.runtime.wire import Open


class Threads(Serving):
    """Run up to `slots` executions at once. A thread is started when all others are busy."""

    def __init__(self, channel: Channel, handler: Callable[..., Any], place: Place, slots: int) -> None:
        super().__init__(channel, handler, place, slots)
        self.taking = SyncTaking(channel, lambda answers: answers.get(), self.tell_ahead)
        self.orders = SyncOrders(self.taking, lambda replies: replies.get())
        self._queue: SimpleQueue[Execution] = SimpleQueue()
        # Who takes an attempt out of here may end it: the thread that runs it, or the reader that cancels it.
        self._unstarted: dict[int, Execution] = {}
        self._live: set[int] = set()
        self._threads = 0

    def serve(self) -> None:
        """Serve until there is nothing left to do after a stop."""
        while self._live or not self.finished:
            self.take(self.channel.receive())

    def begin(self, opened: Open, payload: bytes) -> None:
        """Take an execution whose payload is complete."""
        execution = self.execution(opened, payload)
        self._unstarted[opened.attempt] = execution
        self._live.add(opened.attempt)
        self._queue.put(execution)
        if self._threads < self.slots and len(self._live) > self._threads:
            self._threads += 1
            name = f"penstock-{self._threads}"
            Thread(target=self._work, args=(self._threads - 1,), name=name, daemon=True).start()

    def cancel(self, attempt: int) -> None:
        """Cancel an execution that no thread has taken yet."""
        if self._unstarted.pop(attempt, None) is not None:
            self.channel.send(self.encode_unstarted(attempt))
            self._live.discard(attempt)

    def _work(self, row: int) -> None:
        take = seat(self.place.turns, row)
        while True:
            execution = self._queue.get()
            attempt = execution.opened.attempt
            if self._unstarted.pop(attempt, None) is None:
                continue
            take(attempt)
            result = copy_context().run(self._run, execution)
            take(0)
            self.channel.send(self.output.raw(0) + self.encode_end(execution, result))
            self._live.discard(attempt)
            if self.finished and not self._live:  # the reader waits for frames, and there may be none any more
                self.channel.end_process(0)

    def _run(self, execution: Execution) -> Result:
        self.output.current.set(execution.capture)
        try:
            return self.call(execution)
        except BaseException as error:  # SystemExit too: it ends the task, not the instance
            return encode_exception(error)

    def call(self, execution: Execution) -> Result:
        """Call the handler, and return what its work came to."""
        event = execution.decode()
        context = self.context(execution)
        self.tell_start(execution)
        return execution.encode(self.handler(event, context))
