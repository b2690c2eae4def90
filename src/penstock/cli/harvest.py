"""Where `map` puts results: a file that can be gone on with, or stdout; and what it says of how far it is."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from penstock.cli.exits import Exit, Refused
from penstock.cli.output import counted, err, note, span
from penstock.client import ItemResult, MapCounts

SHOWN = 5
"""Failures that are told of one by one."""

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct):
    index: int


_decode_line = msgspec.json.Decoder(_Line).decode


class Output:
    """Write a line for each result. `seen` are the items whose results were there already; what is `old` is of another map."""

    def __init__(self, stream: BinaryIO, seen: set[int], *, old: bool = False) -> None:
        self._stream = stream
        self._old = old
        self.seen = seen

    @property
    def after(self) -> int:
        """Return the item up to which all results are there."""
        upto = -1
        while upto + 1 in self.seen:
            upto += 1
        return upto

    def begin(self) -> None:
        """Forget what is old: there is a map now whose results take its place."""
        if self._old and self._stream.seekable():
            self._stream.truncate(0)

    def write(self, found: ItemResult) -> None:
        """Write one result, if it is not there."""
        if found.index in self.seen:
            return
        line: dict[str, Any] = {"index": found.index, "task": found.task, "outcome": found.outcome}
        line |= {"result": found.result} if found.ok else {"error": found.error}
        self._stream.write(_encode(line) + b"\n")

    def flush(self) -> None:
        """Let what is written reach the file."""
        self._stream.flush()


@contextmanager
def output_to(path: Path | None, *, resume: bool) -> Iterator[Output]:
    """Open the file, to be written anew or gone on with; None is stdout. Raises `Refused`."""
    if path is None:
        yield Output(sys.stdout.buffer, set())
        return
    try:
        going_on = resume and path.exists()
        with path.open("r+b" if going_on else "ab") as stream:
            yield Output(stream, _read(stream, path) if going_on else set(), old=not going_on)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}.", Exit.USAGE) from error


def _read(stream: BinaryIO, path: Path) -> set[int]:
    """Return the items whose results a file has; what it was in the middle of writing is cut off."""
    seen: set[int] = set()
    end = 0
    for number, line in enumerate(stream, 1):
        if not line.endswith(b"\n"):
            break
        try:
            seen.add(_decode_line(line).index)
        except msgspec.DecodeError as error:
            raise Refused(f"{path}:{number} is no result of a map: {error}. Name another file.", Exit.USAGE) from error
        end += len(line)
    stream.seek(end)
    stream.truncate()
    return seen


class Bar:
    """Show how far a map is, from the counts that the server tells: what has ended is on its disk."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}"),
            TimeElapsedColumn(),
        )  # fmt: skip
        self.counts: MapCounts | None = None
        self._progress = Progress(*columns, console=err(), transient=True, disable=not sys.stderr.isatty())
        self._task: TaskID | None = None

    def show(self, counts: MapCounts) -> None:
        """Take note of counts."""
        self.counts = counts
        if self._task is None:
            self._task = self._progress.add_task("map", total=counts.items, pace="")
        self._progress.update(self._task, completed=counts.ended, pace=pace_of(counts))

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def pace_of(counts: MapCounts) -> str:
    """Return the rate, the time that is left, and how many failed, as short text."""
    said = []
    if counts.rate:
        said.append(f"{counts.rate:,.1f}/s")
        said.append(f"{span(counts.seconds_left or 0.0)} left")
    failed = counts.ended - counts.ok
    if failed:
        said.append(f"{failed:,} failed")
    return ", ".join(said)


class Failures:
    """Count what failed, and keep the first few to tell of them."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._first: list[ItemResult] = []
        self._ok = 0

    def take(self, found: ItemResult) -> None:
        """Take note of a result."""
        if found.ok:
            self._ok += 1
            return
        self.outcomes[found.outcome] += 1
        if len(self._first) < SHOWN:
            self._first.append(found)

    def tell(self, name: str, seconds: float) -> None:
        """Print the summary on stderr."""
        total = self._ok + sum(self.outcomes.values())
        ended = ", ".join([f"{self._ok:,} ok", *(f"{count:,} {what}" for what, count in sorted(self.outcomes.items()))])
        note(f"Map {name}: {counted(total, 'result')} in {span(seconds)}: {ended}.")
        for each in self._first:
            failure = each.failure()
            assert failure is not None
            note(f"  {failure.message}")
        left = sum(self.outcomes.values()) - len(self._first)
        if left > 0:
            note(f"  … and {counted(left, 'failure')} more.")
