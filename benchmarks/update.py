"""Update: new code is deployed under 1,000 busy pipelines. When do they run it, and does each task still run once?

Each pipeline has a rate of 2/s and a backlog; one task in twenty takes 3 s, so that many are in the middle when the new code
goes live. Every task notes its start, its end and the version that it saw at both. Then the notes are compared with what was
sent: none may be missing, none there twice, and none half on one version.

Then once more with 1,000 instances that serve one request each, half of them busy and half idle, while callers call all the
time. No call and no task may fail, and no call that begins after the deploy's answer may run the old code.
"""

import contextlib
import shutil
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import Figure, Records, median, program, scratch
from benchmarks.server import TASKS, Server, penstock, records
from penstock import Client

RATE = 2
SECONDS = 8.0
DEPLOY_AT = 3.0
SHORT, LONG = 0.02, 3.0
BUSY = Path(__file__).with_name("busy.py")
TAGS = 100


INSTANCES = 1000
CALLERS = 4


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about a minute."""
    return [*_pipelines(quick), *_instances(INSTANCES // 10 if quick else INSTANCES)]


def _pipelines(quick: bool) -> list[Figure]:
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


@dataclass
class Calls:
    """Call a function all the time, from several threads, until told to stop."""

    server: Server
    made: list[tuple[float, float, object]] = field(default_factory=list)  # from when until when, and what came back
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self) -> list[threading.Thread]:
        """Begin."""
        threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        return threads

    def _call(self) -> None:
        with contextlib.closing(Client(self.server.url, self.server.token)) as client:
            while not self.stopped.is_set():
                began = time.monotonic()
                try:
                    answer: object = client.function("work").invoke({"seconds": SHORT})
                except Exception as error:  # whatever it is, it is a call that failed
                    answer = error
                self.made.append((began, time.monotonic(), answer))


def _instances(count: int) -> list[Figure]:
    with scratch() as folder, penstock(folder / "data") as server:
        server.client.apply(
            {"functions": {"work": {"handler": "release:work"}}, "pipelines": {"p": {"function": "work"}}}
        )
        _deploy_release(server, folder, 1)
        hold = 5.0 + count / 100  # so long that all are up before the first is idle
        server.client.pipeline("p").send_many([{"seconds": 2 * hold if i % 2 else hold} for i in range(count)])
        while server.client.function("work").show().instances["ready"] < count:
            time.sleep(0.1)
        while server.client.pipeline("p").show().counts["running"] > count // 2:
            time.sleep(0.1)
        calls = Calls(server)
        threads = calls.run()
        time.sleep(1.0)
        shown = server.client.function("work").show().instances["ready"]
        _deploy_release(server, folder, 2)
        answered = time.monotonic()
        time.sleep(2.0)
        calls.stopped.set()
        for thread in threads:
            thread.join()
        _ended(server, count)
        done = server.client.pipeline("p").show().counts["done"]
    failed = [answer for _, _, answer in calls.made if answer not in {1, 2}]
    late = sum(answer == 1 for began, _, answer in calls.made if began > answered)
    longest = max(ended - began for began, ended, _ in calls.made)
    what = f"deploy with {shown:,} instances up"
    return [
        Figure(f"{what}: calls that failed", len(failed), "", 0, "at most", f"of {len(calls.made):,}"),
        Figure(f"{what}: tasks that failed", count - done, "", 0, "at most", f"of {count:,}"),
        Figure(f"{what}: calls on the old code that began after the answer", late, "", 0, "at most"),
        Figure(f"{what}: the longest call", longest, "s", note=f"its work takes {SHORT} s"),
    ]


def _deploy_release(server: Server, folder: Path, number: int) -> None:
    """Deploy code that sleeps and answers with this number."""
    code = folder / f"code-{number}"
    code.mkdir()
    (code / "release.py").write_text(
        f"import time\n\n\ndef work(event, context):\n    time.sleep(event['seconds'])\n    return {number}\n"
    )
    server.client.function("work").deploy(code, handler="release:work", timeout="2m")


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
