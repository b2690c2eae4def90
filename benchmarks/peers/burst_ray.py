"""Ray on this one machine: an asyncio actor that runs all tasks at once, or (single) a process for each task."""

from typing import Any

import ray

from benchmarks.peers.bursts import Run, burst
from benchmarks.peers.common import Setup
from benchmarks.tasks import doze, doze_async


class Sleeper:
    """Run tasks on one event loop."""

    async def run(self, event: dict[str, Any]) -> None:
        """Run one."""
        await doze_async(event)


def start(setup: Setup, tasks: int) -> tuple[str, Run]:
    """Start Ray on an address that it takes for local; it would replace 127.0.0.1 by one that others can reach."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _node_ip_address="127.0.0.2")
    setup.stack.callback(ray.shutdown)
    kept: list[object] = []
    if setup.single:
        call = ray.remote(num_cpus=1 / tasks)(doze).remote
    else:
        call = ray.remote(num_cpus=1, max_concurrency=tasks)(Sleeper).remote().run.remote

    def send(numbers: range, seconds: float) -> None:
        kept[:] = [call({"i": number, "seconds": seconds}) for number in numbers]

    return ("tasks, a process each" if setup.single else f"1 asyncio actor, max_concurrency {tasks}"), send


if __name__ == "__main__":
    burst("ray", start)
