"""How long a client waits: for a task to end, and between the ends of a stream that it follows."""

import random
import time

from penstock.client.calls import Seconds, seconds
from penstock.client.errors import ApiError, TaskNotEnded
from penstock.client.models import Task

LONG_POLL = 20.0
"""Seconds that one request waits for a task to end; a longer wait is several requests."""

LONGEST_PAUSE = 5.0
"""Seconds between two tries to begin a stream anew, at most."""

SILENCE = 60.0
"""Seconds after which a stream is given up in which nothing comes: a server shows every 15 s that it is there."""


class TaskWait:
    """Divide the wait for a task into long polls, and end it in time; `timeout` None waits for ever."""

    def __init__(self, timeout: Seconds | None) -> None:
        self._timeout = None if timeout is None else seconds(timeout)
        self._until = None if self._timeout is None else time.monotonic() + self._timeout

    def next_poll(self) -> float:
        """Return the seconds that the next request may wait."""
        return LONG_POLL if self._until is None else min(LONG_POLL, max(0.0, self._until - time.monotonic()))

    def check(self, task: Task) -> None:
        """Raise TaskNotEnded if the time is over."""
        if self._until is not None and time.monotonic() >= self._until:
            raise TaskNotEnded(
                f"Task {task.id} is still {task.state} after {self._timeout:g} s. It goes on; wait again, or cancel it.",
                code="task-not-ended",
                extras={"task": task.id, "state": task.state},
            )


class Reconnects:
    """Say how long to pause before a stream that broke, or ended with its server, is begun anew, and when to give up."""

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._failures = 0

    def heard(self) -> None:
        """Note that the stream is alive."""
        self._failures = 0

    def pause_after_end(self) -> float:
        """Return the seconds to pause after a server ended a stream as it stopped."""
        return float(0.2 * random.uniform(0.5, 1.0))

    def pause_after(self, failure: ApiError) -> float:
        """Return the seconds to pause. Raises the failure if it is one too many in a row."""
        if self._failures >= self._retries:
            raise failure
        self._failures += 1
        return float(min(LONGEST_PAUSE, 0.1 * 2**self._failures) * random.uniform(0.5, 1.0))
