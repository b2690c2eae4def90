"""Routes on virtual time: functions whose tasks do not fit move to the pool that takes them, and back."""

from collections.abc import Collection, Sequence
from itertools import pairwise

import pytest
from tests.simulation.test_use import Works, virtual_sleep, works

from penstock.compute.protocol import Instance
from penstock.sim.script import Act, Behaviour, Call, answers

POOLS = {"long": {"max_instances": 3, "route": {"longer_than": "5m", "larger_than": "1GB"}}}


def lasting(seconds: list[float]) -> Behaviour:
    """Answer each call after as long as the list says now."""

    def behaviour(call: Call) -> Act:
        return answers(seconds[0])(call)

    return behaviour


def pool_of(plant: Works, fleet: str = "f") -> str:
    return plant.engine.plant.fleets[fleet].pool.name


def in_pools(plant: Works) -> dict[str, int]:
    return {name: pool.present for name, pool in plant.engine.plant.pools.items() if pool.present}


def test_what_takes_long_moves_for_its_next_instances_and_back_when_it_is_short_again() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pools=POOLS, pipelines={"p": {"function": "f"}})
        await plant.send("p", 10)
        await virtual_sleep(100)
        assert in_pools(plant) == {"default": 10}
        await plant.rest()
        await virtual_sleep(2)
        assert pool_of(plant) == "long"
        why = plant.engine.router.placed(plant.engine.plant.fleets["f"])
        assert (why.routed, why.why) == (True, "p90 of its tasks is 7m, longer than 5m")
        await plant.send("p", 10)
        await virtual_sleep(100)
        assert in_pools(plant) == {"long": 3}
        await plant.rest()
        took[0] = 10.0
        await plant.send("p", 300)
        await plant.rest()
        await virtual_sleep(2)
        assert pool_of(plant) == "default"
        await plant.send("p", 10)
        await virtual_sleep(5)
        assert in_pools(plant).keys() == {"default"}

    took = [420.0]
    works(use, lasting(took), timeout="1h")


def test_what_is_ended_by_its_timeout_counts_with_its_time() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pools=POOLS, pipelines={"p": {"function": "f", "retry": {"attempts": 1}}})
        await plant.send("p", 3)
        await plant.rest()
        await virtual_sleep(2)
        assert pool_of(plant) == "long"
        assert plant.engine.plant.fleets["f"].measured.durations.count == 3

    works(use, answers(3600.0), timeout="6m")


def test_those_that_name_a_pool_stay_there() -> None:
    async def use(plant: Works) -> None:
        pipelines = {
            "p": {"function": "f", "pool": "default"},
            "q": {"function": "f", "pool": "own"},
            "r": {"function": "f"},
        }
        await plant.apply(pools={**POOLS, "own": {}}, pipelines=pipelines)
        for name in pipelines:
            await plant.send(name, 5)
        await plant.rest()
        await virtual_sleep(2)
        places = {name: plant.engine.plant.pipes[name].fleet.pool.name for name in pipelines}
        assert places == {"p": "default", "q": "own", "r": "long"}
        await plant.engine.configurer.patch("function", "f", {"pool": "own"})
        places = {name: plant.engine.plant.pipes[name].fleet.pool.name for name in pipelines}
        assert places == {"p": "default", "q": "own", "r": "own"}

    works(use, answers(420.0), timeout="1h")


def test_large_instances_move_too() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pools={"large": {"route": {"larger_than": "50MB"}}}, pipelines={"p": {"function": "f"}})
        await plant.send("p", 1)  # an instance weighs 100 MiB here
        await plant.rest()
        await virtual_sleep(2)
        assert pool_of(plant) == "large"
        placed = plant.engine.router.placed(plant.engine.plant.fleets["f"])
        assert placed.why == "its instances use 105 MB, more than 50MB"

    works(use, answers(0.1))


def test_a_change_of_the_route_is_felt_at_once() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pools={"long": {}, "other": {}}, pipelines={"p": {"function": "f"}})
        await plant.send("p", 5)
        await plant.rest()
        change = plant.engine.configurer
        assert pool_of(plant) == "default"
        await change.patch("pool", "long", {"route": {"longer_than": "5m"}})
        assert pool_of(plant) == "long"
        await change.patch("pool", "other", {"route": {"longer_than": "6m"}})
        assert pool_of(plant) == "other"
        await change.patch("pool", "other", {"route": {"longer_than": "1h"}})
        assert pool_of(plant) == "long"
        await change.remove("pool", "long", "refuse")
        assert pool_of(plant) == "default"
        assert "long" not in plant.engine.plant.pools

    works(use, answers(420.0), timeout="1h")


