"""The parent of a blueprint's instances: imports the user's module once, then forks on request, reaps and kills.

The laws. No event loop and no open socket but the control line before a fork, and a single thread: code whose import
leaves more behind is imported anew in each instance instead. An instance is killed by its whole session, and only while
it is not reaped, so that its process id cannot have become another's.
"""

import _signal  # type: ignore[import-not-found]
import contextlib
import faulthandler
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from math import ceil
from typing import Any, NoReturn

from penstock.runtime import control, instance, kernel, lambdas, procfs, sandbox
from penstock.runtime.bounds import Bounds
from penstock.runtime.cgroups import Version1, Version2
from penstock.runtime.guards import Guard
from penstock.runtime.handlers import BadHandler, fork_hazards, load
from penstock.runtime.output import replace_streams
from penstock.runtime.polling import Polling
from penstock.runtime.rehearsal import rehearse
from penstock.runtime.results import encode_exception
from penstock.runtime.settings import Settings

Find = Callable[[], Callable[..., Any]]

_REPORTED = 500  # exits in one message
_MESSAGE = 4_000  # characters, so that with the traceback they fit into one, whatever they are
_TRACEBACK = 16_000


def live(settings: Settings) -> NoReturn:
    """Be a zygote; never returns."""
    gc.disable()
    kernel.die_with(settings.parent)
    kernel.renounce()
    if settings.sandbox is not None and not settings.note:  # it holds when this program starts anew
        parent = sandbox.enter(sandbox.Sandbox(**settings.sandbox), settings.parent)
        settings = settings._replace(parent=parent)
        kernel.die_with(parent)
    kernel.adopt_orphans()
    kernel.print_c_output_by_line()
    faulthandler.enable(2, all_threads=False)
    os.set_inheritable(settings.control, False)
    line = socket.socket(fileno=settings.control)
    os.chdir(settings.bundle)
    sys.path.insert(0, settings.bundle)
    sys.argv = [""]
    replace_streams()
    lambdas.set_variables(settings)
    find = (lambda: _load(settings)) if settings.note else _find_now(line, settings)
    rehearse(settings)
    gc.freeze()
    Zygote(line, settings, find).serve()
    os._exit(0)


def _load(settings: Settings) -> Callable[..., Any]:
    """Import the user's module and return the handler."""
    handler = load(settings.handler, settings.web)
    lambdas.keep_logs()
    return handler


def _find_now(line: socket.socket, settings: Settings) -> Find:
    """Import the user's module; start anew if that leaves what must not be forked. Ends the process if it fails."""
    try:
        handler = _load(settings)
        instance.way_for(handler, settings)  # imported before the fork, so that instances share it
    except BaseException as error:  # sys.exit in a module, too
        _report_failure(line, error)
        os._exit(1)
    hazards = fork_hazards({0, 1, 2, settings.control})
    if hazards:
        _start_anew(settings, " and ".join(hazards))
    return lambda: handler


def _start_anew(settings: Settings, hazards: str) -> NoReturn:
    """Run this program again without importing the user's module: each instance will, after its fork."""
    note = (
        f"Importing the code of '{settings.function}' leaves {hazards} behind, which a fork does not survive. Each "
        "instance imports it anew, so instances start slower. Create such things when they are first used instead."
    )
    os.set_inheritable(settings.control, True)
    os.execv(sys.executable, [*sys.orig_argv[:-1], json.dumps(settings._replace(note=note)._asdict())])


def _report_failure(line: socket.socket, error: BaseException) -> None:
    text = json.loads(encode_exception(error).body)
    known = isinstance(error, BadHandler)
    message = text["message"] if known else f"{text['type']}: {text['message']}"
    trace = "" if known else text["traceback"]
    control.send(line, {"failed": message[:_MESSAGE], "traceback": trace[-_TRACEBACK:]})


