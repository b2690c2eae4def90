"""The work of `keys`, and what it took: what Penstock and the peers share. Standard library only.

Every key has so many tasks and may start so many of them in a second. A task's number tells its key.
"""

import contextlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from benchmarks.harness import Others, cpu_seconds, descendants, memory

EVERY = 0.5
"""Seconds between two looks at the memory."""

Row = tuple[int, float, float]


@dataclass(frozen=True, slots=True)
class Work:
    """Describe how many keys there are, how many tasks each has, and how many of them a key may start in a second."""

    keys: int
    each: int
    rate: int

    def words(self) -> list[str]:
        """Return the work as a program is told it."""
        return [str(self.keys), str(self.each), str(self.rate)]

    def tasks(self, key: int) -> range:
        """Return the numbers of a key's tasks."""
        return range(key * self.each, (key + 1) * self.each)

    def key(self, number: int) -> int:
        """Return the key that a task belongs to."""
        return number // self.each

    def numbers(self) -> range:
        """Return the numbers of all tasks, key by key."""
        return range(self.keys * self.each)

    def in_turn(self) -> list[int]:
        """Return the numbers of all tasks in the order in which keys that send at the same time are queued."""
        return [number for place in range(self.each) for number in self.numbers()[place :: self.each]]

    def starts(self, rows: Sequence[Row]) -> list[list[float]]:
        """Return for every key when its tasks were started, in order."""
        found: list[list[float]] = [[] for _ in range(self.keys)]
        for number, start, _ in rows:
            found[self.key(number)].append(start)
        return [sorted(moments) for moments in found]


class Usage:
    """Measure what all processes below this one use while it is entered; this one, which only looks, is left out.

    Memory is the most that the sum of their proportional set sizes was: a page that several processes share counts once.
    """

    def __init__(self) -> None:
        self.cpu, self.memory, self.processes = 0.0, 0, 0
        self._done = threading.Event()
        self._looker = threading.Thread(target=self._look)

    def __enter__(self) -> "Usage":
        self._others, self.cpu = Others(), -_cpu_below()
        self._looker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cpu += _cpu_below()
        self._done.set()
        self._looker.join()

    def _look(self) -> None:
        while not self._done.wait(EVERY):
            sizes = []
            for pid in descendants(os.getpid())[1:]:
                with contextlib.suppress(OSError, KeyError):  # it has just ended
                    sizes.append(memory(pid)["Pss"])
            self.memory, self.processes = max((self.memory, self.processes), (sum(sizes), len(sizes)))

    def outcome(self, work: Work, rows: Sequence[Row]) -> dict[str, Any]:
        """Return what is told of this work once it is done."""
        return {
            "starts": work.starts(rows),
            "makespan": max(end for _, _, end in rows) - min(start for _, start, _ in rows),
            "cpu": self.cpu,
            "memory": self.memory,
            "processes": self.processes,
            "others": self._others.cores(),
        }


def _cpu_below() -> float:
    return sum(cpu_seconds(pid, reaped=True) for pid in descendants(os.getpid())[1:])
