"""Tasks: lists of them, cancelling one, and why one waits."""

import contextlib
from typing import Annotated

from fastapi import APIRouter, Query, Response

from penstock.api.names import pipeline_of, task_id_of
from penstock.api.routes.common import EngineOf, Limit, json_answer, problems
from penstock.api.views import task_view, why_view
from penstock.domain.errors import NotFound
from penstock.domain.task import State, name_of
from penstock.engine.engine import Engine
from penstock.store.protocol import StoredTask

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

Before = Annotated[str | None, Query(description="Begin behind this task, towards older ones.")]


async def task_page(
    engine: Engine, pipeline: str | None, state: State | None, before: str | None, limit: int
) -> Response:
    """Answer with tasks, newest first."""
    at = None if before is None else task_id_of(before)
    await engine.recorder.catch_up()
    while True:
        found = await _read(engine, pipeline, state, at, limit)
        running = engine.plant.running_tasks()
        # The store hears of starts late or never: what it has as waiting may be running.
        views = [task_view(engine, one, running) for one in found if state in {None, engine.state_of(one, running)}]
        last = len(found) < limit
        if views or last:
            break
        at = found[-1].id
    if not views and at is None and pipeline is not None:
        engine.intake.pipe(pipeline)
    return json_answer({"tasks": views, "next": None if last else name_of(found[-1].id)})


async def _read(
    engine: Engine, pipeline: str | None, state: State | None, before: int | None, limit: int
) -> list[StoredTask]:
    """Return tasks, newest first, that may be in a state."""
    if state is State.RUNNING:
        return await _running(engine, pipeline, before, limit)
    store, project = engine.plant.store, engine.plant.project_id
    return await store.tasks(project, pipeline=pipeline, state=state, before=before, limit=limit)


async def _running(engine: Engine, pipeline: str | None, before: int | None, limit: int) -> list[StoredTask]:
    """Return tasks that run, newest first, from what the engine knows."""
    running = (task for one in engine.plant.running.values() for task in one.tasks)
    ids = {task.id for task in running if pipeline in {None, task.pipeline} and (before is None or task.id < before)}
    found = []
    for task_id in sorted(ids, reverse=True)[:limit]:
        with contextlib.suppress(NotFound):  # it has ended, and was deleted, since
            found.append(await engine.task(task_id))
    return found


@router.get("", responses=problems("not-found"))
async def list_tasks(
    engine: EngineOf,
    pipeline: Annotated[str | None, Query(description="Only the tasks of this pipeline.")] = None,
    state: State | None = None,
    before: Before = None,
    limit: Limit = 100,
) -> Response:
    """List tasks, newest first.

    A page may hold fewer than asked for: the last one is that without `next`.
    """
    if pipeline is not None:
        pipeline_of("pipelines", pipeline)
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
    """Say what a task waits for, how many are ahead of it, and when it is expected to start.

    `exact` false says that it starts no earlier, `because` why that is all there is to say.
    """
    stored = await engine.task(task_id_of(task))
    return json_answer(why_view(engine, stored, await engine.why(stored)))
