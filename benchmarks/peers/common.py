"""What every peer program does: workers up, rounds of no-op tasks sent, one line of JSON with what came out.

python -m benchmarks.peers.NAME [--tasks N …] [--single]
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import ROOT, Numbers, Others, Records, calm, family_cpu, process, program_stops, scratch

Send = Callable[[range], None]
WARM_UP = 200


@dataclass(frozen=True, slots=True)
class Setup:
    """Offer a peer what it needs to start its service and its workers."""

    folder: Path
    stack: ExitStack
    single: bool

    def workers(self, copies: int, *argv: str) -> None:
        """Start `copies` processes of a module of this environment: `argv` is what follows `python -m`.

        A "{}" in an argument becomes the number of the copy.
        """
        for copy in range(copies):
            self.program(f"worker{copy}", sys.executable, "-m", *(word.replace("{}", str(copy)) for word in argv))

    def program(self, name: str, *argv: str) -> None:
        """Start a program, whose output goes to a file of that name."""
        self.stack.enter_context(process(argv, self.folder / f"{name}.log"))


def peer(name: str, start: Callable[[Setup], tuple[str, Send]]) -> None:
    """Measure a peer and print its line. `start` makes everything ready and returns (configuration, how to send).

    A round lasts from just before the first send to the end of the last task, as the tasks themselves noted it.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.peers.{name}")
    parser.add_argument("--tasks", type=int, nargs="+", default=[10_000], help="one round of so many tasks each")
    parser.add_argument("--single", action="store_true", help="send tasks one by one, with up to 50 on their way")
    options = parser.parse_args()
    program_stops()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        records = Records(folder / "records")
        os.environ["BENCH_RECORDS"] = str(records.folder)
        os.chdir(ROOT)  # workers import `benchmarks` from here
        configuration, send = start(Setup(folder, stack, options.single))
        numbers = Numbers()
        _round(records, send, numbers, WARM_UP)
        rounds = [calm(partial(_round, records, send, numbers, tasks)) for tasks in options.tasks]
        print(json.dumps({"peer": name, "configuration": configuration, "rounds": rounds}), flush=True)


def _round(records: Records, send: Send, free: Numbers, count: int) -> dict[str, float]:
    numbers = free.take(count)
    others, cpu, begin = Others(), family_cpu(), time.monotonic()
    send(numbers)
    sent = time.monotonic()
    rows = records.wait(numbers, 60 + count / 100)
    end = max(row[2] for row in rows)
    return {
        "tasks": count,
        "tasks_per_second": round(count / (end - begin), 1),
        "sends_per_second": round(count / (sent - begin), 1),
        "cpu_us_per_task": round((family_cpu() - cpu) / count * 1e6, 1),
        "others": round(others.cores(), 2),
    }


def batches(numbers: range, size: int) -> Sequence[range]:
    """Cut a range into ranges of at most `size`."""
    return [numbers[at : at + size] for at in range(0, len(numbers), size)]
