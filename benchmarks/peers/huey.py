"""Huey on SQLite with fsync; its senders know single tasks only."""

import os

from huey import SqliteHuey

from benchmarks.peers.common import Send, Setup, peer
from benchmarks.tasks import payload, run

huey = SqliteHuey("bench", filename=os.environ.get("BENCH_FILE", ":memory:"), fsync=True, results=False, utc=False)
task = huey.task(name="run")(run)


def start(setup: Setup) -> tuple[str, Send]:
    """Start a consumer of two processes that looks for tasks every 5 ms."""
    os.environ["BENCH_FILE"] = str(setup.folder / "huey.db")
    client = SqliteHuey("bench", filename=os.environ["BENCH_FILE"], fsync=True, results=False, utc=False)
    call = client.task(name="run")(run)
    setup.workers(1, "huey.bin.huey_consumer", "benchmarks.peers.huey.huey", "-k", "process", "-w", "2", "-q",
                  "-d", "0.005", "-m", "0.005")  # fmt: skip

    def send(numbers: range) -> None:
        for number in numbers:
            call(payload(number))

    return "SQLite with fsync, 2 processes", send


if __name__ == "__main__":
    peer("huey", start)
