"""What the programs here share: options, numbers, what the machine and its processes did, and the one line of JSON.

Standard library only: peers use it too, each in an environment of its own.
"""

import argparse
import contextlib
import json
import os
import pwd
import resource
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.tasks import RECORD

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")


# numbers --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Figure:
    """Hold one measured number; `target` is None where nothing is promised, `value` where nothing could be measured."""

    what: str
    value: float | None
    unit: str = ""
    target: float | None = None
    sense: Literal["at least", "at most"] = "at least"
    note: str = ""

    def row(self) -> dict[str, Any]:
        """Return the figure as it stands in the line of JSON."""
        value = None if self.value is None else float(f"{self.value:.4g}")
        row: dict[str, Any] = {"what": self.what, "value": value, "unit": self.unit}
        if value is not None and self.target is not None:
            row["target"] = f"{'≥' if self.sense == 'at least' else '≤'} {number(self.target)}"
            row["met"] = value >= self.target if self.sense == "at least" else value <= self.target
        if self.note:
            row["note"] = self.note
        return row


def number(value: float) -> str:
    """Return a number as people read it: 12,300 or 0.204."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which that share (0 to 1) of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(values: Sequence[float]) -> float:
    """Return the middle value."""
    return statistics.median(values)


def program(name: str, measure: Callable[[bool], list[Figure]]) -> None:
    """Be a benchmark program: read the options, measure (`--quick`: less), print the line of JSON."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    parser.add_argument("--quick", action="store_true", help="measure less, to see that it works")
    quick = parser.parse_args().quick
    program_stops()
    others = Others()
    figures = measure(quick)
    line = {
        "benchmark": name,
        "quick": quick,
        "figures": [f.row() for f in figures],
        "others": round(others.cores(), 2),
    }
    print(json.dumps(line, ensure_ascii=False), flush=True)


def program_stops() -> None:
    """Make SIGTERM an exception, so that whatever this program has started is ended too."""

    def stop(*_: object) -> None:
        raise SystemExit("stopped")

    signal.signal(signal.SIGTERM, stop)


