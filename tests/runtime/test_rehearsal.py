"""A rehearsal leaves nothing behind that a fork would not survive."""

import subprocess
import sys

PROGRAM = """
import os, threading
from penstock.runtime.handlers import fork_hazards
from penstock.runtime.rehearsal import rehearse
from penstock.runtime.settings import Settings

def look():
    return set(os.listdir("/proc/self/fd")), threading.enumerate(), fork_hazards(set()), dict(os.environ)

before = look()
rehearse(Settings(0, os.getpid(), "", "", "m:h", "f", 1, 1))
assert look() == before, (look(), before)
threading.Thread(target=print, args=["a thread"]).start()
"""


def test_a_rehearsal_leaves_no_thread_no_open_file_and_no_variable() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "a thread\n"), done.stderr
