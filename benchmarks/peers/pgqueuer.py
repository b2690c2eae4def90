"""pgqueuer on PostgreSQL with fsync (asyncpg, uvloop).

The program itself sends; `python -m benchmarks.peers.pgqueuer worker` is one of its workers.
"""

import asyncio
import json
import os
import sys
from typing import Any

import asyncpg
import uvloop
from pgqueuer import AsyncpgDriver, PgQueuer, Queries

from benchmarks.peers.common import Send, Setup, batches, peer
from benchmarks.services import postgres
from benchmarks.tasks import payload, run

SENT_AT_ONCE, TAKEN_AT_ONCE, CONNECTIONS = 500, 100, 8


async def work() -> None:
    """Be a worker."""
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(os.environ["BENCH_URL"])))

    async def handle(job: Any) -> None:
        run(json.loads(job.payload))

    queuer.entrypoint("run")(handle)
    await queuer.run(batch_size=TAKEN_AT_ONCE)


def start(setup: Setup) -> tuple[str, Send]:
    """Start two workers."""
    os.environ["BENCH_URL"] = setup.stack.enter_context(postgres(setup.folder))
    runner = setup.stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
    connections = runner.run(_connect(CONNECTIONS if setup.single else 1))
    setup.stack.callback(lambda: runner.run(_close(connections)))
    senders = [Queries(AsyncpgDriver(connection)) for connection in connections]
    runner.run(senders[0].install())
    setup.workers(2, "benchmarks.peers.pgqueuer", "worker")

    def send(numbers: range) -> None:
        runner.run(_send_singly(senders, numbers) if setup.single else _send_lists(senders[0], numbers))

    how = f"single sends on {CONNECTIONS} connections" if setup.single else f"sent in lists of {SENT_AT_ONCE}"
    return f"PostgreSQL with fsync, 2 processes, taken in batches of {TAKEN_AT_ONCE}, {how}", send


async def _connect(count: int) -> list[Any]:
    return [await asyncpg.connect(os.environ["BENCH_URL"]) for _ in range(count)]


async def _close(connections: list[Any]) -> None:
    for connection in connections:
        await connection.close()


async def _send_lists(sender: Any, numbers: range) -> None:
    for part in batches(numbers, SENT_AT_ONCE):
        bodies = [json.dumps(payload(number)).encode() for number in part]
        await sender.enqueue(["run"] * len(part), bodies, [0] * len(part))


async def _send_singly(senders: list[Any], numbers: range) -> None:
    left = iter(numbers)

    async def send(sender: Any) -> None:
        for number in left:
            await sender.enqueue("run", json.dumps(payload(number)).encode())

    await asyncio.gather(*(send(sender) for sender in senders))


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        uvloop.run(work())
    else:
        peer("pgqueuer", start)
