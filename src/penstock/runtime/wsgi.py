"""Serve a WSGI app: each request in a thread of a pool (PEP 3333).

What the app reads of a body waits for the client, and what it yields waits until the client has room. When the client is
gone, the next read or piece ends the work, and the iterable is closed.
"""

import io
import sys
from collections.abc import Callable
from threading import Condition
from typing import Any
from urllib.parse import unquote_to_bytes

from penstock.runtime.channel import Channel
from penstock.runtime.context import Place
from penstock.runtime.frames import LAST, Close, Credit, Piece, Word
from penstock.runtime.heads import Headers, RequestHead, pack_answer, pack_headers, unpack_request
from penstock.runtime.results import Result, encode_error
from penstock.runtime.serving import ClientGone, Execution, WebApp
from penstock.runtime.threads import Threads
from penstock.runtime.wire import CHUNK, INLINE, OK, WINDOW, Open, encode_credit
from penstock.runtime.wire_web import encode_head, encode_piece


class Wsgi(Threads):
    """Run web requests in threads."""

    def __init__(self, channel: Channel, handler: Callable[..., Any], place: Place, slots: int) -> None:
        super().__init__(channel, handler, place, slots)
        self._open: dict[int, WsgiVisit] = {}

    def execution(self, opened: Open, payload: bytes) -> Execution:
        """Return an execution that has arrived; what comes for it is kept from now on."""
        execution = super().execution(opened, payload)
        if execution.visit is not None:
            visit = WsgiVisit(opened.attempt, self.channel.send, payload, execution.visit.more)
            self._open[opened.attempt] = visit
        return execution

    def told(self, word: Word) -> None:
        """Take what comes for a request."""
        visit = self._open.get(word.attempt)
        if visit is not None:
            visit.take(word)

    def call(self, execution: Execution) -> Result:
        """Call the app with a request."""
        if execution.visit is None:
            return self.call_with_event(execution)
        visit = self._open[execution.opened.attempt]
        environ = _environ_of(unpack_request(execution.visit.head))
        environ["wsgi.input"] = io.BufferedReader(_Body(visit), CHUNK)
        environ["wsgi.multithread"] = self.slots > 1
        self.tell_start(execution)
        return visit.answer(self.app(execution), environ)

    def app(self, execution: Execution) -> Callable[..., Any]:  # noqa: ARG002 - for those who make one for each request
        """Return the app that answers a request."""
        return self.handler

    def call_with_event(self, execution: Execution) -> Result:  # noqa: ARG002
        """Call the handler with the event of a task: an app takes none."""
        raise WebApp("the handler is a WSGI app: it answers web requests and takes no events")

    def encode_end(self, execution: Execution, result: Result) -> bytes:
        """Forget the request, and return the frames that tell of its end."""
        self._open.pop(execution.opened.attempt, None)
        return super().encode_end(execution, result)

    def encode_unstarted(self, attempt: int) -> bytes:
        """Forget a request that was not started."""
        self._open.pop(attempt, None)
        return super().encode_unstarted(attempt)


