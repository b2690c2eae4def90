"""Compute's end of a zygote: starts the process, asks it for instances and hears of their exits."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import penstock.runtime
from penstock.compute.isolation import Walls
from penstock.compute.memory import Enforcement
from penstock.compute.processes import OWNER
from penstock.compute.protocol import Blueprint, Exit, ImportFailed, NotIsolated
from penstock.runtime import control
from penstock.runtime.procfs import children, read_inner
from penstock.runtime.settings import Settings

BOOT = Path(penstock.runtime.__file__).parent / "boot.py"
KEPT_FROM_SERVER = ("PATH", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ")
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "BLIS_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""What keeps numeric libraries from starting a thread per core in every instance."""

_AHEAD = (
    2 * control.BATCH
)  # instances that are asked for before the earlier ones are forked: so it never waits for compute
_TAIL = 64 * 1024
_RETRY = 0.002
_DUMP_PATIENCE = 1.0


class Exits(Protocol):
    """Hear what a zygote tells of its instances."""

    def exited(self, number: int, pid: int, exit: Exit) -> None:  # noqa: A002 - the protocol's word
        """Hear that an instance's process was reaped (or could not be forked: then neither code nor signal)."""

    def abandoned(self, zygote: "Zygote") -> None:
        """Hear that the zygote is gone; what it has not told of an instance it never will."""


