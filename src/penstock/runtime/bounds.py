"""Keep an instance from taking the machine with it: so many processes, so much in its folder.

The laws. Looking costs next to nothing while nothing happens: the kernel tells in one line how many processes were started,
and in one call how much of the disk is used; only when either has moved, instances are looked at. What is over is killed
wholly, and why is told.
"""

import os

from penstock.runtime.guards import Guard
from penstock.runtime.kernel import kill_session
from penstock.runtime.procfs import Below, kill_kin, last_id

EVERY = 0.25
"""Seconds between two looks."""

MOST_FILES = 200_000
"""Files that an instance may have in its folder."""

_WALK_EVERY = 10.0  # seconds, for what a disk that others empty hides


class Bounds(Guard):
    """Keep the instances of one zygote within bounds, on top of another guard.

    `room` is how many bytes an instance's folder may take, `processes` how many it may have below it.
    """

    def __init__(self, inner: Guard, home: str, room: int, processes: int) -> None:
        self._inner = inner
        self._home = home
        self._room = room
        self._processes = processes
        self._watched: dict[int, int] = {}
        self._why: dict[int, str] = {}
        self._below = Below()
        self._due = self._walk_due = 0.0
        self._last_id = last_id()
        self._free = self._free_bytes()

    def prepare(self, number: int) -> None:
        """Make what an instance needs before it is forked."""
        self._inner.prepare(number)

    def enter(self, number: int) -> None:
        """Put this process under its limit."""
        self._inner.enter(number)

    def watch(self, number: int, pid: int) -> None:
        """Begin to watch an instance."""
        self._watched[pid] = number
        self._inner.watch(number, pid)

    def wait(self, now: float) -> "float | None":
        """Return in how many seconds to look, None if there is no instance."""
        if not self._watched:
            return None
        inner = self._inner.wait(now)
        own = max(0.0, self._due - now)
        return own if inner is None else min(own, inner)

    def look(self, now: float) -> None:
        """Look whether anything has moved, and then at the instances."""
        self._inner.look(now)
        if not self._watched or now < self._due:
            return
        self._due = now + EVERY
        last = last_id()
        if abs(last - self._last_id) >= self._processes // 8:
            self._last_id = last
            self._count(now)
        free = self._free_bytes()
        if self._free - free > self._room // 16 or now >= self._walk_due:
            self._walk_due = now + _WALK_EVERY
            self._free = free
            self._weigh()

    def why(self, number: int) -> str:
        """Return why an instance was killed here, "" if it was not."""
        return self._why.pop(number, "")

    def peak(self, number: int, pid: int, most: int) -> int:
        """Return what the inner guard says that an instance used."""
        return self._inner.peak(number, pid, most)

    def ended(self, number: int, pid: int) -> "int | None":
        """Forget an instance; return what the inner guard says of it."""
        self._watched.pop(pid, None)
        self._below.forget(pid)
        return self._inner.ended(number, pid)

    def _count(self, now: float) -> None:
        self._below.refresh(now, self._watched.keys())
        for pid, number in self._watched.items():
            below = self._below.of(pid)
            if len(below) > self._processes:
                self._why[number] = (
                    f"The instance was ended because it had more than {self._processes} processes below it."
                )
                kill_session(pid)
                kill_kin(below)

    def _weigh(self) -> None:
        for pid, number in self._watched.items():
            size, files = weigh(os.path.join(self._home, f"{number}.{pid}"), self._room)
            if size > self._room or files > MOST_FILES:
                what = f"{self._room} bytes" if size > self._room else f"{MOST_FILES} files"
                self._why[number] = f"The instance was ended because there was more than {what} in its folder (tmpdir)."
                kill_session(pid)
                kill_kin(self._below.of(pid))

    def _free_bytes(self) -> int:
        found = os.statvfs(self._home)
        return found.f_bfree * found.f_frsize


def weigh(folder: str, most: int) -> "tuple[int, int]":
    """Return how many bytes of the disk and how many files are in a folder; stops counting when that is too much."""
    size = files = 0
    folders = [folder]
    while folders and size <= most and files <= MOST_FILES:
        try:
            with os.scandir(folders.pop()) as inside:
                for entry in inside:
                    files += 1
                    if files > MOST_FILES:
                        break
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except OSError:  # it is being changed
            continue
    return size, files
