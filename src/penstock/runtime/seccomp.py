"""Which system calls a process may make, by the kernel's seccomp filters.

Refused is what reaches around the other walls or into the kernel's rarely used corners: looking into processes, mounts,
namespaces, kernel modules, clocks, keys, BPF, io_uring (which seccomp does not see into). A filter cannot be taken off again,
and holds for whatever the process starts. Source: seccomp(2), and the kernel's userspace-api/seccomp_filter.
"""

import ctypes
import errno
import os
import socket
import struct

_BOTH = {
    "pidfd_getfd": 438, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
    "fspick": 433, "mount_setattr": 442, "open_tree_attr": 467, "quotactl_fd": 443,
    "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
}  # fmt: skip

_X86_64 = {
    "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "mount": 165, "umount2": 166,
    "pivot_root": 155, "chroot": 161, "unshare": 272, "setns": 308, "swapon": 167, "swapoff": 168, "reboot": 169,
    "kexec_load": 246, "kexec_file_load": 320, "init_module": 175, "finit_module": 313, "delete_module": 176,
    "bpf": 321, "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249, "keyctl": 250,
    "open_by_handle_at": 304, "fanotify_init": 300, "settimeofday": 164, "clock_settime": 227, "clock_adjtime": 305,
    "adjtimex": 159, "sethostname": 170, "setdomainname": 171, "acct": 163, "quotactl": 179, "syslog": 103,
    "vhangup": 153, "iopl": 172, "ioperm": 173,
}  # fmt: skip

_AARCH64 = {
    "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "mount": 40, "umount2": 39,
    "pivot_root": 41, "chroot": 51, "unshare": 97, "setns": 268, "swapon": 224, "swapoff": 225, "reboot": 142,
    "kexec_load": 104, "kexec_file_load": 294, "init_module": 105, "finit_module": 273, "delete_module": 106,
    "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "add_key": 217, "request_key": 218, "keyctl": 219,
    "open_by_handle_at": 265, "fanotify_init": 262, "settimeofday": 170, "clock_settime": 112, "clock_adjtime": 266,
    "adjtimex": 171, "sethostname": 161, "setdomainname": 162, "acct": 89, "quotactl": 60, "syslog": 116,
    "vhangup": 58,
}  # fmt: skip

_ARCHITECTURES = {  # by name: (what the kernel calls it, refused calls, clone, socket)
    "x86_64": (0xC000003E, _X86_64, 56, 41),
    "aarch64": (0xC00000B7, _AARCH64, 220, 198),
}
_CLONE3 = 435
_X32 = 0x40000000
_NAMESPACES = 0x7E020000  # what clone takes to make new ones

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def supported() -> bool:
    """Say whether the filter is written for this architecture."""
    return os.uname().machine in _ARCHITECTURES


def refuse_calls(*, network: bool) -> None:
    """Refuse dangerous system calls from now on; without `network`, also sockets that are not of this machine's files.

    The process must have given up gaining rights. Raises `OSError`.
    """
    code = _program(os.uname().machine, network=network)
    program = _Program(len(code) // 8, code)
    if _libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")


def _program(machine: str, *, network: bool) -> bytes:
    if machine not in _ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"seccomp: no filter is known for {machine}")
    architecture, refused, clone, make_socket = _ARCHITECTURES[machine]
    steps = [
        _step(_LOAD, _ARCHITECTURE), *_unless(_EQUAL, architecture, errno.ENOSYS),
        _step(_LOAD, _NUMBER), *_when(_AT_LEAST, _X32, errno.ENOSYS),
        *_when(_EQUAL, _CLONE3, errno.ENOSYS),  # its flags are in memory, where no filter can look; C libraries use clone then
    ]  # fmt: skip
    for number in sorted({*refused.values(), *_BOTH.values()}):
        steps += _when(_EQUAL, number, errno.EPERM)
    steps += _first_argument_of(clone, _when(_ANY_BIT, _NAMESPACES, errno.EPERM))
    if not network:
        steps += _first_argument_of(make_socket, _unless(_EQUAL, socket.AF_UNIX, errno.EACCES))
    steps.append(_step(_RETURN, _ALLOW))
    return b"".join(steps)


def _first_argument_of(number: int, steps: "list[bytes]") -> "list[bytes]":
    """Return steps that judge a call by its first argument, and allow what they do not refuse."""
    inside = [_step(_LOAD, _FIRST_ARGUMENT), *steps, _step(_RETURN, _ALLOW)]
    return [_step(_EQUAL, number, 0, len(inside)), *inside]


def _when(test: int, value: int, error: int) -> "list[bytes]":
    return [_step(test, value, 0, 1), _step(_RETURN, _ERRNO | error)]


def _unless(test: int, value: int, error: int) -> "list[bytes]":
    return [_step(test, value, 1, 0), _step(_RETURN, _ERRNO | error)]


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("HBBI", code, then, otherwise, value)
