"""Throughput: no-op tasks with payloads of 100 bytes, from just before the first send to the end of the last task.

Penstock over HTTP by its Python client, durable: a send is answered when it is on disk, fsync included, and what became of
a task is on disk before the API tells it, which is looked up in the end. Peers in the same run on the same disk, each the
fastest way that it has (see `benchmarks/peers`), each a program in an environment of its own. All tasks note their ends in
the same way, and all senders share the two cores with the workers.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.environments import run_peer
from benchmarks.harness import Figure, Numbers, Others, Records, calm, family_cpu, median, program, scratch
from benchmarks.server import Server, penstock, records
from benchmarks.services import NotHere
from benchmarks.tasks import payload
from penstock import AsyncClient

SMALL, LARGE, ROUNDS, IN_FLIGHT, WARM_UP = 10_000, 100_000, 3, 50, 200


@dataclass(frozen=True, slots=True)
class Peer:
    """Name a peer program and the environments that it needs; `single`: it sends one by one though it knows batches."""

    name: str
    needs: Sequence[str] = ()
    single: bool = False
    large: bool = True


PEERS = (
    Peer("pgqueuer", ("postgres", "pgqueuer")),
    Peer("pgqueuer", ("postgres", "pgqueuer"), single=True, large=False),
    Peer("dramatiq", ("redis", "dramatiq")),
    Peer("celery", ("redis", "celery"), large=False),
    Peer("huey", ("huey",)),
    Peer("futures"),
    Peer("futures", single=True),
)


@dataclass(frozen=True, slots=True)
class Way:
    """Describe one way to run no-op tasks on Penstock, and what is promised of it (tasks a second)."""

    name: str
    promised: float | None
    settings: dict[str, Any]
    single: bool = False
    pipeline: dict[str, Any] = field(default_factory=dict)


SHARED = {"max_parallel_requests": 100, "max_instances": 2}
WAYS = (
    Way("shared instances, async handler", 30_000, {"handler": "tasks:noop", **SHARED}),
    Way("shared instances, sync handler", None, {"handler": "tasks:noop_sync", **SHARED}),
    Way("exclusive instances", 6_000, {"handler": "tasks:noop_sync", "max_instances": 4}),
    Way(
        "exclusive instances, batches of 100",
        None,
        {"handler": "tasks:noop_batch", "max_instances": 4},
        pipeline={"batch": {"size": 100, "wait": "50ms"}},
    ),
    Way(
        f"shared instances, single sends, {IN_FLIGHT} in flight",
        5_000,
        {"handler": "tasks:noop", **SHARED},
        single=True,
    ),
)
CPU_PROMISED = 30.0


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 8 minutes, one if `quick`."""
    sizes = [2_000] if quick else [SMALL] * ROUNDS + [LARGE]
    figures: list[Figure] = []
    best: dict[bool, float] = {}
    with scratch() as folder, penstock(folder / "data") as server:
        notes, numbers = records(folder), Numbers()
        for way in WAYS:
            rounds = Runner(server, notes, numbers, way).rounds(sizes[:ROUNDS] if way.single else sizes)
            figures += _figures(way, rounds)
            if not way.pipeline:
                best[way.single] = max(best.get(way.single, 0.0), _rate(rounds, min(sizes)))
    for peer in PEERS:
        figures += _peer(peer, sizes if peer.large else sizes[:ROUNDS], best)
    return figures


# Penstock -------------------------------------------------------------------------------------------------------------
class Runner:
    """Measure one way on a running server, round by round."""

    def __init__(self, server: Server, notes: Records, numbers: Numbers, way: Way) -> None:
        self._server, self._notes, self._numbers, self._way = server, notes, numbers, way
        self._name, self._ended = f"way-{WAYS.index(way)}", 0
        server.deploy(self._name, **way.settings)
        server.client.pipeline(self._name).put({"function": self._name, **way.pipeline})

    def rounds(self, sizes: Sequence[int]) -> list[dict[str, float]]:
        """Return a round for each of these numbers of tasks, after one that starts the instances."""
        self._round(WARM_UP)
        return [calm(partial(self._round, size)) for size in sizes]

    def _round(self, count: int) -> dict[str, float]:
        server, numbers = self._server, self._numbers.take(count)
        others, cpu, family, begin = Others(), server.cpu(), family_cpu(), time.monotonic()
        if self._way.single:
            asyncio.run(_send_singly(server, self._name, numbers))
        else:
            server.client.pipeline(self._name).send_many(payload(number) for number in numbers)
        end = max(row[2] for row in self._notes.wait(numbers, 60 + count / 100))
        self._ended += count
        server.settled(self._name, self._ended)  # the CPU that writing down the outcomes takes belongs to the tasks
        return {
            "tasks": count,
            "tasks_per_second": count / (end - begin),
            "server_cpu_us": (server.cpu() - cpu) / count * 1e6,
            "cpu_us_per_task": (family_cpu() - family) / count * 1e6,
            "others": others.cores(),
        }


async def _send_singly(server: Server, name: str, numbers: range) -> None:
    left = iter(numbers)

    async def send(put: Callable[[Any], Awaitable[str]]) -> None:
        for number in left:
            await put(payload(number))

    async with AsyncClient(server.url, server.token) as client:
        pipeline = client.pipeline(name)
        await asyncio.gather(*(send(pipeline.send) for _ in range(IN_FLIGHT)))


def _figures(way: Way, rounds: list[dict[str, float]]) -> list[Figure]:
    found = []
    for size in sorted({int(r["tasks"]) for r in rounds}):
        note = f"{median([r['cpu_us_per_task'] for r in rounds if r['tasks'] == size]):.0f} µs of CPU a task in all processes"
        found.append(
            Figure(f"Penstock, {way.name}, {size:,} tasks", _rate(rounds, size), "/s", way.promised, note=note)
        )
        cpu = median([r["server_cpu_us"] for r in rounds if r["tasks"] == size])
        promised = None if way.single else CPU_PROMISED
        found.append(Figure(f"Penstock, {way.name}, {size:,} tasks: server CPU a task", cpu, "µs", promised, "at most"))
    return found


def _rate(rounds: Sequence[dict[str, float]], size: int) -> float:
    return median([r["tasks_per_second"] for r in rounds if r["tasks"] == size])


# peers ----------------------------------------------------------------------------------------------------------------
def _peer(peer: Peer, sizes: Sequence[int], best: dict[bool, float]) -> list[Figure]:
    """Return a peer's figures, and how many times as many tasks Penstock's best ways did: in batches, and sent singly.

    A peer that cannot run here is left out, with the reason.
    """
    try:
        line = run_peer(peer.name, peer.needs, "--tasks", *map(str, sizes), *(["--single"] if peer.single else []))
    except NotHere as reason:
        return [Figure(f"{peer.name}: left out", None, note=str(reason))]
    found = []
    for size in sorted(set(sizes)):
        rate = _rate(line["rounds"], size)
        cpu = median([r["cpu_us_per_task"] for r in line["rounds"] if r["tasks"] == size])
        note = f"{line['configuration']}; {cpu:.0f} µs of CPU a task in all processes"
        if size == min(sizes):
            note += f"; Penstock does {best[False] / rate:.1f} times as many, {best[True] / rate:.1f} times with single sends"
        found.append(
            Figure(f"{peer.name}{', single sends' if peer.single else ''}, {size:,} tasks", rate, "/s", note=note)
        )
    return found


if __name__ == "__main__":
    program("throughput", measure)
