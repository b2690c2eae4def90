"""Maps in a running engine: what becomes of second runs and of maps whose pipeline goes, on virtual time."""

from typing import Any

import pytest
from tests.simulation.test_use import Works, virtual_sleep, works

from penstock.compute.protocol import Ending
from penstock.domain.errors import Conflict
from penstock.domain.task import State
from penstock.engine.harvest import Harvest
from penstock.engine.maps import SLICE
from penstock.sim.script import Act, Call, error


def slow_or_fails(call: Call) -> Act:
    """End at once, but for one item, which takes long and fails."""
    return Act(5.0, Ending.ERROR, error("ValueError", "no good")) if call.payload == b'"slow"' else Act(0.02)


async def told(plant: Works, map_id: int) -> dict[int, str]:
    """Read all of a map, as whoever follows it does."""
    found: dict[int, str] = {}
    async with Harvest(plant.engine, map_id, in_order=False) as harvest:
        for _ in range(20):
            page = await harvest.page()
            found |= {
                item: "gone" if task is None or task.outcome is None else task.outcome.value for item, task in page
            }
            if harvest.done:
                break
            await harvest.news(5.0)
    return found


def test_an_item_ends_whose_second_run_went_with_its_pipeline() -> None:
    outcomes: dict[int, str] = {}

    async def use(plant: Works) -> None:
        engine = plant.engine
        await plant.apply(pipelines={"p": {"function": "f", "concurrency": 1, "retry": {"attempts": 1}}})
        made = await engine.maps.start("p", [*[b"1"] * 12, b'"slow"'], stragglers=2.0)
        while not (live := await engine.maps.live(made.id)).stored.twins:
            await virtual_sleep(0.1)
        await virtual_sleep(2.0)  # by then the store knows what runs
        assert (engine.plant.pipes["p"].counts.running, engine.plant.pipes["p"].counts.queued) == (1, 1)
        await engine.configurer.remove("pipeline", "p", "discard")
        outcomes.update(await told(plant, made.id))
        await virtual_sleep(1.0)
        assert engine.maps.kept(live.stored.id) is None

    works(use, slow_or_fails, max_instances=2)
    assert len(outcomes) == 13
    assert outcomes[12] == "error"


def test_a_second_run_that_is_written_while_its_pipeline_goes_is_cancelled() -> None:
    async def use(plant: Works) -> None:
        engine = plant.engine
        store: Any = engine.plant.store
        add_twin, twins = store.add_twin, list[int]()

        async def meanwhile(project: int, made: int, item: int, twin: Any) -> None:
            await engine.configurer.remove("pipeline", "p", "discard")
            await add_twin(project, made, item, twin)
            twins.append(twin.id)

        store.add_twin = meanwhile
        await plant.apply(pipelines={"p": {"function": "f", "concurrency": 1, "retry": {"attempts": 1}}})
        await engine.maps.start("p", [*[b"1"] * 12, b'"slow"'], stragglers=2.0)
        while not twins:
            await virtual_sleep(0.1)
        await virtual_sleep(1.0)
        assert (await engine.task(twins[0])).state is State.CANCELLED

    works(use, slow_or_fails, max_instances=2)


def test_a_second_run_that_comes_while_ends_are_counted_anew_is_heard() -> None:
    outcomes: dict[int, str] = {}

    async def use(plant: Works) -> None:
        engine = plant.engine
        store: Any = engine.plant.store
        find = store.map

        async def late(*arguments: Any) -> Any:
            stored = await find(*arguments)
            await virtual_sleep(2.0)
            return stored

        await plant.apply(pipelines={"p": {"function": "f", "concurrency": 2, "retry": {"attempts": 1}}})
        made = await engine.maps.start("p", [*[b"1"] * 12, b'"slow"'], stragglers=2.0)
        live = await engine.maps.live(made.id)
        assert not live.stored.twins
        store.map = late
        await engine.maps.look_again("p")
        store.map = find
        assert live.stored.twins
        outcomes.update(await told(plant, made.id))

    works(use, slow_or_fails, max_instances=2)
    assert outcomes[12] == "error"


def test_only_items_that_were_not_offered_yet_are_refused_when_their_pipeline_goes() -> None:
    async def use(plant: Works) -> None:
        engine = plant.engine
        await plant.apply(pipelines={"p": {"function": "f"}})
        offer, offered = engine.intake.offer, list[int]()

        def until_it_goes(name: str, pipe: Any, tasks: Any) -> None:
            offer(name, pipe, tasks)
            offered.extend(task.id for task in tasks)
            list(engine.reconciler.remove("pipeline", "p"))

        engine.intake.offer = until_it_goes  # type: ignore[method-assign]
        with pytest.raises(Conflict, match="was removed while the map was being sent"):
            await engine.maps.start("p", [b"1"] * (3 * SLICE))
        assert len(offered) == SLICE
        assert engine.recorder.uncommitted().isdisjoint(offered)
        await engine.recorder.drain()
        assert (await engine.task(offered[-1] + 1)).state is State.CANCELLED
        assert (await engine.task(offered[-1] + 2 * SLICE)).state is State.CANCELLED

    works(use, slow_or_fails)
