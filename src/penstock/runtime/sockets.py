"""WebSockets inside an instance: what an ASGI app receives and sends, and the frames that this becomes.

A long message comes in pieces. It is credited as it comes while the app keeps up; with a message that the app has not
taken, nothing is, so no more than a window and one message are ever held here.
"""

from collections import deque
from typing import Any, Final

from penstock.runtime.frames import LAST, TEXT, Piece
from penstock.runtime.heads import pack_headers
from penstock.runtime.results import Result, encode_error
from penstock.runtime.serving import ClientGone
from penstock.runtime.visits import Line, Visiting
from penstock.runtime.wire import OK, encode_credit
from penstock.runtime.wire_web import encode_close, encode_head

SWITCHING: Final = 101
"""The status of a head that accepts a WebSocket."""

_NORMAL: Final = 1000


class WebSocketVisit(Visiting):
    """Be one WebSocket."""

    def __init__(self, attempt: int, line: Line) -> None:
        super().__init__(attempt, line)
        self._events: deque[dict[str, Any]] = deque([{"type": "websocket.connect"}])
        self._message: list[bytes] = []
        self._owed = 0
        self._state = "new"  # then "open" and "closed", or "refused" while an answer is sent instead

    def feed(self, piece: Piece) -> None:
        """Take the next piece of a message."""
        self._message.append(piece.data)
        self._owed += len(piece.data) or 1
        if piece.flags & LAST:
            data = b"".join(self._message)
            self._message.clear()
            event = {"text": data.decode("utf-8", "replace")} if piece.flags & TEXT else {"bytes": data}
            self._events.append({"type": "websocket.receive", **event})
            self.news.set()
        elif not self._events:
            self._give_credit()

    def leave(self, code: int, reason: str) -> None:
        """Take note that the client is gone."""
        self._events.append({"type": "websocket.disconnect", "code": code, "reason": reason})
        super().leave(code, reason)

    async def receive(self) -> dict[str, Any]:
        """Return the next event."""
        while not self._events:
            self.news.clear()
            await self.news.wait()
        event = self._events[0]
        if event["type"] != "websocket.disconnect":  # that one is told to everybody who asks
            self._events.popleft()
            self._give_credit()
        return event

    async def send(self, message: dict[str, Any]) -> None:
        """Accept, send a message, close, or answer with something else. Raises `ClientGone`."""
        kind = message["type"]
        if self.gone:
            raise ClientGone("the client is gone")
        if self._state == "new" and kind == "websocket.accept":
            headers = list(message.get("headers", ()))
            if message.get("subprotocol"):
                headers.append((b"sec-websocket-protocol", message["subprotocol"].encode()))
            self.line.put(encode_head(self.attempt, SWITCHING, pack_headers(headers)))
            self._state = "open"
        elif self._state == "open" and kind == "websocket.send":
            data, text = message.get("bytes"), message.get("text")
            if data is not None:
                await self.send_pieces(data, LAST)
            else:
                await self.send_pieces((text or "").encode(), LAST | TEXT)
        elif self._state in {"new", "open"} and kind == "websocket.close":
            self._close(message.get("code") or _NORMAL, message.get("reason") or "")
        elif self._state == "new" and kind == "websocket.http.response.start":
            headers = list(message.get("headers", ()))
            self.line.put(encode_head(self.attempt, message["status"], pack_headers(headers)))
            self._state = "refused"
        elif self._state == "refused" and kind == "websocket.http.response.body":
            last = not message.get("more_body", False)
            await self.send_pieces(message.get("body", b""), LAST if last else 0)
            if last:
                self._end()
        else:
            raise RuntimeError(f"{kind} makes no sense to a WebSocket that is {self._state}.")

    def finish(self) -> Result:
        """Close, if the app has not."""
        if self._state in {"new", "refused"} and not self.gone:
            return encode_error("NoAnswer", "The app returned without accepting or closing the WebSocket.")
        if self._state == "open" and not self.gone:
            self._close(_NORMAL, "")
        return Result(OK, b"")

    def _close(self, code: int, reason: str) -> None:
        self.line.put(encode_close(self.attempt, code, reason))
        self._end()
        self._events.append({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _end(self) -> None:
        self._state = "closed"
        self.news.set()

    def _give_credit(self) -> None:
        if self._owed and not self._events:
            self.line.put(encode_credit(self.attempt, self._owed))
            self._owed = 0
