"""A real server under load, killed without warning, and the account of every acknowledged task afterwards."""

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from penstock.client import ApiError, Client

HANDLERS = """
import asyncio, os, time

def note(event):
    fd = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, b"%d\\n" % event)
    os.close(fd)

def brief(event, context):
    time.sleep(0.002)
    note(event)

async def shared(event, context):
    await asyncio.sleep(0.01)
    note(event)
"""
START_LIMIT = 60.0
DRAIN_LIMIT = 120.0


@dataclass
class World:
    """Hold a data directory, its ledger, and the server that runs on it now."""

    folder: Path
    server: subprocess.Popen[bytes] | None = None
    acknowledged: dict[str, int] = field(default_factory=dict)
    sent: int = 0

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger"

    def start(self) -> Client:
        """Start the server and return a client once it is ready."""
        (self.data / "server.json").unlink(missing_ok=True)
        with (self.folder / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "penstock.cli.main", "up", "--data", str(self.data), "--port", "0"],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + START_LIMIT
        while not (self.data / "server.json").exists():
            if self.server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.folder / "server.log").read_text()[-4000:])
            threading.Event().wait(0.02)
        return Client(data=self.data)

    def kill(self) -> list[psutil.Process]:
        """Kill the server with SIGKILL; return the processes that it had below it."""
        assert self.server is not None
        below = psutil.Process(self.server.pid).children(recursive=True)
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()
        return below

    def stop(self) -> None:
        """End the server the polite way."""
        if self.server is not None and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            self.server.wait(START_LIMIT)

    def setup(self, client: Client) -> None:
        """Deploy the handlers, and make two pipelines."""
        code = self.folder / "tasks.py"
        code.write_text(HANDLERS)
        env = {"LEDGER": str(self.ledger)}
        self.ledger.touch()
        client.function("brief").deploy(code, handler="tasks:brief", env=env, max_instances=4)
        client.function("shared").deploy(
            code, handler="tasks:shared", env=env, max_parallel_requests=20, max_instances=4
        )
        retry = {"attempts": 1000, "backoff": "10ms..50ms"}
        client.pipeline("brief").put({"function": "brief", "retry": retry})
        client.pipeline("shared").put({"function": "shared", "retry": retry, "concurrency": 30})

    def send_until(self, client: Client, stop: threading.Event, rng: random.Random) -> None:
        """Send batches and single tasks until told to stop or the server is gone; remember what was acknowledged."""
        while not stop.is_set():
            name = rng.choice(["brief", "shared"])
            numbers = list(range(self.sent, self.sent + rng.choice([1, 1, 5, 20])))
            self.sent += len(numbers)
            try:
                ids = client.pipeline(name).send_many(numbers)
            except ApiError:
                return
            self.acknowledged.update(zip(ids, numbers, strict=True))
            stop.wait(0.005)

    def unfinished(self, client: Client) -> int:
        """Return how many tasks have not ended."""
        shown = [client.pipeline(name).show().counts for name in ("brief", "shared")]
        return sum(counts["queued"] + counts["delayed"] + counts["running"] for counts in shown)

    def drain(self, client: Client) -> None:
        """Wait until nothing waits or runs."""
        deadline = time.monotonic() + DRAIN_LIMIT
        while self.unfinished(client):
            assert time.monotonic() < deadline, "tasks are stuck"
            threading.Event().wait(0.1)

    def account(self, client: Client) -> None:
        """Check that every acknowledged task has ended well and was really executed."""
        executed = {int(line) for line in self.ledger.read_text().split()}
        missing = [number for number in self.acknowledged.values() if number not in executed]
        assert missing == []
        states = {task.id: task.state for name in ("brief", "shared") for task in client.tasks(pipeline=name)}
        assert {state for task, state in states.items() if task in self.acknowledged} <= {"done"}
        assert [task for task in self.acknowledged if task not in states] == []


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """Make a world, and end its server whatever happens."""
    made = World(folder)
    try:
        yield made
    finally:
        if made.server is not None and made.server.poll() is None:
            made.server.kill()
            made.server.wait()


def still_there(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Return those of an earlier server's processes that live on."""
    return [one for one in processes if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def marked(data: Path) -> list[int]:
    """Return the ids of all processes that carry the mark of a data directory."""
    owner = next(data.rglob("owner"), None)
    mark = b"" if owner is None else owner.read_bytes().strip()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and mark:
            with contextlib.suppress(OSError):
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
    return found


def instances(pid: int) -> list[psutil.Process]:
    """Return the instances of a server: the children of its zygotes."""
    return [one for zygote in psutil.Process(pid).children() for one in zygote.children()]
