"""Shared limits."""

from fastapi import APIRouter, Response

from penstock.api.routes.common import After, Document, EngineOf, Limit, json_answer, page_of, problems, takes
from penstock.api.views import limit_view

router = APIRouter(prefix="/v1/limits", tags=["limits"])

_SETTINGS = takes({"rate": ["100/s", "5000/m"], "concurrency": 50})
_PATCH = takes({"concurrency": 80}, "application/merge-patch+json")


@router.get("")
async def list_limits(engine: EngineOf, after: After = "", limit: Limit = 100) -> Response:
    """List shared limits, by name."""
    objects = engine.reconciler.objects["limit"]
    names, following = page_of(objects, after, limit)
    return json_answer({"limits": [limit_view(engine, objects[name]) for name in names], "next": following})


@router.put("/{name}", openapi_extra=_SETTINGS, responses=problems("invalid-settings"))
async def put_limit(engine: EngineOf, name: str, settings: Document) -> Response:
    """Make a shared limit, or replace its settings."""
    new = name not in engine.reconciler.objects["limit"]
    stored = await engine.configurer.put("limit", name, settings)
    return json_answer(limit_view(engine, stored), 201 if new else 200)


@router.get("/{name}", responses=problems("not-found"))
async def show_limit(engine: EngineOf, name: str) -> Response:
    """Show a shared limit."""
    return json_answer(limit_view(engine, engine.configurer.lookup("limit", name)))


@router.patch("/{name}", openapi_extra=_PATCH, responses=problems("not-found", "invalid-settings"))
async def patch_limit(engine: EngineOf, name: str, patch: Document) -> Response:
    """Change some of a shared limit's settings.

    A JSON merge patch (RFC 7396): null takes a setting away.
    """
    return json_answer(limit_view(engine, await engine.configurer.patch("limit", name, patch)))


@router.post("/{name}/resume", responses=problems("not-found"))
async def resume(engine: EngineOf, name: str) -> Response:
    """Let tasks pass a limit again that downstream asked to hold."""
    engine.resume_limit(name)
    return json_answer(limit_view(engine, engine.configurer.lookup("limit", name)))


@router.delete("/{name}", status_code=204, responses=problems("not-found", "conflict"))
async def delete_limit(engine: EngineOf, name: str) -> Response:
    """Remove a shared limit."""
    await engine.configurer.remove("limit", name, "refuse")
    return Response(status_code=204)
