"""What every peer program of `keys` does: all tasks into the queues, workers up, one line of JSON with what came out.

python -m benchmarks.peers.NAME KEYS EACH RATE
"""

import json
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack

from benchmarks.harness import ROOT, Records, program_stops, scratch
from benchmarks.keyed import Usage, Work
from benchmarks.peers.common import Setup

Prepare = Callable[[Setup, Work], tuple[str, Callable[[], None]]]
PATIENCE = 300.0


def peer(prepare: Prepare) -> None:
    """Measure a peer and print its line. `prepare` fills the queues and returns (configuration, how to start the workers)."""
    work = Work(*map(int, sys.argv[1:4]))
    program_stops()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        records = Records(folder / "records")
        os.environ["BENCH_RECORDS"], os.environ["BENCH_WORK"] = str(records.folder), " ".join(work.words())
        os.chdir(ROOT)  # workers import `benchmarks` from here
        configuration, start = prepare(Setup(folder, stack, single=False), work)
        with Usage() as usage:
            start()
            rows = records.wait(work.numbers(), PATIENCE)
        print(json.dumps({"configuration": configuration, **usage.outcome(work, rows)}), flush=True)


def work_told() -> Work:
    """Return, in a worker, the work that its peer program was told."""
    return Work(*map(int, os.environ["BENCH_WORK"].split()))
