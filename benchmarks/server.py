"""A Penstock server to measure: fresh data on the disk that peers use too, started as users start it, ended by its id."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import Records, cpu_seconds, memory, process, until
from penstock import Client

TASKS = Path(__file__).with_name("tasks.py")


class Server:
    """Give access to a running server, and to what its process uses."""

    def __init__(self, data: Path) -> None:
        told = json.loads((data / "server.json").read_text())
        self.pid, self.url = int(told["pid"]), str(told["url"])
        self.token = (data / "token").read_text().strip()
        self.client = Client(self.url, self.token)

    def cpu(self) -> float:
        """Return the CPU time in seconds that the server process has used, without its instances."""
        return cpu_seconds(self.pid)

    def memory(self) -> dict[str, int]:
        """Return the server process's memory ("Rss" and "Anonymous") in bytes, without its instances."""
        return memory(self.pid)

    def deploy(self, function: str, **settings: Any) -> None:
        """Deploy the handlers of `tasks.py` as a function; they note what they do in the folder that BENCH_RECORDS names."""
        self.deploy_code(function, TASKS, **settings)

    def deploy_code(self, function: str, code: Path, **settings: Any) -> None:
        """Deploy other code as a function."""
        env = {
            name: os.environ[name]
            for name in ("BENCH_RECORDS", "BENCH_RECEIVER", "BENCH_SERVICE")
            if name in os.environ
        }
        self.client.function(function).deploy(code, env=env, **settings)

    def settled(self, pipeline: str, tasks: int, timeout: float = 60.0) -> dict[str, int]:
        """Return a pipeline's counts as soon as all of its tasks have ended well, so many. Raises RuntimeError otherwise."""
        limit = time.monotonic() + timeout
        while True:
            counts = self.client.pipeline(pipeline).show().counts
            if counts["done"] == tasks and not counts["queued"] + counts["running"]:
                return counts
            if counts["dead"] or counts["done"] > tasks or time.monotonic() > limit:
                raise RuntimeError(f"{tasks} tasks should have ended well; {pipeline} has {counts}")
            time.sleep(0.05)


@contextlib.contextmanager
def penstock(folder: Path) -> Iterator[Server]:
    """Run a server whose data is in `folder`; running it there again finds what the last one left."""
    folder.mkdir(exist_ok=True)
    (folder / "server.json").unlink(missing_ok=True)
    log = folder / "server.log"
    program = str(Path(sys.executable).with_name("penstock"))
    with process([program, "up", "--data", str(folder), "--port", "0"], log) as child:
        until((folder / "server.json").is_file, child, log)
        server = Server(folder)
        with contextlib.closing(server.client):
            yield server


def records(folder: Path) -> Records:
    """Make the folder in which handlers note what they do, and name it to functions that are deployed from now on."""
    made = Records(folder / "records")
    os.environ["BENCH_RECORDS"] = str(made.folder)
    return made
