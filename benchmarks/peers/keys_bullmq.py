"""BullMQ with a queue and a limiter for each key, on a Redis that keeps nothing on disk; any Python runs this program.

python -m benchmarks.peers.keys_bullmq KEYS EACH RATE [--paced]

Its limiter counts in fixed windows, so that the end of one and the beginning of the next can be near. With `--paced` a window
has room for one start only, which is the best that it can do for a limit that slides.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.keyed import Work
from benchmarks.peers.common import Setup
from benchmarks.peers.keyed import peer
from benchmarks.services import ENVIRONMENTS, NotHere, redis

PROGRAM = Path(__file__).with_suffix(".mjs")
WORKERS = 2


def prepare(setup: Setup, work: Work) -> tuple[str, Callable[[], None]]:
    """Queue the tasks."""
    node = shutil.which("node")
    if node is None:
        raise NotHere("there is no node on this machine")
    os.environ["BENCH_URL"] = setup.stack.enter_context(redis(setup.folder))
    os.environ["BENCH_PACKAGES"] = str(ENVIRONMENTS / "bullmq")
    subprocess.run([node, str(PROGRAM), "fill", str(work.keys), str(work.each)], check=True)
    most, milliseconds = (1, -(-1000 // work.rate)) if "--paced" in sys.argv else (work.rate, 1000)

    def start() -> None:
        for worker in range(WORKERS):
            share = [str(work.keys * part // WORKERS) for part in (worker, worker + 1)]
            setup.program(f"worker{worker}", node, str(PROGRAM), "work", *share, str(most), str(milliseconds))

    how = f"a queue and a limiter of {most} per {milliseconds} ms for each key"
    return f"{how}, Redis without persistence, {WORKERS} node processes", start


if __name__ == "__main__":
    peer(prepare)
