"""The async sender: connections that are kept alive, one call at a time on each, bounded in number."""

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar, cast

from penstock.client import waiting
from penstock.client.call import Call, Persistence, unreachable
from penstock.client.errors import ApiError, error_of
from penstock.client.events import EventReader, LineReader
from penstock.client.http1 import Address, Broken, Encoder, Response, ResponseReader, Silent, Unsent, parse_address
from penstock.client.sender import CONNECT_WITHIN, IDLE_FOR, READ_BYTES

T = TypeVar("T")


class Connection(asyncio.Protocol):
    """Carry one call at a time over one transport."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = ResponseReader()
        self._waiter: asyncio.Future[Response] | None = None
        self._transport: asyncio.Transport | None = None
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Feed the response in progress; what a server says unasked ends the connection."""
        if self._waiter is None:
            self.close()
            return
        try:
            if self._reader.feed(data):
                self._settle(self._reader.take())
        except Broken as failure:
            self._fail(failure)

    def eof_received(self) -> None:
        """Complete a response that ends with the stream."""
        if self._waiter is not None and self._reader.end():
            self._settle(self._reader.take())

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the call in progress."""
        self._transport = None
        if self._waiter is not None:
            self._fail(Broken(str(exc) if exc else "the connection ended before the answer was complete"))

    async def exchange(self, head: bytes, body: bytes | None, within: float | None) -> Response:
        """Send a request and return its response. Raises Broken."""
        if self._transport is None:
            raise Broken("the connection has ended")
        waiter: asyncio.Future[Response] = self._loop.create_future()
        self._waiter = waiter
        self._transport.write(head + body if body else head)
        if within is None:
            return await waiter
        timer = self._loop.call_later(within, self._fail, Silent("no answer came in the time that the call has"))
        try:
            return await waiter
        finally:
            timer.cancel()

    def _settle(self, response: Response) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(response)

    def _fail(self, failure: Broken) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(failure)
        self.close()

    @property
    def reusable(self) -> bool:
        """Return whether the connection can carry another call."""
        return self._transport is not None and not self._transport.is_closing() and self._reader.reusable

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()


class AsyncSender:
    """Send calls to one server and return what they read; at most `connections` at once, the others wait in order."""

    def __init__(
        self,
        url: str,
        token: str | None,
        agent: str,
        persistence: Persistence,
        context: ssl.SSLContext | None,
        connections: int,
    ) -> None:
        self.url = url
        self._address: Address = parse_address(url)
        self._context = (context or ssl.create_default_context()) if self._address.secure else None
        self._encoder = Encoder(self._address, token, agent)
        self._persistence = persistence
        self._connections = connections
        self._places = asyncio.Semaphore(connections)
        self._idle: list[Connection] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def run(self, call: Call[T]) -> T:
        """Return what a call reads. Raises an ApiError."""
        head = self._head(call)
        attempt, waited = 0, 0.0
        while True:
            try:
                return call.answer(await self._exchange(head, call))
            except (Unsent, Broken) as failure:
                pause = self._persistence.pause_after_break(call, failure, attempt)
                if pause is None:
                    raise unreachable(self.url, call, failure) from failure
                attempt += 1
            except ApiError as refusal:
                pause = self._persistence.pause_after_refusal(refusal, waited)
                if pause is None:
                    raise
                waited += pause
            await asyncio.sleep(pause)

    async def events(self, call: Call[T], events: EventReader | LineReader) -> AsyncGenerator[T, None]:
        """Yield what the events (or lines) of a stream read, until the stream ends. Raises an ApiError."""
        try:
            async with aclosing(self._stream(self._head(call))) as chunks:
                async for chunk in chunks:
                    for event in events.feed(chunk):
                        yield call.read(event)
        except (Unsent, Broken) as failure:
            raise unreachable(self.url, call, failure) from failure

    async def close(self) -> None:
        """Close every idle connection; calls in progress close theirs when they end."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        await asyncio.sleep(0)  # transports say goodbye in the loop's next turn

    def _head(self, call: Call[T]) -> bytes:
        length = len(call.body) if call.body is not None else (0 if call.method == "POST" else None)
        return self._encoder.head(call.method, call.path, call.headers, length)

    async def _exchange(self, head: bytes, call: Call[T]) -> Response:
        self._enter_loop()
        async with self._places:
            connection = await self._connect()
            try:
                response = await connection.exchange(head, call.body, call.within)
            except BaseException:
                connection.close()
                raise
            if connection.reusable and not self._closed:
                connection.idle_since = time.monotonic()
                self._idle.append(connection)
            else:
                connection.close()
            return response

    def _enter_loop(self) -> None:
        if self._closed:
            raise RuntimeError("This client is closed; make another one.")
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            # Connections belong to the loop that opened them, and that one has gone.
            self._loop, self._idle, self._places = loop, [], asyncio.Semaphore(self._connections)

    async def _connect(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and time.monotonic() - connection.idle_since <= IDLE_FOR:
                return connection
            connection.close()
        address, loop = self._address, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_WITHIN):
                _, made = await loop.create_connection(Connection, address.host, address.port, ssl=self._context)
        except TimeoutError as error:
            raise Unsent(f"no connection within {CONNECT_WITHIN:g} s") from error
        except OSError as error:
            raise Unsent(
                "the connection was refused" if isinstance(error, ConnectionRefusedError) else str(error)
            ) from error
        return made

    async def _stream(self, head: bytes) -> AsyncGenerator[bytes, None]:
        address, reader = self._address, ResponseReader()
        try:
            incoming, outgoing = await asyncio.open_connection(address.host, address.port, ssl=self._context)
        except OSError as error:
            raise Unsent(str(error)) from error
        try:
            outgoing.write(head)
            while not reader.complete:
                data = await asyncio.wait_for(incoming.read(READ_BYTES), waiting.SILENCE)
                if data:
                    reader.feed(data)
                elif not reader.end():
                    raise Broken("the connection ended in the middle of the stream")
                if reader.status < 400 and (chunk := reader.take_chunk()):
                    yield chunk
            if reader.status >= 400:
                raise error_of(reader.take())
        except (TimeoutError, asyncio.TimeoutError) as error:  # noqa: UP041 - they are two in Python 3.10
            raise Silent("nothing came for so long that the server must be gone") from error
        except OSError as error:
            raise Broken(str(error)) from error
        finally:
            outgoing.close()
