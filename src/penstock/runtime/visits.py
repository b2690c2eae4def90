"""Web requests inside an instance: what an ASGI app receives and sends, and the frames that this becomes.

Both directions have a window: what an app does not take is not sent here, and what its client does not take makes its
`send` wait. An answer that is whole when the app returns travels in its `End`.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Any, Protocol

from penstock.runtime.frames import LAST, TEXT, Piece
from penstock.runtime.heads import pack_answer, pack_headers
from penstock.runtime.results import Result, encode_error
from penstock.runtime.serving import ClientGone
from penstock.runtime.wire import CHUNK, INLINE, OK, WINDOW, encode_credit
from penstock.runtime.wire_web import encode_head, encode_piece


class Line(Protocol):
    """Be what carries frames to the server."""

    def put(self, frames: bytes) -> None:
        """Send frames at the end of this turn of the loop."""


class Visiting(ABC):
    """Be one request in an ASGI app."""

    def __init__(self, attempt: int, line: Line) -> None:
        self.attempt = attempt
        self.gone = False
        self.line = line
        self.news = asyncio.Event()  # for the receiver
        self._window = WINDOW
        self._room = asyncio.Event()  # for the sender

    @abstractmethod
    def feed(self, piece: Piece) -> None:
        """Take a piece that came."""

    @abstractmethod
    async def receive(self) -> dict[str, Any]:
        """Return the next event for the app."""

    @abstractmethod
    async def send(self, message: dict[str, Any]) -> None:
        """Take an event of the app's. Raises `ClientGone`."""

    @abstractmethod
    def finish(self) -> Result:
        """Return what the request came to, now that the app has returned."""

    def end(self) -> None:
        """Send nothing more: the app has returned, or failed. What it has left running finds the client gone."""
        self.leave(0, "")

    def credit(self, granted: int) -> None:
        """Let the app send so much more."""
        self._window += granted
        self._room.set()

    def leave(self, code: int, reason: str) -> None:  # noqa: ARG002
        """Take note that the client is gone."""
        self.gone = True
        self.news.set()
        self._room.set()

    async def send_pieces(self, data: bytes, flags: int) -> None:
        """Send a body's or a message's next bytes, with `flags` on the last of them."""
        if len(data) <= CHUNK and self._window > 0:
            self._window -= len(data) or 1
            self.line.put(encode_piece(self.attempt, flags, data))
            return
        rest = memoryview(data)
        while True:
            while self._window <= 0 and not self.gone:
                self._room.clear()
                await self._room.wait()
            if self.gone:
                raise ClientGone("the client is gone")
            now = rest[: min(CHUNK, self._window)]
            rest = rest[len(now) :]
            self._window -= len(now) or 1
            self.line.put(encode_piece(self.attempt, flags & TEXT if rest else flags, now))
            if not rest:
                return


class HttpVisit(Visiting):
    """Be one HTTP request. `first` is what has come of its body; `more` says that there is more."""

    def __init__(self, attempt: int, line: Line, first: bytes, more: bool) -> None:
        super().__init__(attempt, line)
        self._body = [first]
        self._more = more  # of the body is to come
        self._owed = 0  # bytes that came in pieces and were not taken yet
        self._read = False  # the app has the whole body
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._sent_head = False
        self._whole: bytes | None = None  # the answer's body, kept for a moment
        self._answered = False

    def feed(self, piece: Piece) -> None:
        """Take the next piece of the body."""
        self._body.append(piece.data)
        self._owed += len(piece.data) or 1
        self._more = not piece.flags & LAST
        self.news.set()

    async def receive(self) -> dict[str, Any]:
        """Return the next piece of the body; after the last, wait for the client to leave or the answer to be complete."""
        while True:
            if self.gone:
                return {"type": "http.disconnect"}
            if not self._read and (self._body or not self._more):
                body = b"".join(self._body)
                self._body.clear()
                self._read = not self._more
                if self._owed and self._more:
                    self.line.put(encode_credit(self.attempt, self._owed))
                self._owed = 0
                return {"type": "http.request", "body": body, "more_body": self._more}
            if self._answered:
                return {"type": "http.disconnect"}
            self.news.clear()
            await self.news.wait()

    async def send(self, message: dict[str, Any]) -> None:
        """Send the head of the answer, or a piece of its body. Raises `ClientGone`."""
        kind = message["type"]
        if self.gone:
            raise ClientGone("the client is gone")
        if kind == "http.response.start":
            if self._head is not None:
                raise RuntimeError("The head of the answer was sent already.")
            self._head = message["status"], [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            pack_headers(self._head[1])
        elif kind == "http.response.body":
            if self._head is None or self._answered:
                raise RuntimeError(f"The answer {'has not begun' if self._head is None else 'is complete'}.")
            await self._send_body(bytes(message.get("body", b"")), not message.get("more_body", False))
        else:
            raise RuntimeError(f"An app sends http.response.start and http.response.body, not {kind}.")

    async def _send_body(self, data: bytes, last: bool) -> None:
        if last:
            self._answered = True
            self.news.set()
            if not self._sent_head and len(data) <= INLINE:
                self._whole = data
                asyncio.get_running_loop().call_soon(self._send_whole)
                return
        self._send_head()
        await self.send_pieces(data, LAST if last else 0)

    def _send_head(self) -> None:
        if not self._sent_head and self._head is not None:
            self._sent_head = True
            self.line.put(encode_head(self.attempt, self._head[0], pack_headers(self._head[1])))

    def _send_whole(self) -> None:
        """Send an answer whose app goes on after it."""
        data, self._whole = self._whole, None
        if data is not None:
            self._send_head()
            self.line.put(encode_piece(self.attempt, LAST, data))

    def end(self) -> None:
        """Send an answer that is kept still: its app has failed after it."""
        self._send_whole()
        super().end()

    def finish(self) -> Result:
        """Return the whole answer, if nothing of it was sent."""
        if self._whole is not None and self._head is not None:
            data, self._whole = self._whole, None
            return Result(OK, pack_answer(*self._head, data))
        if self._answered or self.gone:
            return Result(OK, b"")
        return encode_error("NoAnswer", "The app returned without answering, or in the middle of its answer.")
