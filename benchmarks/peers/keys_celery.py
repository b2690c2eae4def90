"""Celery with a task name and a `rate_limit` for each key, on a Redis that keeps nothing on disk, results ignored.

Such a limit holds within one worker process only, so there is one. It takes all that is queued: tasks of keys that have to
wait would keep the others out of a bounded prefetch.
"""

import os
from collections.abc import Callable
from typing import Any

from celery import Celery

from benchmarks.keyed import Work
from benchmarks.peers.common import Setup
from benchmarks.peers.keyed import peer, work_told
from benchmarks.services import redis
from benchmarks.tasks import payload, rest_sync

GREENLETS, CONNECTIONS = 200, 1000


def application(url: str, work: Work) -> tuple[Celery, list[Any]]:
    """Return the application and its tasks, one for each key."""
    made = Celery("bench", broker=url)
    made.conf.update(task_ignore_result=True, worker_prefetch_multiplier=0, broker_connection_retry_on_startup=True,
                     broker_transport_options={"max_connections": CONNECTIONS})  # fmt: skip
    return made, [made.task(rest_sync, name=f"key-{key}", rate_limit=f"{work.rate}/s") for key in range(work.keys)]


if "BENCH_URL" in os.environ:  # in a worker
    app, _ = application(os.environ["BENCH_URL"], work_told())


def prepare(setup: Setup, work: Work) -> tuple[str, Callable[[], None]]:
    """Queue the tasks."""
    os.environ["BENCH_URL"] = setup.stack.enter_context(redis(setup.folder))
    _, tasks = application(os.environ["BENCH_URL"], work)
    for number in work.in_turn():
        tasks[work.key(number)].apply_async((payload(number),))

    def start() -> None:
        setup.workers(1, "celery", "-A", "benchmarks.peers.keys_celery:app", "worker", "-P", "gevent", "-c", str(GREENLETS),
                      "-l", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat")  # fmt: skip

    how = f"a rate_limit of {work.rate}/s for each of {work.keys} task names"
    return f"{how}, Redis without persistence, 1 worker of {GREENLETS} greenlets, prefetch unlimited", start


if __name__ == "__main__":
    peer(prepare)
