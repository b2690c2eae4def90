"""What memory this machine has left, or this container if that is less: read from the kernel, in some ten microseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_CGROUPS: Final = Path("/sys/fs/cgroup")
_V2: Final = ("memory.max", "memory.current", "inactive_file")
_V1: Final = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_NONE: Final = 2**60
"""A limit from which on there is none: v1 writes "unlimited" as a very large number."""


class Machine:
    """Know the machine, and the control groups that this process is in and that have a limit of memory."""

    def __init__(self, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> None:
        self._meminfo = proc / "meminfo"
        self._groups = _limited_groups(proc, cgroups)

    def memory_left(self) -> tuple[int, int]:
        """Return (bytes that are available, bytes in all), of the machine or of the group that has least left."""
        lines = self._meminfo.read_bytes().split(b"\n", 3)
        sizes = {line.split(b":")[0]: int(line.split()[1]) << 10 for line in lines[:3]}
        least = sizes[b"MemAvailable"], sizes[b"MemTotal"]
        for group, names in self._groups:
            found = _left_in(group, names)
            if found is not None:
                least = min(least, found)
        return least


def _limited_groups(proc: Path, cgroups: Path) -> list[tuple[Path, tuple[str, str, str]]]:
    """Return the groups from this process's own up to the root that limit memory."""
    found: list[tuple[Path, tuple[str, str, str]]] = []
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (cgroups / "memory", _V1) if controllers else (cgroups, _V2)
        own = root / path.strip("/")
        for group in (own, *own.parents):
            if group == root.parent:
                break
            if _left_in(group, names) is not None:
                found.append((group, names))
    return found


def _left_in(group: Path, names: tuple[str, str, str]) -> tuple[int, int] | None:
    """Return (bytes left, limit) of a group; None if it limits nothing. What is cached from files can be given up."""
    most, current, cached = names
    try:
        limit = (group / most).read_text().strip()
        if limit == "max" or int(limit) >= _NONE:
            return None
        used = int((group / current).read_text())
        for line in (group / "memory.stat").read_text().splitlines():
            name, _, size = line.partition(" ")
            if name == cached:
                used -= int(size)
                break
        return max(0, int(limit) - used), int(limit)
    except (OSError, ValueError):
        return None
