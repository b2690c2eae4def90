"""Web requests in seeded worlds: where others call, visitors come, and no law about limits, slots and instances breaks."""

import asyncio
from typing import Any

import pytest
from tests.simulation.test_use import Works, works

from penstock.domain.errors import PenstockError
from penstock.domain.task import Outcome
from penstock.engine.model import direct
from penstock.engine.visits import Over
from penstock.sim.scenario import draw
from penstock.sim.script import Spread, answers
from penstock.sim.simulate import simulate
from penstock.sim.world import World

SEEDS = [seed for seed in range(1, 120) if any(step.action == "call" for step in draw(seed).steps)][:20]


@pytest.mark.parametrize("seed", SEEDS)
def test_visits_break_no_law(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[Over | PenstockError] = []

    async def visit(world: World, name: str, timeout: float | None) -> None:
        world.diary.digits += 1
        try:
            visit = world.engine.visits.open(name, b"head", b'"visit %d"' % world.diary.digits, more=False)
            if timeout is not None:
                asyncio.get_running_loop().call_later(timeout, visit.leave)
            while not isinstance(word := await visit.next(), Over):
                pass
            came.append(word)
        except PenstockError as error:
            came.append(error)

    monkeypatch.setattr(World, "_call", visit)
    report = simulate(seed)
    assert not report.breaches, report.tell(40)
    assert came


def test_a_request_has_its_whole_time_however_long_the_app_takes_to_import() -> None:
    ends: list[Outcome] = []

    async def use(plant: Works) -> None:
        compute: Any = plant.engine.plant.compute
        compute.machine.script.add("m:work", answers(25.0), boot=Spread(8.0, 8.0))
        visit = plant.engine.visits.open(direct("f"), b"head", b"body", more=False)
        while not isinstance(word := await visit.next(), Over):
            pass
        ends.append(word.outcome)

    works(use, answers(25.0), timeout="30s", max_runtime="31s")
    assert ends == [Outcome.OK]
