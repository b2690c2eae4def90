"""Work that a task makes: what `context.invoke`, `send` and `map` do, for `def` and for `async def` handlers.

An order is a request like those of `taking`, and has one reply. While the handler waits for one, its task rests on the
server: others may use what it holds. It goes on when the last reply that it waits for comes, with what it held.
"""

import json
from abc import ABC, abstractmethod
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from penstock.runtime import wire
from penstock.runtime.errors import (
    CallError,
    CallFailed,
    CallRefused,
    HoldAndWait,
    LimitError,
    TooDeep,
    TooManyWait,
)
from penstock.runtime.results import decode_event, encode_json
from penstock.runtime.wire import Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from penstock.runtime.taking import AsyncTaking, SyncTaking, Taking

AHEAD: Final = 1000
"""How many calls of a map may be under way at once."""

AHEAD_BYTES: Final = 16 << 20
"""The most bytes that their payloads have together; a single one always may."""

LONGEST_TARGET: Final = 300

_REFUSALS: Final = {"too-deep": TooDeep, "too-many-wait": TooManyWait}


class Orders(ABC):
    """Order work. What is waited for is known to `taking`, which hears all that is told to executions."""

    def __init__(self, taking: "Taking") -> None:
        self._requests = taking

    @abstractmethod
    def invoke(self, attempt: int, target: str, payload: Any, options: "dict[str, Any]") -> Any:
        """Call a function or a pipeline and return its result (awaitable for `async def` handlers)."""

    @abstractmethod
    def send(self, attempt: int, target: str, payload: Any, options: "dict[str, Any]") -> Any:
        """Send a task and return its id (awaitable for `async def` handlers)."""

    @abstractmethod
    def map(self, attempt: int, target: str, items: "Iterable[Any]", failures: bool) -> Any:
        """Call a function or a pipeline with each item; yield the results in order (asynchronously for `async def`)."""

    def _order(
        self, attempt: int, verb: int, target: str, payload: bytes, options: "dict[str, Any]", hearer: Any, waits: bool
    ) -> int:
        """Tell the server; return the number of the order."""
        if not isinstance(target, str):
            raise TypeError(f"a pipeline or a function is named by a text, and not by {target!r}")
        if not 0 < len(target) <= LONGEST_TARGET:
            raise CallRefused(f"There is no pipeline and no function with a name of {len(target):,} characters.")
        size = len(payload)
        if size > wire.MAX_ORDER:
            raise CallRefused(
                f"The payload has {size:,} bytes; a task may give {wire.MAX_ORDER:,} to another. Pass a reference to the data.",
                "too-large",
            )
        given = json.dumps({name: value for name, value in options.items() if value is not None}).encode()
        if len(given) > wire.MAX_OPTIONS:
            raise CallRefused(f"What is said about the task besides its payload has {len(given):,} bytes: too many.")
        try:
            number = self._requests.register(attempt, hearer, over)
        except LimitError as error:
            raise CallRefused(str(error), "conflict") from None
        channel = self._requests.channel
        channel.send(channel.encode_order(attempt, number, verb, waits, target, given, payload))
        return number

    def _withdraw(self, attempt: int, number: int) -> None:
        """Let the server know that an order is wanted no longer; it replies to that, too."""
        channel = self._requests.channel
        if not channel.abandoned:
            channel.send(wire.encode_give(attempt, number))


class SyncOrders(Orders):
    """Let threads wait. `wait` returns the reply that comes into a queue."""

    def __init__(self, taking: "SyncTaking", wait: "Callable[[SimpleQueue[Reply]], Reply]") -> None:
        super().__init__(taking)
        self._wait = wait

    def invoke(self, attempt: int, target: str, payload: Any, options: "dict[str, Any]") -> Any:
        """Call a function or a pipeline and return its result."""
        return self._make(attempt, wire.INVOKE, target, payload, options)

    def send(self, attempt: int, target: str, payload: Any, options: "dict[str, Any]") -> str:
        """Send a task and return its id."""
        return str(self._make(attempt, wire.SEND, target, payload, options))

    def _make(self, attempt: int, verb: int, target: str, payload: Any, options: "dict[str, Any]") -> Any:
        replies: SimpleQueue[Reply] = SimpleQueue()
        number = self._order(attempt, verb, target, encode_json(payload), options, replies, waits=True)
        try:
            return _result(self._wait(replies))
        except CallError:
            raise
        except BaseException:  # a signal's exception, while it waited
            self._withdraw(attempt, number)
            raise

    def map(self, attempt: int, target: str, items: "Iterable[Any]", failures: bool) -> "Iterator[Any]":
        """Yield the results of all items, in order."""
        source, ahead = Ahead(items), deque[tuple[int, SimpleQueue[Reply], int]]()
        try:
            while True:
                for payload in source.more():
                    replies: SimpleQueue[Reply] = SimpleQueue()
                    number = self._order(attempt, wire.INVOKE, target, payload, {}, replies, waits=False)
                    ahead.append((number, replies, len(payload)))
                if not ahead:
                    return
                number, replies, size = ahead[0]
                if replies.empty():
                    self._requests.channel.send(wire.encode_wait(attempt, number))
                result = _either(self._wait(replies))
                ahead.popleft()
                source.less(size)
                if isinstance(result, CallError) and not failures:
                    raise result
                yield result
        finally:
            for number, replies, _ in ahead:
                if replies.empty():
                    self._withdraw(attempt, number)


