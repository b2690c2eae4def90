"""Two clocks on virtual time: when instances take their last task, when they are replaced, and what that costs."""

from collections import defaultdict
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from tests.simulation.test_use import Works, virtual_sleep, works

from penstock.engine.lives import SPREAD
from penstock.engine.model import Member
from penstock.sim.laws import most_at_once
from penstock.sim.loop import virtual_loop
from penstock.sim.script import Act, answers

CLOCKS = {"timeout": "30s", "max_runtime": "5m"}


def ready(left: Works) -> dict[int, float]:
    """Since when each instance that there was served."""
    return left.engine.plant.compute.machine.ready  # type: ignore[attr-defined,no-any-return]


def last_sent(left: Works) -> dict[int, float]:
    """At which age each instance got its last task."""
    ages: dict[int, float] = {}
    for execution in left.ledger.executions:
        ages[execution.instance] = execution.sent - ready(left)[execution.instance]
    return ages


async def stream(plant: Works, seconds: float, every: float = 1.0, pipeline: str = "p") -> None:
    for _ in range(int(seconds / every)):
        await plant.send(pipeline, 1)
        await virtual_sleep(every)


def members(plant: Works) -> list[Member]:
    return list(plant.engine.plant.members.values())


def test_an_instance_takes_tasks_until_its_age_and_their_timeout_fill_its_life() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        await stream(plant, 600, 0.5)
        await plant.rest()

    left = works(use, answers(0.2), max_instances=1, **CLOCKS)
    ages, born = last_sent(left), ready(left)
    first, second, third = sorted(ages)
    assert 269 < ages[first] <= 270
    assert 269 < ages[second] <= 270
    assert born[first] + 269 < born[second] < born[first] + 270 - 0.1, "its replacement was not warm in time"
    assert born[third] < born[second] + 270 - 0.1
    waits = [(execution.started or inf) - execution.sent for execution in left.ledger.executions]
    assert max(waits) < 0.01
    sent = [execution.sent for execution in left.ledger.executions[1:]]
    assert max(later - earlier for earlier, later in pairwise(sent)) < 0.52, "a task met no warm instance"


def test_what_idles_is_not_replaced() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        await plant.send("p", 1)
        await virtual_sleep(600)
        assert members(plant) == []

    left = works(use, answers(0.2), idle_timeout="1h", **CLOCKS)
    assert len(ready(left)) == 1


def test_those_that_are_kept_warm_are_replaced_before_they_close() -> None:
    async def use(plant: Works) -> None:
        for _ in range(12000):
            await virtual_sleep(0.1)
            assert sum(member.free for member in members(plant)) >= 3 or plant.engine.plant.clock() < began + 1

    began = 1000.0
    left = works(use, answers(0.2), min_instances=3, **CLOCKS)
    assert 12 <= len(ready(left)) <= 18


def test_the_longest_timeout_of_those_who_share_a_fleet_counts() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}, "long": {"function": "f", "timeout": "4m"}})
        await stream(plant, 100)
        await plant.apply(pipelines={"long": {"function": "f"}})
        await stream(plant, 400)
        await plant.rest()

    left = works(use, answers(0.2), **CLOCKS)
    ages = last_sent(left)
    first, second = sorted(ages)[:2]
    assert 58 < ages[first] <= 60
    assert 268 < ages[second] <= 270


def test_a_longer_timeout_is_heeded_at_once() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        await stream(plant, 100)
        await plant.apply(pipelines={"long": {"function": "f", "timeout": "4m"}})
        await plant.send("long", 1)
        await stream(plant, 10)
        await plant.rest()

    left = works(use, answers(0.2), **CLOCKS)
    long = next(execution for execution in left.ledger.executions if execution.pipeline == "long")
    assert long.sent - ready(left)[long.instance] + 240 <= 300


def test_a_burst_is_not_replaced_in_one_instant() -> None:
    closed: list[float] = []

    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        await plant.send("p", 300)
        loops = plant.engine.lives
        retire = loops.retire

        def note(member: Member) -> None:
            closed.append(plant.engine.plant.clock() - member.ready)
            retire(member)

        loops.retire = note  # type: ignore[method-assign]
        await virtual_sleep(280)
        loops.retire = retire  # type: ignore[method-assign]

    works(use, answers(0.5), idle_timeout="1h", **CLOCKS)
    assert len(closed) == 300
    window = 270.0
    assert window * (1 - SPREAD) <= min(closed)
    assert max(closed) <= window + 1e-6
    crowd: dict[int, int] = defaultdict(int)
    for age in closed:
        crowd[int(age)] += 1
    assert max(crowd.values()) <= 40


def test_work_goes_on_at_the_same_pace_while_a_burst_is_replaced() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        await plant.send("p", 50 * 120)
        await plant.rest()

    left = works(use, answers(5.0), max_instances=50, **CLOCKS)
    spans = [(e.started or 0.0, e.ended or inf) for e in left.ledger.executions]
    taken = max(end for _, end in spans) - min(start for start, _ in spans)
    assert taken < 5.0 * 120 * 1.01
    assert 50 <= most_at_once(spans) <= 100


def test_an_instance_in_its_last_phase_is_in_nobodys_way() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        await stream(plant, 265, 5.0)
        await plant.send("p", 1)  # it takes 25 s, beyond the end of the instance's taking
        await virtual_sleep(6.0)
        before = len(plant.ledger.executions)
        await plant.send("p", 1)
        await virtual_sleep(1.0)
        assert len(plant.ledger.executions) == before + 1, "it waits for an instance that drains"
        await plant.rest()

    def act(call: Any) -> Act:
        return Act(25.0 if call.now > 1264 else 0.2)

    works(use, act, max_instances=1, **CLOCKS)


@pytest.mark.parametrize(("slots", "instances"), [(0, 40), (20, 2)])
def test_what_sharing_saves_is_counted(slots: int, instances: int) -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        await plant.send("p", 40)
        await plant.rest()
        await virtual_sleep(30.0)

    left = works(use, answers(20.0), max_parallel_requests=slots, idle_timeout="1s")
    usage = left.engine.plant.functions["f"].usage
    assert usage.requests == pytest.approx(40 * 20, rel=0.01)
    assert usage.instances == pytest.approx(instances * 21, rel=0.02)


def test_the_end_of_life_ends_what_overstayed_all_others() -> None:
    """A tainted instance whose neighbours never cease to be within their time would stay; the second clock ends it."""
    killed: list[float] = []

    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        kill = plant.engine.lives.kill

        def note(member: Member) -> None:
            killed.append(virtual_loop().time() - member.ready)
            kill(member)

        await plant.send("p", 1)
        await virtual_sleep(1.0)
        plant.engine.lives.kill = note  # type: ignore[method-assign]
        plant.engine.lives.taint(members(plant)[0])
        await virtual_sleep(301.0)
        assert members(plant) == []

    works(use, answers(0.5), **CLOCKS)
    assert killed == [pytest.approx(300.0)]
