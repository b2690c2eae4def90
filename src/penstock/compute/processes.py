"""Find and end processes by the marks they carry, so that nothing an instance started outlives its owner.

A process is ours if its environment names our owner, if it is in the session of one that is (or in a session that an
instance of ours led), or if it descends from one. Ids are reused: a process is signalled through a descriptor of it, after
looking again whether it is still the one that was found.
"""

import contextlib
import os
import select
import shutil
import signal
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

OWNER = "PENSTOCK_OWNER"
INSTANCE = "PENSTOCK_INSTANCE"

_ROUNDS = 20
_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Process:
    """Hold what /proc says of a process; `born` is in clock ticks since boot."""

    pid: int
    parent: int
    session: int
    born: int


def boot_id() -> str:
    """Return what names this boot of the machine; process ids mean nothing in another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def end_all_of(owner: str, sessions: Collection[int] = ()) -> int:
    """Kill every process of an owner, and wait until they are gone; return how many there were.

    `sessions` are those that instances of the owner once led. Raises `TimeoutError` if some do not go.
    """
    mark = f"{OWNER}={owner}".encode()
    return _end(lambda: _ours(mark, sessions))


def end_left_by(owner: str, instances: Mapping[int, int]) -> int:
    """Kill what is left of instances that are gone, given by number and the process id each had; return how many.

    An id of 0 is that of one in a namespace of its own, which means nothing here.
    """
    mark = f"{OWNER}={owner}".encode()
    lost = {f"{INSTANCE}={number}".encode() for number in instances}

    def find() -> list[Process]:
        everyone = _all()
        led = set(instances.values()) - {0} - {process.pid for process in everyone}
        found = []
        for process in everyone:
            environment = _environment(process.pid)
            if process.session in led or (mark in environment and not lost.isdisjoint(environment)):
                found.append(process)
        return found

    return _end(find)


def wipe(folder: Path) -> None:
    """Remove a folder and what is in it, as far as that is possible; errors are left to the next time."""
    shutil.rmtree(folder, ignore_errors=True)


def _ours(mark: bytes, sessions: Collection[int]) -> list[Process]:
    everyone = _all()
    by_id = {process.pid: process for process in everyone}
    spared = _ancestors(by_id)
    found = {process.pid for process in everyone if mark in _environment(process.pid)} - spared
    # A recorded session whose leader lives and is not marked belongs to another who got the same number later.
    led = {by_id[pid].session for pid in found} | {session for session in sessions if session not in by_id}
    led.discard(os.getsid(0))
    found |= {process.pid for process in everyone if process.session in led}
    grown = True
    while grown:
        children = {process.pid for process in everyone if process.parent in found} - found
        grown = bool(children)
        found |= children
    return [by_id[pid] for pid in found - spared]


def _ancestors(by_id: dict[int, Process]) -> set[int]:
    """Return this process and those above it; never to be killed, whatever they are marked with."""
    line = {0, os.getpid()}
    pid = os.getppid()
    while pid not in line:
        line.add(pid)
        pid = by_id[pid].parent if pid in by_id else 0
    return line


def _end(find: Callable[[], list[Process]]) -> int:
    """Kill what is found, wait until it is gone, and look again: it may have forked meanwhile."""
    count = 0
    for _ in range(_ROUNDS):
        found = find()
        if not found:
            return count
        count += len(found)
        _kill_and_wait(found)
    raise TimeoutError(f"{len(found)} processes of an earlier server come back as often as they are killed: {found}")


def _kill_and_wait(processes: list[Process]) -> None:
    poll = select.poll()
    opened: set[int] = set()
    left: set[int] = set()
    try:
        for process in processes:
            try:
                descriptor = os.pidfd_open(process.pid)
            except OSError:
                continue
            opened.add(descriptor)
            again = _read(process.pid)
            if again is None or again.born != process.born:  # its parent may have changed; its birth cannot
                continue
            poll.register(descriptor, select.POLLIN)
            left.add(descriptor)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        until = time.monotonic() + _PATIENCE
        while left and time.monotonic() < until:
            for descriptor, _ in poll.poll(100):
                poll.unregister(descriptor)
                left.discard(descriptor)
        if left:
            raise TimeoutError(f"{len(left)} processes of an earlier server do not end, {_PATIENCE} s after SIGKILL")
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _all() -> list[Process]:
    found = (_read(int(name)) for name in os.listdir("/proc") if name.isdecimal())
    return [process for process in found if process is not None]


def _read(pid: int) -> Process | None:
    """Return what /proc says of a process; None if it is gone, or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    if fields[0] in b"ZX":
        return None
    return Process(pid, parent=int(fields[1]), session=int(fields[3]), born=int(fields[19]))


def _environment(pid: int) -> frozenset[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return frozenset(file.read().split(b"\0"))
    except OSError:
        return frozenset()
