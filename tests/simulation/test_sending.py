"""Sends to a running engine, while the store takes its time."""

from typing import Any

from tests.simulation.test_use import Works, virtual_sleep, works

from penstock.domain.task import State
from penstock.engine.intake import Item
from penstock.engine.model import Counts
from penstock.sim.script import answers


def test_a_debounced_task_that_is_late_before_its_sender_hears_of_it_ends_once() -> None:
    async def use(plant: Works) -> None:
        engine = plant.engine
        store: Any = engine.plant.store
        await plant.apply(
            pipelines={"a": {"function": "f", "debounce": "50ms"}, "b": {"function": "f", "paused": True}}
        )
        debounce = store.debounce

        async def late(*arguments: Any) -> Any:
            answer = await debounce(*arguments)
            await virtual_sleep(1.0)
            return answer

        store.debounce = late
        await engine.intake.send("b", [Item(b"1", expires_after=0.5)])
        (sent,) = (await engine.intake.send("a", [Item(b"2", expires_after=0.1)])).ids
        assert (await engine.task(sent, 9.0)).state is State.EXPIRED
        await virtual_sleep(3.0)
        assert engine.plant.pipes["a"].counts == engine.plant.pipes["b"].counts == Counts()

    assert works(use, answers(0.01)).starts() == {}