class Zygote:
    """Fork, watch and end instances."""

    def __init__(self, line: socket.socket, settings: Settings, find: Find) -> None:
        self._line = line
        self._settings = settings
        self._find = find
        self._note = settings.note
        self._pid = os.getpid()
        self._numbers: dict[int, int] = {}
        self._pids: dict[int, int] = {}
        self._hunts = False
        self._helpers = set(procfs.children())  # what the import started
        self._guard = _choose_guard(settings)
        self._scope = None if settings.sandbox is None else sandbox.scope(sandbox.Sandbox(**settings.sandbox))
        self._exits: list[tuple[int, int, int | None, int | None, str, int | None, int]] = []
        self._wake, self._waker = os.pipe()

    def serve(self) -> None:
        """Do what compute asks, until its side of the line is closed; then end every instance."""
        os.set_blocking(self._waker, False)
        os.set_blocking(self._wake, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        control.send(self._line, {"ready": self._note})
        while True:
            wait = self._guard.wait(time.monotonic())
            ready = [descriptor for descriptor, _ in poll.poll(None if wait is None else ceil(wait * 1000))]
            self._guard.look(time.monotonic())
            if self._wake in ready:
                os.read(self._wake, 4096)
                self._reap()
            if self._line.fileno() in ready and not self._obey():
                break
        for pid in self._numbers:
            kernel.kill_session(pid)
        self._numbers.clear()
        self._end_orphans()

    def _obey(self) -> bool:
        """Act on one message; return False if compute is gone."""
        try:
            message, files = control.receive(self._line)
        except ConnectionError:
            return False
        if message is None:
            return False
        spawns = message.get("spawn", ())
        for number, file in zip(spawns, list(files), strict=True):
            self._fork(number, file, files)
            files.remove(file)
            os.close(file)
        if spawns:
            control.send(self._line, {"forked": len(spawns)})
        for number in message.get("kill", ()):
            if number in self._pids:
                kernel.kill_session(self._pids[number])
        self._report()
        return True

    def _fork(self, number: int, file: int, files: "list[int]") -> None:
        try:
            self._guard.prepare(number)
            pid = os.fork()
        except OSError as error:
            self._guard.ended(number, 0)
            self._exits.append((number, 0, None, None, f"the instance could not be forked: {error}", None, 0))
            return
        if pid:
            self._numbers[pid] = number
            self._pids[number] = pid
            self._guard.watch(number, pid)
            self._note = ""
            return
        try:
            signal.set_wakeup_fd(-1)
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)  # that of `signal` makes enums, which costs 150 KB
            for other in (self._wake, self._waker, *(each for each in files if each != file)):
                os.close(other)
            self._line.close()
            instance.live(number, file, self._settings, self._note, self._pid, self._find, self._guard, self._scope)
        finally:
            os._exit(1)

    def _reap(self) -> None:
        """Reap every child that has ended; what an instance leaves of its session is killed before its id is given up."""
        while True:
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if ended is None:
                break
            pid = ended.si_pid
            if pid in self._numbers:
                kernel.kill_session(pid)
            _, status, usage = os.wait4(pid, 0)
            number = self._numbers.pop(pid, None)
            if number is not None:
                self._hunts = True
                del self._pids[number]
                code = os.waitstatus_to_exitcode(status)
                why = self._guard.why(number)
                peak = self._guard.peak(number, pid, usage.ru_maxrss << 10)
                used = self._guard.ended(number, pid)
                overran = used if code == -signal.SIGKILL else None
                self._exits.append(
                    (number, pid, code if code >= 0 else None, -code if code < 0 else None, why, overran, peak)
                )
        if self._hunts:
            self._hunts = self._end_orphans()
        self._report()

    def _end_orphans(self) -> bool:
        """Kill what instances that are gone have left: it left their session, lost its parent, and so became a child here.

        Of an instance that lives, only what carries no sign of it is taken for a stranger's. Returns whether there was
        anything: when it has ended, what it had started becomes a child here.
        """
        found = False
        for pid in procfs.children():
            kin = None if pid in self._numbers or pid in self._helpers else procfs.read_kin(pid)
            if kin is None or kin[1] in self._numbers:
                continue
            number = procfs.reads_as_of(pid, "PENSTOCK_INSTANCE")
            if number is None or not number.isdigit() or int(number) not in self._pids:
                found = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return found

    def _report(self) -> None:
        while self._exits:
            batch, self._exits = self._exits[:_REPORTED], self._exits[_REPORTED:]
            control.send(self._line, {"exits": batch})


def _choose_guard(settings: Settings) -> Guard:
    return Bounds(_choose_memory_guard(settings), settings.instances, settings.room, settings.processes)


def _choose_memory_guard(settings: Settings) -> Guard:
    if settings.memory is None:
        return Guard()
    if settings.enforcement == "cgroup v2":
        return Version2(settings.groups, settings.memory)
    if settings.enforcement == "cgroup v1":
        return Version1(settings.groups, settings.memory)
    return Polling(settings.memory)
