"""The whole: applying a configuration, what has changed, what was written out, and how the server is."""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response

from penstock import __version__
from penstock.api.events import PAGE, follow
from penstock.api.exchange import check_text, not_understood
from penstock.api.names import pipeline_of, task_id_of
from penstock.api.routes.common import EngineOf, Limit, LobbyOf, Place, json_answer, problems, raw_body, takes
from penstock.api.slices import let_go_in_slices, map_in_slices
from penstock.api.views import View, applied_view, change_view, encode_step, line_view, status_view

router = APIRouter()

_CONFIG = takes(
    {
        "config": {
            "functions": {"call_api": {"handler": "tasks:call_api"}},
            "limits": {"provider": {"rate": "100/s"}},
            "pipelines": {"customer-a": {"function": "call_api", "rate": "2/s", "limits": ["provider"]}},
        },
        "dry_run": True,
    }
)


class Apply(msgspec.Struct, forbid_unknown_fields=True):
    """Hold a configuration, and what to do about what it does not name."""

    config: msgspec.Raw
    prune: bool = False
    dry_run: bool = False
    tasks: Literal["refuse", "drain", "discard"] = "refuse"


_apply = msgspec.json.Decoder(Apply)
_sections = msgspec.json.Decoder(dict[str, dict[str, msgspec.Raw]])


@router.post("/v1/secrets/rotate", tags=["configuration"], responses=problems("conflict", "disk-full"))
async def rotate(engine: EngineOf) -> Response:
    """Seal every stored secret with a new key, which the server makes."""
    return json_answer({"sealed": await engine.plant.store.rotate()})


@router.post(
    "/v1/apply",
    tags=["configuration"],
    openapi_extra=_CONFIG,
    responses=problems("invalid-settings", "conflict", "deploy-failed"),
)
async def apply(engine: EngineOf, request: Request) -> Response:
    """Make the configuration what a document says, in one transaction."""
    body = await raw_body(request)
    check_text(body, "The body")
    try:
        asked = _apply.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_understood("The body", error) from error
    config = await _decode_config(asked.config)
    applied = await engine.configurer.apply(config, prune=asked.prune, dry_run=asked.dry_run, tasks=asked.tasks)
    view = applied_view(applied, dry_run=asked.dry_run)
    steps, changes = list(applied.plan.steps), applied.changes
    del applied
    view["plan"] = await map_in_slices(encode_step, steps)
    answer = json_answer(view)
    await let_go_in_slices([steps, changes, *(section for section in config.values() if section)])
    return answer


async def _decode_config(body: msgspec.Raw) -> Any:
    """Return a configuration, decoding one object after the other if it looks like one."""
    try:
        sections = _sections.decode(body)
    except msgspec.ValidationError:
        return msgspec.json.decode(body)  # the engine says what is wrong with it
    return {
        section: dict(zip(objects, await map_in_slices(msgspec.json.decode, objects.values()), strict=True))
        for section, objects in sections.items()
    }


@router.get("/v1/changes", tags=["configuration"])
async def list_changes(
    engine: EngineOf,
    lobby: LobbyOf,
    after: Place = 0,
    limit: Limit = 100,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[int, Header(ge=0, le=2**62)] = 0,
) -> Response:
    """List what has changed, in order, or follow it.

    With `Accept: text/event-stream` it goes on with what is to come.
    """
    configurer = engine.configurer
    if "text/event-stream" in accept:

        async def look(place: int, wait: float) -> list[tuple[int, View]]:
            return [(one.sequence, change_view(one)) for one in await configurer.changes(place, PAGE, wait)]

        return follow(lobby, max(after, last_event_id), look)
    found = await configurer.changes(after, limit)
    return json_answer({"changes": [change_view(one) for one in found], "next": found[-1].sequence if found else after})


@router.get("/v1/logs", tags=["tasks"], responses=problems("not-found"))
async def list_logs(
    engine: EngineOf,
    lobby: LobbyOf,
    task: str | None = None,
    pipeline: str | None = None,
    function: str | None = None,
    after: Place = 0,
    limit: Limit = 1000,
    follows: Annotated[bool, Query(alias="follow", description="Go on with what is to come.")] = False,
    last_event_id: Annotated[int, Header(ge=0, le=2**62)] = 0,
) -> Response:
    """List what tasks wrote, in order, or follow it."""
    task_id = None if task is None else task_id_of(task)
    if pipeline is not None:
        pipeline_of("pipelines", pipeline)

    async def read(place: int, most: int) -> list[tuple[int, View]]:
        store, project = engine.plant.store, engine.plant.project_id
        lines = await store.output(project, task=task_id, pipeline=pipeline, function=function, after=place, limit=most)
        return [(position, line_view(position, line)) for position, line in lines]

    async def look(place: int, wait: float) -> list[tuple[int, View]]:
        told = engine.recorder.told
        rung = told.rung
        lines = await read(place, PAGE)
        if not lines:
            await told.wait(rung, wait)
            lines = await read(place, PAGE)
        return lines

    if not await read(0, 1):  # what is gone may have written something, but what never was is a mistake
        if pipeline is not None:
            engine.intake.pipe(pipeline)
        if function is not None:
            engine.configurer.lookup("function", function)
    if follows:
        return follow(lobby, max(after, last_event_id), look)
    found = await read(after, limit)
    return json_answer({"lines": [view for _, view in found], "next": found[-1][0] if found else after})


@router.get("/v1/status", tags=["server"])
async def status(engine: EngineOf, request: Request) -> Response:
    """Say how the server is."""
    uptime = engine.plant.clock() - request.app.state.since
    return json_answer(status_view(engine, __version__, uptime))


@router.get("/healthz", tags=["server"])
async def healthz() -> Response:
    """Say that the server answers."""
    return json_answer({"status": "ok"})


@router.get("/readyz", tags=["server"], responses=problems("unavailable"))
async def readyz(lobby: LobbyOf) -> Response:
    """Say whether the server takes work."""
    return json_answer({"status": "closing"}, 503) if lobby.closing else json_answer({"status": "ready"})
