"""Tasks: lists of them, cancelling one, and why one waits."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from penstock.api.names import task_id_of
from penstock.api.routes.common import EngineOf, Limit, json_answer, problems
from penstock.api.views import task_view, why_view
from penstock.domain.task import State, name_of
from penstock.engine.engine import Engine

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

Before = Annotated[str | None, Query(description="Begin behind this task, towards older ones.")]


async def task_page(
    engine: Engine, pipeline: str | None, state: State | None, before: str | None, limit: int
) -> Response:
    """Answer with tasks, newest first; those whose state the store knows late are shown as they are now."""
    plant = engine.plant
    at = None if before is None else task_id_of(before)
    await engine.settle.catch_up()
    found = await plant.store.tasks(plant.project_id, pipeline=pipeline, state=state, before=at, limit=limit)
    running = plant.running_tasks()
    views = [task_view(engine, one, running) for one in found]
    following = name_of(found[-1].id) if len(found) == limit else None
    return json_answer({"tasks": views, "next": following})


@router.get("", responses=problems("not-found"))
async def list_tasks(
    engine: EngineOf,
    pipeline: Annotated[str | None, Query(description="Only the tasks of this pipeline.")] = None,
    state: State | None = None,
    before: Before = None,
    limit: Limit = 100,
) -> Response:
    """List tasks, newest first."""
    return await task_page(engine, pipeline, state, before, limit)


@router.delete("/{task}", responses=problems("not-found", "conflict"))
async def cancel(engine: EngineOf, task: str) -> Response:
    """Cancel a task.

    One that runs gets its outcome at once, and its work is ended.
    """
    task_id = task_id_of(task)
    await engine.intake.cancel(task_id)
    return json_answer(task_view(engine, await engine.task(task_id)))


@router.get("/{task}/why", responses=problems("not-found"))
async def why(engine: EngineOf, task: str) -> Response:
    """Say what a task waits for."""
    stored = await engine.task(task_id_of(task))
    return json_answer(why_view(engine, stored, engine.why(stored)))
