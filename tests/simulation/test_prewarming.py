"""Pre-warming on virtual time: an instance is there before the work that was to be expected, and goes after it."""

from tests.simulation.test_use import Works, virtual_sleep, works

from penstock.engine.intake import Item
from penstock.sim.script import answers


def ready(left: Works) -> list[float]:
    """Since when each instance that there was served."""
    return sorted(left.engine.plant.compute.machine.ready.values())  # type: ignore[attr-defined]


def test_an_instance_is_there_when_a_task_comes_due() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        due = plant.engine.plant.wall() + 100
        await plant.engine.intake.send("p", [Item(b"null", due=due)])
        await virtual_sleep(97)
        assert not plant.engine.plant.members
        await virtual_sleep(2.5)
        assert len(plant.engine.plant.members) == 1
        await plant.rest()
        await virtual_sleep(70)
        assert not plant.engine.plant.members

    left = works(use, answers(0.2))
    (execution,) = left.ledger.executions
    (since,) = ready(left)
    assert since < execution.sent


def test_a_habit_is_met_and_forgotten_when_it_is_not_asked_for() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        for _ in range(8):
            await plant.send("p", 1)
            await virtual_sleep(900)
            warm.append(len(plant.engine.plant.members))
        await plant.rest()

    warm: list[int] = []
    works(use, answers(0.2), idle_timeout="1m", prewarm="history")
    assert warm == [0, 0, 0, 1, 1, 1, 1, 1]
    warm.clear()
    works(use, answers(0.2), idle_timeout="1m")
    assert warm == [0] * 8


def test_an_instance_that_waited_in_vain_goes() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        for _ in range(5):
            await plant.send("p", 1)
            await virtual_sleep(900)
        await virtual_sleep(90)
        assert not plant.engine.plant.members
        await virtual_sleep(3600)
        assert not plant.engine.plant.members

    works(use, answers(0.2), idle_timeout="1m", prewarm="history")