class WsgiVisit:
    """Be one request: its thread takes and sends, the reader of the instance's line tells it what came."""

    def __init__(self, attempt: int, send: Callable[[bytes], None], first: bytes, more: bool) -> None:
        self._attempt = attempt
        self._send = send
        self._turn = Condition()
        self._body = bytearray(first)
        self._more = more
        self._owed = 0
        self._window = WINDOW
        self._gone = False
        self._head: tuple[int, Headers] | None = None
        self._sent_head = False

    def take(self, word: Word) -> None:
        """Take what came for this request."""
        with self._turn:
            if isinstance(word, Piece):
                self._body += word.data
                self._owed += len(word.data) or 1
                self._more = not word.flags & LAST
            elif isinstance(word, Credit):
                self._window += word.granted
            elif isinstance(word, Close):
                self._gone = True
            self._turn.notify_all()

    def read(self, most: int) -> bytes:
        """Return the next bytes of the body, none at its end. Raises `ClientGone`."""
        with self._turn:
            self._turn.wait_for(lambda: self._body or not self._more or self._gone)
            if self._gone:
                raise ClientGone("the client is gone")
            taken = bytes(self._body[:most])
            del self._body[:most]
            owed = 0
            if self._more and not self._body:
                owed, self._owed = self._owed, 0
        if owed:
            self._send(encode_credit(self._attempt, owed))
        return taken

    def answer(self, app: Callable[..., Any], environ: dict[str, Any]) -> Result:
        """Call the app and send what it answers; return the whole answer if that is known to be in its first piece."""
        iterable = app(environ, self._start)
        whole: bytes | None = None
        try:
            for data in iterable:
                if whole is not None:
                    self._write(whole)
                whole = data if self._is_whole(data) else None
                if whole is None and data:
                    self._write(data)
            return self._finish(whole)
        except ClientGone:
            if not self._gone:
                raise
            return Result(OK, b"")
        finally:
            if hasattr(iterable, "close"):
                iterable.close()

    def _start(self, status: str, headers: "list[tuple[str, str]]", exc_info: Any = None) -> Callable[[bytes], None]:
        """Take the head of the answer: the app's `start_response`."""
        if exc_info is not None:
            try:
                if self._sent_head:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None
        elif self._head is not None:
            raise RuntimeError("start_response was called already.")
        packed = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        pack_headers(packed)
        self._head = int(status[:3]), packed
        return self._write

    def _is_whole(self, data: bytes) -> bool:
        if self._sent_head or self._head is None or len(data) > INLINE:
            return False
        return any(name == b"content-length" and value == b"%d" % len(data) for name, value in self._head[1])

    def _finish(self, whole: "bytes | None") -> Result:
        if self._head is None:
            return encode_error("NoAnswer", "The app returned without calling start_response.")
        if not self._sent_head:
            return Result(OK, pack_answer(*self._head, whole or b""))
        self._send(encode_piece(self._attempt, LAST, b""))
        return Result(OK, b"")

    def _write(self, data: bytes) -> None:
        """Send a piece of the answer when there is room for it. Raises `ClientGone`."""
        if self._head is None:
            raise RuntimeError("The answer has not begun: call start_response first.")
        if not self._sent_head:
            self._sent_head = True
            self._send(encode_head(self._attempt, self._head[0], pack_headers(self._head[1])))
        rest = memoryview(data)
        while rest:
            with self._turn:
                self._turn.wait_for(lambda: self._window > 0 or self._gone)
                if self._gone:
                    raise ClientGone("the client is gone")
                now = rest[: min(CHUNK, self._window)]
                self._window -= len(now)
            self._send(encode_piece(self._attempt, 0, now))
            rest = rest[len(now) :]


class _Body(io.RawIOBase):
    """Be the body of a request as a file."""

    def __init__(self, visit: WsgiVisit) -> None:
        super().__init__()
        self._visit = visit

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as there is something."""
        data = self._visit.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _environ_of(head: RequestHead) -> dict[str, Any]:
    """Return the variables of a request; names with an underscore are left out, for they could pose as others."""
    path = unquote_to_bytes(head.path[len(head.root) :]).decode("latin-1")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method,
        "SCRIPT_NAME": head.root,
        "PATH_INFO": path,
        "RAW_URI": (head.path + (b"?" + head.query if head.query else b"")).decode("latin-1"),
        "QUERY_STRING": head.query.decode("latin-1"),
        "SERVER_NAME": head.server[0],
        "SERVER_PORT": str(head.server[1]),
        "SERVER_PROTOCOL": f"HTTP/{head.version}",
        "REMOTE_ADDR": head.client[0],
        "REMOTE_PORT": str(head.client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": head.scheme,
        "wsgi.errors": sys.stderr,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for raw_name, raw_value in head.headers:
        if b"_" in raw_name or raw_name == b"proxy":  # the latter would name a proxy to programs that the app starts
            continue
        name, value = raw_name.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        if name not in {"CONTENT_TYPE", "CONTENT_LENGTH"}:
            name = f"HTTP_{name}"
        joint = "; " if name == "HTTP_COOKIE" else ","
        environ[name] = f"{environ[name]}{joint}{value}" if name in environ else value
    return environ
