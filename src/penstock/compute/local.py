"""Instances on this machine: a nursery of zygotes for each blueprint, a forked process for each instance.

The laws of `protocol.py`, and: whatever an instance started is gone when this compute is closed, or opened anew after a
crash. Every process carries the mark of its owner, which is the data directory; folders and processes are ended off the
event loop.
"""

import asyncio
import contextlib
import resource
import signal
import socket
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from penstock.compute import holders, memory, processes
from penstock.compute.environments import BUILD_TIMEOUT, Environments
from penstock.compute.instances import LocalInstance
from penstock.compute.isolation import Walls
from penstock.compute.machine import Machine
from penstock.compute.memory import Enforcement
from penstock.compute.nursery import IMPORT_TIMEOUT, Nursery
from penstock.compute.protocol import (
    Blueprint,
    Code,
    Environment,
    Exit,
    ImportFailed,
    Instance,
    Isolation,
    Level,
    Listener,
    NotIsolated,
)
from penstock.compute.zygotes import Zygote
from penstock.runtime.procfs import read_peak, read_pss

_PATIENCE = 5.0
_SWEEP_EVERY = 1.0


class LocalCompute:
    """Make instances on this machine. `directory` is for compute alone; `bundle_path` says where a bundle is unpacked.

    `build_timeout` is how long (seconds) the installation of what a bundle asks for may take. `private` is the server's
    folder, of which functions see no more than they must (None: `directory`).
    """

    def __init__(
        self,
        directory: Path,
        bundle_path: Callable[[str], Path],
        build_timeout: float = BUILD_TIMEOUT,
        private: Path | None = None,
    ) -> None:
        self._directory = directory.resolve()
        self._bundle_path = bundle_path
        self._environments = Environments(self._directory / "environments", bundle_path, build_timeout)
        self._unfurnished: dict[int, asyncio.Task[Environment | None]] = {}
        self._owner = ""
        self._enforcement = Enforcement()
        self._walls = Walls(private or directory)
        self._machine = Machine()
        self._last_number = 0
        self._instances: dict[int, LocalInstance] = {}
        self._nurseries: dict[Blueprint, Nursery] = {}
        self._nursery_of: dict[int, Nursery] = {}
        self._every_zygote: dict[Zygote, Nursery] = {}
        self._someone_left = asyncio.Event()
        self._unswept: dict[int, int] = {}
        self._sweep_timer: asyncio.TimerHandle | None = None

    async def open(self, listener: Listener) -> None:
        """Begin: end what an earlier server left, and wait until it is gone. Raises `TimeoutError` if it does not go."""
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="penstock-compute")
        _allow_many_files()
        try:
            await self._loop.run_in_executor(self._worker, self._fence)
            self._enforcement = await self._loop.run_in_executor(self._worker, memory.probe, self._owner)
            await self._loop.run_in_executor(self._worker, self._walls.probe)
        except BaseException:
            self._worker.shutdown(wait=False)
            raise

    async def close(self) -> None:
        """End every instance and wait until all are gone, with everything that they started."""
        await self._environments.close()
        while self._instances:
            self._someone_left.clear()
            for instance in list(self._instances.values()):
                instance.kill()
            await self._someone_left.wait()
        for zygote, nursery in list(self._every_zygote.items()):
            nursery.retire()
            zygote.close()
        for zygote in list(self._every_zygote):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(zygote.ended), _PATIENCE)
            zygote.kill_process()
            await zygote.ended
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        await self._loop.run_in_executor(self._worker, self._fence)
        self._worker.shutdown()

    async def furnish(self, code: Code) -> Environment | None:
        """Install the Python and the packages that code asks for, unless they are there; None if it asks for none."""
        return await self._environments.make(code)

    async def environments(self, codes: Collection[Code]) -> Mapping[Code, Environment]:
        """Return the environments that code runs in, as far as it asks for one and that is there."""
        return await self._environments.of(codes)

    async def tidy(self, codes: Collection[Code]) -> None:
        """Delete what was installed for code that is not among this, and has not been used for long."""
        await self._environments.tidy(codes)

    async def prepare(self, blueprint: Blueprint, timeout: float) -> None:
        """Import the code so that `launch` is a fork. Raises `ImportFailed`, also when it takes longer than `timeout` s."""
        await self._environments.make(blueprint.code)
        try:
            zygote = (self._nurseries.get(blueprint) or self._start_nursery(blueprint)).first
        except NotIsolated:
            raise
        except OSError as error:
            raise ImportFailed(_cannot_start(blueprint, error)) from error
        try:
            await asyncio.wait_for(asyncio.shield(zygote.ready), timeout)
        except TimeoutError:
            zygote.fail(_too_slow(blueprint, timeout))
            await zygote.ready

    def launch(self, blueprint: Blueprint) -> Instance:
        """Start one instance. If it cannot start, it is gone soon and its `Exit.detail` says why."""
        self._last_number += 1
        number = self._last_number
        try:
            nursery = self._nurseries.get(blueprint)
            furnished = nursery is not None or not self._environments.lacks(blueprint.code)
            if furnished and nursery is None:
                nursery = self._start_unprepared(blueprint)
            ours, theirs = socket.socketpair()
        except (OSError, ImportFailed) as error:
            instance = LocalInstance(number, blueprint, self._listener, self._kill, self._loop, None)
            self._instances[number] = instance
            exit = Exit(None, None, killed=False, detail=_cannot_start(blueprint, error))  # noqa: A001
            self._loop.call_soon(self.exited, number, 0, exit)
            return instance
        instance = LocalInstance(number, blueprint, self._listener, self._kill, self._loop, ours)
        self._instances[number] = instance
        if nursery is None:
            made = self._unfurnished[number] = self._loop.create_task(self._environments.make(blueprint.code))
            made.add_done_callback(partial(self._launch_furnished, blueprint, number, theirs))
        else:
            self._launch(nursery, number, theirs)
        return instance

    def _launch(self, nursery: Nursery, number: int, line: socket.socket) -> None:
        self._nursery_of[number] = nursery
        nursery.launch(number, line)

    def _launch_furnished(
        self, blueprint: Blueprint, number: int, line: socket.socket, made: "asyncio.Task[Environment | None]"
    ) -> None:
        """Start an instance whose environment, which somebody had deleted, is there again."""
        del self._unfurnished[number]
        try:
            made.result()
            nursery = self._nurseries.get(blueprint) or self._start_unprepared(blueprint)
        except asyncio.CancelledError:
            exit = Exit(None, signal.SIGKILL, killed=True, detail="It was killed before it started.")  # noqa: A001
        except (OSError, ImportFailed) as error:
            exit = Exit(None, None, killed=False, detail=_cannot_start(blueprint, error))  # noqa: A001
        else:
            self._launch(nursery, number, line)
            return
        line.close()
        self._depart(number, 0, exit)

    def retire(self, blueprint: Blueprint) -> None:
        """End the zygotes of a blueprint as soon as none of its instances is left."""
        nursery = self._nurseries.pop(blueprint, None)
        if nursery is not None:
            nursery.retire()

    def memory_left(self) -> tuple[int, int] | None:
        """Return (bytes of memory that are available to further instances, bytes in all)."""
        return self._machine.memory_left()

    async def weigh(self, instances: Collection[Instance]) -> Sequence[int]:
        """Return how many bytes each of some instances uses, shared memory in parts; 0 if it is gone."""
        return await self._read(instances, read_pss)

    async def peaks(self, instances: Collection[Instance]) -> Sequence[int]:
        """Return how many bytes each of some instances has used at most until now; 0 if it is gone."""
        return await self._read(instances, read_peak)

    async def _read(self, instances: Collection[Instance], read: Callable[[int], int]) -> Sequence[int]:
        """Ask the kernel about each of some instances, off the event loop."""
        asked: list[tuple[int, Zygote | None]] = []
        for instance in instances:
            local, nursery = self._instances.get(instance.id), self._nursery_of.get(instance.id)
            zygote = None if nursery is None else nursery.zygote_of(instance.id)
            pid = 0 if local is None or zygote is None else local.pid
            asked.append((pid, zygote if zygote is not None and zygote.has_own_processes else None))

        def look() -> list[int]:
            outside = {zygote: zygote.pids() for _, zygote in asked if zygote is not None}
            pids = [pid if zygote is None else outside[zygote].get(pid, 0) for pid, zygote in asked]
            return [read(pid) if pid else 0 for pid in pids]

        return await self._loop.run_in_executor(self._worker, look)

    def ping(self, instance: Instance) -> None:
        """Ask for a sign of life."""
        local = self._instances.get(instance.id)
        if local is not None:
            local.ping()

    async def holder(self, instance: Instance) -> int | None:
        """Return the attempt that keeps a shared instance from answering, None if that cannot be told."""
        local, nursery = self._instances.get(instance.id), self._nursery_of.get(instance.id)
        zygote = None if nursery is None else nursery.zygote_of(instance.id)
        if local is None or not local.pid or zygote is None:
            return None
        pid = 0 if zygote.has_own_processes else local.pid  # by such an id others cannot look at its threads
        return await holders.find(str(zygote.instances / f"{local.id}.{local.pid}" / "turns"), pid)

    @property
    def enforcement(self) -> str:
        """Return by what means an instance is kept within its `memory`."""
        return self._enforcement.level

    def isolation(self, level: Level) -> Isolation:
        """Return what this machine gives a level of the sandbox."""
        return self._walls.isolation(level)

    def exited(self, number: int, pid: int, exit: Exit) -> None:  # noqa: A002 - the protocol's word
        """Hear from a zygote that an instance's process was reaped (pid 0: that there was none)."""
        self._depart(number, pid, exit)

    def abandoned(self, zygote: Zygote) -> None:
        """Hear that a zygote is gone. Its instances are being killed by the kernel; their ends of the lines tell when."""
        nursery = self._every_zygote.pop(zygote)
        if not zygote.launched:
            self._worker.submit(processes.wipe, zygote.home)
        nursery.abandoned(zygote)
        if nursery.is_empty and self._nurseries.get(zygote.blueprint) is nursery:
            del self._nurseries[zygote.blueprint]
        detail = zygote.epitaph()
        for number in sorted(zygote.launched):
            instance = self._instances[number]
            sign = signal.SIGKILL if instance.pid else None
            exit = Exit(None, sign, killed=False, detail=detail)  # noqa: A001
            instance.when_lost(partial(self._depart, number, instance.pid, exit))
            self._loop.call_later(_PATIENCE, instance.lose, "")

    def _depart(self, number: int, pid: int, exit: Exit) -> None:  # noqa: A002
        instance = self._instances.pop(number, None)
        if instance is None:
            return
        nursery = self._nursery_of.pop(number, None)
        zygote = None if nursery is None else nursery.forget(number)
        home = zygote.instances / f"{number}.{pid}" if zygote is not None and pid else None
        instance.depart(exit, home)
        self._someone_left.set()
        if home is not None:
            self._worker.submit(processes.wipe, home)
            self._unswept[number] = 0 if zygote is not None and zygote.has_own_processes else pid
            if self._sweep_timer is None:
                self._sweep_timer = self._loop.call_later(_SWEEP_EVERY, self._sweep)
        if zygote is not None and zygote.ended.done():
            zygote.launched.discard(number)
            if not zygote.launched:
                self._worker.submit(processes.wipe, zygote.home)

    def _sweep(self) -> None:
        """End what instances that are gone have left running: what left their group, or lost their zygote."""
        unswept, self._unswept = self._unswept, {}
        self._sweep_timer = None
        self._worker.submit(processes.end_left_by, self._owner, unswept)

    def _kill(self, instance: LocalInstance) -> None:
        nursery = self._nursery_of.get(instance.id)
        if nursery is not None:
            nursery.kill(instance.id)
        elif instance.id in self._unfurnished:
            self._unfurnished[instance.id].cancel()

    def _start_unprepared(self, blueprint: Blueprint) -> Nursery:
        nursery = self._start_nursery(blueprint)
        self._loop.call_later(IMPORT_TIMEOUT, nursery.first.fail, _too_slow(blueprint, IMPORT_TIMEOUT))
        return nursery

    def _start_nursery(self, blueprint: Blueprint) -> Nursery:
        nursery = Nursery(blueprint, self._start_zygote, self, self._machine.memory_left)
        nursery.start()
        self._nurseries[blueprint] = nursery
        return nursery

    def _start_zygote(self, nursery: Nursery) -> Zygote:
        self._last_number += 1
        blueprint, home = nursery.blueprint, self._zygotes_home / str(self._last_number)
        zygote = Zygote(
            blueprint,
            self._bundle_path(blueprint.bundle),
            self._environments.folder(blueprint.code),
            home,
            self._owner,
            self._enforcement,
            self._walls,
            self,
            nursery.dispatch_soon,
        )
        self._every_zygote[zygote] = nursery
        return zygote

    @property
    def _zygotes_home(self) -> Path:
        return self._directory / "zygotes"

    def _fence(self) -> None:
        """End every process of ours, an earlier server's included, and wipe what they left."""
        boot = processes.boot_id()
        known = self._directory / "boot"
        same_boot = known.exists() and known.read_text() == boot
        names = [folder.name for folder in self._zygotes_home.glob("*/instances/*")] if same_boot else []
        self._owner = self._read_owner()
        processes.end_all_of(self._owner, [int(name.partition(".")[2]) for name in names])
        processes.wipe(self._zygotes_home)
        self._zygotes_home.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._environments.open(self._owner)
        known.write_text(boot)

    def _read_owner(self) -> str:
        """Return the mark of this directory's processes; it is made once."""
        file = self._directory / "owner"
        self._directory.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            draft = file.with_suffix(".new")
            draft.write_text(uuid.uuid4().hex)
            draft.replace(file)
        return file.read_text().strip()


def _allow_many_files() -> None:
    """Raise the limit of open files as far as it goes: an instance takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _cannot_start(blueprint: Blueprint, error: OSError | ImportFailed) -> str:
    return f"No process can be started for '{blueprint.function}' version {blueprint.version}: {error}"


def _too_slow(blueprint: Blueprint, timeout: float) -> str:
    return f"Importing '{blueprint.handler}' of '{blueprint.function}' took longer than {timeout:g} s."
