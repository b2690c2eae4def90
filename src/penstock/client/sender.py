"""The sync sender: blocking sockets that are kept alive and shared by threads, one call at a time on each."""

import os
import select
import socket
import ssl
import time
from collections.abc import Iterator
from typing import TypeVar

from penstock.client import waiting
from penstock.client.call import Call, Persistence, unreachable
from penstock.client.errors import ApiError, error_of
from penstock.client.events import EventReader, LineReader
from penstock.client.http1 import Address, Broken, Encoder, Response, ResponseReader, Silent, Unsent, parse_address

T = TypeVar("T")

CONNECT_WITHIN = 10.0
IDLE_FOR = 4.0
"""Seconds after which an idle connection is not used again: servers close theirs after 5 s or more."""
READ_BYTES = 1 << 18


class Connection:
    """Carry one call at a time over one socket."""

    def __init__(self, address: Address, context: ssl.SSLContext | None) -> None:
        try:
            sock = socket.create_connection((address.host, address.port), CONNECT_WITHIN)
        except OSError as error:
            raise Unsent(_words(error)) from error
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._socket = context.wrap_socket(sock, server_hostname=address.host) if context else sock
        except OSError as error:
            sock.close()
            raise Unsent(_words(error)) from error
        self._reader = ResponseReader()
        self.idle_since = 0.0

    def exchange(self, head: bytes, body: bytes | None, within: float | None) -> Response:
        """Send a request and return its response. Raises Broken."""
        until = None if within is None else time.monotonic() + within
        self._write(head, body, until)
        reader = self._reader
        while not reader.complete:
            data = self._read(until)
            if data:
                reader.feed(data)
            elif not reader.end():
                raise Broken("the connection ended before the answer was complete")
        return reader.take()

    def stream(self, head: bytes) -> Iterator[bytes]:
        """Send a request and yield its body as it comes. Raises Broken, and the ApiError of a response that is one."""
        reader = self._reader
        self._write(head, None, None)
        while not reader.complete:
            data = self._read(time.monotonic() + waiting.SILENCE)
            if data:
                reader.feed(data)
            elif not reader.end():
                raise Broken("the connection ended in the middle of the stream")
            if reader.status < 400 and (chunk := reader.take_chunk()):
                yield chunk
        if reader.status >= 400:
            raise error_of(reader.take())

    def _write(self, head: bytes, body: bytes | None, until: float | None) -> None:
        try:
            self._limit(until)
            if body is None or len(body) < READ_BYTES:
                self._socket.sendall(head + (body or b""))
            else:
                self._socket.sendall(head)
                self._socket.sendall(body)
        except TimeoutError as error:
            raise Silent("it did not take the request in the time that the call has") from error
        except OSError as error:
            self._answered_early(error)

    def _answered_early(self, error: OSError) -> None:
        """Read what a server said that closed its end without taking the whole body, such as 413; else raise Broken."""
        try:
            while not self._reader.complete and (data := self._socket.recv(READ_BYTES)):
                self._reader.feed(data)
        except OSError:
            pass
        if not self._reader.complete:
            raise Broken(_words(error)) from error

    def _read(self, until: float | None) -> bytes:
        try:
            self._limit(until)
            return self._socket.recv(READ_BYTES)
        except TimeoutError as error:
            raise Silent("no answer came in the time that the call has") from error
        except OSError as error:
            raise Broken(_words(error)) from error

    def _limit(self, until: float | None) -> None:
        self._socket.settimeout(None if until is None else max(0.001, until - time.monotonic()))

    @property
    def reusable(self) -> bool:
        """Return whether the server keeps the connection open after the last response."""
        return self._reader.reusable

    def is_stale(self) -> bool:
        """Return whether an idle connection has been closed, said something unasked, or rested too long."""
        if time.monotonic() - self.idle_since > IDLE_FOR:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _words(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(error, TimeoutError):
        return f"no connection within {CONNECT_WITHIN:g} s"
    return error.strerror or str(error) or type(error).__name__


class Sender:
    """Send calls to one server and return what they read. Safe to use from many threads, and after a fork."""

    def __init__(
        self, url: str, token: str | None, agent: str, persistence: Persistence, context: ssl.SSLContext | None
    ):
        self.url = url
        self._address = parse_address(url)
        self._context = (context or ssl.create_default_context()) if self._address.secure else None
        self._encoder = Encoder(self._address, token, agent)
        self._persistence = persistence
        self._idle: list[Connection] = []
        self._pid = os.getpid()
        self._closed = False

    def run(self, call: Call[T]) -> T:
        """Return what a call reads. Raises an ApiError."""
        head = self._head(call)
        attempt, waited = 0, 0.0
        while True:
            try:
                return call.answer(self._exchange(head, call))
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
            time.sleep(pause)

    def events(self, call: Call[T], events: EventReader | LineReader) -> Iterator[T]:
        """Yield what the events (or lines) of a stream read, until the stream ends. Raises an ApiError."""
        try:
            connection = self._connect()
            try:
                for chunk in connection.stream(self._head(call)):
                    for event in events.feed(chunk):
                        yield call.read(event)
            finally:
                connection.close()
        except (Unsent, Broken) as failure:
            raise unreachable(self.url, call, failure) from failure

    def close(self) -> None:
        """Close every idle connection; calls in progress close theirs when they end."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _head(self, call: Call[T]) -> bytes:
        length = len(call.body) if call.body is not None else (0 if call.method == "POST" else None)
        return self._encoder.head(call.method, call.path, call.headers, length)

    def _exchange(self, head: bytes, call: Call[T]) -> Response:
        connection = self._connect()
        try:
            response = connection.exchange(head, call.body, call.within)
        except BaseException:
            connection.close()
            raise
        if connection.reusable and not self._closed:
            connection.idle_since = time.monotonic()
            self._idle.append(connection)
        else:
            connection.close()
        return response

    def _connect(self) -> Connection:
        if self._closed:
            raise RuntimeError("This client is closed; make another one.")
        if self._pid != os.getpid():
            # A forked child shares its parent's sockets: it closes its copies and opens its own.
            self._pid, inherited, self._idle = os.getpid(), self._idle, []
            for connection in inherited:
                connection.close()
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was quicker
                break
            if not connection.is_stale():
                return connection
            connection.close()
        return Connection(self._address, self._context)
