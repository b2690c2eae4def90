"""Pre-warming: what `prewarm: history` would have done for real functions: the cold starts that it avoids, and what it costs.

The trace that BENCH_TRACE_FUNCTIONS names is played: calls by the minute of functions in a large cloud, with the columns of the
Azure Functions 2019 trace (CC-BY 4.0). When in its minute a call came is not known, so both extremes are played; calls are
taken to last no time, and an instance goes when it idled for a minute. What is measured is the rule itself
(`domain.prewarming`), which needs no server.
"""

import csv
import os
import random
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from benchmarks.harness import Figure, program
from penstock.domain.prewarming import REMEMBERED, windows
from penstock.domain.specs import IDLE_TIMEOUT

NAME = "BENCH_TRACE_FUNCTIONS"
MINUTE = 60.0
IDENTITY = 4
"""Columns before those of the minutes."""


class Played(NamedTuple):
    """Hold what became of a function: starts that were cold without it, warm ones among them, seconds idled for them."""

    cold: int
    met: int
    idled: float


def measure(quick: bool) -> list[Figure]:  # noqa: ARG001 - it takes a second
    """Return the figures of one run: some seconds."""
    path = Path(os.environ.get(NAME, ""))
    if not path.is_file():
        return [Figure("cold starts avoided by prewarm: history", None, note=f"skipped: {NAME} names no trace")]
    rows = _read(path)
    rng = random.Random(1)
    anywhere = [[minute * MINUTE + rng.uniform(0, MINUTE) for minute in row] for row in rows]
    sharp = [[minute * MINUTE for minute in row] for row in rows]
    return [
        *_figures("calls anywhere in their minute", anywhere),
        *_figures("calls on the minute, as timers are", sharp),
    ]


def _figures(how: str, functions: Sequence[Sequence[float]]) -> list[Figure]:
    played = [_play(calls) for calls in functions]
    cold, met, idled = (sum(column) for column in zip(*played, strict=True))
    note = f"of {cold:,} in {len(played)} functions; {sum(one.met > 0 for one in played)} of these have a habit"
    return [
        Figure(f"cold starts avoided by prewarm: history, {how}", 100 * met / cold, "%", note=note),
        Figure(f"instance-seconds for each of them, {how}", idled / max(1, met), "s", 300, "at most"),
    ]


def _read(path: Path) -> list[list[int]]:
    """Return the minutes with calls of each function."""
    with path.open(newline="") as file:
        rows = csv.reader(file)
        next(rows)
        return [[minute for minute, calls in enumerate(row[IDENTITY:]) if calls and float(calls) > 0] for row in rows]


def _play(calls: Sequence[float]) -> Played:
    """Play one function, which learns as it goes."""
    rests: list[float] = []
    cold = met = 0
    idled = 0.0
    for before, call in pairwise(calls):
        rest = call - before
        if rest <= IDLE_TIMEOUT:
            continue
        cold += 1
        for window in windows(rests):
            begin = max(window.begin, IDLE_TIMEOUT)
            idled += max(0.0, min(rest, window.end) - begin)
            met += begin <= rest <= window.end
        rests = [*rests, rest][-REMEMBERED:]
    return Played(cold, met, idled)


if __name__ == "__main__":
    program("prewarming", measure)
