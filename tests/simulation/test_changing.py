"""Changes of a running engine: memory and store agree after each, whatever the store does in the middle of one."""

import asyncio
from typing import Any

import pytest
from tests.simulation.test_use import Works, virtual_sleep, works

from penstock.domain.errors import Unavailable
from penstock.domain.settings import SECTIONS
from penstock.domain.task import State
from penstock.engine.intake import Item
from penstock.sim.script import answers


async def check(plant: Works) -> None:
    """Compare what the engine knows with what the store has."""
    known = plant.engine.reconciler.objects
    for kind in SECTIONS:
        stored = await plant.engine.plant.store.objects(plant.engine.plant.project_id, kind, "", 100)
        assert {one.name: one.settings for one in stored} == {name: one.settings for name, one in known[kind].items()}
    assert {name for name in plant.engine.plant.pipes if name[0] != "@"} == set(known["pipeline"])


def test_a_removal_whose_tasks_cannot_be_discarded_yet_is_whole_all_the_same() -> None:
    failures: list[str] = []

    async def use(plant: Works) -> None:
        engine = plant.engine
        store: Any = engine.plant.store
        names = ["a", "b", "c", "d"]
        await plant.apply(pipelines={name: {"function": "f", "paused": True} for name in names})
        for name in names:
            await plant.send(name, 5)
        discard = store.discard

        async def failing(project: int, pipeline: str, states: Any) -> Any:
            if pipeline == "b" and len(failures) < 3:
                failures.append(pipeline)
                raise Unavailable("The store could not write.", 1.0)
            return await discard(project, pipeline, states)

        store.discard = failing
        keep = {"functions": {"f": {"handler": "m:work"}}, "pipelines": {"d": {"function": "f"}}}
        await engine.configurer.apply(keep, prune=True, dry_run=False, tasks="discard")
        await check(plant)
        assert set(engine.reconciler.objects["pipeline"]) == {"d"}
        with pytest.raises(Unavailable):  # it must not get the tasks of the old one
            await engine.configurer.put("pipeline", "b", {"function": "f"})
        await check(plant)
        await virtual_sleep(3.0)
        for state in (State.QUEUED, State.DELAYED):
            assert [task.pipeline for task in await store.tasks(1, state=state) if task.pipeline != "d"] == []
        await engine.configurer.put("pipeline", "b", {"function": "f"})
        assert not engine.plant.pipes["b"].busy
        await check(plant)
        await plant.rest()

    done = works(use, answers(0.01))
    assert len(failures) == 3
    assert set(done.starts()) == {"d"}


def test_a_function_is_changed_for_its_pipelines_a_few_at_a_time() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={f"p{number}": {"function": "f"} for number in range(50)})
        stored = plant.engine.configurer.lookup("function", "f")
        stored.settings["timeout"] = "7s"  # type: ignore[index]
        assert sum(1 for _ in plant.engine.reconciler.put(stored)) > 50
        assert {pipe.timeout for pipe in plant.engine.plant.pipes.values()} == {7.0}

    works(use, answers(0.01))


@pytest.mark.parametrize("settings", [{}, {"debounce": "5s"}])
def test_a_pipeline_that_drains_goes_also_if_the_last_send_fails(settings: dict[str, Any]) -> None:
    async def use(plant: Works) -> None:
        engine = plant.engine
        store: Any = engine.plant.store
        await plant.apply(pipelines={"a": {"function": "f", **settings}})

        async def failing(*_: Any) -> None:
            await virtual_sleep(1.0)
            raise Unavailable("The store could not write.", 1.0)

        store.enqueue = store.debounce = failing
        sending = asyncio.ensure_future(plant.send("a", 1))
        await virtual_sleep(0.5)
        await engine.configurer.remove("pipeline", "a", "drain")
        assert "a" in engine.plant.pipes
        with pytest.raises(Unavailable):
            await sending
        await virtual_sleep(1.0)
        await check(plant)
        assert "a" not in engine.plant.pipes

    works(use, answers(0.01))


@pytest.mark.parametrize("settings", [{}, {"debounce": "5s"}])
def test_a_pipeline_goes_when_its_work_is_done_also_if_the_last_send_was_a_repeated_one(
    settings: dict[str, Any],
) -> None:
    async def use(plant: Works) -> None:
        engine = plant.engine
        await plant.apply(pipelines={"a": {"function": "f", "remove_when_empty": True, **settings}})
        item = Item(b"1", key="k")
        for _ in range(9999):
            await engine.intake.send("a", [item], "again")
            if engine.plant.pipes["a"].counts.done:
                break
        await virtual_sleep(1.0)
        assert "a" not in engine.plant.pipes
        await check(plant)

    works(use, answers(0.05))
