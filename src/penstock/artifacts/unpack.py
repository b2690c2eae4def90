"""Unpacking of a zip that a stranger may have made. Everything lands inside the folder, and no more of it than allowed.

Bounds hold for what really comes out, not for what the zip announces; links are made last and must end inside.
"""

import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from penstock.domain.errors import BadRequest, TooLarge

MIB: Final = 1 << 20
ENCRYPTED: Final = 0x1
LONGEST_NAME: Final = 255
LONGEST_PATH: Final = 1024
_UNREADABLE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    ValueError,
    OverflowError,
)
"""What `zipfile` raises for zips that are damaged, depending on where."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bound a bundle: bytes of the zip, number of entries, bytes unpacked, and how many times more that is than the zip.

    The ratio counts from `free` unpacked bytes on: a page of zeros harms nobody.
    """

    zipped: int = 256 * MIB
    entries: int = 20_000
    unpacked: int = 1024 * MIB
    ratio: int = 200
    free: int = 16 * MIB


def check(body: bytes, bounds: Bounds) -> None:
    """See that bytes are a zip that may be unpacked, as far as its table of contents tells.

    Raises `BadRequest` for what is no such zip, `TooLarge` for what is over a bound.
    """
    with _opened(body, bounds) as archive:
        _members(archive, len(body), bounds)


def unpack(body: bytes, folder: Path, bounds: Bounds) -> None:
    """Unpack a zip into an empty folder and make what is there read-only, durably.

    Raises as `check` does, also for what only unpacking shows; the folder is then to be thrown away.
    """
    with _opened(body, bounds) as archive:
        links: list[zipfile.ZipInfo] = []
        left = _most(len(body), bounds)
        for member in _members(archive, len(body), bounds):
            target = folder / member.filename
            if member.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            if stat.S_ISLNK(member.external_attr >> 16):
                links.append(member)
            else:
                left -= _write(archive, member, target, left)
        for member in links:
            _link(archive, member, folder)
        _see_where_links_lead(folder, links)
    _seal(folder)


@contextmanager
def _opened(body: bytes, bounds: Bounds) -> Iterator[zipfile.ZipFile]:
    if len(body) > bounds.zipped:
        raise TooLarge(
            f"The bundle has {len(body):,} bytes; {bounds.zipped:,} are allowed. Leave out what the code does not need."
        )
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            yield archive
    except _UNREADABLE as error:
        raise BadRequest(f"The bundle is no zip that can be read: {error or type(error).__name__}.") from None
    except RuntimeError as error:  # what zipfile raises for passwords
        raise BadRequest(f"The bundle cannot be unpacked: {error}.") from None


def _most(zipped: int, bounds: Bounds) -> int:
    """Return how many bytes a zip of that size may unpack to."""
    return min(bounds.unpacked, max(bounds.free, bounds.ratio * zipped))


def _members(archive: zipfile.ZipFile, zipped: int, bounds: Bounds) -> Sequence[zipfile.ZipInfo]:
    """Return what is in a zip, folders before what is in them, all of it checked."""
    members = archive.infolist()
    if len(members) > bounds.entries:
        raise TooLarge(f"The bundle has {len(members):,} entries; {bounds.entries:,} are allowed.")
    if sum(member.compress_size for member in members) > zipped:
        raise BadRequest("The bundle's entries overlap: it was made to unpack to more than it holds.")
    if sum(member.file_size for member in members) > _most(zipped, bounds):
        raise _too_large(zipped, bounds)
    seen: set[str] = set()
    folders: set[str] = set()
    for member in members:
        _check_name(member)
        name = member.filename.rstrip("/")
        if name in seen and not member.is_dir():
            raise BadRequest(f"The bundle has two entries '{name}'.")
        seen.add(name)
        folders.update(str(parent) for parent in PurePosixPath(name).parents)
    for member in members:
        if not member.is_dir() and member.filename in folders:
            raise BadRequest(f"The bundle has '{member.filename}' both as a file and as a folder.")
    return sorted(members, key=lambda member: member.filename)


def _check_name(member: zipfile.ZipInfo) -> None:
    """Refuse entries that could land elsewhere, or that are no file, folder or link."""
    name = member.orig_filename
    parts = name.removesuffix("/").split("/")
    if name.startswith("/") or "\\" in name or (len(name) > 1 and name[1] == ":"):
        raise BadRequest(
            f"The bundle's entry {name!r} is not relative to the bundle. Make the zip from within the folder."
        )
    if not name or any(part in {"", ".", ".."} for part in parts) or any(ord(c) < 32 for c in name):
        raise BadRequest(
            f"The bundle's entry {name!r} has no plain name: no '..', no '.', no empty part, no control character."
        )
    if len(os.fsencode(name)) > LONGEST_PATH or any(len(os.fsencode(part)) > LONGEST_NAME for part in parts):
        raise BadRequest(f"The bundle's entry '{name[:40]}…' has too long a name.")
    if member.flag_bits & ENCRYPTED:
        raise BadRequest(f"The bundle's entry '{name}' is encrypted. Make the zip without a password.")
    if member.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise BadRequest(f"The bundle's entry '{name}' is compressed in an unusual way. Make the zip with 'deflate'.")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK}:
        raise BadRequest(f"The bundle's entry '{name}' is neither a file nor a folder.")


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int) -> int:
    """Write one file; return its size, which is at most `left`."""
    size = 0
    with archive.open(member) as source, target.open("xb") as file:
        while piece := source.read(MIB):
            size += len(piece)
            if size > left:
                raise TooLarge(f"The bundle unpacks to more than it may: '{member.filename}' is where it went over.")
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o555 if (member.external_attr >> 16) & 0o100 else 0o444)
    return size


def _link(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    """Make one symbolic link, with a relative target."""
    if member.file_size > LONGEST_PATH:
        raise BadRequest(f"The bundle's link '{member.filename}' has too long a target.")
    target = os.fsdecode(archive.read(member))
    if not target or target.startswith("/") or "\0" in target:
        raise BadRequest(f"The bundle's link '{member.filename}' leads to {target!r}, which is not inside the bundle.")
    (folder / member.filename).symlink_to(target)


def _see_where_links_lead(folder: Path, links: Sequence[zipfile.ZipInfo]) -> None:
    """Refuse links that lead out of the folder, be it through other links."""
    root = os.path.realpath(folder)
    for member in links:
        real = os.path.realpath(folder / member.filename)
        if real != root and not real.startswith(root + os.sep):
            raise BadRequest(f"The bundle's link '{member.filename}' leads out of the bundle. Pack the file itself.")


def _seal(folder: Path) -> None:
    """Make folders read-only, and what they list durable; the files are already."""
    for path, _, _ in os.walk(folder, topdown=False):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o555)
        finally:
            os.close(descriptor)


def _too_large(zipped: int, bounds: Bounds) -> TooLarge:
    return TooLarge(
        f"The bundle unpacks to more than {_most(zipped, bounds):,} bytes, which is what a zip of {zipped:,} may. "
        "Leave out what the code does not need."
    )
