"""Growth on virtual time: a fleet that something holds back is looked at again when it may grow."""

from tests.simulation.test_use import Works, virtual_sleep, works

from penstock.domain.scaling import Cap
from penstock.sim.script import answers


def test_a_look_that_comes_a_little_early_is_not_the_last() -> None:
    async def use(plant: Works) -> None:
        engine = plant.engine
        await plant.apply(pools={"small": {"max_instances": 2}})
        await engine.configurer.patch("function", "f", {"pool": "small"})
        await plant.apply(pipelines={"p": {"function": "f"}})
        engine.plant.fleets["f"].cap = Cap("ramp", "", 0, engine.plant.clock() + 1.0)
        await plant.send("p", 1)
        await virtual_sleep(3.0)
        assert engine.plant.pipes["p"].counts.done == 1

    works(use, answers(0.1))
