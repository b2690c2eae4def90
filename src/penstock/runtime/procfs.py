"""What /proc says of the memory of processes, and which of them an instance has started."""

import os
import time
from collections.abc import Collection

SHARE = 0.02
"""The part of a core that looking may take, as far as it can wait."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


def read_rss(pid: int) -> int:
    """Return the bytes of memory that a process has mapped and in use, shared or not; 0 if it is gone."""
    fields = _read(f"/proc/{pid}/statm", 256).split()
    return int(fields[1]) * _PAGE if fields else 0


def read_pss(pid: int) -> int:
    """Return the bytes of memory that a process answers for: what it shares counts in parts. 0 if it is gone."""
    size = 0
    for line in _read(f"/proc/{pid}/smaps_rollup", 4096).splitlines():
        if line.startswith((b"Pss:", b"SwapPss:")):
            size += int(line.split()[1]) << 10
    return size


def read_kin(pid: int) -> "tuple[int, int, int] | None":
    """Return (parent, session, birth in clock ticks since boot) of a process; None if it is gone."""
    fields = _read(f"/proc/{pid}/stat", 2048).rpartition(b")")[2].split()
    return (int(fields[1]), int(fields[3]), int(fields[19])) if fields else None


def _read(path: str, most: int) -> bytes:
    """Return the beginning of a file; nothing if its process is gone."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, most)
    except OSError:
        return b""
    finally:
        os.close(file)


class Below:
    """Know the processes below instances or in their sessions; each is found once, and stays its instance's.

    The kernel tells the last process id that it gave out: as long as that is the same, nobody has started anything. What
    left its session and lost its parent before it was found is not known here.
    """

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._owner: dict[int, int] = {}
        self._of: dict[int, dict[int, int]] = {}
        self._last_id = b""
        self._rests_until = 0.0

    def of(self, instance: int) -> "dict[int, int]":
        """Return the processes of an instance with their births, without itself."""
        return self._of.get(instance, {})

    def refresh(self, now: float, instances: Collection[int]) -> None:
        """Find what instances, given by their process ids, have started since the last time."""
        if now < self._rests_until:
            return
        last_id = _read("/proc/loadavg", 128).rpartition(b" ")[2]
        if last_id == self._last_id:
            return
        self._last_id = last_id
        began = time.thread_time()
        there = {int(name) for name in os.listdir("/proc") if name.isdecimal()}
        self._known &= there
        for pid in self._owner.keys() - there:
            self._of.get(self._owner.pop(pid), {}).pop(pid, None)
        for pid in sorted(there - self._known):  # parents mostly come before their children
            self._known.add(pid)
            kin = None if pid in instances else read_kin(pid)
            if kin is not None:
                parent, session, born = kin
                owner = self._owner.get(parent, parent if parent in instances else session)
                if owner in instances:
                    self._owner[pid] = owner
                    self._of.setdefault(owner, {})[pid] = born
        self._rests_until = now + (time.thread_time() - began) / SHARE

    def forget(self, instance: int) -> None:
        """Forget an instance."""
        for pid in self._of.pop(instance, {}):
            self._owner.pop(pid, None)
