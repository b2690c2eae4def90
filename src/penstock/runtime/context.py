"""What a handler is told about its execution, and about where it runs."""

import json
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from penstock.runtime.lambdas import ARN, IDENTITY, Identity, log_group, log_stream
from penstock.runtime.orders import Orders
from penstock.runtime.output import Capture, Output
from penstock.runtime.taking import Taking
from penstock.runtime.wire import Define, Open

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.runtime.batches import Tasks
    from penstock.runtime.tasklog import TaskLog
    from penstock.runtime.turns import Turns


class Place(NamedTuple):
    """Hold what is the same for every execution in an instance."""

    function: str
    version: int
    memory: "int | None"
    tmpdir: str
    output: Output
    turns: "Turns | None" = None  # where it is noted whose turn it is, if several may be inside at once


class Ways(Protocol):
    """Hold the ways to the server that a context has."""

    taking: Taking
    orders: Orders


class Context:
    """Be the second argument of a handler: the attributes that AWS Lambda has, and Penstock's own."""

    __slots__ = (
        "_batch",
        "_capture",
        "_deadline",
        "_log",
        "_open",
        "_orders",
        "_params",
        "_pipeline",
        "_place",
        "_taking",
    )

    def __init__(
        self,
        place: Place,
        opened: Open,
        pipeline: Define,
        capture: Capture,
        deadline: float,
        ways: "Ways",
        batch: "Tasks | None" = None,
    ) -> None:
        self._place = place
        self._open = opened
        self._pipeline = pipeline
        self._capture = capture
        self._batch = batch
        self._deadline = deadline
        self._taking = ways.taking
        self._orders = ways.orders
        self._params: dict[str, Any] | None = None
        self._log: TaskLog | None = None

    @property
    def function_name(self) -> str:
        """Return the function's name."""
        return self._place.function

    @property
    def function_version(self) -> str:
        """Return the number of the version that runs, as text."""
        return str(self._place.version)

    @property
    def memory_limit_in_mb(self) -> "int | None":
        """Return the memory limit of the instance in MiB, None if it has none."""
        return None if self._place.memory is None else self._place.memory >> 20

    @property
    def task_id(self) -> str:
        """Return the task's name: 16 hexadecimal digits, the same in every attempt. Of a batch it is the first one's."""
        return f"{self._open.task:016x}"

    @property
    def aws_request_id(self) -> str:
        """Return the task's name, under the attribute that AWS Lambda has."""
        return self.task_id

    @property
    def invoked_function_arn(self) -> str:
        """Return a name in the form that AWS has for functions; its account and region are made up."""
        return f"{ARN}{self._place.function}:{self._place.version}"

    @property
    def log_group_name(self) -> str:
        """Return the name that the function's log group would have on AWS Lambda."""
        return log_group(self._place.function)

    @property
    def log_stream_name(self) -> str:
        """Return a name for the log stream of this version."""
        return log_stream(self._place.version)

    @property
    def identity(self) -> Identity:
        """Return who called with the identity of an Amazon Cognito user: nobody."""
        return IDENTITY

    @property
    def client_context(self) -> None:
        """Return what AWS's mobile SDK says of its program: nothing."""

    @property
    def tenant_id(self) -> None:
        """Return the tenant of an AWS Lambda function that has tenants: none."""

    @property
    def pipeline(self) -> str:
        """Return the name of the pipeline that the task came through."""
        return self._pipeline.name

    @property
    def attempt(self) -> int:
        """Return the number of this attempt; 1 is the first."""
        return self._open.number

    @property
    def batched(self) -> bool:
        """Say whether the handler was called with a list of events, because its pipeline has a batch."""
        return self._batch is not None

    @property
    def task_ids(self) -> "list[str]":
        """Return the names of the tasks in this call, in the order of their events."""
        return [self.task_id] if self._batch is None else [f"{entry.task:016x}" for entry in self._batch.entries]

    @property
    def attempts(self) -> "list[int]":
        """Return the numbers of the attempts of the tasks in this call, in the order of their events."""
        return [self.attempt] if self._batch is None else [entry.number for entry in self._batch.entries]

    @property
    def params(self) -> "dict[str, Any]":
        """Return the pipeline's params, a copy for this execution."""
        if self._params is None:
            self._params = json.loads(self._pipeline.params)
        return self._params

    @property
    def tmpdir(self) -> str:
        """Return a folder of this instance's own; it is wiped when the instance is gone."""
        return self._place.tmpdir

    @property
    def log(self) -> "TaskLog":
        """Return a logger whose records belong to this task."""
        if self._log is None:
            from penstock.runtime.tasklog import logger_for  # noqa: PLC0415 - logging is not for those who do not use it

            self._log = logger_for(self._place.output, self._capture)
        return self._log

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds that are left until this execution is timed out; never below 0."""
        return max(0, int((self._deadline - time.monotonic()) * 1000))

    def acquire(self, limit: str, cost: float = 1) -> Any:
        """Take from the rates of a shared limit and go on when they allow it: one task, and `cost` where cost is metered.

        To be awaited in an `async def` handler; in a `def` handler the call returns when it may go on. The wait counts
        within the timeout. Raises `LimitError`: `UnknownLimit`, `CostTooHigh`, or itself for a limit without a rate.
        """
        return self._taking.acquire(self._open.attempt, limit, cost)

    def slot(self, limit: str) -> Any:
        """Return a context manager that holds one unit of a shared limit's concurrency within its block.

        It is for `async with` in an `async def` handler, and for `with` in a `def` handler. A task may hold one at a time,
        and none of a limit that it came through. Raises `LimitError`: `UnknownLimit`, `HoldAndWait`, or itself for a limit
        without a concurrency.
        """
        return self._taking.slot(self._open.attempt, limit)

    def spent(self, cost: float) -> None:
        """Tell what this task has really cost so far, all in: limits that meter cost take that instead of what was sent."""
        self._taking.spent(self._open.attempt, cost)

    def invoke(self, target: str, payload: Any = None, *, timeout: "float | None" = None) -> Any:
        """Call a pipeline of this project (or, if none has that name, a function) and return its result.

        To be awaited in an `async def` handler. While it waits, the task holds neither its slot nor any concurrency, and
        takes them again before it goes on. The wait counts within its timeout; `timeout` (seconds) bounds the call itself.
        Raises `CallFailed` if the call ended without a result, `CallRefused` if it was not taken.
        """
        return self._orders.invoke(self._open.attempt, target, payload, {"timeout": timeout})

    def map(self, target: str, items: "Iterable[Any]", *, return_exceptions: bool = False) -> Any:
        """Call a pipeline or a function with each item, many at a time; yield the results in the order of the items.

        It is for `async for` in an `async def` handler, and for `for` in a `def` handler. A failed call raises `CallFailed`
        in its place and withdraws what has not ended; with `return_exceptions` the exception is yielded instead.
        """
        return self._orders.map(self._open.attempt, target, items, return_exceptions)

    def send(
        self,
        target: str,
        payload: Any = None,
        *,
        delay: "str | float | None" = None,
        key: "str | None" = None,
        cost: "float | None" = None,
        priority: "int | None" = None,
        expires_after: "str | float | None" = None,
    ) -> Any:
        """Send a task to a pipeline of this project (or, if none has that name, to a function) and return its id.

        To be awaited in an `async def` handler. It is on disk by then, and runs whatever becomes of this task. Raises
        `CallRefused` if it was not taken.
        """
        options = {"delay": delay, "key": key, "cost": cost, "priority": priority, "expires_after": expires_after}
        return self._orders.send(self._open.attempt, target, payload, options)

    def __repr__(self) -> str:
        return f"Context(task {self.task_id}, attempt {self.attempt}, pipeline {self.pipeline})"
