"""Code to a zip in memory. Equal code gives equal bytes: members are sorted, and carry one date and one of two modes."""

import io
import os
import zipfile
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

ALWAYS_IGNORED = (
    ".git", ".hg", ".svn", ".venv*", "__pycache__", "*.pyc", "*.egg-info", ".mypy_cache", ".ruff_cache", ".pytest_cache",
    ".penstock", ".penstockignore", "penstock.yaml", "penstock.yml", ".DS_Store",
)  # fmt: skip
"""What is never code: version control, environments, caches, and Penstock's own data and configuration (they hold secrets)."""

IGNORE_FILE = ".penstockignore"
DATE = (1980, 1, 1, 0, 0, 0)
MOST_FILES = 20_000
MOST_BYTES = 1 << 30


def pack(path: str | os.PathLike[str], most_bytes: int = MOST_BYTES) -> bytes:
    """Return a zip of a file, a folder or another zip.

    A folder is packed with what is in it, without what is never code and what its `.penstockignore` names: one pattern a
    line, matched against names at any depth, or against the path from the folder if it holds a slash; a slash at its end
    means folders only. Links to folders are not followed. `most_bytes` bounds what is read. Raises OSError, ValueError for
    what cannot be packed.
    """
    source = Path(path)
    if source.is_dir():
        members = list(_members_of_folder(source, most_bytes))
        if not members:
            raise ValueError(f"There is no code to deploy in {source}: it holds no files, or all of them are ignored.")
    elif source.suffix == ".zip":
        members = list(_members_of_zip(source))
    else:
        members = [(source.name, source.read_bytes(), _runnable(source))]
    return _zip(members)


def zip_of(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of files by their names."""
    return _zip([(name, content, False) for name, content in files.items()])


def _zip(members: list[tuple[str, bytes, bool]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, content, runnable in sorted(members):
            member = zipfile.ZipInfo(name, DATE)
            member.create_system = 3  # Unix, whatever the machine
            member.external_attr = (0o100755 if runnable else 0o100644) << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, content)
    return buffer.getvalue()


def _runnable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)


def _members_of_zip(source: Path) -> Iterator[tuple[str, bytes, bool]]:
    try:
        with zipfile.ZipFile(source) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    yield member.filename, archive.read(member), bool((member.external_attr >> 16) & 0o100)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{source} is not a zip that can be read: {error}.") from error


def _members_of_folder(source: Path, most_bytes: int) -> Iterator[tuple[str, bytes, bool]]:
    count = size = 0
    for here, folder, files in walk(source, Ignored(source)):
        for name in files:
            path = folder / name
            if path.is_file():
                count, size = count + 1, size + path.stat().st_size
                if count > MOST_FILES or size > most_bytes:
                    what = f"more than {MOST_FILES:,} files" if count > MOST_FILES else f"over {most_bytes >> 20} MiB"
                    raise ValueError(f"{source} holds {what}. Name what is not code in its {IGNORE_FILE}.")
                yield str(here / name), path.read_bytes(), _runnable(path)


def walk(source: Path, ignored: "Ignored") -> Iterator[tuple[PurePosixPath, Path, list[str]]]:
    """Yield each folder that is packed: its path from the source, itself, and the names of its files. Raises OSError."""

    def fail(error: OSError) -> None:
        raise error

    for folder, folders, files in os.walk(source, onerror=fail):
        here = PurePosixPath(Path(folder).relative_to(source).as_posix())
        folders[:] = sorted(name for name in folders if not ignored.matches(here / name, is_folder=True))
        yield here, Path(folder), [name for name in files if not ignored.matches(here / name, is_folder=False)]


class Ignored:
    """Tell which paths of a folder are not packed."""

    def __init__(self, source: Path) -> None:
        self._patterns = [(pattern, False) for pattern in ALWAYS_IGNORED]
        listed = source / IGNORE_FILE
        for number, line in enumerate(listed.read_text().splitlines() if listed.is_file() else (), 1):
            pattern = line.strip()
            if pattern.startswith("!"):
                raise ValueError(f"{listed}:{number}: patterns that begin with '!' are not understood: {pattern}")
            if pattern and not pattern.startswith("#"):
                self._patterns.append((pattern.rstrip("/"), pattern.endswith("/")))

    def matches(self, path: PurePosixPath, *, is_folder: bool) -> bool:
        """Return whether a path, relative to the folder, is left out."""
        for pattern, folders_only in self._patterns:
            if folders_only and not is_folder:
                continue
            subject = str(path) if "/" in pattern else path.name
            if fnmatchcase(subject, pattern.lstrip("/")):
                return True
        return False
