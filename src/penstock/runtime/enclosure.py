"""A view of the machine with little in it, and process ids of its own: what `sandbox: strict` runs a zygote in.

The zygote is the first process of its namespace, so that whatever it or its instances start ends with it. A guardian stays
outside: it is the process that compute knows, ends as the zygote ends, and takes it along when it is killed.
"""

import contextlib
import os
import resource
import select
import signal
import sys
from collections.abc import Iterable
from typing import NoReturn

from penstock.runtime import kernel, namespaces

FIRST_USER = 0x70000000
"""From here on are the user ids that functions get of a server that runs as root; nobody else has them."""

_USERS = 1 << 16
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/run/systemd/resolve")
_LINKS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}
_MEMORY = "size=64m,mode=1777"


def enter(home: str, seen: Iterable[str], changeable: Iterable[str], devices: Iterable[str], network: bool) -> None:
    """Go on as the first process of an own namespace, in which there is the system, what is to be seen, and `home`.

    Returns in the new process only. Raises `OSError`.
    """
    further = namespaces.NEW_PIDS | namespaces.NEW_IPC | namespaces.NEW_UTS
    namespaces.enter_mounts(further if network else further | namespaces.NEW_NETWORK)
    _fork_first()
    root = _build(home, seen, changeable, devices)
    os.chdir(root)
    namespaces.pivot()
    os.chdir("/")


def become_user(home: str) -> None:
    """Become a user of this zygote's own if this process is root; its home is that user's then. Raises `OSError`."""
    if os.geteuid():
        return
    user = FIRST_USER + int("".join(filter(str.isdigit, os.path.basename(home))) or 0) % _USERS
    for folder, _, files in os.walk(home):
        for path in (folder, *(os.path.join(folder, name) for name in files)):
            os.chown(path, user, user)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    kernel.be_dumpable()


def _fork_first() -> None:
    """Fork the first process of the namespace that was just made, and stay behind as its guardian."""
    ours, theirs = os.pipe()
    first = os.fork()
    if first:
        _attend(first, theirs)
    os.close(theirs)
    kernel.die_with(0)
    if select.select([ours], [], [], 0)[0]:  # the guardian ended before it was asked to tell
        os._exit(1)
    os.close(ours)


def _attend(first: int, alive: int) -> NoReturn:
    """End as that process ends; hold nothing meanwhile but the pipe that says so.

    What is mounted is changing beneath this process, so it opens nothing.
    """
    os.closerange(3, alive)
    os.closerange(alive + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    signal.signal(signal.SIGABRT, lambda *_: os.kill(first, signal.SIGABRT))
    _, status = os.waitpid(first, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        with contextlib.suppress(OSError):  # SIGKILL has no other handler
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def _build(home: str, seen: Iterable[str], changeable: Iterable[str], devices: Iterable[str]) -> str:
    """Mount what is to be seen below a new root, and return where that is."""
    root, shared = os.path.join(home, "root"), os.path.join(home, "shared")
    os.mkdir(root)
    os.mkdir(shared, 0o1777)
    os.chmod(shared, 0o1777)
    namespaces.mount("none", root, "tmpfs", namespaces.NOSUID | namespaces.NODEV, "size=1m,mode=755")
    for folder in ("/tmp", "/var/tmp"):
        os.makedirs(root + folder)
        namespaces.mount(shared, root + folder, flags=namespaces.BIND)
    for path in _without_those_below([*_SYSTEM, *_python(), *seen]):
        _show(path, root)
        if not os.path.islink(path) and os.path.isdir(path):
            namespaces.read_only(root + path)
    os.mkdir(root + "/dev")
    for name in devices:
        if os.path.exists("/dev/" + name) and name not in _LINKS and name not in {"pts", "ptmx"}:
            _show("/dev/" + name, root)
    for name, target in _LINKS.items():
        os.symlink(target, f"{root}/dev/{name}")
    for folder, kind, options in (("/dev/shm", "tmpfs", _MEMORY), ("/proc", "proc", "")):
        os.mkdir(root + folder)
        flags = namespaces.NOSUID | namespaces.NODEV | namespaces.NOEXEC
        namespaces.mount("none", root + folder, kind, flags, options)
    for path in changeable:
        _show(path, root)
    os.makedirs(root + home, exist_ok=True)
    namespaces.mount(home, root + home, flags=namespaces.BIND)
    return root


def _python() -> "list[str]":
    """Return where this Python and its packages are."""
    return [sys.prefix, sys.base_prefix, sys.exec_prefix, *(path for path in sys.path if os.path.isdir(path)), _PACKAGE]


_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _without_those_below(paths: Iterable[str]) -> "list[str]":
    """Return the paths that there are, and their real ones, without what lies below another of them."""
    there = {path for each in paths for path in (each, os.path.realpath(each)) if os.path.lexists(path)}
    found: list[str] = []
    for path in sorted(there):
        if not any(path.startswith(other + "/") and not os.path.islink(other) for other in found):
            found.append(path)
    return found


def _show(path: str, root: str) -> None:
    """Let something be seen below the new root, where it is in the old one."""
    if not os.path.lexists(path) or os.path.islink(root + path):
        return
    os.makedirs(root + os.path.dirname(path), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), root + path)
        return
    if os.path.isdir(path):
        os.makedirs(root + path, exist_ok=True)
    else:
        os.close(os.open(root + path, os.O_CREAT | os.O_WRONLY, 0o644))
    namespaces.mount(path, root + path, flags=namespaces.BIND | namespaces.RECURSIVE)
