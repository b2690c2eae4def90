"""What /proc says of the memory of processes, and which of them an instance has started."""

import contextlib
import os
import signal
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


def read_peak(pid: int) -> int:
    """Return the bytes of memory that a process has answered for at most: now, and what more it has had in use before."""
    sizes = {b"VmHWM": 0, b"VmRSS": 0}
    for line in _read(f"/proc/{pid}/status", 4096).splitlines():
        name, _, size = line.partition(b":")
        if name in sizes:
            sizes[name] = int(size.split()[0]) << 10
    now = read_pss(pid)
    return now + max(0, sizes[b"VmHWM"] - sizes[b"VmRSS"]) if now else 0


def read_kin(pid: int) -> "tuple[int, int, int] | None":
    """Return (parent, session, birth in clock ticks since boot) of a process; None if it is gone."""
    fields = _read(f"/proc/{pid}/stat", 2048).rpartition(b")")[2].split()
    return (int(fields[1]), int(fields[3]), int(fields[19])) if fields else None


def last_id() -> int:
    """Return the process id that the kernel gave out last."""
    return int(_read("/proc/loadavg", 128).rpartition(b" ")[2] or 0)


def children(parent: "int | None" = None) -> "list[int]":
    """Return the processes that the first thread of a process has started and that are there, this one's by default."""
    parent = os.getpid() if parent is None else parent
    return [int(pid) for pid in _read(f"/proc/{parent}/task/{parent}/children", 1 << 20).split()]


def read_inner(pid: int) -> int:
    """Return the id that a process has in its own namespace; 0 if it is gone."""
    for line in _read(f"/proc/{pid}/status", 4096).splitlines():
        if line.startswith(b"NSpid:"):
            return int(line.split()[-1])
    return 0


def kill_kin(found: "dict[int, int]") -> None:
    """Kill processes, given with their births, that are still the same ones."""
    for pid, born in found.items():
        kin = read_kin(pid)
        if kin is not None and kin[2] == born:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def reads_as_of(pid: int, name: str) -> "bytes | None":
    """Return the value of an environment variable that a process was started with; None if it has none such."""
    for line in _read(f"/proc/{pid}/environ", 1 << 20).split(b"\0"):
        if line.startswith(name.encode() + b"="):
            return line.partition(b"=")[2]
    return None


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
        self._last_id = 0
        self._rests_until = 0.0

    def of(self, instance: int) -> "dict[int, int]":
        """Return the processes of an instance with their births, without itself."""
        return self._of.get(instance, {})

    def refresh(self, now: float, instances: Collection[int]) -> None:
        """Find what instances, given by their process ids, have started since the last time."""
        if now < self._rests_until:
            return
        last = last_id()
        if last == self._last_id:
            return
        self._last_id = last
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
