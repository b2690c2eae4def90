"""The floor: a process pool of the standard library. No queue, nothing durable, a future for each task."""

from concurrent.futures import Future, ProcessPoolExecutor

from benchmarks.peers.common import Send, Setup, peer
from benchmarks.tasks import payload, run


def start(setup: Setup) -> tuple[str, Send]:
    """Return a sender that submits one by one and keeps the futures as a caller would."""
    pool = setup.stack.enter_context(ProcessPoolExecutor(2))
    futures: list[Future[None]] = []

    def send(numbers: range) -> None:
        futures[:] = [pool.submit(run, payload(number)) for number in numbers]

    return "ProcessPoolExecutor(2), in memory only", send


if __name__ == "__main__":
    peer("futures", start)
