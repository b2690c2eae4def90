"""Memory: is an instance that grows stopped in time, what becomes of its neighbours, and what does looking cost?

An allocator takes 50 MB after 50 MB as fast as it can, under `memory: 256MB`: once with neighbours in instances of their own,
once with neighbours in the same instance. It notes what it holds after every MiB, so that its peak is known to that. Then
the CPU of everything while many instances of one function idle, with a limit and without one.
"""

import json
import time
from pathlib import Path

from benchmarks.harness import Figure, cpu_seconds, descendants, program, scratch
from benchmarks.server import Server, penstock, records

MB = 1e6
NEIGHBOURS = 40
LIMIT = "256MB"
PATIENCE = 60.0
SETTLE = 5.0


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about a minute and a half."""
    with scratch() as folder:
        noted = records(folder).folder
        with penstock(folder / "data") as server:
            by = server.client.status()["memory_limits"]
            figures = []
            for where, parallel in (("instances of their own", 1), ("the same instance", 2 * NEIGHBOURS)):
                figures += _hoard(server, noted, where, parallel, rounds=1 if quick else 5)
        for count in (50,) if quick else (200, 1000):
            shares = {}
            for limit in (None, LIMIT):
                with penstock(folder / f"idle-{count}-{limit}") as server:
                    shares[limit] = _idle_share(server, count, limit, 3.0 if quick else 15.0)
            what = f"CPU of {count} idle instances"
            figures.append(Figure(f"{what} without a limit, share of one core", shares[None]))
            more = shares[LIMIT] - shares[None]
            figures.append(Figure(f"{what} with {LIMIT} each, on top of that", more, "", 0.03, "at most"))
    return [*figures, Figure("limits are enforced by", None, note=str(by))]


def _hoard(server: Server, noted: Path, where: str, parallel: int, rounds: int) -> list[Figure]:
    name = f"crowd-{parallel}"
    server.deploy(name, handler="tasks:crowd", memory=LIMIT, max_parallel_requests=parallel, timeout="60s")
    pipeline = server.client.pipeline(name)
    pipeline.put({"function": name, "retry": {"attempts": 1}})
    peaks, ends, lost = [], [], 0
    for round_ in range(rounds):
        board = noted / f"{name}.{round_}"
        tasks = pipeline.send_many([{"i": number} for number in range(NEIGHBOURS)])
        (greedy,) = pipeline.send_many([{"i": NEIGHBOURS, "hoard": str(board)}])
        end = server.client.wait(greedy, PATIENCE)
        ends.append(end.outcome)
        neighbours = [server.client.wait(task, PATIENCE) for task in tasks]
        lost += sum(task.outcome != "ok" or task.attempts != 1 for task in neighbours)
        peaks.append(json.loads(board.read_bytes()))
    assert set(ends) == {"out_of_memory"}, ends
    what = f"allocator with neighbours in {where}"
    return [
        Figure(f"{what}, highest peak of {rounds}", max(peaks) / MB, "MB", 384, "at most"),
        Figure(
            f"{what}: neighbours that did not end well or lost an attempt, of {rounds * NEIGHBOURS}",
            lost,
            "",
            0,
            "at most",
        ),
    ]


def _idle_share(server: Server, count: int, limit: str | None, watch: float) -> float:
    """Return the share of a core that the server and everything below it use while so many instances idle."""
    server.deploy("idle", handler="tasks:noop_sync", memory=limit, min_instances=count)
    until = time.monotonic() + PATIENCE
    while server.client.status()["instances"] < count:
        if time.monotonic() > until:
            raise RuntimeError(f"there should be {count} instances: {server.client.status()}")
        time.sleep(0.1)
    time.sleep(SETTLE)
    before, began = _family_cpu(server), time.monotonic()
    time.sleep(watch)
    return (_family_cpu(server) - before) / (time.monotonic() - began)


def _family_cpu(server: Server) -> float:
    return sum(map(cpu_seconds, descendants(server.pid)))


if __name__ == "__main__":
    program("memory", measure)
