"""The floor: a process pool of the standard library. No queue, nothing durable, no isolation between tasks."""

from concurrent.futures import Future, ProcessPoolExecutor
from typing import Any

from benchmarks.peers.common import Send, Setup, peer
from benchmarks.tasks import payload, run

CHUNK = 500


def start(setup: Setup) -> tuple[str, Send]:
    """Return a sender that submits one by one and keeps the futures, or one that maps in chunks."""
    pool = setup.stack.enter_context(ProcessPoolExecutor(2))
    kept: list[Any] = []

    def submit(numbers: range) -> None:
        futures: list[Future[None]] = [pool.submit(run, payload(number)) for number in numbers]
        kept[:] = futures

    def map_in_chunks(numbers: range) -> None:
        kept[:] = [pool.map(run, map(payload, numbers), chunksize=CHUNK)]

    if setup.single:
        return "ProcessPoolExecutor(2).submit, in memory only, a future for each task", submit
    return f"ProcessPoolExecutor(2).map in chunks of {CHUNK}, in memory only", map_in_chunks


if __name__ == "__main__":
    peer("futures", start)
