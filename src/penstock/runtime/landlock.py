"""What a process may do with files and with other processes, by the kernel's Landlock (Linux 5.13, not only for root).

A process that restricts itself stays restricted, and so does whatever it starts. Rights that a ruleset handles are
refused, except below the paths that it allows. Source: the kernel's userspace-api/landlock.
"""

import ctypes
import os
from collections.abc import Iterable

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
REMOVE_DIR, REMOVE_FILE = 1 << 4, 1 << 5
MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_SYM = 1 << 7, 1 << 8, 1 << 9, 1 << 10, 1 << 12
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15

READ = EXECUTE | READ_FILE | READ_DIR
USE = READ_FILE | WRITE_FILE | READ_DIR | TRUNCATE | IOCTL_DEV
"""Use what is there, without making anything new: devices."""
CHANGE = (
    READ | WRITE_FILE | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | MAKE_SOCK | MAKE_FIFO | MAKE_SYM
    | REFER | TRUNCATE
)  # fmt: skip

SCOPES_FROM = 6
"""The version of Landlock from which on it keeps signals and abstract sockets inside."""

_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_SCOPED = 0b11  # abstract sockets and signals

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1

_libc = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Return the version of the kernel's Landlock, 0 if there is none."""
    known: int = _libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION))
    return max(0, known)


def restrict(allowed: Iterable[tuple[str, int]]) -> None:
    """Allow rights below paths (those that are not there are passed by), and nothing else.

    Signals and abstract sockets reach only processes that are restricted with this one, or by it. Raises `OSError`.
    """
    known = version()
    handled = _HANDLED[min(max(known, 1), 5)]
    ruleset = _create(handled, known)
    try:
        for path, rights in allowed:
            _allow(ruleset, path, rights & handled)
        _restrict(ruleset)
    finally:
        os.close(ruleset)


def scope() -> int:
    """Return a ruleset for `separate`, a descriptor. Raises `OSError`, also where Landlock cannot do that."""
    return _create(0, SCOPES_FROM)


def separate(ruleset: int) -> None:
    """Keep signals and abstract sockets of this process from others that are restricted in the same way. Raises `OSError`."""
    try:
        _restrict(ruleset)
    finally:
        os.close(ruleset)


def _create(handled: int, known: int) -> int:
    ruleset = _Ruleset(handled, 0, _SCOPED if known >= SCOPES_FROM else 0)
    size = 8 if known < 4 else 16 if known < SCOPES_FROM else 24  # what older kernels do not know must not be there
    return _checked(_libc.syscall(_CREATE, ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint32(0)))


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rule = _Beneath(rights if os.path.isdir(path) else rights & _OF_FILES, parent)
        _checked(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), ctypes.c_uint32(0)))
    finally:
        os.close(parent)


def _restrict(ruleset: int) -> None:
    _checked(_libc.syscall(_RESTRICT, ruleset, ctypes.c_uint32(0)))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
