"""Compute's end of a zygote: starts the process, asks it for instances and hears of their exits."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import penstock.runtime
from penstock.compute.isolation import Walls
from penstock.compute.memory import Enforcement
from penstock.compute.processes import OWNER
from penstock.compute.protocol import Blueprint, ImportFailed, NotIsolated
from penstock.runtime import control
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

_TAIL = 64 * 1024
_RETRY = 0.002
_DUMP_PATIENCE = 1.0


class Exits(Protocol):
    """Hear what a zygote tells of its instances."""

    def exited(
        self, number: int, pid: int, code: int | None, signal: int | None, detail: str, overran: int | None
    ) -> None:
        """Hear that an instance's process was reaped (or could not be forked: then neither code nor signal).

        `overran` is how many bytes it used if it was ended for that.
        """

    def abandoned(self, zygote: "Zygote") -> None:
        """Hear that the zygote is gone; what it has not told of an instance it never will."""


class Zygote:
    """Be one zygote process, from its start to its end.

    `ready` is done when it can fork, or has the `ImportFailed` that ended it. `launched` counts the instances that were
    asked for and have not exited.
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
        self._spawns: list[tuple[int, socket.socket]] = []
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

    def launch(self, number: int, line: socket.socket) -> None:
        """Ask for an instance that serves over that socket, which is closed here once it is on its way."""
        self.launched.add(number)
        self._spawns.append((number, line))
        self._flush_soon()

    def kill(self, number: int) -> None:
        """Ask for an instance to be killed, with what it started."""
        for spawn in self._spawns:
            if spawn[0] == number:
                self._spawns.remove(spawn)
                spawn[1].close()
                self._loop.call_soon(self._forget, number)
                return
        self._kills.append(number)
        self._flush_soon()

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

    def _forget(self, number: int) -> None:
        """Tell of an instance that was killed before it was asked for."""
        self.launched.discard(number)
        self._exits.exited(number, 0, None, signal.SIGKILL, "It was killed before it started.", None)
        if self._retired and not self.launched:
            self.close()

    def _flush_soon(self) -> None:
        """Send what is asked for in this turn of the loop together."""
        if not self._flushing and self.ready.done() and not self.ended.done():
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        try:
            while self._spawns:
                batch = self._spawns[: control.BATCH]
                message = {"spawn": [number for number, _ in batch]}
                control.send(self._line, message, [line.fileno() for _, line in batch])
                del self._spawns[: control.BATCH]
                for _, line in batch:
                    line.close()
            while self._kills:
                control.send(self._line, {"kill": self._kills[:500]})
                del self._kills[:500]
        except OSError as error:
            if isinstance(error, ConnectionError) or self.ended.done():
                return
            # Its queue is full, or too many descriptors are on their way.
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
        for number, pid, code, sign, detail, overran in message.get("exits", ()):
            if number in self.launched:
                self.launched.remove(number)
                self._exits.exited(number, int(pid), code, sign, str(detail), overran and int(overran))
        if "failed" in message and not self.ready.done():
            self.ready.set_exception(ImportFailed(str(message["failed"]), str(message["traceback"])))
        if "ready" in message and not self.ready.done():
            self.ready.set_result(str(message["ready"]))
            self._flush_soon()
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
        for _, line in self._spawns:
            line.close()
        self._spawns.clear()
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
