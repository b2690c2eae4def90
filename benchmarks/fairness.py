"""Fairness: does a pipeline with a great many tasks delay a neighbour with one, and do weights and tiers get their shares?

*The neighbour* sends one task at a time to the same function, whose instances are all busy with the other pipeline's
tasks; what counts is the time from just before the send to the start of the handler. *Shares* are of the starts in which
all pipelines still had a backlog.
"""

import time
from collections import Counter
from pathlib import Path

from benchmarks.harness import Figure, Records, median, percentile, program, scratch
from benchmarks.limits import LARGEST
from benchmarks.server import Server, penstock, records
from benchmarks.tasks import payload

FUNCTION = {"handler": "tasks:noop", "max_parallel_requests": 100, "max_instances": 1}
SINGLES = LARGEST * 1000
PAUSE = 0.02


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about a minute and a half, half a minute if `quick`."""
    flood, singles, each = (100_000, 50, 2000) if quick else (1_000_000, 200, 10_000)
    with scratch() as folder:
        return [*_neighbour(folder, flood, singles), *_shares(folder, each)]


def _neighbour(folder: Path, flood: int, singles: int) -> list[Figure]:
    notes = records(folder)
    with penstock(folder / "data") as server:
        server.deploy("noop", **FUNCTION)
        server.client.apply(
            {"pipelines": {name: {"function": "noop", "paused": name == "flood"} for name in ("flood", "one")}}
        )
        server.client.pipeline("one").send(payload(0))
        alone = _delays(server, notes, range(SINGLES, SINGLES + singles))
        server.client.pipeline("flood").send_many([{"i": 1}] * flood)
        server.client.pipeline("flood").resume()
        beside = _delays(server, notes, range(SINGLES * 2, SINGLES * 2 + singles))
        left = server.client.pipeline("flood").show().counts["queued"]
    if not left:
        raise RuntimeError("the neighbour had no tasks left: it should have had some all the time")
    return [
        Figure("delay of a start, nobody else there, p50", median(alone) * 1e3, "ms"),
        Figure(f"delay of a start beside {flood:,} tasks, p50", median(beside) * 1e3, "ms"),
        Figure(f"delay of a start beside {flood:,} tasks, p99", percentile(beside, 0.99) * 1e3, "ms"),
    ]


def _delays(server: Server, notes: Records, numbers: range) -> list[float]:
    sent = {}
    for number in numbers:
        time.sleep(PAUSE)
        sent[number] = time.monotonic()
        server.client.pipeline("one").send(payload(number))
    limit = time.monotonic() + 60
    while True:
        started = {number: start for number, start, _ in notes.read() if number in sent}
        if len(started) == len(sent):
            return [started[number] - sent[number] for number in numbers]
        if time.monotonic() > limit:
            raise TimeoutError(f"{len(started)} of {len(sent)} tasks have started")
        time.sleep(0.2)


def _shares(folder: Path, each: int) -> list[Figure]:
    (folder / "shares").mkdir()
    notes = records(folder / "shares")
    weights, tiers = {"single": 1, "double": 2, "fourfold": 4}, ("realtime", "background", "batch")
    with penstock(folder / "shares" / "data") as server:
        server.client.apply({"functions": {"noop": FUNCTION}, "limits": {"narrow": {"rate": "2000/s"}}})
        made = {name: {"function": "noop", "limits": ["narrow"], "weight": weight} for name, weight in weights.items()}
        first = _race(server, notes, made, each // 4, 1)
        made = {tier: {"function": "noop", "limits": ["narrow"], "tier": tier} for tier in tiers}
        second = _race(server, notes, made, each // 4, 10)
    return [
        *(Figure(f"share of weight {weights[name]} of 7", share) for name, share in first.items()),
        *(Figure(f"share of the tier {name}", share) for name, share in second.items()),
    ]


def _race(
    server: Server, notes: Records, pipelines: dict[str, dict[str, object]], each: int, first: int
) -> dict[str, float]:
    """Let pipelines start at once; return their shares of the starts until the first of them had no more."""
    server.client.apply({"pipelines": {name: settings | {"paused": True} for name, settings in pipelines.items()}})
    for position, name in enumerate(pipelines):
        server.client.pipeline(name).send_many([payload((first + position) * SINGLES + task) for task in range(each)])
    if first == 1:
        server.deploy("noop", **FUNCTION)
    server.client.apply({"pipelines": pipelines})
    numbers = frozenset(
        (first + position) * SINGLES + task for position in range(len(pipelines)) for task in range(each)
    )
    rows = sorted((start, number // SINGLES - first) for number, start, _ in notes.wait(numbers, 120))
    counts: Counter[int] = Counter()
    for _, position in rows:
        counts[position] += 1
        if counts[position] == each:
            break
    return {name: counts[position] / counts.total() for position, name in enumerate(pipelines)}


if __name__ == "__main__":
    program("fairness", measure)
