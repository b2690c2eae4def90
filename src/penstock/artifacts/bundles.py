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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from penstock.artifacts.unpack import Bounds, check, unpack
from penstock.domain.errors import DiskFull, NotFound

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_UNFINISHED: Final = ".unfinished-"


class Bundles:
    """Keep bundles in a directory: `<digest>.zip`, and unpacked as `<digest>/`. One server owns it."""

    def __init__(self, directory: Path, bounds: Bounds | None = None) -> None:
        self._directory = directory
        self._bounds = bounds or Bounds()
        self._tidy = False

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

    async def remove(self, digest: str) -> None:
        """Forget a bundle and its folder; nothing happens if there is none."""
        await asyncio.to_thread(self._remove, digest)

    def _names(self, digest: str) -> tuple[Path, Path]:
        if not _DIGEST.fullmatch(digest):
            raise NotFound("bundle", digest)
        return self._directory / digest, self._directory / f"{digest}.zip"

    def _add(self, body: bytes) -> str:
        check(body, self._bounds)
        digest = hashlib.sha256(body).hexdigest()
        folder, zipped = self._names(digest)
        self._prepare()
        if not folder.is_dir():
            self._unpack(body, folder)
        if not zipped.exists():
            self._write(body, zipped)
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

    def _remove(self, digest: str) -> None:
        folder, zipped = self._names(digest)
        zipped.unlink(missing_ok=True)
        if folder.is_dir():
            with self._unfinished(folder) as place:
                folder.chmod(0o755)
                folder.rename(place / "folder")


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
