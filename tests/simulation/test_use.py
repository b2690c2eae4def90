"""How well the real engine uses limits and instances, on virtual time: the same numbers on every machine."""

import random
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from penstock.engine.engine import Engine
from penstock.engine.intake import Item
from penstock.sim.compute import Machine, SimCompute
from penstock.sim.disk import SimStore
from penstock.sim.downstream import Downstream, Quota, calls
from penstock.sim.laws import exceeded, most_at_once
from penstock.sim.ledger import Ledger
from penstock.sim.loop import run, virtual_loop
from penstock.sim.script import Behaviour, Delays, Script, Spread, answers
from penstock.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from penstock.store.protocol import Store

# As measured on real machines: frames take some 0.1 ms, a fork 3 ms, a group commit a millisecond.
DELAYS = Delays(
    down=Spread(0.0001, 0.0003), up=Spread(0.0001, 0.0003), start=Spread(0.0, 0.0002), flush=Spread(0.0, 0.0005),
    fork=Spread(0.002, 0.005), kill=Spread(0.0, 0.001), reap=Spread(0.0, 0.001),
)  # fmt: skip


class Bundles:
    async def add(self, body: bytes) -> str:
        return body.decode()

    async def sweep(self, used: Collection[str]) -> int:
        return 0


@dataclass
class Works:
    engine: Engine
    ledger: Ledger

    async def apply(self, **sections: Any) -> None:
        await self.engine.configurer.apply(sections, prune=False, dry_run=False, tasks="refuse")

    async def send(self, pipeline: str, count: int, payload: bytes = b"null") -> list[int]:
        return (await self.engine.intake.send(pipeline, [Item(payload) for _ in range(count)])).ids

    async def rest(self) -> None:
        """Wait until everything has ended."""
        for pipe in self.engine.plant.pipes.values():
            while pipe.counts.waiting or pipe.counts.running:
                await virtual_sleep(0.5)

    def starts(self) -> dict[str, list[float]]:
        found: dict[str, list[float]] = defaultdict(list)
        for execution, moment in self.ledger.started():
            found[execution.pipeline].append(moment)
        return found


async def virtual_sleep(seconds: float) -> None:
    done = virtual_loop().create_future()
    virtual_loop().call_later(seconds, done.set_result, None)
    await done


def works(use: Callable[[Works], Awaitable[None]], behaviour: Behaviour, **function: Any) -> Works:
    """Run an engine with one function for as long as `use` takes, and return what it left."""
    made: list[Works] = []

    async def main(folder: str) -> None:
        rng, ledger, loop = random.Random(1), Ledger(trace_length=100), virtual_loop()
        script = Script(delays=DELAYS)
        script.add("m:work", behaviour)
        store = SimStore(
            SqliteStore(Path(folder), inline=True, fsync=False, ballast=4096),
            rng,
            ledger,
            Spread(0.0002, 0.001),
            Spread(0.0, 0.001),
        )
        compute = SimCompute(Machine(script, rng, ledger))
        engine = Engine(
            cast("Store", store), compute, Bundles(), clock=loop.time, wall=lambda: 1.7e9 + loop.time(), rng=rng
        )
        made.append(Works(engine, ledger))
        await engine.open()
        await engine.configurer.deploy("f", b"code", {"handler": "m:work", **function})
        await use(made[0])
        await engine.close()

    with tempfile.TemporaryDirectory() as folder:
        run(main(folder))
    assert made[0].ledger.breaches == []
    return made[0]


def test_every_pipeline_runs_at_its_own_limit_to_the_full() -> None:
    names = [f"customer-{n}" for n in range(40)]

    async def use(plant: Works) -> None:
        await plant.apply(pipelines={name: {"function": "f", "rate": "5/s"} for name in names})
        for name in names:
            await plant.send(name, 50)
        await plant.rest()

    starts = works(use, answers(0.05), max_parallel_requests=20).starts()
    for name in names:
        assert exceeded(starts[name], 5, 1.0) is None
        assert 49 / 5 / (starts[name][-1] - starts[name][0]) >= 0.99


def test_the_fields_own_example() -> None:
    """One queue of A, B and C with limits of 2, 1 and 2 a second, tasks of 1 s: each at its own limit, all the time."""
    limits = {"a": 2, "b": 1, "c": 2}

    async def use(plant: Works) -> None:
        await plant.apply(pipelines={name: {"function": "f", "rate": f"{n}/s"} for name, n in limits.items()})
        for name in "abccccaab" * 6:
            await plant.send(name, 1)
        await plant.rest()

    starts = works(use, answers(1.0)).starts()
    for name, n in limits.items():
        assert exceeded(starts[name], n, 1.0) is None
        used = (len(starts[name]) - 1) / n / (starts[name][-1] - starts[name][0])
        assert used >= 0.99


@pytest.mark.parametrize(
    ("limit", "most"),
    [({"rate": "50/s"}, 50.0), ({"rate": {"rate": "100/2s", "style": "window"}}, 50.0), ({"concurrency": 10}, 100.0)],
)
def test_a_shared_limit_is_used_up_by_those_who_share_it(limit: dict[str, Any], most: float) -> None:
    async def use(plant: Works) -> None:
        await plant.apply(
            limits={"provider": limit},
            pipelines={f"p{n}": {"function": "f", "limits": ["provider"]} for n in range(20)},
        )
        for n in range(20):
            await plant.send(f"p{n}", 25)
        await plant.rest()

    plant = works(use, answers(0.1), max_parallel_requests=50)
    starts = sorted(moment for moments in plant.starts().values() for moment in moments)
    assert len(starts) == 500
    assert (len(starts) - 1) / most / (starts[-1] - starts[0]) >= 0.97
    spans = [(e.started or 0.0, e.ended or inf) for e in plant.ledger.executions]
    assert most_at_once(spans) <= limit.get("concurrency", inf)


def test_a_burst_of_a_thousand_wants_a_thousand_instances_at_once() -> None:
    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f"}})
        await plant.send("p", 1000)
        await plant.rest()

    starts = works(use, answers(5.0), max_instances=1000).starts()["p"]
    assert starts[-1] - starts[0] < 1.0


def test_a_limit_equal_to_a_quota_is_never_refused() -> None:
    service = Downstream({"p": Quota(10, 1.0)}, Spread(0.01, 0.3))

    async def use(plant: Works) -> None:
        await plant.apply(pipelines={"p": {"function": "f", "rate": {"rate": "10/s", "style": "window"}}})
        await plant.send("p", 200)
        await plant.rest()

    works(use, calls(service), max_parallel_requests=20)
    assert service.refused("p") == 0
    assert len(service.log) == 200


def test_a_quota_below_the_limit_holds_the_pipeline_and_costs_no_attempt() -> None:
    service = Downstream({"p": Quota(5, 1.0)}, Spread(0.01, 0.1))
    ids: list[int] = []
    attempts: list[int] = []

    async def use(plant: Works) -> None:
        await plant.apply(
            pipelines={"p": {"function": "f", "rate": "50/s", "concurrency": 5, "retry": {"attempts": 1}}}
        )
        ids.extend(await plant.send("p", 60))
        await plant.rest()
        attempts.extend([(await plant.engine.task(task)).attempts for task in ids])

    works(use, calls(service), max_parallel_requests=20)
    assert attempts == [1] * 60
    accepted = [arrival.at for arrival in service.log if arrival.status == 200]
    assert len(accepted) == 60
    assert 59 / 5 / (accepted[-1] - accepted[0]) >= 0.8