class AsyncOrders(Orders):
    """Let coroutines wait."""

    def __init__(self, taking: "AsyncTaking") -> None:
        super().__init__(taking)
        self._future = taking.future

    async def invoke(self, attempt: int, target: str, payload: Any, options: "dict[str, Any]") -> Any:
        """Call a function or a pipeline and return its result."""
        return await self._make(attempt, wire.INVOKE, target, payload, options)

    async def send(self, attempt: int, target: str, payload: Any, options: "dict[str, Any]") -> str:
        """Send a task and return its id."""
        return str(await self._make(attempt, wire.SEND, target, payload, options))

    async def _make(self, attempt: int, verb: int, target: str, payload: Any, options: "dict[str, Any]") -> Any:
        hearer = self._future()
        number = self._order(attempt, verb, target, encode_json(payload), options, hearer, waits=True)
        return _result(await self._hear(attempt, number, hearer))

    async def _hear(self, attempt: int, number: int, hearer: Any) -> Reply:
        """Wait for a reply. Who is cancelled meanwhile goes on when the server says that its task may."""
        from asyncio import shield  # noqa: PLC0415 - asyncio is not for those who do not use it

        try:
            reply: Reply = await shield(hearer.future)
        except BaseException:
            if not hearer.future.done():
                self._withdraw(attempt, number)
                await shield(hearer.future)
            raise
        return reply

    async def map(self, attempt: int, target: str, items: "Iterable[Any]", failures: bool) -> "AsyncIterator[Any]":
        """Yield the results of all items, in order."""
        source, ahead = Ahead(items), deque[tuple[int, Any, int]]()
        try:
            while True:
                for payload in source.more():
                    hearer = self._future()
                    number = self._order(attempt, wire.INVOKE, target, payload, {}, hearer, waits=False)
                    ahead.append((number, hearer, len(payload)))
                if not ahead:
                    return
                number, hearer, size = ahead[0]
                if not hearer.future.done():
                    self._requests.channel.send(wire.encode_wait(attempt, number))
                result = _either(await self._hear(attempt, number, hearer))
                ahead.popleft()
                source.less(size)
                if isinstance(result, CallError) and not failures:
                    raise result
                yield result
        finally:
            for number, hearer, _ in ahead:
                if not hearer.future.done():
                    self._withdraw(attempt, number)


class Ahead:
    """Take items from an iterator while there is room for more calls."""

    def __init__(self, items: "Iterable[Any]") -> None:
        self._items = iter(items)
        self._count = self._bytes = 0

    def more(self) -> "Iterator[bytes]":
        """Yield payloads until there is no room, or nothing is left."""
        while self._count < AHEAD and self._bytes < AHEAD_BYTES:
            try:
                item = next(self._items)
            except StopIteration:
                return
            payload = encode_json(item)
            self._count += 1
            self._bytes += len(payload)
            yield payload

    def less(self, size: int) -> None:
        """Take note that one of them has its reply."""
        self._count -= 1
        self._bytes -= size


def _result(reply: Reply) -> Any:
    result = _either(reply)
    if isinstance(result, CallError):
        raise result
    return result


def _either(reply: Reply) -> Any:
    """Return what a reply says: a result, or the error that there is instead. Raises `HoldAndWait`."""
    if reply.status == wire.DONE:
        return decode_event(reply.body)
    said = json.loads(reply.body)
    if reply.status == wire.REFUSED:
        code, message = said["code"], said["message"]
        if code == "holds":
            raise HoldAndWait(message)
        return _REFUSALS.get(code, CallRefused)(message, code)
    error = said["error"] if isinstance(said.get("error"), dict) else {}
    kind, message = str(error.get("type") or ""), str(error.get("message") or "")
    return CallFailed(
        f"The call ended as {said['outcome']}" + (f": {kind}: {message}" if kind else "."),
        outcome=said["outcome"],
        task=said["task"],
        error_type=kind,
        error_message=message,
        traceback=str(error.get("traceback") or ""),
    )


def over(attempt: int, number: int) -> Reply:
    """Return the reply to an order of an execution that has ended."""
    body = b'{"code":"conflict","message":"The task has ended, and calls nothing any more."}'
    return Reply(attempt, number, wire.REFUSED, len(body), body)