def test_it_does_not_move_again_within_a_minute() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pools={"long": {"route": {"longer_than": "100ms"}}}, pipelines={"p": {"function": "f"}})
        moves: list[float] = []
        before = "default"
        for _ in range(50):
            took[0] = 0.2 if took[0] < 0.1 else 0.001
            await plant.send("p", 400)
            for _ in range(5):
                await virtual_sleep(1)
                if pool_of(plant) != before:
                    before = pool_of(plant)
                    moves.append(plant.engine.plant.clock())
        assert len(moves) >= 3
        assert all(later - earlier > 58 for earlier, later in pairwise(moves))

    took = [0.2]
    works(use, lasting(took), max_parallel_requests=20)


def test_new_code_stays_where_it_is_until_it_is_known() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pools=POOLS, pipelines={"p": {"function": "f"}})
        await plant.send("p", 5)
        await plant.rest()
        await virtual_sleep(100)
        took[0] = 1.0
        await plant.engine.configurer.deploy("f", b"other code", None)
        for _ in range(19):
            await plant.send("p", 1)
            await plant.rest()
            await virtual_sleep(2)
            assert pool_of(plant) == "long"
        await plant.send("p", 1)
        await plant.rest()
        await virtual_sleep(2)
        assert pool_of(plant) == "default"

    took = [420.0]
    works(use, lasting(took), timeout="1h")


def test_a_removed_fleet_does_not_come_back_with_its_last_task() -> None:
    async def use(plant: Works) -> None:
        change, router = plant.engine.configurer, plant.engine.router
        pipelines = {"p": {"function": "f", "env": {"A": "1"}}}
        await plant.apply(pools=POOLS, pipelines=pipelines)
        await plant.send("p", 1)
        await virtual_sleep(5)
        (member,) = plant.engine.plant.members.values()
        await change.remove("pipeline", "p", "discard")
        await plant.apply(pipelines=pipelines)
        router.used(member, 2_000_000_000)
        await virtual_sleep(200)
        old, new = member.fleet, plant.engine.plant.fleets[member.fleet.name]
        assert new is not old
        assert (old.measured.memory, new.measured.memory, await notes(plant)) == (None, None, {})

    works(use, answers(100.0), timeout="1h")


def test_what_old_code_still_does_says_nothing_of_the_new() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pools=POOLS, pipelines={"p": {"function": "f"}})
        await plant.send("p", 5)
        await virtual_sleep(5)
        await plant.engine.configurer.deploy("f", b"other code", None)
        await plant.rest()
        await virtual_sleep(2)
        assert plant.engine.plant.fleets["f"].measured.durations.count == 0
        assert pool_of(plant) == "default"

    works(use, answers(420.0), timeout="1h")


def test_what_is_written_of_a_fleet_goes_with_it_even_without_routes() -> None:
    async def use(plant: Works) -> None:
        save, project = plant.engine.plant.store.save_note, plant.engine.plant.project_id
        await save(project, "route g", b"{}")  # as before the routes were taken away, and a restart
        await save(project, "memory g", b"{}")
        await plant.engine.configurer.deploy("g", b"code", {"handler": "m:work"})
        await plant.engine.configurer.remove("function", "g", "refuse")
        await virtual_sleep(1)
        assert await notes(plant) == {}

    works(use, answers(1.0))


async def notes(plant: Works) -> dict[str, bytes]:
    store, project = plant.engine.plant.store, plant.engine.plant.project_id
    return {**await store.notes(project, "route "), **await store.notes(project, "memory ")}


def test_instances_are_not_measured_while_their_function_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(plant: Works) -> None:
        compute = plant.engine.plant.compute
        peaks, looks = compute.peaks, []

        async def slow(instances: Collection[Instance]) -> Sequence[int]:
            looks.append(plant.engine.plant.clock())
            await virtual_sleep(0.2)
            return await peaks(instances)

        monkeypatch.setattr(compute, "peaks", slow)
        await plant.apply(pools={"large": {"route": {"larger_than": "50MB"}}}, pipelines={"p": {"function": "f"}})
        for _ in range(120):
            await plant.send("p", 1)
            await virtual_sleep(1)
        first, *others = looks
        assert others
        assert others[0] - first >= 60
        assert all(later - earlier >= 10 for earlier, later in pairwise(looks))

    works(use, answers(0.1))
