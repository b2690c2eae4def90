"""Control groups: what is written and read, against folders that imitate the kernel's; and the kernel's own, where lent."""

import logging
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.control_groups import lent

from penstock.compute import memory
from penstock.compute.memory import FOLDER, Enforcement, probe
from penstock.runtime.cgroups import Cgroups, Version1, Version2

LIMIT = 256_000_000
VERSIONS = [Version2, Version1]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_instance_gets_a_group_of_its_own(version: type[Cgroups], tmp_path: Path) -> None:
    guard = version(f"{tmp_path}/g-", LIMIT)
    guard.prepare(7)
    group = tmp_path / "g-7"
    assert (group / version.most).read_text() == str(LIMIT)
    assert sorted(file.name for file in group.iterdir()) == [version.most]  # what is not there is not written to
    guard.enter(7)
    assert (group / "cgroup.procs").read_text() == "0"


@pytest.mark.parametrize("version", VERSIONS)
def test_what_the_kernel_offers_besides_is_used(
    version: type[Cgroups], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(path: str) -> None:
        Path(path).mkdir()
        for name, _ in version.harder:
            (Path(path) / name).write_text("as it was")

    monkeypatch.setattr(os, "makedirs", make)
    version(f"{tmp_path}/g-", LIMIT).prepare(7)
    found = {name: (tmp_path / "g-7" / name).read_text() for name, _ in version.harder}
    assert found == {name: value or str(LIMIT) for name, value in version.harder}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("events", "peak", "used"),
    [
        ("low 0\noom 3\noom_kill 1\noom_group_kill 1\n", "256004096\n", 256_004_096),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", None, LIMIT),  # a kernel that does not tell the peak
        ("oom 3\noom_kill 0\n", "255000000\n", None),  # it was reclaimed in time
        (None, None, None),
    ],
)
def test_what_the_kernel_ended_is_told(
    version: type[Cgroups], events: str | None, peak: str | None, used: int | None, tmp_path: Path
) -> None:
    guard = version(f"{tmp_path}/g-", LIMIT)
    guard.prepare(7)
    guard.watch(7, 4_000_000)
    for name, text in ((version.events, events), (version.peaks, peak)):
        if text is not None:
            (tmp_path / "g-7" / name).write_text(text)
    assert guard.ended(7, 4_000_000) == used


def test_a_group_that_is_not_empty_yet_is_removed_with_the_next(tmp_path: Path) -> None:
    guard = Version2(f"{tmp_path}/g-", LIMIT)
    for number in (1, 2):
        guard.prepare(number)
    guard.ended(1, 11)
    assert (tmp_path / "g-1").exists()
    for number in (1, 2):
        (tmp_path / f"g-{number}" / Version2.most).unlink()
    guard.ended(2, 12)
    assert list(tmp_path.iterdir()) == []
    assert guard.ended(3, 13) is None  # one that never had a group


def test_version_1_kills_the_instance_of_which_the_kernel_has_ended_a_part(tmp_path: Path) -> None:
    guard = Version1(f"{tmp_path}/g-", LIMIT)
    assert guard.wait(0.0) is None
    with subprocess.Popen(["sleep", "3600"], start_new_session=True) as instance:
        guard.prepare(7)
        guard.watch(7, instance.pid)
        assert guard.wait(100.0) == 0.0
        guard.look(100.0)
        assert guard.wait(100.0)
        (tmp_path / "g-7" / Version1.events).write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
        guard.look(200.0)
        assert instance.wait() == -signal.SIGKILL
    assert guard.ended(7, instance.pid) == LIMIT


# probing --------------------------------------------------------------------------------------------------------------
def version_2(folder: Path, inside: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text("cpu memory pids\n")
    (folder / "cgroup.subtree_control").write_text("")
    (folder / "cgroup.procs").write_text(inside)
    return folder


def test_without_a_folder_of_its_own_it_looks(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("proc /proc proc rw 0 0\n")
    (tmp_path / "cgroup").write_text("4:memory:/some/where\n0::/\n")
    assert probe("abc", {}, tmp_path) == Enforcement("polling", "")


def test_a_group_of_version_2_that_is_named(tmp_path: Path) -> None:
    folder = version_2(tmp_path / "lent", "41\n42\n")
    found = probe("0123456789abcdef", {FOLDER: str(folder)})
    assert found == Enforcement("cgroup v2", f"{folder}/penstock-0123456789ab-")
    assert (folder / "cgroup.subtree_control").read_text() == "+memory"
    assert (folder / "penstock-server" / "cgroup.procs").read_text() == "42"  # each was written; a file keeps the last
    (folder / "cgroup.subtree_control").write_text("memory pids\n")
    assert probe("another-owner", {FOLDER: str(folder)}).level == "cgroup v2"


def test_a_group_of_version_1_that_is_named(tmp_path: Path) -> None:
    (tmp_path / Version1.most).write_text("9223372036854771712\n")
    left = tmp_path / "penstock-0123456789ab-7"
    left.mkdir()
    found = probe("0123456789abcdef", {FOLDER: str(tmp_path)})
    assert found == Enforcement("cgroup v1", f"{tmp_path}/penstock-0123456789ab-")
    assert not left.exists()


def test_a_group_that_systemd_has_delegated(tmp_path: Path) -> None:
    folder = version_2(tmp_path / "fs" / "system.slice" / "penstock.service")
    own = tmp_path / "own"
    own.mkdir()
    (own / "mounts").write_text(f"cgroup2 {tmp_path}/fs cgroup2 rw,nosuid 0 0\n")
    (own / "cgroup").write_text("0::/system.slice/penstock.service\n")
    assert probe("abc", {}, own).level == "polling"  # it may be written to, and is not ours
    try:
        os.setxattr(folder, "user.delegate", b"1")
    except OSError:
        pytest.skip("this file system keeps no user attributes")
    assert probe("abc", {}, own).level == "cgroup v2"


@pytest.mark.parametrize("what", ["nothing", "no group", "no memory", "no entry"])
def test_a_folder_that_cannot_be_used_is_told_of(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "lent"
    if what == "no group":
        folder.mkdir()
    elif what != "nothing":
        version_2(folder)
    if what == "no memory":
        (folder / "cgroup.controllers").write_text("cpu pids\n")
    if what == "no entry":
        monkeypatch.setattr(memory, "_ENTER", "echo Permission denied >&2; exit 1")
    with caplog.at_level(logging.WARNING):
        assert probe("abc", {FOLDER: str(folder)}) == Enforcement()
    assert f"The control group {folder} cannot be used" in caplog.text


# the kernel's own -----------------------------------------------------------------------------------------------------
def test_the_kernel_ends_what_goes_over() -> None:
    with lent() as folder:
        means = probe("0123456789abcdef", {FOLDER: str(folder)})
        guard = (Version2 if means.level == "cgroup v2" else Version1)(means.groups, 64_000_000)
        guard.prepare(1)
        code = "import sys; sys.stdin.readline(); held = b'x' * 200_000_000"
        with subprocess.Popen(
            ["python3", "-c", code], stdin=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            (Path(f"{means.groups}1") / "cgroup.procs").write_text(str(process.pid))
            guard.watch(1, process.pid)
            process.communicate("go\n")
            assert process.returncode == -signal.SIGKILL
        used = guard.ended(1, process.pid)
        assert used is not None
        assert used >= 64_000_000
        assert not Path(f"{means.groups}1").exists()
