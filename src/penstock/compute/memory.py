"""Find out by what means this machine lets an instance be kept within its memory: cgroup v2, cgroup v1, or polling.

Control groups have one writer: whoever made one manages it. So only what was handed to us is used: the folder that
`PENSTOCK_CGROUP` names, or the server's own group if systemd has marked it as delegated (cgroup v2 only: v1 has no such
mark). What cannot be made use of is logged, and instances are looked at instead (`runtime/polling.py`), which needs nothing.
"""

import contextlib
import logging
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from penstock.runtime.cgroups import Cgroups, Version1, Version2

FOLDER: Final = "PENSTOCK_CGROUP"
"""The environment variable that names a control group's folder below which Penstock may make its own."""

log: Final = logging.getLogger(__name__)

_DELEGATED: Final = ("user.delegate", "trusted.delegate")
_SERVER: Final = "penstock-server"
_TRIAL: Final = 0  # no instance has this number
_TRIAL_LIMIT: Final = 1 << 30
_ENTER: Final = 'echo 0 > "$0/cgroup.procs"'


@dataclass(frozen=True, slots=True)
class Enforcement:
    """Say how memory limits are enforced. The paths of instances' groups begin with `groups`, and go on with a number."""

    level: Literal["cgroup v2", "cgroup v1", "polling"] = "polling"
    groups: str = ""


class _CannotUse(Exception):
    """Say why a control group cannot be used."""


def probe(owner: str, environ: Mapping[str, str] = os.environ, own: Path = Path("/proc/self")) -> Enforcement:
    """Return the best that is possible here for an owner's instances, and remove groups that it has left.

    It blocks for some milliseconds. `own` is this process's folder in /proc.
    """
    named = environ.get(FOLDER)
    folder = Path(named) if named else _delegated_group(own)
    if folder is None:
        return Enforcement()
    try:
        return _try(folder, owner)
    except (OSError, _CannotUse) as error:
        log.warning(
            "The control group %s cannot be used (%s). Memory limits are enforced by looking at processes instead.",
            folder, error,
        )  # fmt: skip
        return Enforcement()


def _try(folder: Path, owner: str) -> Enforcement:
    """Make a group below a folder, let a process enter it, and remove it. Raises `OSError` or `_CannotUse`."""
    groups = str(folder / f"penstock-{owner[:12]}-")
    guard: Cgroups
    if (folder / "cgroup.subtree_control").exists():
        _give_memory_to_children(folder)
        guard, found = Version2(groups, _TRIAL_LIMIT), Enforcement("cgroup v2", groups)
    elif (folder / Version1.most).exists():
        guard, found = Version1(groups, _TRIAL_LIMIT), Enforcement("cgroup v1", groups)
    else:
        raise _CannotUse("it is no control group that limits memory")
    for left in folder.glob(f"penstock-{owner[:12]}-*"):
        with contextlib.suppress(OSError):
            left.rmdir()
    guard.prepare(_TRIAL)
    try:
        entered = subprocess.run(
            ["/bin/sh", "-c", _ENTER, f"{groups}{_TRIAL}"], capture_output=True, text=True, check=False
        )
    finally:
        guard.ended(_TRIAL, 0)
    if entered.returncode:
        raise _CannotUse(f"no process may enter a group there: {entered.stderr.strip()}")
    return found


def _give_memory_to_children(folder: Path) -> None:
    """Let groups below a v2 group limit memory. Processes may be in leaves only then, so those in it move into one."""
    if "memory" in (folder / "cgroup.subtree_control").read_text().split():
        return
    if "memory" not in (folder / "cgroup.controllers").read_text().split():
        raise _CannotUse("it was not given the memory controller")
    inside = (folder / "cgroup.procs").read_text().split()
    if inside:
        (folder / _SERVER).mkdir(exist_ok=True)
        for pid in inside:
            with contextlib.suppress(ProcessLookupError):
                (folder / _SERVER / "cgroup.procs").write_text(pid)
    (folder / "cgroup.subtree_control").write_text("+memory")


def _delegated_group(own: Path) -> Path | None:
    """Return the folder of the v2 group that this process is in if systemd has delegated it to us, else None."""
    mounts = [line.split() for line in (own / "mounts").read_text().splitlines()]
    root = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    lines = (own / "cgroup").read_text().splitlines()
    path = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)
    if root is None or path is None:
        return None
    folder = root / path.strip("/")
    for mark in _DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, mark) == b"1":
                return folder
    return None
