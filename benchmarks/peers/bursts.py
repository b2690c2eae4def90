"""What every peer program of the burst does: workers up, tasks that sleep sent at once, one line of JSON with how long it took.

python -m benchmarks.peers.burst_NAME [--tasks N] [--seconds S] [--single]
"""

import argparse
import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from benchmarks.harness import ROOT, Numbers, Others, Records, family_memory, program_stops, scratch
from benchmarks.peers.common import Setup

LOOK = 0.8
"""The part of a task's sleep after which memory is looked at: most are asleep then."""

PATIENCE = 90.0
"""Seconds after which what has not ended is given up."""


Run = Callable[[range, float], None]


def burst(name: str, start: Callable[[Setup, int], tuple[str, Run]]) -> None:
    """Measure a peer and print its line. `start` makes all ready for so many tasks; returns (configuration, how to send)."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.peers.burst_{name}")
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--single", action="store_true", help="a process for each task")
    options = parser.parse_args()
    program_stops()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        records = Records(folder / "records")
        os.environ["BENCH_RECORDS"] = str(records.folder)
        os.chdir(ROOT)  # workers import `benchmarks` from here
        configuration, send = start(Setup(folder, stack, options.single), options.tasks)
        numbers = Numbers()
        warm = numbers.take(2)
        send(warm, 0.01)
        records.wait(warm, PATIENCE)
        line = timed(records, numbers.take(options.tasks), options.seconds, lambda these: send(these, options.seconds))
        print(json.dumps({"peer": name, "configuration": configuration, **line}), flush=True)


def timed(records: Records, numbers: range, seconds: float, send: Callable[[range], object]) -> dict[str, Any]:
    """Return how long (s) it took from just before the first send to the last end, and what memory was used meanwhile.

    Raises TimeoutError if that is never.
    """
    memory: list[int] = []
    look = threading.Timer(seconds * LOOK, lambda: memory.append(family_memory()))
    others, begin = Others(), time.monotonic()
    look.start()
    try:
        send(numbers)
        rows = records.wait(numbers, PATIENCE)
    finally:
        look.cancel()
    ended = max(row[2] for row in rows)
    look.join()
    return {
        "tasks": len(numbers),
        "seconds": round(ended - begin, 3),
        "last_start": round(max(row[1] for row in rows) - begin, 3),
        "memory": memory[0] if memory else None,
        "others": round(others.cores(), 2),
    }
