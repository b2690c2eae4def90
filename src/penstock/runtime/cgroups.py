"""Keep instances within their memory by control groups: the kernel itself ends what goes over.

Each instance enters a group of its own before it serves. Version 2 ends the whole group at once. Version 1 ends the largest
process of it, so it is looked after whether that was the instance or something that it had started. Memory that an
instance shares with its zygote counts for the zygote.
"""

import contextlib
import os

from penstock.runtime.guards import Guard
from penstock.runtime.kernel import kill_session

EVERY = 0.5
"""Seconds between two looks at what the kernel has ended, where it does not end all of it."""

_PROCESSES = "cgroup.procs"


class Cgroups(Guard):
    """Limit instances by groups of which `prefix` and an instance's number are the path. Versions say which files."""

    most: str
    """The file that takes the limit in bytes."""
    harder: "tuple[tuple[str, str | None], ...]"
    """Files that may be there, and what to write into them besides (None: the limit)."""
    events: str
    """The file with a line "oom_kill N"."""
    peaks: str
    """The file that tells the most that was used, in bytes."""

    def __init__(self, prefix: str, limit: int) -> None:
        self._prefix = prefix
        self._limit = limit
        self._watched: dict[int, int] = {}
        self._left: list[str] = []
        self._due = 0.0

    def prepare(self, number: int) -> None:
        """Make an instance's group. Raises `OSError` if that fails."""
        path = self._path(number)
        os.makedirs(path)
        _write(os.path.join(path, self.most), str(self._limit))
        for name, value in self.harder:
            if os.path.exists(os.path.join(path, name)):
                _write(os.path.join(path, name), str(self._limit) if value is None else value)

    def enter(self, number: int) -> None:
        """Put this process into its group. Raises `OSError` if that fails."""
        _write(os.path.join(self._path(number), _PROCESSES), "0")

    def watch(self, number: int, pid: int) -> None:
        """Begin to watch an instance."""
        self._watched[number] = pid

    def peak(self, number: int, pid: int, most: int) -> int:  # noqa: ARG002 - known by its number here
        """Return the most that an instance's group used, with files that the kernel kept for it; `most` if nobody knows."""
        return int(_read(os.path.join(self._path(number), self.peaks)) or most)

    def ended(self, number: int, pid: int) -> "int | None":  # noqa: ARG002 - known by its number here
        """Remove an instance's group; return the most it used if the kernel ended something in it, None otherwise."""
        self._watched.pop(number, None)
        path = self._path(number)
        used = self._peak(path) if self._went_over(path) else None
        self._left = [path for path in [*self._left, path] if not _remove(path)]  # some may still have what is dying
        return used

    def _path(self, number: int) -> str:
        return f"{self._prefix}{number}"

    def _went_over(self, path: str) -> bool:
        for line in _read(os.path.join(path, self.events)).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill" and int(count):
                return True
        return False

    def _peak(self, path: str) -> int:
        return max(self._limit, int(_read(os.path.join(path, self.peaks)) or 0))


class Version2(Cgroups):
    """Limit instances by cgroup v2."""

    most = "memory.max"
    harder = (("memory.swap.max", "0"), ("memory.oom.group", "1"))
    events = "memory.events"
    peaks = "memory.peak"


class Version1(Cgroups):
    """Limit instances by cgroup v1."""

    most = "memory.limit_in_bytes"
    harder = (("memory.memsw.limit_in_bytes", None),)
    events = "memory.oom_control"
    peaks = "memory.max_usage_in_bytes"

    def wait(self, now: float) -> "float | None":
        """Return in how many seconds to look at what the kernel has ended, None if there is no instance."""
        return max(0.0, self._due - now) if self._watched else None

    def look(self, now: float) -> None:
        """Kill instances of which the kernel has ended a part."""
        if self._watched and now >= self._due:
            self._due = now + EVERY
            for number, pid in self._watched.items():
                if self._went_over(self._path(number)):
                    kill_session(pid)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _read(path: str) -> str:
    """Return what is in a file; nothing if it is not there."""
    with contextlib.suppress(OSError), open(path) as file:
        return file.read()
    return ""


def _remove(path: str) -> bool:
    """Remove an empty group; return False if it is not empty yet."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
