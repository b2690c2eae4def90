"""A burst: 1,000 tasks that sleep for 5 s are sent at once. When is the last result there, and what memory did it take?

Penstock runs each in its own new process (`reuse: false`), or shares instances; what is looked at last is the pipeline's
count of tasks that ended well, so results are on disk. Peers in the same run, each as it takes a burst best, and where it can
with a process for each task; those that need minutes for a thousand processes are given fewer tasks.
"""

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.environments import run_peer
from benchmarks.harness import Figure, Numbers, Records, calm, number, program, scratch
from benchmarks.peers.bursts import timed
from benchmarks.server import Server, penstock, records
from benchmarks.services import NotHere

SECONDS, SHARED = 5.0, 100
MANY = 10_000


@dataclass(frozen=True, slots=True)
class Way:
    """Describe one way to take a burst, and what is promised of it (seconds)."""

    name: str
    tasks: int
    promised: float
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Peer:
    """Name a peer program and the environments that it needs; `tasks` it gets, each in a process of its own if `single`."""

    name: str
    needs: tuple[str, ...] = ()
    tasks: int = 1000
    single: bool = False


def _ways(tasks: int) -> tuple[Way, ...]:
    shared = {"handler": "tasks:doze_async", "max_parallel_requests": SHARED}
    return (
        Way("a new process each", tasks, 7.0, {"handler": "tasks:doze", "reuse": False}),
        Way(f"{SHARED} in an instance", tasks, 5.3, shared),
        Way(f"{SHARED} in an instance", 10 * tasks, 7.0, shared),
    )


PEERS = (
    Peer("fork", single=True),
    Peer("dask", ("dask",)),
    Peer("ray", ("ray",)),
    Peer("ray", ("ray",), tasks=100, single=True),
    Peer("celery", ("redis", "celery")),
    Peer("celery", ("redis", "celery"), tasks=200, single=True),
    Peer("lithops", ("lithops",), tasks=10, single=True),
)


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 4 minutes."""
    tasks, seconds = (100, 1.0) if quick else (MANY // 10, SECONDS)
    figures, first = [], 0.0
    with scratch() as folder, penstock(folder / "data") as server:
        noted, numbers = records(folder), Numbers()
        for index, way in enumerate(_ways(tasks)):
            function = f"burst-{index}"
            server.deploy(function, **way.settings)
            server.client.pipeline(function).put({"function": function})
            found = calm(partial(_burst, server, function, noted, numbers, way.tasks, seconds))
            name = f"{way.tasks:,} tasks of {seconds:g} s, {way.name}"
            note = f"last start after {found['last_start']:.2f} s"
            promised = None if quick else way.promised
            figures.append(Figure(f"Penstock, {name}", found["seconds"], "s", promised, "at most", note))
            figures.append(Figure(f"Penstock, {name}: memory", found["memory"] / 1e6, "MB"))
            first = first or found["seconds"]
    for peer in PEERS:
        figures += _peer(peer, min(peer.tasks, tasks), seconds, first)
    return figures


def _burst(
    server: Server, function: str, noted: Records, numbers: Numbers, tasks: int, seconds: float
) -> dict[str, Any]:
    """Send a burst; return what it took until the server knows of all ends."""
    pipeline = server.client.pipeline(function)
    before, ended = pipeline.show().counts["done"], 0.0

    def send(these: range) -> None:
        nonlocal ended
        begin = time.monotonic()
        pipeline.send_many([{"i": one, "seconds": seconds} for one in these])
        server.settled(function, before + tasks, 120)
        ended = time.monotonic() - begin

    return {**timed(noted, numbers.take(tasks), seconds, send), "seconds": ended}


def _peer(peer: Peer, tasks: int, seconds: float, ours: float) -> list[Figure]:
    name = f"{peer.name}, {tasks:,} tasks of {seconds:g} s" + (", a process each" if peer.single else "")
    try:
        found = run_peer(
            f"burst_{peer.name}",
            peer.needs,
            "--tasks",
            str(tasks),
            "--seconds",
            str(seconds),
            *(["--single"] * peer.single),
        )
    except NotHere as reason:
        return [Figure(name, None, note=str(reason))]
    note = f"{found['configuration']}; Penstock with a new process each took {number(ours / found['seconds'])} of it"
    memory = [] if found["memory"] is None else [Figure(f"{name}: memory", found["memory"] / 1e6, "MB")]
    return [Figure(name, found["seconds"], "s", note=note), *memory]


if __name__ == "__main__":
    program("burst", measure)