class Zygote:
    """Be one zygote process, from its start to its end.

    `ready` is done when it can fork, or has the `ImportFailed` that ended it; it `took` so many seconds. `launched` are the
    instances that were asked for and have not exited, `forks` how many were asked for. `has_room` is called when it can
    take more.
    """

    def __init__(
        self,
        blueprint: Blueprint,
        bundle: Path,
        environment: Path | None,
        home: Path,
        owner: str,
        enforcement: Enforcement,
        walls: Walls,
        exits: Exits,
        has_room: Callable[[], None],
    ) -> None:
        self.blueprint = blueprint
        self.ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.ready.add_done_callback(lambda done: done.exception())  # it may be that nobody waits for it
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._retired = False
        self._believed = True
        self.launched: set[int] = set()
        self._loop = asyncio.get_running_loop()
        self.home = home
        self._enforcement = enforcement
        self._walls = walls
        self._exits = exits
        self._has_room = has_room
        self.born = self._loop.time()
        self.took = 0.0
        self.forks = 0
        self._unforked = 0
        self._kills: list[int] = []
        self._flushing = False
        self._why = ""
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._process = self._start(bundle, environment, owner, theirs.fileno())
        except (OSError, NotIsolated):
            self._line.close()
            raise
        self._line.setblocking(False)
        self._loop.add_reader(self._line.fileno(), self._hear)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._end)

    def _start(self, bundle: Path, environment: Path | None, owner: str, line: int) -> "subprocess.Popen[bytes]":
        made_from = self.blueprint
        shown = (bundle.resolve(),) if environment is None else (bundle.resolve(), environment)
        enforcement = Enforcement() if self.has_own_processes else self._enforcement  # no control group is seen there
        around = self._walls.around(made_from, self.home, shown, enforcement.groups)
        tmpdir = self.home / "tmp"
        for folder in (tmpdir, self.instances):
            folder.mkdir(parents=True, mode=0o700)
        settings = Settings(
            control=line,
            parent=os.getpid(),
            bundle=str(bundle.resolve()),
            instances=str(self.instances),
            handler=made_from.handler,
            function=made_from.function,
            version=made_from.version,
            slots=made_from.slots,
            memory=made_from.memory,
            enforcement=enforcement.level,
            groups=enforcement.groups,
            room=made_from.tmpdir,
            processes=made_from.max_processes,
            sandbox=around,
            web=made_from.web,
        )
        python = sys.executable if environment is None else str(environment / "bin" / "python")
        # Not through a thread: the kernel would take the thread's end for the server's, and kill the zygote.
        with (self.home / "output").open("ab") as output:
            return subprocess.Popen(
                [python, "-s", "-u", str(BOOT), json.dumps(settings._asdict())],
                env=variables(owner, made_from.env, tmpdir, environment),
                cwd=bundle,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[line],
                start_new_session=True,
            )

    @property
    def instances(self) -> Path:
        """Return the folder of the instances' own folders."""
        return self.home / ("inside" if self.has_own_processes else "instances")

    @property
    def has_own_processes(self) -> bool:
        """Say whether its process ids are of a namespace of its own, and mean nothing outside."""
        return self.blueprint.sandbox == "strict"

    def pids(self) -> dict[int, int]:
        """Return the process ids, outside, of its instances by those that they have themselves, in its own namespace.

        Its process is the guardian of the first one there, which has forked them. It takes some 30 us for each of them.
        """
        return {read_inner(pid): pid for first in children(self._process.pid) for pid in children(first)}

    @property
    def is_able(self) -> bool:
        """Say whether it has imported the code; it may have ended since."""
        return self.ready.done() and self.ready.exception() is None

    @property
    def room(self) -> int:
        """Return how many more instances it may be asked for before it has forked the earlier ones."""
        return _AHEAD - self._unforked if self.is_able and not self.ended.done() else 0

    def spawn(self, batch: Sequence[tuple[int, socket.socket]]) -> bool:
        """Ask for instances that serve over those sockets, `control.BATCH` at most; return False if it cannot be sent now."""
        try:
            control.send(self._line, {"spawn": [number for number, _ in batch]}, [line.fileno() for _, line in batch])
        except OSError:  # its queue is full, or too many descriptors are on their way; or it is ending
            return False
        self.launched.update(number for number, _ in batch)
        self.forks += len(batch)
        self._unforked += len(batch)
        return True

    def kill(self, number: int) -> None:
        """Ask for an instance to be killed, with what it started."""
        self._kills.append(number)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def fail(self, why: str) -> None:
        """End a zygote that does not become ready, after it has told where its import hangs."""
        if self.ready.done():
            return
        self._why = why
        self._process.send_signal(signal.SIGABRT)
        self._loop.call_later(_DUMP_PATIENCE, self.kill_process)

    def retire(self) -> None:
        """Let the zygote end when it has no instance any more."""
        self._retired = True
        if not self.launched:
            self.close()

    def close(self) -> None:
        """Let the zygote end; it kills what it has left."""
        if not self.ready.done():
            self._why = "The code is not wanted any more; its import was broken off."
            self.kill_process()
        if self._line.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_WR)

    def kill_process(self) -> None:
        """Kill the zygote, and with it its instances."""
        self._process.kill()

    def epitaph(self) -> str:
        """Say why a zygote that is gone is gone."""
        failure = self.ready.exception()
        if isinstance(failure, ImportFailed):
            return f"{failure.message}\n{failure.traceback}".rstrip()
        return (
            self._why or f"The process that it was forked from ended by itself: {_say_how(self._process.returncode)}."
        )

    def _flush(self) -> None:
        """Send the kills of this turn of the loop together."""
        self._flushing = False
        try:
            while self._kills and not self.ended.done():
                control.send(self._line, {"kill": self._kills[:500]})
                del self._kills[:500]
        except ConnectionError:
            return
        except OSError:  # its queue is full
            self._flushing = True
            self._loop.call_later(_RETRY, self._flush)

    def _hear(self) -> None:
        """Act on what the zygote tells."""
        while self._believed:
            try:
                message, files = control.receive(self._line)
                for file in files:
                    os.close(file)
                if message is not None:
                    self._act(message)
                    continue
            except BlockingIOError:
                return
            except ConnectionError:
                pass
            except (ValueError, TypeError, LookupError) as error:  # the user's code shares the zygote's process
                self._believed = False
                self._why = f"Its process sent compute what makes no sense: {error!r}."
                self.kill_process()
            self._loop.remove_reader(self._line.fileno())
            return

    def _act(self, message: dict[str, Any]) -> None:
        for number, pid, code, sign, detail, overran, peak in message.get("exits", ()):
            if number in self.launched:
                self.launched.remove(number)
                how = Exit(
                    code, sign, killed=False, detail=str(detail), overran=overran and int(overran), peak=int(peak)
                )
                self._exits.exited(number, int(pid), how)
        if "failed" in message and not self.ready.done():
            self.ready.set_exception(ImportFailed(str(message["failed"]), str(message["traceback"])))
        if "ready" in message and not self.ready.done():
            self.took = self._loop.time() - self.born
            self.ready.set_result(str(message["ready"]))
            self._has_room()
        if "forked" in message:
            self._unforked = max(0, self._unforked - int(message["forked"]))
            self._has_room()
        if self._retired and not self.launched:
            self.close()

    def _end(self) -> None:
        """Act on the end of the process."""
        self._hear()
        code = self._process.wait()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._loop.remove_reader(self._line.fileno())
        self._line.close()
        if not self.ready.done():
            why = self._why or f"Importing the code ended the process: {_say_how(code)}."
            self.ready.set_exception(ImportFailed(why, self._last_output()))
        self.ended.set_result(None)
        self._exits.abandoned(self)

    def _last_output(self) -> str:
        with (self.home / "output").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            return file.read().decode("utf-8", "replace")


def variables(owner: str, added: Mapping[str, str], tmpdir: Path, environment: Path | None) -> dict[str, str]:
    """Return a zygote's environment variables: nothing of the server's but a few harmless names, and what the user added.

    The commands of its packages are found before those of the machine."""
    kept = {name: os.environ[name] for name in KEPT_FROM_SERVER if name in os.environ}
    if environment is not None:
        kept["VIRTUAL_ENV"] = str(environment)
        kept["PATH"] = os.pathsep.join([str(environment / "bin"), kept.get("PATH", os.defpath)])
    return {**kept, **ONE_THREAD, **added, "HOME": str(tmpdir), "TMPDIR": str(tmpdir), OWNER: owner}


def _say_how(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
