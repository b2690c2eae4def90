"""Update: new code is deployed under 1,000 busy pipelines. When do they run it, and does each task still run once?

Each pipeline has a rate of 2/s and a backlog; one task in twenty takes 3 s, so that many are in the middle when the new code
goes live. Every task notes its start, its end and the version that it saw at both. Then the notes are compared with what was
sent: none may be missing, none there twice, and none half on one version.
"""

import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Records, median, program, scratch
from benchmarks.server import TASKS, Server, penstock, records

RATE = 2
SECONDS = 8.0
DEPLOY_AT = 3.0
SHORT, LONG = 0.02, 3.0
BUSY = Path(__file__).with_name("busy.py")
TAGS = 100


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about half a minute."""
    pipelines, each = 100 if quick else 1000, int(RATE * SECONDS)
    with scratch() as folder:
        notes = records(folder)
        with penstock(folder / "data") as server:
            names = [f"customer-{number:04}" for number in range(pipelines)]
            made = {name: {"function": "work", "rate": f"{RATE}/s"} for name in names}
            server.client.apply({"functions": {"work": _settings(folder)}, "pipelines": made})
            _send(server, names, each)
            _deploy(server, folder, 1)  # until now there was no code: so they all begin at once
            time.sleep(DEPLOY_AT)
            before = time.monotonic()
            _deploy(server, folder, 2)
            answered = time.monotonic()
            done = _ended(server, pipelines * each)
        return _figures(notes, pipelines, each, answered, answered - before, done)


def _deploy(server: Server, folder: Path, number: int) -> None:
    """Deploy the handler with files that say this number."""
    code = folder / f"code-{number}"
    code.mkdir()
    shutil.copy(TASKS, code)
    shutil.copy(BUSY, code)
    for name in ("release", "late"):
        (code / f"{name}.py").write_text(f"NUMBER = {number}\n")
    server.client.function("work").deploy(code, **_settings(folder))


def _settings(folder: Path) -> dict[str, Any]:
    return {"handler": "busy:work", "max_parallel_requests": 50, "env": {"BENCH_RECORDS": str(folder / "records")}}


def _send(server: Server, names: Sequence[str], each: int) -> None:
    for place, name in enumerate(names):
        numbers = range(place * each, (place + 1) * each)
        server.client.pipeline(name).send_many(
            [{"i": number, "seconds": LONG if number % 20 == 0 else SHORT} for number in numbers]
        )


def _ended(server: Server, tasks: int, timeout: float = 120.0) -> int:
    """Return how many tasks the server counts as done when nothing is left to do."""
    limit = time.monotonic() + timeout
    while time.monotonic() < limit:
        counts = server.client.status()["tasks"]
        if not counts["queued"] + counts["running"] + counts["delayed"]:
            return int(counts["done"])
        time.sleep(0.2)
    raise RuntimeError(f"{tasks} tasks should have ended; the server counts {counts}")


def _figures(notes: Records, pipelines: int, each: int, answered: float, took: float, done: int) -> list[Figure]:
    rows = [(tagged // TAGS, tagged % TAGS, start) for tagged, start, _ in notes.read()]
    tasks = pipelines * each
    times = Counter(number for number, _, _ in rows)
    first: dict[int, float] = {}
    for number, tags, start in rows:
        if tags == 22:
            first[number // each] = min(start, first.get(number // each, start))
    old = [start for _, tags, start in rows if tags == 11]
    over = sum(1 for start in old if start > answered)
    wrong = {
        "not ended": abs(tasks - done),
        "not run": tasks - len(times),
        "run twice": sum(times.values()) - len(times),
        "half on one version": sum(tags not in {11, 22} for _, tags, _ in rows),
    }
    reached = [max(0.0, start - answered) for start in first.values()]
    if len(first) < pipelines:
        raise RuntimeError(f"only {len(first)} of {pipelines} pipelines ran the new version")
    said = ", ".join(f"{count} {what}" for what, count in wrong.items())
    spread = f"half of them after {median(reached):.2g} s; each may start {RATE} a second"
    return [
        Figure("first start on the new version after the deploy's answer", min(reached), "s", 1, "at most"),
        Figure(f"until all {pipelines:,} pipelines had started on it", max(reached), "s", note=spread),
        Figure("starts on the old version after the answer", over, note=f"{len(old):,} before"),
        Figure("the deploy itself", took, "s", note="upload, import, flip"),
        Figure(f"of {tasks:,} tasks: errors in the ledger", sum(wrong.values()), "", 0, "at most", said),
    ]


if __name__ == "__main__":
    program("update", measure)
