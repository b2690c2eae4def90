"""What packages a bundle asks for, and which environment has them.

Equal requirements give an equal digest, whatever their order, spacing and comments, and so the same environment. Those
that lead to files of the bundle, or that are not surely free of such, count together with the bundle: then it is theirs alone.
"""

import hashlib
import json
import re
import sys
import sysconfig
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from penstock.compute.protocol import InstallFailed

FILES: Final = ("requirements.txt", "pyproject.toml")
"""Where packages may be named, at the root of a bundle; the first that names any counts."""

MOST_BYTES: Final = 1 << 20

_FORMAT: Final = 1
_COMMENT: Final = re.compile(r"(^|\s)#.*$")
_URL: Final = r"(?:git\+)?https?://\S+"
_ANYWHERE: Final = re.compile(
    rf"""
    [a-z0-9][a-z0-9._-]* \s* (?:\[[^\]]*\])? \s* (?: @\s*{_URL} .* | [(<>=!~;] .* | (?:--hash\b .*)? )
    | --(?:pre|prefer-binary|no-index|require-hashes)
    | (?:-i|--index-url|--extra-index-url) [\s=]+ {_URL}
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""What a line says that means the same whichever bundle it stands in."""

_ARCHIVE: Final = re.compile(r"\.(?:whl|zip|tar|tgz|gz|bz2|xz)\s*(?:;|$)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Say which environment a bundle asks for: by its digest, and by the file in the bundle that names its packages.

    `own` is True if files of the bundle may be needed to make it, `python` the version that it asks for; `file` is "" if it
    asks for no more than that.
    """

    digest: str
    file: str
    own: bool
    python: str | None = None


def wanted_by(folder: Path, bundle: str, python: str | None = None) -> Wanted | None:
    """Return what an unpacked bundle asks for on a Python; None if that is the server's, and it names no packages.

    Raises `InstallFailed` if that is not clear.
    """
    for name in FILES:
        path = folder / name
        if not path.is_file():
            continue
        lines, own = _in_requirements(_read(path)) if name == FILES[0] else _in_project(_read(path))
        if lines:
            return Wanted(_digest(lines, bundle if own else "", python), name, own, python)
    return None if python is None else Wanted(_digest([], "", python), "", own=False, python=python)


def _read(path: Path) -> str:
    if path.stat().st_size > MOST_BYTES:
        raise InstallFailed(f"{path.name} has more than {MOST_BYTES:,} bytes. Name packages in it, and nothing else.")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InstallFailed(f"{path.name} is not UTF-8 text: {error}.") from None


def _in_requirements(text: str) -> tuple[list[str], bool]:
    joined = re.sub(r"\\\r?\n", " ", text)
    stripped = (" ".join(_COMMENT.sub("", line).split()) for line in joined.splitlines())
    lines = [line for line in stripped if line]
    return lines, _own(lines)


def _in_project(text: str) -> tuple[list[str], bool]:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InstallFailed(f"pyproject.toml is not TOML: {error}.") from None
    listed: Any = _table(document, "project").get("dependencies", [])
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise InstallFailed("In pyproject.toml, dependencies of [project] is not a list of texts.")
    lines = [" ".join(one.split()) for one in listed]
    return lines, _own(lines) or "uv" in _table(document, "tool")


def _table(document: dict[str, Any], name: str) -> dict[str, Any]:
    found = document.get(name, {})
    return found if isinstance(found, dict) else {}


def _own(lines: Sequence[str]) -> bool:
    return not all(_ANYWHERE.fullmatch(line) and ("://" in line or not _ARCHIVE.search(line)) for line in lines)


def _digest(lines: Sequence[str], bundle: str, python: str | None) -> str:
    """Return the name of the environment that has these packages, for a Python (None: this server's)."""
    own = [sys.implementation.cache_tag, sysconfig.get_platform(), sys.base_prefix]
    of = own if python is None else [f"python {python}", sysconfig.get_platform()]
    return hashlib.sha256(json.dumps([_FORMAT, of, sorted(set(lines)), bundle]).encode()).hexdigest()
