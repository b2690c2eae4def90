"""Limits inside a task: what `context.acquire`, `slot` and `spent` do, for `def` and for `async def` handlers.

Each request has a number among those of its execution, and one answer. Who waits for it hears it through `put`. What rates
grant is dated when the handler has gone on, as the start of a handler is.
"""

import math
from abc import ABC, abstractmethod
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final, Protocol

from penstock.runtime import wire
from penstock.runtime.errors import CostTooHigh, HoldAndWait, LimitError, UnknownLimit
from penstock.runtime.frames import LONGEST_NAME
from penstock.runtime.wire import Answer, Reply

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from penstock.runtime.channel import Channel

_ERRORS: Final = {
    wire.MISUSED: LimitError,
    wire.UNKNOWN: UnknownLimit,
    wire.HOLDS: HoldAndWait,
    wire.TOO_COSTLY: CostTooHigh,
}
_ENDED: Final = "The task has ended, and asks for nothing any more."


class Hearer(Protocol):
    """Wait for an answer."""

    def put(self, answer: Any) -> None:
        """Hear it, in the thread that reads."""


class Taking(ABC):
    """Ask the server for units, and let who waits hear the answer."""

    def __init__(self, channel: "Channel") -> None:
        self.channel = channel
        self._numbers = count(1)
        self._waiting: dict[int, dict[int, tuple[Hearer, Callable[[int, int], Any]]]] = {}

    @abstractmethod
    def acquire(self, attempt: int, limit: str, cost: float) -> Any:
        """Take from a limit's rates (awaitable for `async def` handlers)."""

    @abstractmethod
    def slot(self, attempt: int, limit: str) -> Any:
        """Return a context manager that holds one unit of a limit's concurrency (an asynchronous one for `async def`)."""

    def spent(self, attempt: int, cost: float) -> None:
        """Tell what an execution has really cost so far."""
        if not 0 <= _number(cost) < math.inf:
            raise ValueError(f"what a task has spent is a number from 0 up, and not {cost!r}")
        self._check_home()
        self.channel.send(wire.encode_spent(attempt, float(cost)))

    def begin(self, attempt: int) -> None:
        """Let an execution ask, until it ends."""
        self._waiting[attempt] = {}

    def answer(self, answer: "Answer | Reply") -> None:
        """Pass an answer on. Whoever asked may have gone."""
        waiting = self._waiting.get(answer.attempt)
        known = None if waiting is None else waiting.pop(answer.number, None)
        if known is not None:
            known[0].put(answer)

    def end(self, attempt: int) -> None:
        """Let nobody wait on behalf of an execution that has ended: threads and tasks that it left behind."""
        for number, (hearer, last) in list(
            self._waiting.pop(attempt, {}).items()
        ):  # others ask, and hear, at this moment
            hearer.put(last(attempt, number))

    def _ask(self, attempt: int, limit: str, cost: float, hearer: Hearer, *, slot: bool) -> int:
        if not isinstance(limit, str):
            raise TypeError(f"a limit is named by a text, and not by {limit!r}")
        if not 0 < _number(cost) < math.inf:
            raise ValueError(f"a cost is a number above 0, and not {cost!r}")
        if len(limit) > LONGEST_NAME:
            raise UnknownLimit(
                f"There is no limit with a name of {len(limit):,} characters: names have {LONGEST_NAME} at most."
            )
        number = self.register(attempt, hearer, _ended)
        self.channel.send(wire.encode_take(attempt, number, slot, float(cost), limit))
        return number

    def register(self, attempt: int, hearer: Hearer, last: "Callable[[int, int], Any]") -> int:
        """Let somebody hear the answer to a request, and `last` if there is none by the end; return its number."""
        self._check_home()
        number = next(self._numbers)
        waiting = self._waiting.get(attempt, {})
        waiting[number] = hearer, last
        if self._waiting.get(attempt) is not waiting:  # it has ended, perhaps just now
            raise LimitError(_ENDED)
        return number

    def _give(self, attempt: int, number: int) -> None:
        waiting = self._waiting.get(attempt)
        if waiting is not None:
            waiting.pop(number, None)
        if not self.channel.abandoned:  # a forked child leaves the block too, and it is not its own
            self.channel.send(wire.encode_give(attempt, number))

    def _check_home(self) -> None:
        if self.channel.abandoned:
            raise LimitError(
                "This process was forked by the handler and has no way to Penstock. "
                "Use the context in the handler's own process."
            )


