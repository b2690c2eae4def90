"""Bundles: zips of code, each stored once under the SHA-256 of its bytes, and unpacked beside it.

The zip is the truth, its folder can be made again at any time. Whatever stands under its final name is whole: it was made
under another name, written through to the disk, and renamed.
"""

import asyncio
import errno
import hashlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock.artifacts.unpack import Bounds, check, unpack
from penstock.domain.errors import DiskFull, NotFound

FRESH: Final = 3600.0
"""Seconds for which a bundle stays that no version has yet: its packages are being installed, or it is imported."""

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_UNFINISHED: Final = ".unfinished-"


class Bundles:
    """Keep bundles in a directory: `<digest>.zip`, and unpacked as `<digest>/`. One server owns it."""

    def __init__(self, directory: Path, bounds: Bounds | None = None) -> None:
        self._directory = directory
        self._bounds = bounds or Bounds()
        self._tidy = False
        self._turn = threading.Lock()
        self._adding: Counter[str] = Counter()

    async def add(self, body: bytes) -> str:
        """Keep a zip and return its digest; one that is there already is kept once.

        Raises `BadRequest` for what is no zip or has entries that would land outside of it, `TooLarge` for what is over a
        bound, `DiskFull`; nothing is kept then.
        """
        return await asyncio.to_thread(self._add, body)

    def path(self, digest: str) -> Path:
        """Return the folder of a bundle, unpacking it again if it is gone. Raises `NotFound` for an unknown digest."""
        folder, zipped = self._names(digest)
        if not folder.is_dir():
            try:
                body = zipped.read_bytes()
            except FileNotFoundError:
                raise NotFound("bundle", digest) from None
            self._unpack(body, folder)
        return folder

    async def sweep(self, used: Collection[str]) -> int:
        """Delete bundles that are not among these and were not added within the last hour; return how many went."""
        gone = 0
        for digest in await asyncio.to_thread(self._unused, frozenset(used)):
            gone += await asyncio.to_thread(self._sweep, digest)
        return gone

    def _names(self, digest: str) -> tuple[Path, Path]:
        if not _DIGEST.fullmatch(digest):
            raise NotFound("bundle", digest)
        return self._directory / digest, self._directory / f"{digest}.zip"

    def _add(self, body: bytes) -> str:
        check(body, self._bounds)
        digest = hashlib.sha256(body).hexdigest()
        folder, zipped = self._names(digest)
        self._prepare()
        with self._turn:
            self._adding[digest] += 1
        try:
            if not folder.is_dir():
                self._unpack(body, folder)
            if not zipped.exists():
                self._write(body, zipped)
            os.utime(zipped)  # whoever sweeps leaves it alone until a version has it
        finally:
            with self._turn:
                self._adding[digest] -= 1
        return digest

    def _prepare(self) -> None:
        """Make the directory; once, remove what an earlier server left unfinished there."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._tidy:
            self._tidy = True
            for path in self._directory.glob(f"{_UNFINISHED}*"):
                _erase(path)

    def _write(self, body: bytes, zipped: Path) -> None:
        with self._unfinished(zipped) as place:
            with (place / "zip").open("xb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            (place / "zip").rename(zipped)

    def _unpack(self, body: bytes, folder: Path) -> None:
        with self._unfinished(folder) as place:
            made = place / "folder"
            made.mkdir()
            unpack(body, made, self._bounds)
            made.chmod(0o755)  # a folder that cannot be written cannot be moved either
            try:
                made.rename(folder)
            except OSError as error:
                if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                    raise
            folder.chmod(0o555)

    @contextmanager
    def _unfinished(self, final: Path) -> Iterator[Path]:
        """Give a place to make something in that is then renamed; afterwards the place is gone and the name is durable."""
        place = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._directory))
        try:
            yield place
            _sync(self._directory)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(f"The disk has no room for the bundle {final.name}: nothing of it was kept.") from error
            raise
        finally:
            _erase(place)

    def _unused(self, used: frozenset[str]) -> list[str]:
        found = {path.name.removesuffix(".zip") for path in self._directory.glob("[0-9a-f]*")}
        return sorted(digest for digest in found - used if _DIGEST.fullmatch(digest))

    def _sweep(self, digest: str) -> bool:
        """Delete one bundle; return False if it was added just now."""
        folder, zipped = self._names(digest)
        with self._turn:
            added = max((path.stat().st_mtime for path in (folder, zipped) if path.exists()), default=0.0)
            if added > time.time() - FRESH or self._adding[digest]:
                return False
            zipped.unlink(missing_ok=True)
            if folder.is_dir():
                with self._unfinished(folder) as place:
                    folder.chmod(0o755)
                    folder.rename(place / "folder")
        return True


def _sync(directory: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _erase(path: Path) -> None:
    """Delete a file or a folder, read-only ones too."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)
