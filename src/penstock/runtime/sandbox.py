"""The walls around a function: put up in its zygote before any of its code runs, inherited by every instance.

The laws. Walls only ever come in addition, and none can be taken down from inside. What a wall needs is asked of the machine
once (`parts`); a zygote puts up those that it was told of, and ends if one of them fails: it never runs with less.
"""

import contextlib
import os
import resource
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from penstock.runtime import enclosure, landlock, namespaces, seccomp

LANDLOCK, SIGNALS, SECCOMP, MOUNTS = "Landlock", "signal scopes", "seccomp", "mount namespace"
PROCESSES, NETWORK = "process namespace", "network namespace"
STANDARD = (LANDLOCK, SIGNALS, SECCOMP, MOUNTS)
STRICT = (*STANDARD, PROCESSES, NETWORK)

MOST_PROCESSES = 4096
"""Processes and threads that all instances of a zygote may have where they are a user of their own, or in a namespace."""

MOST_FILES = 65_536
"""Descriptors that an instance may have open."""

SHARED_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "fd", "stdin", "stdout", "stderr")
ACCELERATORS = ("nvidia", "kfd", "dri", "accel")
"""What the names of devices begin with that functions may use if they are there."""


class Sandbox(NamedTuple):
    """Say which walls to put up, and where the doors are.

    `parts` are what the machine has of what the level wants. `private` is the server's data directory, of which the
    function sees `shown` (its code, its packages) and may change `home` alone. `writable` are further folders that it may
    change, `network` whether it may open network sockets.
    """

    level: str
    parts: "tuple[str, ...]"
    private: str
    home: str
    shown: "tuple[str, ...]" = ()
    writable: "tuple[str, ...]" = ()
    network: bool = True


def enter(sandbox: Sandbox, parent: int) -> int:
    """Put up the walls around this process, which must have one thread. Raises `OSError` if one does not stand.

    Returns the parent of the process that goes on: as it was, or 0 where processes outside have no number.
    """
    parts = sandbox.parts
    if PROCESSES in parts:
        enclosure.enter(sandbox.home, sandbox.shown, sandbox.writable, _devices(), sandbox.network)
        enclosure.become_user(sandbox.home)
        resource.setrlimit(resource.RLIMIT_NPROC, (MOST_PROCESSES, MOST_PROCESSES))
        parent = 0
    elif MOUNTS in parts:
        namespaces.enter_mounts()
        namespaces.cover(sandbox.private, sandbox.shown, (sandbox.home,))
    namespaces.drop_capabilities(namespaces.KEPT_BY_ROOT if os.geteuid() == 0 else ())
    _limit_resources()
    if LANDLOCK in parts:
        landlock.restrict(_doors(sandbox))
    if SECCOMP in parts:
        seccomp.refuse_calls(network=sandbox.network)
    return parent


def scope(sandbox: Sandbox) -> "int | None":
    """Return what `separate` takes, made once for all instances of a zygote. Raises `OSError`."""
    return landlock.scope() if SIGNALS in sandbox.parts else None


def separate(scope: "int | None") -> None:
    """Keep this process, which is an instance, apart from the others of its zygote. Raises `OSError`."""
    if scope is not None:
        landlock.separate(scope)


def parts() -> "dict[str, str]":
    """Return what this machine has not of what the walls need, with the reason, tried in processes of their own."""
    missing = {}
    for part, attempt in _ATTEMPTS.items():
        reason = _try(attempt)
        if reason:
            missing[part] = reason
    return missing


def _limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _doors(sandbox: Sandbox) -> "list[tuple[str, int]]":
    """Return what may be done below which paths: reading nearly everywhere, changing in a few places."""
    hidden = ["/dev"] if MOUNTS in sandbox.parts else ["/dev", sandbox.private]
    changeable = [*SHARED_FOLDERS, *sandbox.writable]
    return [
        ("/", landlock.READ_DIR),
        *((path, landlock.READ) for path in _all_but("/", hidden)),
        *((path, landlock.READ) for path in sandbox.shown),
        *(("/dev/" + name, landlock.USE) for name in _devices()),
        *((path, landlock.CHANGE) for folder in map(os.path.realpath, changeable) for path in _all_but(folder, hidden)),
        (sandbox.home, landlock.CHANGE),
    ]


def _devices() -> "list[str]":
    return [name for name in os.listdir("/dev") if name in DEVICES or name.startswith(ACCELERATORS)]


def _all_but(folder: str, hidden: "list[str]") -> "list[str]":
    """Return paths below which all of a folder lies that there is now, but for what is hidden.

    Links lead to where they lead: what they open is judged there.
    """
    if folder in hidden or os.path.islink(folder):
        return []
    below = folder.rstrip("/") + "/"
    if not any(path.startswith(below) for path in hidden):
        return [folder]
    with contextlib.suppress(OSError):
        return [path for name in os.listdir(folder) for path in _all_but(below + name, hidden)]
    return []


def _try(attempt: Callable[[], None]) -> str:
    """Return why something fails in a process of its own, "" if it does not."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            attempt()
        except OSError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as told:
        reason = told.read().decode()
    os.waitpid(pid, 0)
    return reason


def _try_landlock() -> None:
    landlock.restrict([("/", landlock.READ)])


def _try_scopes() -> None:
    if landlock.version() < landlock.SCOPES_FROM:
        raise OSError(f"this kernel's Landlock is version {landlock.version()}, it takes {landlock.SCOPES_FROM}")


def _try_seccomp() -> None:
    seccomp.refuse_calls(network=False)


def _try_mounts() -> None:
    namespaces.enter_mounts()
    namespaces.mount("none", "/tmp", "tmpfs")
    namespaces.read_only("/tmp")


def _try_processes() -> None:
    with tempfile.TemporaryDirectory() as home:
        reason = _try(lambda: enclosure.enter(home, (), (), (), network=True))
    if reason:
        raise OSError(reason)


def _try_network() -> None:
    namespaces.enter_mounts(namespaces.NEW_NETWORK)


_ATTEMPTS = {
    LANDLOCK: _try_landlock,
    SIGNALS: _try_scopes,
    SECCOMP: _try_seccomp,
    MOUNTS: _try_mounts,
    PROCESSES: _try_processes,
    NETWORK: _try_network,
}
