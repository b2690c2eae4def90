"""A control group for tests that want to meet the kernel's own: one that is lent, or one made where that is allowed."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.compute.memory import FOLDER

_VERSION_1 = Path("/sys/fs/cgroup/memory")


@contextlib.contextmanager
def lent() -> Iterator[Path]:
    """Give a folder below which groups may be made; the test is skipped where there is none."""
    named = os.environ.get(FOLDER)
    if named:
        yield Path(named)
        return
    made = _VERSION_1 / f"penstock-tests-{os.getpid()}"
    if os.geteuid() or not os.access(_VERSION_1 / "cgroup.procs", os.W_OK):
        pytest.skip(f"no control group is lent to these tests, and none can be made; {FOLDER} may name one")
    made.mkdir()
    try:
        yield made
    finally:
        made.rmdir()
