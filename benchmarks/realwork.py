"""Real work through a map: 1,000 tasks of 200 ms of CPU each (NumPy), beside two plain processes that loop over the same.

Plain processes do half of their tasks before and half after Penstock's turn, so that a machine that slows down slows both. What
Penstock loses is what its server, its frames and its client use of the same two cores. The client reads results as they end,
with a progress whose counts are checked against the moments at which handlers say that they ended: never ahead of the
truth, never falling, and whole at the end. `max_instances: 2` is what a user of two cores sets; what comes without is told too.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.environments import REQUIREMENTS, environment
from benchmarks.harness import ROOT, Figure, program, scratch
from benchmarks.server import Server, penstock
from penstock import Client
from penstock.client import MapCounts

PROCESSES: Final = 2
ALONE: Final = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""Each process works in one thread, as instances do."""


class Watch:
    """Check what is told of progress: `told` are (moment, items that have ended)."""

    def __init__(self) -> None:
        self.told: list[tuple[float, int]] = []
        self.received = 0

    def progress(self, counts: MapCounts) -> None:
        """Take note of counts. Raises RuntimeError if they fall, or are behind the results that came before them."""
        before = self.told[-1][1] if self.told else 0
        if not max(before, self.received) <= counts.ended <= counts.items:
            raise RuntimeError(f"{counts.ended} were said to have ended after {before}, with {self.received} results")
        if counts.ok != counts.ended or counts.failed:
            raise RuntimeError(f"items failed: {counts.failed}")
        self.told.append((time.monotonic(), counts.ended))

    def check(self, ends: Sequence[float]) -> float:
        """Return how late (seconds) the counts were at most. Raises RuntimeError if they were ever ahead of the truth."""
        ordered = sorted(ends)
        if not self.told or self.told[-1][1] != len(ordered):
            raise RuntimeError(f"the last that was told of {len(ordered)} items is {self.told[-1:]}")
        latest = 0.0
        for (moment, ended), (_, following) in zip(self.told, [*self.told[1:], self.told[-1]], strict=True):
            if ended and ordered[ended - 1] > moment:
                raise RuntimeError(f"{ended} items were said to have ended, which was not yet so")
            latest = max([latest, *(self._heard(following) - end for end in ordered[ended:following])])
        return latest

    def _heard(self, ended: int) -> float:
        """Return when so many were first said to have ended."""
        return next(moment for moment, count in self.told if count >= ended)


def plain(python: Path, steps: int, tasks: int) -> tuple[float, set[float]]:
    """Return the seconds that two plain processes take for so many tasks, and the checksums."""
    argv = [str(python), "-m", "benchmarks.peers.loops", "work", str(steps), str(tasks // PROCESSES)]
    loops = [
        subprocess.Popen(argv, cwd=ROOT, env=ALONE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    try:
        for loop in loops:
            assert loop.stdout is not None
            loop.stdout.readline()
        began = time.monotonic()
        for loop in loops:
            assert loop.stdin is not None
            loop.stdin.write("go\n")
            loop.stdin.flush()
        told = [loop.stdout.readline() for loop in loops if loop.stdout is not None]
        taken = time.monotonic() - began
    finally:
        for loop in loops:
            loop.kill()
            loop.communicate()
    return taken, {float(word) for line in told for word in line.split()}


def mapped(client: Client, function: str, steps: int, tasks: int) -> tuple[float, set[float], float, Watch]:
    """Return the seconds from the call of `map` to the last result, the checksums, the lateness of the counts, and these."""
    watch, ends, sums = Watch(), [], set()
    began = time.monotonic()
    made = client.function(function).map([{"steps": steps}] * tasks, progress=watch.progress)
    for _, result in made.as_completed():
        watch.received += 1
        ends.append(result["ended"])
        sums.add(result["sum"])
    return time.monotonic() - began, sums, watch.check(ends), watch


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about six minutes."""
    tasks = 40 if quick else 1000
    python = environment("numpy")
    told = subprocess.run(
        [python, "-m", "benchmarks.peers.loops", "calibrate"], cwd=ROOT, env=ALONE, capture_output=True, text=True, check=True
    )  # fmt: skip
    steps = int(told.stdout)
    with scratch() as folder, penstock(folder / "data") as server:
        deploy(server, folder, "two", max_instances=PROCESSES, min_instances=PROCESSES)
        deploy(server, folder, "many", timeout="15m")
        client = server.client
        mapped(client, "two", steps, 2 * PROCESSES)
        before, expected = plain(python, steps, tasks // 2)
        taken, sums, late, watch = mapped(client, "two", steps, tasks)
        after, more = plain(python, steps, tasks // 2)
        free, others, _, _ = mapped(client, "many", steps, tasks)
    if not expected == more == sums == others or len(sums) != 1:
        raise RuntimeError(f"the work came to different results: {expected}, {more}, {sums}, {others}")
    bare = before + after
    return [
        Figure("share of what two plain processes reach", 100 * bare / taken, "%", 95),
        Figure("tasks a second, two plain processes in a loop", tasks / bare, "/s"),
        Figure("tasks a second, through a map", tasks / taken, "/s"),
        Figure("counts that were told and were right", len(watch.told), note="never falling, never ahead of the truth"),
        Figure("an end that is counted late, at most", late * 1e3, "ms"),
        Figure("share without max_instances", 100 * bare / free, "%", note="as many instances as the burst starts"),
    ]


def deploy(server: Server, folder: Path, name: str, **settings: Any) -> None:
    """Deploy the work with its packages."""
    code = folder / name
    code.mkdir()
    shutil.copy(ROOT / "benchmarks" / "peers" / "loops.py", code)
    shutil.copy(REQUIREMENTS / "numpy.txt", code / "requirements.txt")
    server.client.function(name).deploy(code, handler="loops:work", **settings)


if __name__ == "__main__":
    program("realwork", measure)
