"""Instances that sleep while their tasks wait for others, in full pools, on virtual time."""

from tests.simulation.test_use import Works, virtual_sleep, works

from penstock.sim.script import Act, Call, Make


def calls_or_lasts(call: Call) -> Act:
    """Call, and work for a while afterwards; what is called lasts as long as it is told."""
    if call.payload == b'"calls"':
        return Act(20.0, makes=(Make("called", b"2"),))
    return Act(float(call.payload))


def test_a_fleet_that_is_full_itself_leaves_the_room_in_its_pool_to_others() -> None:
    async def use(plant: Works) -> None:
        engine = plant.engine
        settings = {"handler": "m:work", "pool": "small", "max_instances": 2}
        await plant.apply(pools={"small": {"max_instances": 2}})
        await engine.configurer.patch("function", "f", {"pool": "small", "timeout": "200s"})
        await engine.configurer.deploy("g", b"code", settings)
        await plant.apply(pipelines={"p": {"function": "f"}, "called": {"function": "g", "timeout": "100s"}})
        await plant.send("p", 2, b'"calls"')
        await virtual_sleep(1.0)
        await plant.send("called", 1, b"5")
        await plant.send("called", 1, b"9")
        await plant.rest()
        counts = {name: engine.plant.pipes[name].counts.done for name in ("p", "called")}
        assert counts == {"p": 2, "called": 4}

    works(use, calls_or_lasts, max_instances=1)
