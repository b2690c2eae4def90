"""A rehearsal leaves nothing behind that a fork would not survive."""

import os
import threading

from penstock.runtime.handlers import fork_hazards
from penstock.runtime.rehearsal import rehearse
from penstock.runtime.settings import Settings


def test_a_rehearsal_leaves_no_thread_and_no_open_file() -> None:
    before = set(os.listdir("/proc/self/fd")), threading.active_count(), fork_hazards(set())
    rehearse(Settings(0, os.getpid(), "", "", "m:h", "f", 1, 1))
    assert (set(os.listdir("/proc/self/fd")), threading.active_count(), fork_hazards(set())) == before
