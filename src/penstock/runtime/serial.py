"""Serve `def` handlers one at a time: read, run, answer, in the main thread and without an event loop."""

from collections import deque

from penstock.runtime.results import Result, encode_exception
from penstock.runtime.serving import Execution, Serving
from penstock.runtime.wire import Open


class Serial(Serving):
    """Run one execution after the other."""

    _queue: "deque[Execution]"

    def serve(self) -> None:
        """Serve until there is nothing left to do after a stop."""
        self._queue = deque()
        queue, channel = self._queue, self.channel
        while queue or not self.finished:
            self.take(channel.receive(wait=not queue))
            if queue:
                self._execute(queue.popleft())

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
