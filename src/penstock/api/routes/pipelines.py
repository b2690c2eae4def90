"""Pipelines: their settings, pausing, and their dead tasks."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Request, Response

from penstock.api.exchange import not_understood
from penstock.api.names import task_id_of
from penstock.api.routes.common import After, Document, EngineOf, Limit, json_answer, page_of, problems, raw_body, takes
from penstock.api.routes.tasks import Before, task_page
from penstock.api.slices import map_in_slices
from penstock.api.views import View, pipeline_view
from penstock.domain.forecast import FEW
from penstock.domain.task import State
from penstock.engine.engine import Engine

router = APIRouter(prefix="/v1/pipelines", tags=["pipelines"])

_SETTINGS = takes({"function": "call_api", "rate": "2/s", "concurrency": 4, "params": {"api_key": {"secret": "…"}}})
_PATCH = takes({"rate": "5/s", "concurrency": None}, "application/merge-patch+json")
_IDS = takes({"ids": ["000001000000002a"]}, description="Without ids, all of the pipeline's dead tasks.")


def _view(engine: Engine, name: str) -> View:
    return pipeline_view(engine, engine.configurer.lookup("pipeline", name))


@router.get("")
async def list_pipelines(
    engine: EngineOf,
    after: After = "",
    limit: Limit = 100,
    function: Annotated[str | None, Query(description="Only the pipelines of this function.")] = None,
) -> Response:
    """List pipelines, by name, with their counts, what they wait for, and when their queues are expected to end."""
    objects = engine.reconciler.objects["pipeline"]
    if function is None:
        names, following = page_of(objects, after, limit)
    else:
        engine.configurer.lookup("function", function)
        pipes = engine.plant.pipes
        of_function = (name for name in objects if name in pipes and pipes[name].spec.function == function)
        names, following = page_of(of_function, after, limit)
    # One may be removed while others are looked at.
    views = await map_in_slices(lambda one: pipeline_view(engine, objects[one], FEW) if one in objects else None, names)
    return json_answer({"pipelines": [view for view in views if view is not None], "next": following})


@router.put("/{name}", openapi_extra=_SETTINGS, responses=problems("invalid-settings"))
async def put_pipeline(engine: EngineOf, name: str, settings: Document) -> Response:
    """Make a pipeline, or replace its settings."""
    new = name not in engine.reconciler.objects["pipeline"]
    await engine.configurer.put("pipeline", name, settings)
    return json_answer(_view(engine, name), 201 if new else 200)


@router.get("/{name}", responses=problems("not-found"))
async def show_pipeline(engine: EngineOf, name: str) -> Response:
    """Show a pipeline."""
    return json_answer(_view(engine, name))


@router.patch("/{name}", openapi_extra=_PATCH, responses=problems("not-found", "invalid-settings"))
async def patch_pipeline(engine: EngineOf, name: str, patch: Document) -> Response:
    """Change some of a pipeline's settings.

    A JSON merge patch (RFC 7396): null takes a setting away.
    """
    await engine.configurer.patch("pipeline", name, patch)
    return json_answer(_view(engine, name))


@router.delete(
    "/{name}",
    status_code=204,
    responses={202: {"description": "It goes when its tasks are done"}, **problems("not-found", "conflict")},
)
async def delete_pipeline(
    engine: EngineOf, name: str, tasks: Literal["refuse", "drain", "discard"] = "refuse"
) -> Response:
    """Remove a pipeline.

    `tasks` says what becomes of those it has. With drain it takes no more, and goes when they are done (202).
    """
    await engine.configurer.remove("pipeline", name, tasks)
    return Response(status_code=202 if name in engine.reconciler.objects["pipeline"] else 204)


@router.post("/{name}/pause", responses=problems("not-found"))
async def pause(engine: EngineOf, name: str) -> Response:
    """Start no more of a pipeline's tasks."""
    await engine.pause(name)
    return json_answer(_view(engine, name))


@router.post("/{name}/drain", responses=problems("not-found"))
async def drain(engine: EngineOf, name: str) -> Response:
    """Take no more tasks into a pipeline, and let what it has go on."""
    await engine.drain(name)
    return json_answer(_view(engine, name))


@router.post("/{name}/resume", responses=problems("not-found"))
async def resume(engine: EngineOf, name: str) -> Response:
    """Take and start a pipeline's tasks again, also if it was drained or downstream held it."""
    await engine.resume(name)
    return json_answer(_view(engine, name))


# dead tasks -----------------------------------------------------------------------------------------------------------
class Redrive(msgspec.Struct, forbid_unknown_fields=True):
    """Name the dead tasks to try again; None means all."""

    ids: list[str] | None = None


_redrive = msgspec.json.Decoder(Redrive)


@router.get("/{name}/dead", responses=problems("not-found"))
async def list_dead(engine: EngineOf, name: str, before: Before = None, limit: Limit = 100) -> Response:
    """List a pipeline's dead tasks, newest first."""
    engine.configurer.lookup("pipeline", name)
    return await task_page(engine, name, State.DEAD, before, limit)


@router.post("/{name}/dead/redrive", openapi_extra=_IDS, responses=problems("not-found"))
async def redrive(engine: EngineOf, request: Request, name: str) -> Response:
    """Let dead tasks wait again."""
    engine.configurer.lookup("pipeline", name)
    body = await raw_body(request)
    try:
        ids = _redrive.decode(body).ids if body.strip() else None
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_understood("The body", error) from error
    number = await engine.redrive(name, None if ids is None else [task_id_of(one) for one in ids])
    return json_answer({"redriven": number})


@router.delete("/{name}/dead", responses=problems("not-found"))
async def purge(engine: EngineOf, name: str) -> Response:
    """Delete a pipeline's dead tasks."""
    engine.configurer.lookup("pipeline", name)
    return json_answer({"purged": await engine.purge(name)})
