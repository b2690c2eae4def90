"""Instances that sleep while their tasks wait for others, in full pools, on virtual time."""

from tests.simulation.test_use import Works, virtual_sleep, works

from penstock.sim.script import Act, Call, Make


def calls_or_lasts(call: Call) -> Act:
    """Call, and work for a while afterwards; other tasks last as long as they are told."""
    if call.payload == b'"calls"':
        return Act(20.0, makes=(Make("called", b"4"),))
    return Act(float(call.payload))


def test_a_fleet_that_is_full_itself_leaves_the_room_in_its_pool_to_others() -> None:
    async def use(plant: Works) -> None:
        engine = plant.engine
        await plant.apply(pools={"small": {"max_instances": 2}})
        await engine.configurer.patch("function", "f", {"pool": "small", "timeout": "200s"})
        for name, settings in {"called": {}, "beside": {"pool": "small"}}.items():
            await engine.configurer.deploy(name, b"code", {"handler": "m:work", "timeout": "200s", **settings})
        await plant.apply(
            pipelines={"calls": {"function": "f"}, "called": {"function": "called"}, "beside": {"function": "beside"}}
        )
        await plant.send("calls", 2, b'"calls"')
        await virtual_sleep(1.0)
        await plant.send("beside", 1, b"10")
        await plant.send("beside", 1, b"14")
        await virtual_sleep(19.0)  # one of those that called goes on; the other may not, in whichever pool
        fleet = engine.plant.fleets["f"]
        assert (fleet.present, len(fleet.sleepers)) == (1, 1)
        await plant.send("beside", 1, b"1")
        await virtual_sleep(3.0)
        assert engine.plant.pipes["beside"].counts.done == 3
        await plant.rest()
        assert engine.plant.pipes["calls"].counts.done == 2

    works(use, calls_or_lasts, max_instances=1)
