"""Maps: many items sent as one, and their results as they come."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from penstock.api.exchange import idempotency_key
from penstock.api.items import read_items
from penstock.api.lobby import Lobby
from penstock.api.mapping import counts_view, map_view, result_line
from penstock.api.names import map_id_of, mapped_of
from penstock.api.routes.common import EngineOf, Limit, LobbyOf, json_answer, problems, takes
from penstock.api.views import encode
from penstock.domain.task import name_of
from penstock.engine.engine import Engine
from penstock.engine.harvest import Harvest

router = APIRouter(tags=["maps"])

ALIVE: Final = 15.0
"""Seconds of silence after which an empty line is sent."""

Times = Annotated[
    float | None,
    Query(gt=1, le=1e6, description="Run an item a second time that takes so many times the median. It must not mind."),
]
_TAKES: Final = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Asking again with the same key answers with the same map, and sends nothing twice.",
            "schema": {"type": "string", "maxLength": 256},
        }
    ],
    **takes([{"customer": 1}, {"customer": 2}], description="The items: a JSON list, or one a line (NDJSON)."),
}
_REFUSES: Final = problems(
    "bad-request", "not-found", "conflict", "too-large", "queue-full", "unavailable", "disk-full"
)


@router.post("/v1/functions/{name}/map", status_code=202, responses=_REFUSES, openapi_extra=_TAKES)
async def map_function(engine: EngineOf, request: Request, name: str, stragglers: Times = None) -> Response:
    """Run a function for every item; all of them are on disk when the answer comes, or none is.

    They stand behind each other, not before calls. An item that fails is not tried again.
    """
    return await _start(engine, mapped_of("functions", name), request, stragglers)


@router.post("/v1/pipelines/{name}/map", status_code=202, responses=_REFUSES, openapi_extra=_TAKES)
async def map_pipeline(engine: EngineOf, request: Request, name: str, stragglers: Times = None) -> Response:
    """Send every item through a pipeline, under its limits and with its retries; all are on disk when the answer comes."""
    return await _start(engine, mapped_of("pipelines", name), request, stragglers)


async def _start(engine: Engine, pipeline: str, request: Request, stragglers: float | None) -> Response:
    headers = dict(request.headers.raw)
    engine.intake.pipe(pipeline)  # before a long body is read
    items = await read_items(headers, request.receive)
    stored = await engine.maps.start(pipeline, items, idempotency_key(headers), stragglers)
    return json_answer(await map_view(engine, stored), 202)


@router.get("/v1/maps")
async def list_maps(
    engine: EngineOf,
    before: Annotated[str | None, Query(description="Begin behind this map, towards older ones.")] = None,
    limit: Limit = 100,
) -> Response:
    """List maps, newest first."""
    found = await engine.maps.list(None if before is None else map_id_of(before), limit)
    views = [await map_view(engine, one) for one in found]
    return json_answer({"maps": views, "next": name_of(found[-1].id) if len(found) == limit else None})


@router.get("/v1/maps/{map}", responses=problems("not-found"))
async def show_map(engine: EngineOf, map: str) -> Response:  # noqa: A002 - the glossary's word
    """Show a map: how many items have ended, and how."""
    return json_answer(await map_view(engine, await engine.maps.find(map_id_of(map))))


@router.delete("/v1/maps/{map}", responses=problems("not-found", "conflict"))
async def cancel_map(engine: EngineOf, map: str) -> Response:  # noqa: A002
    """Cancel all items of a map that have not ended."""
    live = await engine.maps.cancel(map_id_of(map))
    return json_answer(await map_view(engine, live.stored))


_LINES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "A result a line",
        "content": {
            "application/x-ndjson": {
                "schema": {"type": "string"},
                "example": '{"index":0,"task":"000001000000002a","outcome":"ok","result":12.5}\n',
            }
        },
    }
}


@router.get("/v1/maps/{map}/results", responses=_LINES | problems("not-found"), response_class=Response)
async def results(
    engine: EngineOf,
    lobby: LobbyOf,
    map: str,  # noqa: A002
    order: Annotated[
        Literal["items", "ends"], Query(description="In the order of the items, or as they end.")
    ] = "items",
    after: Annotated[int, Query(ge=-1, description="Leave out the items up to this one.")] = -1,
    progress: Annotated[bool, Query(description="Tell the counts between the results.")] = False,
    follow: Annotated[bool, Query(description="Go on until all have ended; else only what there is.")] = True,
) -> Response:
    """Follow the results of a map until all have come; one a line.

    Empty lines keep the connection alive. Who loses it goes on with `after`; in the order of ends, some may come twice then.
    """
    stored = await engine.maps.find(map_id_of(map))
    harvest = Harvest(engine, stored.id, in_order=order == "items", after=after)
    stream = _stream(engine, lobby, harvest, progress=progress, follow=follow)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(stream, headers=headers, media_type="application/x-ndjson")


async def _stream(
    engine: Engine, lobby: Lobby, harvest: Harvest, *, progress: bool, follow: bool
) -> AsyncIterator[bytes]:
    told = -1
    async with harvest:
        yield b"\n"  # so that the head leaves before there are results
        while not lobby.closing:
            found = await harvest.page()
            if found:
                yield b"".join([result_line(harvest.live, item, task) for item, task in found])
            tally = harvest.live.tally
            if progress and tally.ended != told:
                told = tally.ended
                yield encode(counts_view(engine, harvest.live)) + b"\n"
            if harvest.done or not (found or follow):
                return
            if not found and await lobby.wait(_news(harvest)):
                yield b"\n"
            await asyncio.sleep(0)


async def _news(harvest: Harvest) -> bool:
    """Wait for results; say whether there were none for so long that a sign of life is due."""
    return not await harvest.news(ALIVE)
