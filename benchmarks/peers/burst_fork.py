"""The floor: a bare loop of fork, a child for each task. No queue, nothing durable, nobody who waits for a result."""

import os

from benchmarks.peers.bursts import Run, burst
from benchmarks.peers.common import Setup
from benchmarks.tasks import doze


def start(setup: Setup, tasks: int) -> tuple[str, Run]:  # noqa: ARG001 - nothing is to be made ready
    """Return a sender that forks."""

    def send(numbers: range, seconds: float) -> None:
        children = []
        for number in numbers:
            child = os.fork()
            if not child:
                try:
                    doze({"i": number, "seconds": seconds})
                finally:
                    os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)

    return "os.fork for each task", send


if __name__ == "__main__":
    burst("fork", start)
