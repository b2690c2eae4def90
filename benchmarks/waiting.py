"""Waiting work: 400 requests that each wait 20 s for somebody else, with 20 in an instance and with one.

How long does it take from the first send to the last end, in how many instances, and how many seconds did these live? The
server counts those: `usage` of a function. Instances go as soon as they idle.
"""

import time
from pathlib import Path

from benchmarks.harness import Figure, program, scratch
from benchmarks.server import Server, penstock

HERE = Path(__file__).parent
REQUESTS = 400
TOGETHER = 20


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about a minute."""
    wait = 2.0 if quick else 20.0
    with scratch() as folder, penstock(folder / "data") as server:
        shared, apart = (_run(server, together, wait) for together in (TOGETHER, 0))
    what = f"{REQUESTS} requests that wait {wait:g} s each"
    together, alone = f"{what}, {TOGETHER} in an instance", f"{what}, each in its own"
    return [
        Figure(f"{together}: from the first send to the last end", shared[0], "s", wait * 1.05, "at most"),
        Figure(f"{together}: instances", shared[1], "", REQUESTS / TOGETHER, "at most"),
        Figure(f"{together}: seconds that instances lived", shared[2], "s"),
        Figure(f"{alone}: from the first send to the last end", apart[0], "s"),
        Figure(f"{alone}: instances", apart[1]),
        Figure(f"{alone}: seconds that instances lived", apart[2], "s"),
        Figure("share of the instance-seconds that sharing needs", shared[2] / apart[2], "", 1 / 15, "at most"),
    ]


def _run(server: Server, together: int, wait: float) -> tuple[float, int, float]:
    """Return how long all requests took, in how many instances at most, and how many seconds these lived together."""
    name = f"waits-{together}"
    function = server.client.function(name)
    function.deploy(HERE / "waits.py", handler="waits:wait", max_parallel_requests=together, idle_timeout="100ms")
    server.client.apply({"pipelines": {name: {"function": name}}})
    began = time.monotonic()
    server.client.pipeline(name).send_many([wait] * REQUESTS)
    most = 0
    while (counts := server.client.pipeline(name).show().counts)["done"] < REQUESTS:
        if counts["dead"]:
            raise RuntimeError(f"requests have failed: {counts}")
        most = max(most, sum(function.show().instances.values()))
        time.sleep(0.05)
    taken = time.monotonic() - began
    while sum(function.show().instances.values()):
        time.sleep(0.05)
    return taken, most, function.show().usage["instance_seconds"]


if __name__ == "__main__":
    program("waiting", measure)
