"""Dask on this one machine: a scheduler, and two worker processes with threads for all tasks."""

from distributed import Client, LocalCluster

from benchmarks.peers.bursts import Run, burst
from benchmarks.peers.common import Setup
from benchmarks.tasks import doze


def start(setup: Setup, tasks: int) -> tuple[str, Run]:
    """Start scheduler and workers."""
    threads = tasks // 2
    cluster = LocalCluster(n_workers=2, threads_per_worker=threads, host="127.0.0.1", dashboard_address=None)
    client = setup.stack.enter_context(Client(setup.stack.enter_context(cluster)))
    kept: list[object] = []

    def send(numbers: range, seconds: float) -> None:
        kept[:] = client.map(doze, [{"i": number, "seconds": seconds} for number in numbers], pure=False)

    return f"2 processes of {threads} threads", send


if __name__ == "__main__":
    burst("dask", start)
