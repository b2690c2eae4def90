"""Cold start: no instance of the function is there, its version is deployed and its code imported. When does the handler start?

The function imports NumPy. With `reuse: false` every request has a fresh process. The handler answers with the moment at which
it started; from that the moment just before the client called is taken. So the figure holds everything: HTTP, admission, fork,
first frame. With each level of the sandbox; the same for a warm instance, which tells how much of it is the start. Then a
burst of tasks in new processes, for starts a second, and what an idle instance has in memory for itself.
"""

import shutil
import time
from pathlib import Path

from benchmarks.harness import Figure, Numbers, Records, median, memory, percentile, program, scratch
from benchmarks.server import TASKS, Server, penstock, records

GAP = 0.02
CODE = "import numpy\n\nfrom tasks import doze, started_sync\n"
PACKAGES = "numpy==2.3.5\n"
IDLE = 20


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 45 s."""
    rounds, burst = (30, 50) if quick else (300, 500)
    figures = []
    with scratch() as folder, penstock(folder / "data") as server:
        noted, code = records(folder), _code(folder / "code")
        for level in ("standard", "off"):
            _deploy(server, code, f"cold-{level}", "started_sync", reuse=False, sandbox=level)
            cold = _starts(server, f"cold-{level}", rounds)
            p50, p99 = percentile(cold, 0.5) * 1e3, percentile(cold, 0.99) * 1e3
            judged = level == "standard"
            name = f"cold start with NumPy, sandbox {level}"
            figures += [
                Figure(f"{name}, p50", p50, "ms", 8 if judged else None, "at most"),
                Figure(f"{name}, p99", p99, "ms", 25 if judged else None, "at most"),
            ]
        _deploy(server, code, "warm", "started_sync")
        warm = _starts(server, "warm", rounds)
        figures.append(Figure("warm start, invoke to handler start, p50", percentile(warm, 0.5) * 1e3, "ms"))
        numbers = Numbers()
        for level in ("standard", "off"):
            _deploy(server, code, f"burst-{level}", "doze", reuse=False, sandbox=level)
            rate = _starts_a_second(server, f"burst-{level}", noted, numbers, burst)
            target = 250 if level == "standard" else None
            figures.append(Figure(f"instance starts with NumPy, sandbox {level}", rate, "per second", target))
        _deploy(server, code, "idle", "doze")
        own = _own_memory(server, "idle", noted, numbers) / 1e6
        figures.append(Figure("private memory of an idle instance with NumPy", own, "MB", 2, "at most"))
    return figures


def _code(folder: Path) -> Path:
    """Write what is deployed: the handlers, in a module that imports NumPy."""
    folder.mkdir()
    shutil.copy(TASKS, folder)
    (folder / "numeric.py").write_text(CODE)
    (folder / "requirements.txt").write_text(PACKAGES)
    return folder


def _deploy(server: Server, code: Path, name: str, handler: str, **settings: object) -> None:
    server.deploy_code(name, code, handler=f"numeric:{handler}", **settings)
    server.client.pipeline(name).put({"function": name})


def _starts(server: Server, name: str, rounds: int) -> list[float]:
    function, taken = server.client.function(name), []
    for number in range(rounds + 5):
        time.sleep(GAP)  # the process before has ended, and been cleaned up after
        called = time.monotonic()
        started = float(function.invoke(None))
        if number >= 5:
            taken.append(started - called)
    return taken


def _starts_a_second(server: Server, name: str, noted: Records, numbers: Numbers, tasks: int) -> float:
    these = numbers.take(tasks)
    server.client.pipeline(name).send_many([{"i": one, "seconds": 3.0} for one in these])
    starts = sorted(start for _, start, _ in noted.wait(these, 120))
    return (tasks - 1) / (starts[-1] - starts[0])


def _own_memory(server: Server, name: str, noted: Records, numbers: Numbers) -> float:
    """Return the bytes that an idle instance shares with nobody, the median of some that have run a task."""
    these, before = numbers.take(IDLE), set(noted.folder.iterdir())
    server.client.pipeline(name).send_many([{"i": one, "seconds": 0.5} for one in these])
    noted.wait(these, 60)
    server.settled(name, IDLE)
    processes = {int(file.name.partition(".")[0]) for file in set(noted.folder.iterdir()) - before}
    return median([memory(process)["Private"] for process in processes])


if __name__ == "__main__":
    program("coldstart", measure)
