"""What is asked of the kernel so that a process cannot outlive its parent, nor gain rights."""

import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_IOLBF = 1

_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Be killed when the parent (the thread that forked this process) ends; end now if it has ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of whatever is started below this process and loses its own."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def be_dumpable() -> None:
    """Let processes of this user look at this one, after it has become another user."""
    _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def renounce() -> None:
    """Give up gaining rights by exec, and dumping core; children inherit both."""
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def kill_session(pid: int) -> None:
    """Kill an unreaped instance and what it started; it leads a session and a group, unless it is too young for that."""
    for send in (os.killpg, os.kill):
        try:
            send(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def print_c_output_by_line() -> None:
    """Make C's stdout line-buffered, or what C code prints would be lost when the process is killed."""
    try:
        stdout = ctypes.c_void_p.in_dll(_libc, "stdout")
    except ValueError:  # a C library that hides it
        return
    _libc.setvbuf(stdout, None, _IOLBF, 0)
