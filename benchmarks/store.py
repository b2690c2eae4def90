"""What the store costs a row: wall time, CPU of the whole process, and CPU of the event loop's thread, per batch size.

Tasks with 100-byte payloads over 200 pipelines are enqueued and, some thousands later, recorded as done, on disk each
time. Batches of one come from 50 callers at once, as single sends do over HTTP.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from benchmarks.harness import Figure, fsync_seconds, percentile, program, scratch
from penstock.domain.task import Attempt, Outcome, State, Task
from penstock.store.sqlite import SqliteStore

PIPELINES = 200
ROUND = 5_000  # tasks that are enqueued before they are recorded
SHAPES = ((1, 50), (100, 4), (1000, 2))  # rows a call, calls at once
LOOP_TARGET, CPU_TARGET = 1.5, 4.0  # µs a row, with 1000 rows a call
PAYLOAD = b"x" * 100

T = TypeVar("T")


class Meter:
    """Add up wall time, the process's CPU and this thread's CPU, in seconds."""

    def __init__(self) -> None:
        self.total = [0.0, 0.0, 0.0]

    async def run(self, work: Awaitable[None]) -> None:
        before = (time.perf_counter(), time.process_time(), time.thread_time())
        await work
        after = (time.perf_counter(), time.process_time(), time.thread_time())
        self.total = [total + b - a for total, a, b in zip(self.total, before, after, strict=True)]


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 20 s."""
    figures: list[Figure] = []
    with scratch() as folder:
        disk = fsync_seconds(folder)
        for rows, at_once in SHAPES:
            rounds = (1 if quick else 4) * (1 if rows == 1 else 3)
            figures += asyncio.run(_measure(folder / f"{rows}", rows, at_once, rounds))
        disk += fsync_seconds(folder)
    return [Figure("fsync of this disk, p50", percentile(disk, 0.5) * 1e3, "ms"), *figures]


async def _measure(folder: Path, rows: int, at_once: int, rounds: int) -> list[Figure]:
    store = SqliteStore(folder)
    await store.open()
    project = await store.project("default")

    async def enqueue(tasks: list[Task]) -> None:
        await store.enqueue(project, tasks)

    async def record(attempts: list[Attempt]) -> None:
        await store.record(project, attempts)

    meters = {"enqueue": Meter(), "record": Meter()}
    rng = random.Random(1)
    first = store.epoch << 40
    for number in range(rounds + 1):
        batches = [_tasks(rng, first + start, rows) for start in range(1, ROUND, rows)]
        outcomes = [[_done(task) for task in batch] for batch in batches]
        first += ROUND
        if number == 1:  # the first round warmed up
            meters = {name: Meter() for name in meters}
        await meters["enqueue"].run(_spread(batches, enqueue, at_once))
        await meters["record"].run(_spread(outcomes, record, at_once))
    await store.close()
    return [figure for name, meter in meters.items() for figure in _figures(name, meter, rows, at_once, rounds * ROUND)]


def _tasks(rng: random.Random, first: int, count: int) -> list[Task]:
    now = time.time()
    return [
        Task(first + n, f"customer-{rng.randrange(PIPELINES)}", PAYLOAD, created=now, expires=now + 86400.0)
        for n in range(count)
    ]


def _done(task: Task) -> Attempt:
    return Attempt(task, Outcome.OK, State.DONE, b"null", task.created, task.created, version=1)


async def _spread(batches: list[list[T]], call: Callable[[list[T]], Awaitable[None]], at_once: int) -> None:
    """Make a call for each batch, so many at once."""
    left = iter(batches)

    async def caller() -> None:
        for batch in left:
            await call(batch)

    await asyncio.gather(*[caller() for _ in range(at_once)])


def _figures(name: str, meter: Meter, rows: int, at_once: int, total: int) -> list[Figure]:
    wall, cpu, loop = (seconds / total * 1e6 for seconds in meter.total)
    what = f"{name}, {rows} a call, {at_once} calls at once"
    batched = rows >= 1000
    return [
        Figure(f"{what}: wall", wall, "µs a row"),
        Figure(f"{what}: CPU", cpu, "µs a row", CPU_TARGET if batched else None, "at most"),
        Figure(f"{what}: CPU of the loop's thread", loop, "µs a row", LOOP_TARGET if batched else None, "at most"),
    ]


if __name__ == "__main__":
    program("store", measure)
