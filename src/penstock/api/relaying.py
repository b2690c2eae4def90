"""One HTTP request on its way to an app, and the answer on its way back.

Nothing is buffered: the app gets pieces of the body as it takes them, and the client the answer as it reads it.
"""

import asyncio
import re
from typing import Final

from penstock.api.connections import Line, NoLine
from penstock.api.exchange import Headers, Receive, Scope, Send, answer_problem
from penstock.api.forwarding import passing
from penstock.api.problems import problem_of_visit
from penstock.domain.errors import PenstockError
from penstock.engine.visits import PATIENCE, SLOWEST, Over, Visit, Visits
from penstock.runtime.frames import LAST, Head, Piece
from penstock.runtime.heads import BadHead, unpack_answer, unpack_headers

_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_MOST_HEADERS: Final = 256 << 10


async def relay(
    visits: Visits, pipeline: str, head: bytes, scope: Scope, headers: Headers, receive: Receive, send: Send
) -> None:
    """Let an app answer one request. Raises what says why it could not start."""
    body, more = b"", False
    if b"content-length" in headers or b"transfer-encoding" in headers:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = message["body"], message["more_body"]
    line: Line = scope.get("connection") or NoLine()
    line.streams()
    visit = visits.open(pipeline, head, body, more=more)
    visit.abort = line.abort
    line.watch(visit.leave)
    upload = asyncio.get_running_loop().create_task(_upload(visit, receive)) if more else None
    try:
        await _Answer(visit, visit.pipe.spec.function, send, line).relay()
    except asyncio.CancelledError:
        visit.leave()
        raise
    finally:
        line.unwatch(visit.leave)
        if upload is not None:
            upload.cancel()


async def _upload(visit: Visit, receive: Receive) -> None:
    """Pass on the rest of a body, and watch how slowly it comes."""
    clock = visit.visits.clock
    more = True
    while more:
        visit.reads_since = began = clock()
        message = await receive()
        visit.reads_since = None
        if message["type"] == "http.disconnect":
            visit.leave()
            return
        data, more = message["body"], message["more_body"]
        visit.patience = min(PATIENCE, visit.patience - (clock() - began) + len(data) / SLOWEST)
        await visit.send(data, 0 if more else LAST)


def check(status: int, headers: list[tuple[bytes, bytes]]) -> None:
    """Check that the head of an answer is HTTP. Raises `BadHead`: it would end where it should not."""
    if not 200 <= status < 600:
        raise BadHead(f"the status is {status}")
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise BadHead("a header has characters that it must not have")
        if name.lower() == b"content-length" and not value.isdigit():
            raise BadHead("the content-length is no number")
    if size > _MOST_HEADERS:
        raise BadHead(f"the headers have {size} bytes, and {_MOST_HEADERS} at most may pass")


class _Answer:
    """Pass on what an app answers."""

    def __init__(self, visit: Visit, function: str, send: Send, line: Line) -> None:
        self._visit = visit
        self._function = function
        self._send = send
        self._line = line
        self._started = False

    async def relay(self) -> None:
        """Return when the answer is complete, or has come to an end that it should not have."""
        visit = self._visit
        try:
            while True:
                word = await visit.next()
                if isinstance(word, Piece):
                    if await self._pass_on(word):
                        return
                elif isinstance(word, Head):
                    await self._start(word.status, unpack_headers(word.headers))
                    if not visit.pending:
                        self._line.flush()
                else:
                    await self._end(word if isinstance(word, Over) else None)
                    return
        except PenstockError:
            if not self._started:
                raise
            self._line.abort()
        except (BadHead, RuntimeError):  # what the app answers is not HTTP, or its body has another length than it said
            await self._end(None)
            visit.leave()

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        check(status, headers)
        await self._send({"type": "http.response.start", "status": status, "headers": passing(headers)})
        self._started = True

    async def _pass_on(self, piece: Piece) -> bool:
        """Send a piece when the client has room for it; return whether it was the last one."""
        visit, more = self._visit, not piece.flags & LAST
        visit.sends_since = visit.visits.clock()
        await self._send({"type": "http.response.body", "body": piece.data, "more_body": more})
        visit.sends_since = None
        visit.took(len(piece.data))
        return not more

    async def _end(self, over: Over | None) -> None:
        """Answer with what the app said last, or with why it said nothing; cut off what is not complete."""
        if self._started:
            self._line.abort()
        elif over is not None and over.whole:
            status, headers, body = unpack_answer(over.body)
            await self._start(status, headers)
            await self._send({"type": "http.response.body", "body": body})
        elif not self._visit.gone:
            await answer_problem(self._send, problem_of_visit(self._function, over))
