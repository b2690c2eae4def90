"""One WebSocket on its way to an app.

Messages pass whole to the client and in pieces to the app. A client that vanishes is found by the pings of the connection.
"""

import asyncio
from typing import Final

from penstock.api.connections import Line, NoLine
from penstock.api.exchange import Receive, Scope, Send
from penstock.api.forwarding import passing
from penstock.api.problems import MEDIA_TYPE, Problem, problem_of_visit
from penstock.api.relaying import check
from penstock.domain.errors import PenstockError
from penstock.domain.task import Outcome
from penstock.engine.visits import GOING_AWAY, PATIENCE, RESTART, SWITCHING, Over, Visit, Visits
from penstock.runtime.frames import LAST, TEXT, Close, Head, Piece
from penstock.runtime.heads import BadHead, Headers, unpack_headers

MOST_MESSAGE: Final = 16 << 20
"""Bytes that one message may have, in either direction."""

_CODES: Final = frozenset({*range(1000, 1004), *range(1007, 1015)})
"""Codes that a close may carry, beside those of applications (RFC 6455, 7.4; IANA); others mean that there was none."""

_MOST_REASON: Final = 123  # bytes
_FAILED: Final = 1011
_TOO_BIG: Final = 1009
_SUBPROTOCOL: Final = b"sec-websocket-protocol"


async def relay_socket(visits: Visits, pipeline: str, head: bytes, scope: Scope, receive: Receive, send: Send) -> None:
    """Let an app serve one WebSocket. Raises what says why it could not start."""
    await receive()  # it wants to connect
    visit = visits.open(pipeline, head, b"", more=False, socket=True)
    reader = asyncio.get_running_loop().create_task(_read(visit, receive))
    try:
        await _Socket(visit, visit.pipe.spec.function, send).relay()
    except TimeoutError:  # the client does not read
        line: Line = scope.get("connection") or NoLine()
        line.abort()
    finally:
        reader.cancel()
        visit.leave()


async def refuse(send: Send, problem: Problem) -> None:
    """Answer a WebSocket that cannot be with a problem document."""
    headers = [(b"content-type", MEDIA_TYPE.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": problem.encode()})


async def _read(visit: Visit, receive: Receive) -> None:
    """Pass on what the client sends, until it leaves."""
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            visit.leave(message.get("code") or GOING_AWAY, message.get("reason") or "")
            return
        text = message.get("text")
        if text is not None:
            await visit.send(text.encode(), LAST | TEXT)
        else:
            await visit.send(message["bytes"], LAST)


class _Socket:
    """Pass on what an app sends."""

    def __init__(self, visit: Visit, function: str, send: Send) -> None:
        self._visit = visit
        self._function = function
        self._client = send
        self._state = "new"  # then "open", or "refused" while the app answers with something else
        self._message = bytearray()

    async def relay(self) -> None:
        """Return when the WebSocket is closed. Raises what says why it could not begin."""
        try:
            while True:
                word = await self._visit.next()
                if isinstance(word, Piece):
                    if await self._pass_on(word):
                        return
                elif isinstance(word, Head):
                    await self._begin(word.status, unpack_headers(word.headers))
                elif isinstance(word, Close):
                    await self._close(word.code, word.reason)
                    return
                else:
                    await self._end(word)
                    return
        except BadHead:
            await self._end(None)
        except PenstockError:
            if self._state == "new":
                raise
            await self._close(RESTART, "")

    async def _begin(self, status: int, headers: Headers) -> None:
        if status != SWITCHING:
            check(status, headers)
            await self._send("http.response.start", status=status, headers=passing(headers))
            self._state = "refused"
            return
        check(200, headers)
        chosen = next((value.decode("latin-1") for name, value in headers if name.lower() == _SUBPROTOCOL), None)
        others = [header for header in passing(headers) if header[0].lower() != _SUBPROTOCOL]
        await self._send("accept", subprotocol=chosen, headers=others)
        self._state = "open"

    async def _pass_on(self, piece: Piece) -> bool:
        """Take the next piece of a message or of an answer; return whether that was all."""
        visit, last = self._visit, piece.flags & LAST
        if self._state == "refused":
            await self._send("http.response.body", body=piece.data, more_body=not last)
            visit.took(len(piece.data))
            return bool(last)
        self._message += piece.data
        if len(self._message) > MOST_MESSAGE:
            await self._close(_TOO_BIG, f"a message has more than {MOST_MESSAGE} bytes")
            return True
        if last:
            message = bytes(self._message)
            self._message.clear()
            if piece.flags & TEXT:
                await self._send("send", text=message.decode("utf-8", "replace"))
            else:
                await self._send("send", bytes=message)
        visit.took(len(piece.data))
        return False

    async def _close(self, code: int, reason: str) -> None:
        fits = reason.encode()[:_MOST_REASON].decode("utf-8", "ignore")
        await self._send("close", code=code if code in _CODES or 3000 <= code < 5000 else _FAILED, reason=fits)

    async def _end(self, over: Over | None) -> None:
        """Close, or refuse, what the app has not: it has ended."""
        if self._state == "open":
            interrupted = over is not None and over.outcome in {Outcome.INTERRUPTED, Outcome.TIMEOUT}
            await self._close(RESTART if interrupted else _FAILED, "")
        elif self._state == "new" and not self._visit.gone:
            problem = problem_of_visit(self._function, over)
            headers = [(b"content-type", MEDIA_TYPE.encode())]
            await self._send("http.response.start", status=problem.status, headers=headers)
            await self._send("http.response.body", body=problem.encode())

    async def _send(self, kind: str, **fields: object) -> None:
        """Send when the client has room. Cuts one off that has none for long."""
        await asyncio.wait_for(self._client({"type": f"websocket.{kind}", **fields}), PATIENCE)
