"""Real work: the handler that is deployed, and the same in a plain process that does nothing but loop over it.

    python -m benchmarks.peers.loops calibrate            prints how many steps take 0.2 s of CPU
    python -m benchmarks.peers.loops work STEPS TASKS     prints "ready", reads a line, works, and prints what it came to

The work is multiplying matrices, in one thread, and a sum over them: a checksum that every run must come to.
"""

import sys
import time
from typing import Any

import numpy as np

SIDE = 192
CPU = 0.2
"""Seconds of CPU that a task takes."""


def work(event: Any, _context: Any) -> dict[str, float]:
    """Do so many steps; return the checksum, and the moment (seconds of CLOCK_MONOTONIC) of the end."""
    matrix = np.linspace(0.0, 1.0, SIDE * SIDE).reshape(SIDE, SIDE)
    product = np.empty_like(matrix)  # or it would be measured how lucky each process is with its allocator
    for _ in range(event["steps"]):
        np.matmul(matrix, matrix, out=product)
        np.divide(product, product.max(), out=matrix)
    return {"sum": float(matrix.sum()), "ended": time.monotonic()}


def calibrate() -> int:
    """Return how many steps take as much CPU as a task should."""
    work({"steps": 50}, None)
    steps, taken = 100, 0.0
    while taken < CPU:
        steps *= 2
        began = time.process_time()
        work({"steps": steps}, None)
        taken = time.process_time() - began
    return round(steps * CPU / taken)


def main() -> None:
    """Be one of the plain processes."""
    if sys.argv[1] == "calibrate":
        print(calibrate())
        return
    event, tasks = {"steps": int(sys.argv[2])}, int(sys.argv[3])
    print("ready", flush=True)
    sys.stdin.readline()
    sums = {work(event, None)["sum"] for _ in range(tasks)}
    print(*sums, flush=True)


if __name__ == "__main__":
    main()
