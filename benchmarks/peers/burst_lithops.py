"""Lithops on its localhost backend: a worker process for each task."""

import sys

import lithops

from benchmarks.peers.bursts import Run, burst
from benchmarks.peers.common import Setup
from benchmarks.tasks import doze


def start(setup: Setup, tasks: int) -> tuple[str, Run]:
    """Make an executor with as many worker processes as there are tasks."""
    config = {
        "lithops": {"backend": "localhost", "storage": "localhost", "log_level": None, "telemetry": False},
        "localhost": {"runtime": sys.executable, "worker_processes": tasks},
        "localhost_storage": {"storage_root": str(setup.folder / "lithops")},
    }
    executor = lithops.FunctionExecutor(config=config)
    setup.stack.callback(executor.clean)

    def send(numbers: range, seconds: float) -> None:
        executor.map(doze, [{"event": {"i": number, "seconds": seconds}, "context": None} for number in numbers])

    return f"localhost backend, {tasks} worker processes", send


if __name__ == "__main__":
    burst("lithops", start)
