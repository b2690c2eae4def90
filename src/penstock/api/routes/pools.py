"""Pools: shares of the machine."""

from fastapi import APIRouter, Response

from penstock.api.routes.common import After, Document, EngineOf, Limit, json_answer, page_of, problems, takes
from penstock.api.views import pool_view

router = APIRouter(prefix="/v1/pools", tags=["pools"])

_SETTINGS = takes({"max_instances": 20})
_PATCH = takes({"max_instances": 40}, "application/merge-patch+json")


@router.get("")
async def list_pools(engine: EngineOf, after: After = "", limit: Limit = 100) -> Response:
    """List pools, by name."""
    objects = engine.reconciler.objects["pool"]
    names, following = page_of(objects, after, limit)
    return json_answer({"pools": [pool_view(engine, objects[name]) for name in names], "next": following})


@router.put("/{name}", openapi_extra=_SETTINGS, responses=problems("invalid-settings"))
async def put_pool(engine: EngineOf, name: str, settings: Document) -> Response:
    """Make a pool, or replace its settings."""
    new = name not in engine.reconciler.objects["pool"]
    stored = await engine.configurer.put("pool", name, settings)
    return json_answer(pool_view(engine, stored), 201 if new else 200)


@router.get("/{name}", responses=problems("not-found"))
async def show_pool(engine: EngineOf, name: str) -> Response:
    """Show a pool."""
    return json_answer(pool_view(engine, engine.configurer.lookup("pool", name)))


@router.patch("/{name}", openapi_extra=_PATCH, responses=problems("not-found", "invalid-settings"))
async def patch_pool(engine: EngineOf, name: str, patch: Document) -> Response:
    """Change some of a pool's settings.

    A JSON merge patch (RFC 7396): null takes a setting away.
    """
    return json_answer(pool_view(engine, await engine.configurer.patch("pool", name, patch)))


@router.delete("/{name}", status_code=204, responses=problems("not-found", "conflict"))
async def delete_pool(engine: EngineOf, name: str) -> Response:
    """Remove a pool that no function and no pipeline names."""
    await engine.configurer.remove("pool", name, "refuse")
    return Response(status_code=204)