class SyncTaking(Taking):
    """Let threads wait. `wait` returns the answer that comes into a queue, `date` tells when the handler went on."""

    def __init__(
        self,
        channel: "Channel",
        wait: "Callable[[SimpleQueue[Any]], Any]",
        date: "Callable[[Callable[[float], bytes]], None]",
    ) -> None:
        super().__init__(channel)
        self._wait = wait
        self._date = date

    def acquire(self, attempt: int, limit: str, cost: float) -> None:
        """Take from a limit's rates; return when they let it."""
        number = self.take(attempt, limit, cost, slot=False)
        self._date(lambda at: wire.encode_took(attempt, number, at))

    def slot(self, attempt: int, limit: str) -> "Slot":
        """Return a context manager that holds one unit of a limit's concurrency."""
        return Slot(self, attempt, limit)

    def take(self, attempt: int, limit: str, cost: float, *, slot: bool) -> int:
        """Ask, and wait for the answer. Raises `LimitError` if it is no."""
        answers: SimpleQueue[Answer] = SimpleQueue()
        number = self._ask(attempt, limit, cost, answers, slot=slot)
        try:
            _check(self._wait(answers))
        except LimitError:
            raise
        except BaseException:  # a signal's exception, while it waited
            self._give(attempt, number)
            raise
        return number

    def give(self, attempt: int, number: int) -> None:
        """Give a unit back."""
        self._give(attempt, number)


class Slot:
    """Hold one unit of a limit's concurrency within a `with` block."""

    def __init__(self, taking: SyncTaking, attempt: int, limit: str) -> None:
        self._taking, self._attempt, self._limit = taking, attempt, limit
        self._number = 0

    def __enter__(self) -> None:
        self._number = self._taking.take(self._attempt, self._limit, 1.0, slot=True)

    def __exit__(self, *_: object) -> None:
        self._taking.give(self._attempt, self._number)


class AsyncTaking(Taking):
    """Let coroutines wait. `date` notes that the handler of an execution goes on with a request now."""

    def __init__(self, channel: "Channel", date: "Callable[[int, int], None]") -> None:
        super().__init__(channel)
        self._date = date

    async def acquire(self, attempt: int, limit: str, cost: float) -> None:
        """Take from a limit's rates; return when they let it."""
        number = await self.take(attempt, limit, cost, slot=False)
        self._date(attempt, number)

    def slot(self, attempt: int, limit: str) -> "AsyncSlot":
        """Return a context manager that holds one unit of a limit's concurrency."""
        return AsyncSlot(self, attempt, limit)

    async def take(self, attempt: int, limit: str, cost: float, *, slot: bool) -> int:
        """Ask, and wait for the answer. Raises `LimitError` if it is no."""
        hearer = self.future()
        number = self._ask(attempt, limit, cost, hearer, slot=slot)
        try:
            answer: Answer = await hearer.future
        except BaseException:  # cancelled, perhaps just when it was granted
            self._give(attempt, number)
            raise
        _check(answer)
        return number

    def give(self, attempt: int, number: int) -> None:
        """Give a unit back."""
        self._give(attempt, number)

    @staticmethod
    def future() -> "Future":
        """Return something that hears an answer in the event loop."""
        return Future()


class AsyncSlot:
    """Hold one unit of a limit's concurrency within an `async with` block."""

    def __init__(self, taking: AsyncTaking, attempt: int, limit: str) -> None:
        self._taking, self._attempt, self._limit = taking, attempt, limit
        self._number = 0

    async def __aenter__(self) -> None:
        self._number = await self._taking.take(self._attempt, self._limit, 1.0, slot=True)

    async def __aexit__(self, *_: object) -> None:
        self._taking.give(self._attempt, self._number)


class Future:
    """Hear an answer in the event loop."""

    def __init__(self) -> None:
        from asyncio import get_running_loop  # noqa: PLC0415 - asyncio is not for those who do not use it

        self.future: asyncio.Future[Any] = get_running_loop().create_future()

    def put(self, answer: Any) -> None:
        """Hear it."""
        if not self.future.done():
            self.future.set_result(answer)


def _ended(attempt: int, number: int) -> Answer:
    return Answer(attempt, number, wire.MISUSED, _ENDED)


def _check(answer: Answer) -> None:
    if answer.refusal != wire.GRANTED:
        raise _ERRORS[answer.refusal](answer.message)


def _number(value: object) -> float:
    """Return a number as it is, and NaN for what is none."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
