"""What routes have in common: the engine, bodies, pages and answers."""

from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request, Response

from penstock.api.exchange import decode_json, read_body
from penstock.api.lobby import Lobby
from penstock.api.problems import TABLE
from penstock.api.views import encode
from penstock.domain.errors import BadRequest
from penstock.engine.engine import Engine

T = TypeVar("T")


async def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


async def _lobby(request: Request) -> Lobby:
    lobby: Lobby = request.app.state.lobby
    return lobby


async def raw_body(request: Request) -> bytes:
    """Return a request's body, within its bound."""
    return await read_body(request.receive, dict(request.headers.raw))


async def _document(request: Request) -> Any:
    body = await raw_body(request)
    if not body.strip():
        raise BadRequest("The body is empty; it has to be JSON.")
    return decode_json(body, "The body")


EngineOf = Annotated[Engine, Depends(_engine)]
LobbyOf = Annotated[Lobby, Depends(_lobby)]
Document = Annotated[Any, Depends(_document)]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
After = Annotated[str, Query(max_length=200, description="Begin behind this name.")]
Place = Annotated[int, Query(ge=0, le=2**62, description="Begin behind this place.")]


def json_answer(view: Any, status: int = 200) -> Response:
    """Return an answer with a view in it."""
    return Response(encode(view), status, media_type="application/json")


def page_of(names: Iterable[str], after: str, limit: int) -> tuple[list[str], str | None]:
    """Return the names behind one, in order, and where the next page starts, None if this is the last."""
    page = sorted(name for name in names if name > after)
    return page[:limit], page[limit - 1] if len(page) > limit else None


def problems(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return what the schema says of the problems that a route answers with."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = TABLE[code]
        known = found.get(status)
        found[status] = {"description": f"{known['description']}; {title}" if known else title}
    return found


def takes(example: Any, media_type: str = "application/json", description: str = "") -> dict[str, Any]:
    """Return what the schema says of the body that a route takes."""
    content = {media_type: {"schema": {}, "example": example} if example is not None else {"schema": {}}}
    return {"requestBody": {"required": True, "description": description, "content": content}}
