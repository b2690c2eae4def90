"""What the store asks of the directory it lies in: that it is its only owner, and that there is room for outcomes."""

import fcntl
import os
from pathlib import Path
from typing import Final

from penstock.domain.errors import Locked

_BLOCK: Final = b"\0" * (1 << 20)


def sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


class DirectoryLock:
    """Own a directory for as long as this process lives; the kernel gives it back however the process ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file = -1

    def take(self) -> None:
        """Take the directory. Raises `Locked` while another process, or another store of this one, has it."""
        file = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(file, 32).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise Locked(
                f"The data directory {self._directory} is in use by the server with pid {owner}. Two servers must not "
                "share one: stop that server, or give this one a directory of its own with --data."
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def give_back(self) -> None:
        """Give the directory back; nothing happens if it was not taken."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class Ballast:
    """Keep a piece of the disk that can be given up when it is full, so that outcomes can still be written."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size

    @property
    def held(self) -> bool:
        """Tell whether the ballast is on the disk as a whole."""
        try:
            return self._path.stat().st_size >= self._size
        except OSError:
            return False

    def room(self) -> int:
        """Return how many bytes of the disk are free."""
        stat = os.statvfs(self._path.parent)
        return stat.f_bavail * stat.f_frsize

    def give_up(self) -> None:
        """Free what the ballast takes."""
        self._path.unlink(missing_ok=True)

    def restore(self) -> bool:
        """Put the ballast back if the disk has room for it and half as much again; tell whether it is held now."""
        if self.held:
            return True
        if self.room() < self._size + self._size // 2:
            return False
        try:
            with self._path.open("wb", buffering=0) as file:
                self._fill(file.fileno())
        except OSError:
            self.give_up()
            return False
        return True

    def _fill(self, file: int) -> None:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, self._size)
            return
        left = self._size
        while left > 0:
            left -= os.write(file, _BLOCK[:left])
