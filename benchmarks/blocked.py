"""Blocked: what do 10,000 pipelines with tasks cost that may not start?

*Held*: each pipeline's first task was told to try later by downstream, with 99 behind it. *Behind one limit*: all of them
wait at one shared limit of 100 starts a second. *Evenly*: the most and the fewest starts that a pipeline had by then.
"""

import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, program, scratch
from benchmarks.limits import LARGEST, most_in_window
from benchmarks.server import Server, penstock, records
from benchmarks.tasks import payload

SHARED = 100


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 4 minutes, one if `quick`."""
    pipelines, each, watch = (1000, 20, 10.0) if quick else (10_000, 100, 60.0)
    with scratch() as folder:
        held = _held(folder / "held", pipelines, each, watch)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        notes = records(folder)
        server = stack.enter_context(penstock(folder / "data"))
        function = {"handler": "tasks:noop", "max_parallel_requests": 100, "max_instances": 1}
        server.client.apply({"functions": {"noop": function}})
        server.client.apply(_configuration(pipelines, {"function": "noop", "limits": ["provider"]}))
        _send(server, pipelines, 10)
        server.deploy("noop", **function)  # until now there was no code: so they all begin to wait at the limit at once
        time.sleep(2)
        begin, cpu = time.monotonic(), server.cpu()
        time.sleep(watch)
        end, share = time.monotonic(), (server.cpu() - cpu) / watch
        rows = notes.read()
    moments = sorted(start for number, start, _ in rows if number >= 0)
    within = [moment for moment in moments if begin <= moment < end]
    counts = Counter(number // LARGEST for number, start, _ in rows if number >= 0 and start < end)
    fewest = min(counts.values()) if len(counts) == pipelines else 0
    return [
        *held,
        Figure("behind one limit: windows above it", float(most_in_window(moments, 1.0) > SHARED), "", 0, "at most"),
        Figure("behind one limit: utilisation", len(within) / (SHARED * (end - begin)), "", 0.99),
        Figure("behind one limit: most starts less fewest", max(counts.values()) - fewest, "", 1, "at most"),
        Figure("behind one limit: server CPU, share of one core", share, "", 0.05, "at most"),
    ]


def _held(data: Path, pipelines: int, each: int, watch: float) -> list[Figure]:
    with penstock(data) as server:
        server.deploy("refused", handler="tasks:refused", max_parallel_requests=100, max_instances=2)
        server.client.apply(_configuration(pipelines, {"function": "refused"}))
        begin = time.monotonic()
        _send(server, pipelines, each)
        took = time.monotonic() - begin
        waiting = pipelines * each
        _until_quiet(server, waiting)
        before, cpu = server.client.status()["tasks"], server.cpu()
        time.sleep(watch)
        share = (server.cpu() - cpu) / watch
        after, size = server.client.status()["tasks"], server.memory()["Rss"]
        if before != after or after["queued"] != waiting:
            raise RuntimeError(f"{waiting} tasks should have waited all the time; there were {before}, then {after}")
    return [
        Figure("held by downstream: tasks that wait", waiting),
        Figure("held by downstream: server CPU, share of one core", share, "", 0.02, "at most"),
        Figure("held by downstream: server memory, RSS", size / 1e6, "MB"),
        Figure("held by downstream: tasks sent", waiting / took, "/s"),
    ]


def _configuration(pipelines: int, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "limits": {"provider": {"rate": f"{SHARED}/s"}},
        "pipelines": {f"site-{pipeline:05}": settings for pipeline in range(pipelines)},
    }


def _send(server: Server, pipelines: int, each: int) -> None:
    for pipeline in range(pipelines):
        tasks = [payload(pipeline * LARGEST + task) for task in range(each)]
        server.client.pipeline(f"site-{pipeline:05}").send_many(tasks)


def _until_quiet(server: Server, waiting: int) -> None:
    """Wait until every pipeline is held: all tasks wait again, and the server does next to nothing."""
    limit = time.monotonic() + 60
    while True:
        cpu = server.cpu()
        time.sleep(1)
        tasks = server.client.status()["tasks"]
        if tasks["queued"] == waiting and server.cpu() - cpu < 0.05:
            return
        if time.monotonic() > limit:
            raise RuntimeError(f"{waiting} tasks should wait; there are {tasks}")


if __name__ == "__main__":
    program("blocked", measure)
