"""Bundles: zips of code, kept by the digest of their bytes and unpacked once, however many pipelines run them.

A zip is looked through before anything of it is kept: what is inside lands inside, and is no larger than it may be.
"""

import asyncio
import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Final

from penstock.domain.errors import BadRequest, DiskFull, TooLarge

MOST_PACKED: Final = 64 << 20
MOST_UNPACKED: Final = 512 << 20
MOST_MEMBERS: Final = 20_000
_DISK_FULL: Final = {28, 122}  # ENOSPC, EDQUOT


class Bundles:
    """Keep bundles in a directory. Everything that touches the disk happens off the event loop."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def add(self, body: bytes) -> str:
        """Keep a zip; return its digest. Raises `BadRequest` or `TooLarge` if it is none to keep, or `DiskFull`."""
        return await asyncio.to_thread(self._add, body)

    async def remove(self, digest: str) -> None:
        """Forget a bundle."""
        await asyncio.to_thread(self._remove, digest)

    def path(self, digest: str) -> Path:
        """Return the folder a bundle is unpacked in. Raises `FileNotFoundError` if there is no such bundle."""
        folder = self._directory / digest
        if not folder.is_dir():
            self._unpack(digest, (self._directory / f"{digest}.zip").read_bytes())
        return folder

    def _add(self, body: bytes) -> str:
        if len(body) > MOST_PACKED:
            raise TooLarge(f"The bundle has {len(body)} bytes; at most {MOST_PACKED} are taken. Leave data out of it.")
        _check(body)
        digest = hashlib.sha256(body).hexdigest()
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._keep(self._directory / f"{digest}.zip", body)
            if not (self._directory / digest).is_dir():
                self._unpack(digest, body)
        except OSError as error:
            if error.errno in _DISK_FULL:
                raise DiskFull("The disk is full: the bundle was not kept. Deploy again when there is room.") from error
            raise
        return digest

    def _keep(self, file: Path, body: bytes) -> None:
        """Write a file so that it is there whole or not at all."""
        if file.exists():
            return
        descriptor, draft = tempfile.mkstemp(dir=self._directory)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(body)
                out.flush()
                os.fsync(out.fileno())
            Path(draft).replace(file)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
        _sync(self._directory)

    def _unpack(self, digest: str, body: bytes) -> None:
        draft = Path(tempfile.mkdtemp(dir=self._directory))
        try:
            with zipfile.ZipFile(io.BytesIO(body)) as archive:
                archive.extractall(draft)
                for member in archive.infolist():
                    _set_mode(draft / member.filename, member)
            draft.chmod(0o755)
            draft.replace(self._directory / digest)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            if not (self._directory / digest).is_dir():  # else another call was faster
                raise

    def _remove(self, digest: str) -> None:
        (self._directory / f"{digest}.zip").unlink(missing_ok=True)
        shutil.rmtree(self._directory / digest, ignore_errors=True)


def _check(body: bytes) -> None:
    """Refuse what is no zip, and a zip that would reach outside or grow beyond its bound."""
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            members = archive.infolist()
            _check_members(members)
            broken = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise BadRequest(f"The body is not a zip that can be read: {error}") from error
    if broken is not None:
        raise BadRequest(f"The zip is damaged: '{broken}' does not have its checksum.")


def _check_members(members: list[zipfile.ZipInfo]) -> None:
    if not members:
        raise BadRequest("The zip is empty: there is no code in it.")
    if len(members) > MOST_MEMBERS:
        raise TooLarge(f"The bundle has {len(members)} files; at most {MOST_MEMBERS} are taken.")
    unpacked = sum(member.file_size for member in members)
    if unpacked > MOST_UNPACKED:
        raise TooLarge(f"The bundle unpacks to {unpacked} bytes; at most {MOST_UNPACKED} are taken.")
    for member in members:
        name = member.filename
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or (parts and ":" in parts[0]):
            raise BadRequest(
                f"The zip has a path that leads out of it: {name!r}. Pack paths relative to the code's folder."
            )
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise BadRequest(f"The zip has a link or a special file: {name!r}. Pack plain files only.")


def _set_mode(path: Path, member: zipfile.ZipInfo) -> None:
    """Let everybody read, and run what could be run; nobody writes to code that instances share."""
    if member.is_dir():
        return
    runs = (member.external_attr >> 16) & 0o111
    path.chmod(0o555 if runs else 0o444)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
