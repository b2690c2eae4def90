"""Celery on a Redis that keeps nothing on disk: greenlets that share a process, or (single) a process for each task."""

import os

from celery import Celery

from benchmarks.peers.bursts import Run, burst
from benchmarks.peers.common import Setup
from benchmarks.services import redis
from benchmarks.tasks import doze

app = Celery("bench", broker=os.environ.get("BENCH_URL"))
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)
task = app.task(doze, name="doze")


def start(setup: Setup, tasks: int) -> tuple[str, Run]:
    """Start one worker with room for all tasks."""
    os.environ["BENCH_URL"] = app.conf.broker_url = setup.stack.enter_context(redis(setup.folder))
    pool = "prefork" if setup.single else "gevent"
    setup.workers(1, "celery", "-A", "benchmarks.peers.burst_celery:app", "worker", "-P", pool, "-c", str(tasks),
                  "-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")  # fmt: skip

    def send(numbers: range, seconds: float) -> None:
        for number in numbers:
            task.apply_async(({"i": number, "seconds": seconds},))

    return f"Redis without persistence, 1 worker ({pool}, {tasks})", send


if __name__ == "__main__":
    burst("celery", start)
