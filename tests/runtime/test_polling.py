"""Looking at what instances use: real processes, looks at chosen moments."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock.runtime import polling
from penstock.runtime.guards import Guard
from penstock.runtime.polling import LATEST, SOONEST, Polling
from penstock.runtime.procfs import Below, read_kin, read_pss, read_rss

MB = 1 << 20
FAMILY = """
import os, signal, subprocess, sys
blob = bytearray(b"x" * (60 << 20))
for _ in range(3):
    told, tell = os.pipe()
    if not os.fork():
        def unshare(*_):
            for at in range(0, len(blob), 4096):
                blob[at] = 1
            os.write(tell, b".")
        signal.signal(signal.SIGUSR1, unshare)
        os.write(tell, b".")
        while True:
            signal.pause()
    os.read(told, 1)
    pipes = (*globals().get("pipes", ()), told)
print("there", flush=True)
sys.stdin.readline()
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
os.killpg(0, signal.SIGUSR1)
for told in pipes:
    os.read(told, 1)
print("unshared", flush=True)
signal.pause()
"""
STRAY = """
import subprocess, sys
grown = "import sys; blob = b'x' * (60 << 20); print('there', flush=True); sys.stdin.read()"
subprocess.run([sys.executable, "-c", grown], start_new_session=True)
"""


@pytest.fixture
def start() -> Iterator[Callable[[str], "subprocess.Popen[str]"]]:
    """Start a program that leads its session, as instances do, and that says when it is there."""
    started: list[subprocess.Popen[str]] = []

    def launch(code: str) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        return process

    yield launch
    for process in started:
        with process, contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def watching(process: "subprocess.Popen[str]", limit: int) -> Polling:
    guard = Polling(limit)
    guard.watch(1, process.pid)
    return guard


def look(guard: Polling) -> None:
    """Look at everything now, whatever was looked at before."""
    guard._due = 0.0
    for watched in guard._watched.values():
        watched.due = watched.weigh_at = 0.0
    guard._below._rests_until = guard._again_from = 0.0
    guard.look(time.monotonic())


def test_memory_that_processes_share_counts_once(start: Any) -> None:
    family = start(FAMILY)
    guard = watching(family, 120 * MB)
    look(guard)
    below = guard._below.of(family.pid)
    assert len(below) == 3
    assert sum(map(read_rss, (family.pid, *below))) > 4 * 60 * MB  # RSS counts it four times
    assert sum(map(read_pss, (family.pid, *below))) < 120 * MB
    assert family.poll() is None
    assert guard.ended(1, family.pid) is None


def test_memory_that_is_not_shared_any_more_is_found_though_rss_does_not_grow(start: Any) -> None:
    family = start(FAMILY)
    guard = watching(family, 120 * MB)
    look(guard)
    family.stdin.write("go\n")
    family.stdin.flush()
    assert family.stdout.readline() == "unshared\n"
    look(guard)
    assert family.wait() == -signal.SIGKILL
    used = guard.ended(1, family.pid)
    assert used is not None
    assert used > 3 * 60 * MB


def test_what_an_instance_started_counts_and_is_killed_with_it(start: Any) -> None:
    stray = start(STRAY)
    guard = watching(stray, 50 * MB)
    guard._below.refresh(0.0, {stray.pid})
    (grown,) = guard._below.of(stray.pid)
    assert os.getsid(grown) == grown  # it has left the session
    look(guard)
    assert stray.wait() == -signal.SIGKILL
    until_gone(grown)
    used = guard.ended(1, stray.pid)
    assert used is not None
    assert 60 * MB < used < 120 * MB
    assert guard._below.of(stray.pid) == {}


def until_gone(pid: int) -> None:
    """Wait for the end of a process that is nobody's child here."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], 30.0)[0]
    os.close(descriptor)


def test_pss_is_not_read_while_rss_is_below_the_limit(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    family = start(FAMILY)
    guard = watching(family, 1000 * MB)
    monkeypatch.setattr(polling, "read_pss", lambda pid: pytest.fail("PSS was read"))
    for _ in range(5):
        look(guard)


def test_the_most_that_was_seen_is_told(start: Any) -> None:
    family = start(FAMILY)
    guard = watching(family, 1000 * MB)
    assert guard.peak(1, family.pid, 70 * MB) == 70 * MB  # nobody has looked yet, but the kernel has
    look(guard)
    shared = guard.peak(1, family.pid, 70 * MB)
    assert shared > 4 * 60 * MB  # RSS, as long as that is within the limit
    narrow = watching(family, 120 * MB)
    look(narrow)
    assert 60 * MB < narrow.peak(1, family.pid, 500 * MB) < 120 * MB  # PSS was weighed, and RSS lies
    assert narrow.peak(2, 1, 5) == 5


def test_the_nearer_to_the_limit_the_oftener(start: Any) -> None:
    family = start(FAMILY)
    waits = []
    for limit in (260, 500, 1000, 100_000):
        guard = watching(family, limit * MB)
        now = time.monotonic()
        guard.look(now)
        waits.append(guard._watched[family.pid].due - now)
    assert waits == sorted(waits)
    assert SOONEST <= waits[0] < LATEST
    assert waits[-1] == pytest.approx(LATEST)


def test_nothing_is_looked_at_where_nothing_runs_or_nothing_is_limited(start: Any) -> None:
    guard = Polling(MB)
    assert guard.wait(0.0) is None
    guard.look(0.0)
    family = start(FAMILY)
    guard.watch(1, family.pid)
    assert guard.wait(time.monotonic()) == 0.0
    guard.ended(1, family.pid)
    assert guard.wait(0.0) is None
    unlimited = Guard()
    unlimited.watch(1, family.pid)
    assert unlimited.wait(0.0) is None


def test_processes_that_are_gone_use_nothing() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert (read_rss(process.pid), read_pss(process.pid), read_kin(process.pid)) == (0, 0, None)
    guard = Polling(MB)
    guard.watch(1, process.pid)
    guard.look(time.monotonic())
    assert guard.ended(1, process.pid) is None
    assert guard.ended(2, process.pid) is None


def test_what_others_start_is_not_an_instances(start: Any) -> None:
    family, other = start(FAMILY), start(FAMILY)
    below = Below()
    below.refresh(0.0, {family.pid})
    assert len(below.of(family.pid)) == 3
    assert below.of(other.pid) == {}
    below.forget(family.pid)
    assert below.of(family.pid) == {}
