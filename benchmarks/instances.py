"""Instances alone, without queue, disk and HTTP: how fast they start, and what a task through them costs.

`LocalCompute` is driven by a bare listener that sends the next task when one ends. So what is measured is the compute
adapter and the runtime: cold starts, a thousand at once, an instance per request, and a hundred requests in one instance.
The server's part is this process's CPU time, the instance's its own.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.harness import Figure, cpu_seconds, percentile, program, scratch
from penstock.compute.instances import LocalInstance
from penstock.compute.local import LocalCompute
from penstock.compute.protocol import Blueprint, End, Exit, Instance, PipelineContext, Run
from penstock.runtime.frames import Word
from penstock.runtime.wire import Request

CODE = """
def noop(event, context):
    return None

async def anoop(event, context):
    return None
"""
PIPELINE = PipelineContext(1, "bench", b'{"customer":"a"}')
PAYLOAD = b'{"i":12345,"customer":"c-1842","kind":"noop","flags":[1,2,3],"note":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}'
SHARED = 100


class Driver:
    """Be the listener: count, and keep every instance as busy as it was at first."""

    def __init__(self) -> None:
        self.left = 0
        self.sent = 0
        self.done = asyncio.Event()
        self.starts: list[float] = []
        self.awaited = 0

    def begin(self, tasks: int) -> None:
        self.left, self.awaited = tasks, tasks
        self.done.clear()

    def runs(self, count: int) -> list[Run]:
        count = min(count, self.left)
        self.left -= count
        first = self.sent = self.sent + count
        return [Run(number, number, 1, PIPELINE, PAYLOAD, 30.0) for number in range(first - count + 1, first + 1)]

    def finished(self, instance: Instance, ends: Sequence[End]) -> None:
        self.starts.append(ends[0].started)
        self.awaited -= len(ends)
        if self.left:
            instance.run(self.runs(len(ends)))
        elif not self.awaited:
            self.done.set()

    def asked(self, instance: Instance, requests: Sequence[Request]) -> None:
        """Do nothing: these handlers ask for nothing."""

    def ready(self, instance: Instance, at: float) -> None: ...
    def heard(self, instance: Instance, words: Sequence[Word]) -> None: ...
    def started(self, instance: Instance, starts: Sequence[tuple[int, float]]) -> None: ...
    def output(self, instance: Instance, attempt: int, stream: str, text: str) -> None: ...
    def answers(self, instance: Instance, at: float) -> None: ...
    def gone(self, instance: Instance, exit: Exit) -> None: ...  # noqa: A002


async def cold_starts(compute: LocalCompute, driver: Driver, rounds: int) -> list[float]:
    """Return how long each of so many instances took from `launch` to the start of its handler, in seconds."""
    blueprint = await prepared(compute, "noop", 1)
    taken = []
    for _ in range(rounds):
        driver.begin(1)
        launched = time.monotonic()
        instance = compute.launch(blueprint)
        instance.run(driver.runs(1))
        await driver.done.wait()
        taken.append(driver.starts[-1] - launched)
        instance.stop()
        await asyncio.sleep(0.01)
    return taken


async def storm(compute: LocalCompute, driver: Driver, count: int) -> float:
    """Return the seconds until so many instances, launched at once, have each run a task."""
    blueprint = await prepared(compute, "noop", 1)
    driver.begin(count)
    launched = time.monotonic()
    instances = [compute.launch(blueprint) for _ in range(count)]
    for instance in instances:
        instance.run(driver.runs(1))
    await driver.done.wait()
    taken = time.monotonic() - launched
    for instance in instances:
        instance.kill()
    return taken


async def flow(
    compute: LocalCompute, driver: Driver, handler: str, instances: int, slots: int, tasks: int
) -> tuple[float, float, float]:
    """Return tasks a second, and the CPU seconds a task took in the server and in the instances."""
    blueprint = await prepared(compute, handler, slots)
    fleet = [compute.launch(blueprint) for _ in range(instances)]
    driver.begin(instances * slots * 10)
    for instance in fleet:
        instance.run(driver.runs(slots))
    await driver.done.wait()
    pids = [instance.pid for instance in fleet if isinstance(instance, LocalInstance)]
    theirs, ours, began = sum(map(cpu_seconds, pids)), time.process_time(), time.monotonic()
    driver.begin(tasks)
    for instance in fleet:
        instance.run(driver.runs(slots))
    await driver.done.wait()
    taken = time.monotonic() - began
    ours, theirs = time.process_time() - ours, sum(map(cpu_seconds, pids)) - theirs
    for instance in fleet:
        instance.stop()
    return tasks / taken, ours / tasks, theirs / tasks


async def prepared(compute: LocalCompute, handler: str, slots: int) -> Blueprint:
    blueprint = Blueprint("bench", handler, 1, "bundle", f"bench_tasks:{handler}", slots=slots)
    await compute.prepare(blueprint, 30.0)
    return blueprint


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 15 s."""
    scale = 1 if quick else 5
    figures = []
    with scratch() as folder:
        (folder / "bundle").mkdir()
        (folder / "bundle" / "bench_tasks.py").write_text(CODE)
        for name, runner in (("asyncio", asyncio.run), ("uvloop", uvloop.run)):
            figures += _on_loop(runner, name, folder, scale)
    return figures


def _on_loop(
    runner: Callable[[Coroutine[Any, Any, list[Figure]]], list[Figure]], name: str, folder: Path, scale: int
) -> list[Figure]:
    async def main() -> list[Figure]:
        driver, compute = Driver(), LocalCompute(folder / name, lambda bundle: folder / bundle)
        await compute.open(driver)
        try:
            cold = await cold_starts(compute, driver, 40 * scale)
            exclusive = await flow(compute, driver, "noop", 2, 1, 8_000 * scale)
            shared = await flow(compute, driver, "anoop", 1, SHARED, 20_000 * scale)
            threads = await flow(compute, driver, "noop", 1, SHARED, 8_000 * scale)
            stormed = await storm(compute, driver, 200 * scale)
        finally:
            await compute.close()
        return [
            Figure(
                f"cold start, launch to handler start, p50 ({name})", percentile(cold, 0.5) * 1e3, "ms", 4, "at most"
            ),
            Figure(f"cold start, launch to handler start, p99 ({name})", percentile(cold, 0.99) * 1e3, "ms"),
            Figure(f"{200 * scale} instances at once, until each has run a task ({name})", stormed, "s"),
            *_flow_figures(f"2 exclusive instances ({name})", exclusive, 10_000, 20e-6, None),
            *_flow_figures(f"a shared async instance ({name})", shared, None, 6e-6, 15e-6),
            *_flow_figures(f"a shared instance with threads ({name})", threads, None, None, None),
        ]

    return runner(main())


def _flow_figures(
    what: str, flowed: tuple[float, float, float], rate: float | None, ours: float | None, theirs: float | None
) -> list[Figure]:
    return [
        Figure(f"{what}: no-op tasks", flowed[0], "/s", rate),
        Figure(f"{what}: server CPU a task", flowed[1] * 1e6, "µs", ours and ours * 1e6, "at most"),
        Figure(f"{what}: instance CPU a task", flowed[2] * 1e6, "µs", theirs and theirs * 1e6, "at most"),
    ]


if __name__ == "__main__":
    program("instances", measure)