# files ----------------------------------------------------------------------------------------------------------------
def scratch_base() -> str:
    """Return the folder below which all that is measured keeps its data: BENCH_SCRATCH, or /var/tmp.

    That is on a disk where /tmp may be memory, which would make fsync free.
    """
    return os.environ.get("BENCH_SCRATCH") or ("/var/tmp" if os.path.isdir("/var/tmp") else tempfile.gettempdir())


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a fresh folder and remove it in the end."""
    folder = Path(tempfile.mkdtemp(prefix="penstock-bench-", dir=scratch_base()))
    folder.chmod(0o755)  # servers that refuse to run as root run as someone else
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Records:
    """Read what tasks noted in a folder; `BENCH_RECORDS` names it to the workers."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        self.folder = folder
        self._before = 0

    def count(self) -> int:
        """Return how many executions were noted so far."""
        return sum(entry.stat().st_size for entry in os.scandir(self.folder)) // RECORD.size

    def read(self) -> list[tuple[int, float, float]]:
        """Return all (number, start, end)."""
        rows: list[tuple[int, float, float]] = []
        for file in self.folder.iterdir():
            body = file.read_bytes()
            rows += RECORD.iter_unpack(body[: len(body) // RECORD.size * RECORD.size])
        return rows

    def wait(self, numbers: range | frozenset[int], timeout: float) -> list[tuple[int, float, float]]:
        """Return the executions of the tasks with these numbers as soon as each has been executed.

        Raises TimeoutError after `timeout` seconds.
        """
        limit = time.monotonic() + timeout
        wanted = self._before + len(numbers)
        while True:
            count = self.count()
            if count >= wanted:
                rows = [row for row in self.read() if row[0] in numbers]
                if len({row[0] for row in rows}) == len(numbers):
                    self._before = count
                    return rows
                wanted = count + 1  # some were executed twice, or are other tasks: look again when there is more
            if time.monotonic() > limit:
                raise TimeoutError(f"{count - self._before} of {len(numbers)} tasks were done after {timeout:g} s")
            time.sleep(0.01)


def fsync_seconds(folder: Path, rounds: int = 500, gap: float = 0.0) -> list[float]:
    """Return how long each of `rounds` durable appends of 4 KiB took on the folder's disk, `gap` seconds apart."""
    times = []
    block = os.urandom(4096)
    file = os.open(folder / "fsync", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        for _ in range(rounds):
            time.sleep(gap)
            start = time.monotonic()
            os.write(file, block)
            os.fsync(file)
            times.append(time.monotonic() - start)
    finally:
        os.close(file)
        os.unlink(folder / "fsync")
    return times


# processes ------------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def process(
    argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None, user: str | None = None, cwd: Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a session of its own, output to `log`; in the end it and what it started are ended, by id."""
    with log.open("ab") as out:
        child = subprocess.Popen(
            argv, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd,
            start_new_session=True, **identity(user),
        )  # fmt: skip
    try:
        yield child
    finally:
        family = descendants(child.pid)
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(15)
        for member in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member, signal.SIGKILL)
        child.wait()


def identity(user: str | None) -> dict[str, Any]:
    """Return the arguments that make a subprocess run as that user and nobody else; None: as we do."""
    return {} if user is None else {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}


def until(ready: Callable[[], bool], child: subprocess.Popen[bytes], log: Path, timeout: float = 60.0) -> None:
    """Wait until `ready()`; raises RuntimeError with the end of the log if the child ends or the time (s) runs out."""
    limit = time.monotonic() + timeout
    while not ready():
        if child.poll() is not None or time.monotonic() > limit:
            state = (
                f"ended with {child.returncode}"
                if child.returncode is not None
                else f"was not ready after {timeout:g} s"
            )
            raise RuntimeError(f"{child.args!r} {state}:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Return a process's id and those of all that live below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parent = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, ())
    return found


def cpu_seconds(pid: int, *, reaped: bool = False) -> float:
    """Return the CPU time that one process has used, with that of children it has waited for if `reaped`."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    fields = stat.rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15] if reaped else fields[11:13])) / TICKS


def family_cpu() -> float:
    """Return the CPU time in seconds of this process and of all it has started."""
    below = sum(cpu_seconds(pid, reaped=True) for pid in descendants(os.getpid())[1:])
    return below + sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime for who in _SELF_AND_CHILDREN
    )


_SELF_AND_CHILDREN = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


class Others:
    """Tell how much of the machine the programs of others have used since this was made."""

    def __init__(self) -> None:
        self._at, self._busy, self._own = time.monotonic(), _busy_seconds(), family_cpu()

    def cores(self) -> float:
        """Return the mean number of cores that others kept busy: what spoils a measurement."""
        busy, own = _busy_seconds() - self._busy, family_cpu() - self._own
        return max(0.0, busy - own) / (time.monotonic() - self._at)


def calm(measure: Callable[[], dict[str, float]], patience: int = 3) -> dict[str, float]:
    """Return the first of a few measurements that others left alone (its "others" is below 0.3 cores), else the last."""
    while True:
        found = measure()
        patience -= 1
        if found["others"] < 0.3 or not patience:
            return found


class Numbers:
    """Number tasks: none twice in the life of a program."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, count: int) -> range:
        """Return so many that were not taken before."""
        self._next += count
        return range(self._next - count, self._next)


def _busy_seconds() -> float:
    with open("/proc/stat") as file:
        return sum(map(int, file.readline().split()[1:4])) / TICKS


def memory(pid: int) -> dict[str, int]:
    """Return the memory of a process in bytes: "Rss", "Pss", which parts what is shared, "Anonymous", and "Private"."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    found = {name: sizes[name] for name in ("Rss", "Pss", "Anonymous")}
    return {**found, "Private": sizes["Private_Clean"] + sizes["Private_Dirty"]}


def family_memory() -> int:
    """Return the bytes of memory that this process and all that it has started answer for: what they share counts once."""
    total = 0
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError, ValueError, IndexError):
            total += memory(pid)["Pss"]
    return total
