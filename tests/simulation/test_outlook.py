"""What the running engine says of waits: places in the queue, also on disk, and starts that come when they were told."""

from tests.simulation.test_use import Works, virtual_sleep, works

from penstock.domain.forecast import COUNTED
from penstock.engine.intake import Item
from penstock.engine.outlook import Expected
from penstock.sim.script import answers

LATE = 0.2
"""Seconds by which sixty starts may be late in all: the timer's pause, a write to disk, and the way to the handler."""


async def expected(plant: Works, task: int) -> Expected:
    return await plant.engine.why(await plant.engine.task(task))


def test_a_place_in_the_queue_is_known_wherever_the_task_is() -> None:
    async def use(plant: Works) -> None:
        plant.engine.plant.admission.backlog.most = 8
        await plant.apply(pipelines={"p": {"function": "f", "paused": True}})
        sent: list[tuple[int, int]] = []
        for batch in range(6):
            priorities = [batch % 3, 0, 1, 0, 2]
            ids = (await plant.engine.intake.send("p", [Item(b"null", priority=one) for one in priorities])).ids
            sent += [(-priority, task) for priority, task in zip(priorities, ids, strict=True)]
        sent.sort()
        assert len(plant.engine.plant.admission.pipelines["p"].queue) < len(sent)
        for place, (_, task) in enumerate(sent):
            told = await expected(plant, task)
            assert (told.position, told.reason.kind, told.forecast.at) == (place, "paused", None)
        await plant.engine.resume("p")
        await plant.rest()
        told = await expected(plant, sent[0][1])
        assert (told.position, told.reason.kind, told.forecast.at) == (None, "nothing", None)

    works(use, answers(0.01))


def test_starts_come_when_they_were_told() -> None:
    told: dict[int, Expected] = {}
    ends: list[Expected] = []

    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f", "rate": ["3/s", "30/10s"]}})
        await plant.send("p", 10)
        await virtual_sleep(1.1)
        ids = await plant.send("p", 60)
        await virtual_sleep(0.2)
        for task in ids[5:]:
            told[task] = await expected(plant, task)
        ends.append(plant.engine.outlook.of_pipeline(plant.engine.plant.pipes["p"]))
        await plant.rest()

    done = works(use, answers(0.05))
    starts = {execution.task: moment for execution, moment in done.ledger.started()}
    for task, one in told.items():
        assert one.forecast.exact, one
        assert one.forecast.at is not None
        assert one.forecast.at <= starts[task] <= one.forecast.at + LATE
    assert ends[0].forecast == told[max(told)].forecast


def test_what_is_on_disk_starts_no_earlier_than_told() -> None:
    told: dict[int, Expected] = {}

    async def use(plant: Works) -> None:
        plant.engine.plant.admission.backlog.most = 8
        await plant.apply(pipelines={"p": {"function": "f", "rate": "5/s"}})
        ids = await plant.send("p", 40)
        await virtual_sleep(0.3)
        for task in ids[20:]:
            told[task] = await expected(plant, task)
        await plant.rest()

    done = works(use, answers(0.01))
    starts = {execution.task: moment for execution, moment in done.ledger.started()}
    for task, one in told.items():
        assert one.forecast.because == COUNTED
        assert one.forecast.at is not None
        assert one.forecast.at - 1e-6 <= starts[task] <= one.forecast.at + 1.0


def test_delayed_tasks_and_functions_without_code_are_told_apart() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(functions={"g": {"handler": "m:work"}}, pipelines={"p": {"function": "g"}})
        wall = plant.engine.plant.wall()
        [later] = (await plant.engine.intake.send("p", [Item(b"null", due=wall + 5)])).ids
        told = await expected(plant, later)
        assert (told.reason.kind, told.position, told.forecast.exact) == ("delayed", None, False)
        assert told.forecast.at == told.reason.until
        pipe = plant.engine.plant.pipes["p"]
        assert plant.engine.outlook.of_pipeline(pipe).forecast.because == "tasks that are delayed come later (1)"
        [task] = await plant.send("p", 1)
        told = await expected(plant, task)
        assert (told.reason.kind, told.position, told.forecast.at) == ("code", 0, None)
        await plant.engine.configurer.deploy("g", b"code", {"handler": "m:work"})
        await plant.rest()
        assert plant.engine.outlook.of_pipeline(pipe).reason.kind == "nothing"

    works(use, answers(0.01))
