"""Server-sent events: what happens, as it happens, until the reader or the server goes.

A comment now and then keeps the connection alive through whatever is between, and finds readers that have gone.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

from starlette.responses import StreamingResponse

from penstock.api.lobby import Lobby
from penstock.api.views import View, encode

ALIVE: Final = 15.0
"""Seconds of silence after which a comment is sent."""

PAGE: Final = 500

Look = Callable[[int, float], Awaitable[list[tuple[int, View]]]]
"""Return (place, view) pairs behind a place, in order; wait so many seconds for one if there is none."""


def follow(lobby: Lobby, after: int, look: Look) -> StreamingResponse:
    """Answer with a stream of all that comes behind a place."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(lobby, after, look), headers=headers, media_type="text/event-stream")


async def _stream(lobby: Lobby, after: int, look: Look) -> AsyncIterator[bytes]:
    yield b": penstock\n\n"
    while not lobby.closing:
        found = await lobby.wait(_as_coroutine(look(after, ALIVE)))
        if found:
            after = found[-1][0]
            yield b"".join(b"id: %d\ndata: %b\n\n" % (place, encode(view)) for place, view in found)
        elif found is not None:
            yield b": \n\n"


async def _as_coroutine(work: Awaitable[Any]) -> Any:
    return await work
