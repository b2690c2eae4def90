"""Celery on a Redis that keeps nothing on disk, results ignored; its senders know single tasks only."""

import os

from celery import Celery

from benchmarks.peers.common import Send, Setup, peer
from benchmarks.services import redis
from benchmarks.tasks import payload, run

app = Celery("bench", broker=os.environ.get("BENCH_URL"))
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=64, broker_connection_retry_on_startup=True)
task = app.task(run, name="run")


def start(setup: Setup) -> tuple[str, Send]:
    """Start two workers that run tasks in their main process, which is faster than its pool for tasks this small."""
    os.environ["BENCH_URL"] = app.conf.broker_url = setup.stack.enter_context(redis(setup.folder))
    setup.workers(2, "celery", "-A", "benchmarks.peers.celery:app", "worker", "-P", "solo", "-l", "WARNING", "-n", "worker{}",
                  "--without-gossip", "--without-mingle", "--without-heartbeat")  # fmt: skip

    def send(numbers: range) -> None:
        for number in numbers:
            task.apply_async((payload(number),))

    return "Redis without persistence, 2 workers (solo), prefetch 64", send


if __name__ == "__main__":
    peer("celery", start)
