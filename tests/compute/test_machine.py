"""What memory is left, of the machine and of the control groups that limit it."""

from pathlib import Path

import pytest

from penstock.compute.machine import Machine

MEMINFO = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 600 kB\nBuffers: 0 kB\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(MEMINFO)
    return tmp_path / "proc"


def group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_what_the_machine_has_left(proc: Path, tmp_path: Path) -> None:
    assert Machine(proc, tmp_path).memory_left() == (600 << 10, 1000 << 10)
    available, total = Machine().memory_left()
    assert 0 < available <= total


def test_a_limit_of_a_group_above_counts_without_what_is_cached(proc: Path, tmp_path: Path) -> None:
    (proc / "self/cgroup").write_text("0::/pod/app\n")
    group(
        tmp_path / "fs/pod",
        memory__max="300000",
        memory__current="250000",
        memory__stat="anon 1\ninactive_file 50000\n",
    )
    group(tmp_path / "fs/pod/app", memory__max="max", memory__current="250000", memory__stat="")
    assert Machine(proc, tmp_path / "fs").memory_left() == (100_000, 300_000)


def test_a_limit_of_version_1_counts_and_none_does_not(proc: Path, tmp_path: Path) -> None:
    (proc / "self/cgroup").write_text("7:cpu,memory:/app\n3:cpuset:/other\n0::/\n")
    own = tmp_path / "fs/memory/app"
    group(own, memory__limit_in_bytes="200000", memory__usage_in_bytes="150000", memory__stat="total_inactive_file 0\n")
    assert Machine(proc, tmp_path / "fs").memory_left() == (50_000, 200_000)
    group(own, memory__limit_in_bytes=str(2**63 - 4096))
    assert Machine(proc, tmp_path / "fs").memory_left() == (600 << 10, 1000 << 10)
