"""Namespaces of the kernel's, in which a process sees less of the machine: mounts, users, processes, networks.

Only a process with one thread may enter them. Root may do so as it is; others need a user namespace around it, which some
systems do not give. Source: namespaces(7), mount(2), capabilities(7).
"""

import ctypes
import os
import struct
from collections.abc import Iterable, Sequence

NEW_MOUNTS, NEW_USER, NEW_PIDS, NEW_NETWORK = 0x00020000, 0x10000000, 0x20000000, 0x40000000
NEW_IPC, NEW_UTS = 0x08000000, 0x04000000

NOSUID, NODEV, NOEXEC = 2, 4, 8
BIND, RECURSIVE, SLAVE = 0x1000, 0x4000, 1 << 19
_DETACH = 2

KEPT_BY_ROOT = (0, 1, 3, 4, 5, 6, 7, 10, 13)
"""Capabilities that a function keeps of a server that runs as root: over files, ids and low ports, as in a container."""

_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_CAPABILITIES_VERSION = 0x20080522
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_READ_ONLY = 1
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

_libc = ctypes.CDLL(None, use_errno=True)


def unshare(which: int) -> None:
    """Enter new namespaces. Raises `OSError`."""
    _check(_libc.unshare(which), "new namespaces")


def enter_mounts(further: int = 0) -> None:
    """Enter a mount namespace of one's own, and `further` ones, by way of a user namespace where that is needed.

    What the machine mounts later still appears in it. Raises `OSError`.
    """
    user, group = os.geteuid(), os.getegid()
    try:
        unshare(NEW_MOUNTS | further)
    except PermissionError:
        unshare(NEW_USER | NEW_MOUNTS | further)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    mount("none", "/", flags=RECURSIVE | SLAVE)


def mount(what: str, where: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount. Raises `OSError`."""
    result = _libc.mount(
        what.encode(), where.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, f"mount of {where}")


def read_only(where: str) -> None:
    """Make what is mounted at and below a path read-only. Raises `OSError`."""
    wanted = struct.pack("QQQQ", _READ_ONLY, 0, 0, 0)
    result = _libc.syscall(
        _MOUNT_SETATTR, _AT_FDCWD, where.encode(), ctypes.c_uint(_AT_RECURSIVE), wanted, ctypes.c_size_t(len(wanted))
    )
    _check(result, f"read-only mount of {where}")


def pivot() -> None:
    """Make the current folder, which must be a mount, the root, and let go of the old one. Raises `OSError`."""
    _check(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "a new root")
    _check(_libc.umount2(b".", _DETACH), "a new root")


def cover(folder: str, shown: Sequence[str], changeable: Sequence[str]) -> None:
    """Put an empty folder over another one, in which only what is shown of it is seen; read-only unless changeable."""
    inside = [path for path in (*shown, *changeable) if _is_below(path, folder)]
    opened = {path: os.open(path, os.O_PATH) for path in inside}
    mount("none", folder, "tmpfs", NOSUID | NODEV, "size=1m,mode=755")
    for path, descriptor in opened.items():
        os.makedirs(path, exist_ok=True)
        mount(f"/proc/self/fd/{descriptor}", path, flags=BIND | RECURSIVE)
        os.close(descriptor)
    read_only_but(folder, [path for path in inside if path in changeable])


def read_only_but(folder: str, changeable: Iterable[str]) -> None:
    """Make a mount and those below it read-only, but for some of them. Raises `OSError`."""
    read_only(folder)
    for path in changeable:
        changed = struct.pack("QQQQ", 0, _READ_ONLY, 0, 0)
        result = _libc.syscall(
            _MOUNT_SETATTR, _AT_FDCWD, path.encode(), ctypes.c_uint(0), changed, ctypes.c_size_t(len(changed))
        )
        _check(result, f"mount of {path}")


def drop_capabilities(kept: Iterable[int]) -> None:
    """Give up all capabilities but some, of those that there are, for good. Raises `OSError`."""
    mask = sum(1 << number for number in kept)
    number = 0
    while _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) >= 0:
        if not mask >> number & 1:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # refused to those who have no capability to give up
        number += 1
    header = struct.pack("Ii", _CAPABILITIES_VERSION, 0)
    now = ctypes.create_string_buffer(24)
    _check(_libc.capget(header, now), "capabilities")
    low, low_permitted, _, high, high_permitted, _ = struct.unpack("6I", now.raw)
    low, high = low & low_permitted & mask, high & high_permitted & mask >> 32
    _check(_libc.capset(header, struct.pack("6I", low, low, 0, high, high, 0)), "capabilities")


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY)
    try:
        os.write(file, text.encode())
    finally:
        os.close(file)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
