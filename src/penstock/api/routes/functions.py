"""Functions: their settings, their code and their versions."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response

from penstock.api.exchange import decode_json, not_understood
from penstock.api.routes.common import After, Document, EngineOf, Limit, json_answer, page_of, problems, raw_body, takes
from penstock.api.views import View, function_view, live_view, members_by_function, version_view
from penstock.compute.protocol import Code
from penstock.engine.engine import Engine

router = APIRouter(prefix="/v1/functions", tags=["functions"])

_SETTINGS = takes({"handler": "tasks:call_api", "timeout": "30s", "max_parallel_requests": 20, "memory": "256MB"})
_PATCH = takes({"timeout": "1m", "memory": None}, "application/merge-patch+json")
_CODE = takes(None, "application/zip", "The code, as a zip.")
_BACK = takes({"version": 3}, description="Without a version, the one that the live one took over from.")


class Rollback(msgspec.Struct, forbid_unknown_fields=True):
    """Name the version to go back to; None means the one before the live one."""

    version: int | None = None


_rollback = msgspec.json.Decoder(Rollback)


def _view(engine: Engine, name: str) -> View:
    return function_view(engine, engine.configurer.lookup("function", name), members_by_function(engine))


@router.get("")
async def list_functions(engine: EngineOf, after: After = "", limit: Limit = 100) -> Response:
    """List functions, by name."""
    objects = engine.reconciler.objects["function"]
    names, following = page_of(objects, after, limit)
    members = members_by_function(engine)
    functions = [function_view(engine, objects[name], members) for name in names]
    return json_answer({"functions": functions, "next": following})


@router.put("/{name}", openapi_extra=_SETTINGS, responses=problems("invalid-settings"))
async def put_function(engine: EngineOf, name: str, settings: Document) -> Response:
    """Make a function, or replace its settings."""
    new = name not in engine.reconciler.objects["function"]
    await engine.configurer.put("function", name, settings)
    return json_answer(_view(engine, name), 201 if new else 200)


@router.get("/{name}", responses=problems("not-found"))
async def show_function(engine: EngineOf, name: str) -> Response:
    """Show a function."""
    return json_answer(_view(engine, name))


@router.patch(
    "/{name}",
    openapi_extra=_PATCH,
    responses=problems("not-found", "invalid-settings", "deploy-failed"),
)
async def patch_function(engine: EngineOf, name: str, patch: Document) -> Response:
    """Change some of a function's settings.

    A JSON merge patch (RFC 7396): null takes a setting away.
    """
    await engine.configurer.patch("function", name, patch)
    return json_answer(_view(engine, name))


@router.delete("/{name}", status_code=204, responses=problems("not-found", "conflict"))
async def delete_function(engine: EngineOf, name: str) -> Response:
    """Remove a function."""
    await engine.configurer.remove("function", name, "refuse")
    return Response(status_code=204)


@router.put(
    "/{name}/code",
    openapi_extra=_CODE,
    responses=problems("not-found", "bad-request", "too-large", "invalid-settings", "deploy-failed"),
)
async def deploy(
    engine: EngineOf,
    request: Request,
    name: str,
    settings: Annotated[
        str | None, Query(description="Settings as JSON; they make the function if there is none.")
    ] = None,
) -> Response:
    """Deploy code: it becomes the live version, for every pipeline at once.

    What its `requirements.txt` or `pyproject.toml` names is installed first, if it is not there yet. Code that does not
    import, or whose packages cannot be installed, is refused, and what was live stays live.
    """
    written: Any = None if settings is None else decode_json(settings.encode(), "The parameter settings")
    return json_answer(live_view(await engine.configurer.deploy(name, await raw_body(request), written)))


@router.post(
    "/{name}/rollback",
    openapi_extra=_BACK,
    responses=problems("not-found", "bad-request", "conflict", "invalid-settings", "deploy-failed"),
)
async def rollback(engine: EngineOf, request: Request, name: str) -> Response:
    """Make an earlier version live again, with the settings that it had.

    Without a version it is the one that the live version took over from: each further rollback goes one further back.
    """
    body = await raw_body(request)
    try:
        number = _rollback.decode(body).version if body.strip() else None
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_understood("The body", error) from error
    return json_answer(live_view(await engine.configurer.rollback(name, number)))


@router.get("/{name}/versions", responses=problems("not-found"))
async def list_versions(engine: EngineOf, name: str) -> Response:
    """List a function's versions, oldest first."""
    aliases = engine.configurer.lookup("function", name).settings.get("aliases", {})
    versions = await engine.plant.store.versions(engine.plant.project_id, name)
    codes = {one.number: Code(one.bundle, one.settings.get("python")) for one in versions}
    environments = await engine.plant.compute.environments(set(codes.values()))
    return json_answer(
        {"versions": [version_view(one, environments.get(codes[one.number]), aliases) for one in versions]}
    )
