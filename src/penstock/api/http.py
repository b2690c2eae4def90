"""HTTP connections: uvicorn, with bounds on what a client may make the server hold, and an end in order."""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from typing import Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from penstock.api.exchange import MOST_BODY
from penstock.api.front import Application
from penstock.api.problems import MEDIA_TYPE, problem_of
from penstock.api.sockets import MOST_MESSAGE
from penstock.domain.errors import BadRequest

MOST_HEAD: Final = 64 << 10
"""Bytes that may come before a request's headers are complete."""

PATIENCE: Final = 60.0
"""Seconds in which a request has to arrive as a whole, plus what its body needs at the slowest speed."""

SLOWEST: Final = 64 << 10
"""The slowest speed of a client's, in bytes a second."""

IDLE: Final = 30
"""Seconds for which an idle connection is kept."""


class Corked:
    """Hold the head of an answer back until its body comes: both leave in one system call, and arrive in one packet."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.bare = transport
        self._write = transport.write
        self._close = transport.close
        self._head = b""
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info
        self.pause_reading = transport.pause_reading
        self.resume_reading = transport.resume_reading

    def write(self, data: bytes) -> None:
        """Write a piece of an answer, or keep it if it is a head."""
        if self._head:
            self._write(self._head + data)
            self._head = b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 100"):
            self._head = data
        else:
            self._write(data)

    def flush(self) -> None:
        """Write a head that has no body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Close once all is written."""
        self.flush()
        self._close()


class Connection(HttpToolsProtocol):
    """Be one connection. A client whose request is too slow, or whose headers are too large, is let go."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch the clock."""
        self._corked = Corked(transport)
        super().connection_made(self._corked)  # type: ignore[arg-type] # it has all that is used of a transport
        self._head_bytes: int | None = 0  # None: no head is being read
        self._reading_since: float | None = self.loop.time()  # None: the request is here
        self._is_read = False  # somebody reads its body, and watches how slowly it comes
        self._watch = self.loop.call_later(PATIENCE, self._look_at_clock)
        self._watchers: set[Callable[[], None]] = set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock, and tell those who want to know."""
        self._watch.cancel()
        super().connection_lost(exc)
        for gone in tuple(self._watchers):
            gone()

    def watch(self, gone: Callable[[], None]) -> None:
        """Call when the client has gone."""
        if self.transport.is_closing():
            gone()
        self._watchers.add(gone)

    def unwatch(self, gone: Callable[[], None]) -> None:
        """Call no more: the request is answered. What is still to come of it has as long as any other."""
        self._watchers.discard(gone)
        self._is_read = False
        if self._reading_since is not None:
            self._reading_since = self.loop.time()

    def streams(self) -> None:
        """Leave it to the one who reads the request's body to watch how slowly it comes."""
        self._is_read = True

    def flush(self) -> None:
        """Send the head of an answer whose body takes its time."""
        self._corked.flush()

    def abort(self) -> None:
        """Cut the connection, so that the client does not take what it has for all."""
        if self.cycle is not None:
            self.cycle.disconnected = True
        self._corked.bare.abort()

    def handle_websocket_upgrade(self) -> None:
        """Leave the connection to the protocol of WebSockets."""
        self._watch.cancel()
        self.transport = self._corked.bare
        super().handle_websocket_upgrade()

    def data_received(self, data: bytes) -> None:
        """Read on, unless the head has become too large."""
        if self._head_bytes is not None:
            if self._head_bytes > MOST_HEAD:
                self.send_400_response(f"The request's headers are larger than {MOST_HEAD} bytes.")
                return
            self._head_bytes += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Note when a request began to come."""
        super().on_message_begin()
        if self._head_bytes is None:
            self._head_bytes = 0
        self._reading_since = self.loop.time()
        self._is_read = False

    def on_headers_complete(self) -> None:
        """Note that the head was read."""
        self._head_bytes = None
        self.scope["connection"] = self  # type: ignore[typeddict-unknown-key] # for the relay of hosted apps
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is here."""
        self._reading_since = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """See to it that an answer without a body leaves too."""
        self._corked.flush()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, in our words, and let go."""
        body = problem_of(BadRequest(f"{msg} The connection is closed.")).encode()
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _look_at_clock(self) -> None:
        most = PATIENCE + MOST_BODY / SLOWEST
        since, now = None if self._is_read else self._reading_since, self.loop.time()
        if since is not None and now - since > (PATIENCE if self._head_bytes is not None else most):
            self.transport.close()
        else:
            self._watch = self.loop.call_later(PATIENCE, self._look_at_clock)


class Socket(WebSocketsSansIOProtocol):
    """Be a connection that has become a WebSocket."""

    async def run_asgi(self) -> None:
        """Let the application serve it; it may cut the connection."""
        self.scope["connection"] = self  # type: ignore[typeddict-unknown-key] # as for plain requests
        await super().run_asgi()

    def abort(self) -> None:
        """Cut the connection: nobody reads what is to be sent."""
        self.transport.abort()


class HttpServer:
    """Listen and answer. Made and used in one event loop."""

    def __init__(self, application: Application) -> None:
        config = uvicorn.Config(
            application,
            http=Connection,
            ws=Socket,
            ws_max_size=MOST_MESSAGE,
            lifespan="off",
            loop="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=IDLE,
            timeout_graceful_shutdown=5,
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self._ticks: asyncio.Task[None] | None = None

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections at sockets that are bound."""
        await self._server.on_tick(0)
        await self._server.startup(list(sockets))
        self._ticks = asyncio.get_running_loop().create_task(self._tick())

    async def stop(self) -> None:
        """Accept nothing more, and return when what was asked is answered."""
        if self._ticks is not None:
            self._ticks.cancel()
            await self._server.shutdown()

    async def _tick(self) -> None:
        """Keep the date in the headers right."""
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                await asyncio.sleep(1.0)
                await self._server.on_tick(0)
