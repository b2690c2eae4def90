"""Dramatiq on a Redis that keeps nothing on disk; its senders know single tasks only."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.common import Send, Setup, peer
from benchmarks.services import redis
from benchmarks.tasks import payload, run

if "BENCH_URL" in os.environ:  # in a worker
    dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_URL"]))
    actor = dramatiq.actor(run)


def start(setup: Setup) -> tuple[str, Send]:
    """Start two processes of eight threads."""
    os.environ["BENCH_URL"] = setup.stack.enter_context(redis(setup.folder))
    broker = RedisBroker(url=os.environ["BENCH_URL"])
    call = dramatiq.actor(run, broker=broker).send
    setup.workers(1, "dramatiq", "benchmarks.peers.dramatiq", "-p", "2", "-t", "8")

    def send(numbers: range) -> None:
        for number in numbers:
            call(payload(number))

    return "Redis without persistence, 2 processes x 8 threads", send


if __name__ == "__main__":
    peer("dramatiq", start)
