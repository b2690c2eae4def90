"""DBOS with one queue that is partitioned by key and limits each partition, on PostgreSQL with fsync.

The program itself sends; `python -m benchmarks.peers.keys_dbos worker` is one of its workers.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy
from dbos import DBOS, DBOSClient

from benchmarks.keyed import Work
from benchmarks.peers.common import Setup
from benchmarks.peers.keyed import peer
from benchmarks.services import postgres
from benchmarks.tasks import payload, rest

QUEUE, VERSION = "keys", "bench"
WORKERS, POLL, CONNECTIONS = 2, 0.1, 20
"""One worker uses half as much as two do; four, or a poll of 10 ms, use no more, and let more keys above their limit."""


async def run() -> None:
    """Be a worker."""
    DBOS(config={"name": "bench", "system_database_url": os.environ["BENCH_URL"], "application_version": VERSION,
                 "executor_id": str(os.getpid()), "log_level": "WARNING", "sys_db_pool_size": CONNECTIONS})  # fmt: skip

    async def task(event: dict[str, Any]) -> None:
        await rest(event, None)

    DBOS.workflow(name="rest")(task)
    DBOS.launch()
    await asyncio.Event().wait()


def prepare(setup: Setup, work: Work) -> tuple[str, Callable[[], None]]:
    """Make the tables and the queue, and queue the tasks: all in one transaction, which is much faster than one for each."""
    url = setup.stack.enter_context(postgres(setup.folder)).replace("postgresql:", "postgresql+psycopg:")
    os.environ["BENCH_URL"] = url
    program = str(Path(sys.executable).with_name("dbos"))
    subprocess.run([program, "migrate", "--sys-db-url", url], check=True, capture_output=True)
    client = DBOSClient(system_database_url=url)
    setup.stack.callback(client.destroy)
    client.register_queue(QUEUE, partition_limiter={"limit": work.rate, "period": 1.0}, polling_interval_sec=POLL,
                          application_name="bench")  # fmt: skip
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as transaction:
        for number in work.in_turn():
            key = f"key-{work.key(number)}"
            options = {"queue_name": QUEUE, "workflow_name": "rest", "app_version": VERSION, "queue_partition_key": key}
            client.enqueue_in_transaction(transaction, options, payload(number))
        transaction.execute(sqlalchemy.text("ANALYZE"))  # PostgreSQL would come to that by itself, but a minute later
    engine.dispose()

    def start() -> None:
        setup.workers(WORKERS, "benchmarks.peers.keys_dbos", "worker")

    how = f"one queue of {work.keys} partitions with a partition_limiter of {work.rate} per 1 s"
    return f"{how}, PostgreSQL with fsync, {WORKERS} processes, poll {POLL * 1000:.0f} ms", start


if __name__ == "__main__":
    if sys.argv[1:] == ["worker"]:
        asyncio.run(run())
    else:
        peer(prepare)
