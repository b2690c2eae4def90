"""Timeouts: of 1,000 tasks, 20 in an instance, one in twenty overstays. Is each ended at its limit, and nobody else harmed?

Half of the tasks run in threads, half in event loops. Those that overstay sleep, hold the GIL in a loop in C, await, or
swallow their cancellation. Each task notes its start and its end; a watcher looks when the processes of those that
overstayed are gone. All by the wall clock, as the server tells it; if that is set meanwhile, all is measured anew.
Once with `on_timeout: wait`, once with `kill`.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import Figure, program, scratch
from benchmarks.server import penstock
from penstock.client import Task

HERE = Path(__file__).parent
TIMEOUT = 4.0
TOGETHER = 20
LATE = 0.2
"""Seconds after its limit within which an outcome is to come."""

GONE = 1.0
"""Seconds in which a process may end, once nothing is left in it that is within its time."""

KINDS = {"blocking": ("loop", "sleep"), "waiting": ("await", "deaf")}


@dataclass
class Notes:
    """Hold what tasks noted, by process and by task, in wall-clock seconds."""

    starts: dict[int, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    ends: dict[int, float] = field(default_factory=dict)  # the last one in each process

    @classmethod
    def read(cls, folder: Path) -> "Notes":
        """Return what there is in a folder."""
        notes = cls()
        for file in folder.iterdir():
            pid = int(file.name)
            for line in file.read_text().splitlines():
                number, what, at = line.split()
                if what == "start":
                    notes.starts[int(number)].append((float(at), pid))
                else:
                    notes.ends[pid] = max(float(at), notes.ends.get(pid, 0.0))
        return notes


class Watcher:
    """Look when processes end that left notes in a folder."""

    def __init__(self, folder: Path) -> None:
        self.gone: dict[int, float] = {}
        self._folder = folder
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            for name in os.listdir(self._folder):
                if int(name) not in self.gone and not os.path.exists(f"/proc/{name}"):
                    self.gone[int(name)] = time.time()

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about half a minute."""
    figures = []
    for rule in ("wait", "kill"):
        while True:
            with scratch() as folder:
                before = time.time() - time.monotonic()
                found = _measure(folder, rule, 200 if quick else 1000)
                if abs(time.time() - time.monotonic() - before) < 0.01:
                    break
        figures += found
    return figures


def _measure(folder: Path, rule: str, tasks: int) -> list[Figure]:
    notes = folder / "notes"
    notes.mkdir()
    with penstock(folder / "data") as server:
        for handler in KINDS:
            server.client.function(handler).deploy(
                HERE / "overstay.py", handler=f"overstay:{handler}", timeout=TIMEOUT, on_timeout=rule,
                max_parallel_requests=TOGETHER, env={"BENCH_NOTES": str(notes)},
            )  # fmt: skip
        made = {handler: {"function": handler, "retry": {"attempts": 1}} for handler in KINDS}
        server.client.apply({"pipelines": made})
        watcher = Watcher(notes)
        try:
            sent: dict[int, str] = {}
            hows: dict[int, str] = {}
            for place, (handler, kinds) in enumerate(KINDS.items()):
                numbers = range(place * tasks // 2, (place + 1) * tasks // 2)
                hows |= {i: kinds[i // 20 % 2] if i % 20 == 10 else "" for i in numbers}
                ids = server.client.pipeline(handler).send_many([{"i": i, "how": hows[i]} for i in numbers])
                sent |= dict(zip(numbers, ids, strict=True))
            ended = {i: server.client.wait(task, timeout=120) for i, task in sent.items()}
            time.sleep(2 * GONE)
        finally:
            watcher.close()
    return _figures(rule, ended, hows, Notes.read(notes), watcher.gone)


def _figures(
    rule: str, ended: Mapping[int, Task], hows: Mapping[int, str], notes: Notes, gone: Mapping[int, float]
) -> list[Figure]:
    late: dict[str, float] = {}
    stayed = unended = 0
    for i, how in hows.items():
        if not how:
            continue
        task, (started, pid) = ended[i], max(notes.starts[i])
        if task.outcome != "timeout" or task.finished is None:
            unended += 1
            continue
        over = task.finished.timestamp()
        late[how] = max(late.get(how, 0.0), over - started - TIMEOUT)
        through = over if rule == "kill" else max(over, notes.ends.get(pid, 0.0))
        if how != "await":  # that one ends when it is cancelled, and its process lives on
            stayed += gone.get(pid, float("inf")) > through + GONE
    others = [task for i, task in ended.items() if not hows[i]]
    right = sum(task.ok and task.result == i * 2 for i, task in ended.items() if not hows[i])
    spent = sum(task.attempts > 1 for task in others)
    again = sum(task.interruptions for task in others)
    said = ", ".join(f"{how} {seconds:.3f} s" for how, seconds in sorted(late.items()))
    over_limit, count = f"of {len(hows) - len(others)} tasks that overstay", len(others)
    latest, wrong = max(late.values()), unended + stayed
    return [
        Figure(f"{rule}: the latest outcome after its limit, {over_limit}", latest, "s", LATE, "at most", said),
        Figure(f"{rule}: not ended as a timeout, or in a process that stayed longer than it may", wrong, "", 0, "at most"),
        Figure(f"{rule}: without their right result, of the {count} others", count - right, "", 0, "at most"),
        Figure(f"{rule}: with a spent attempt, of these", spent, "", 0, "at most", f"run again {again} times in all"),
    ]  # fmt: skip


if __name__ == "__main__":
    program("timeouts", measure)
