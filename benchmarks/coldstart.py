"""Cold start: no instance of the function is there, its version is deployed and its code imported. When does the handler start?

With `reuse: false` every request has a fresh process. The handler answers with the moment at which it started; from that
the moment just before the client called is taken. So the figure holds everything: HTTP, admission, fork, first frame. The
same for a warm instance is put beside it, which tells how much of it is the start.
"""

import time

from benchmarks.harness import Figure, percentile, program, scratch
from benchmarks.server import Server, penstock

GAP = 0.02


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 20 s."""
    rounds = 30 if quick else 300
    with scratch() as folder, penstock(folder / "data") as server:
        server.deploy("cold", handler="tasks:started", reuse=False)
        server.deploy("warm", handler="tasks:started")
        cold, warm = _starts(server, "cold", rounds), _starts(server, "warm", rounds)
    return [
        Figure("cold start, invoke to handler start, p50", percentile(cold, 0.5) * 1e3, "ms", 6, "at most"),
        Figure("cold start, invoke to handler start, p99", percentile(cold, 0.99) * 1e3, "ms"),
        Figure("warm start, invoke to handler start, p50", percentile(warm, 0.5) * 1e3, "ms"),
    ]


def _starts(server: Server, name: str, rounds: int) -> list[float]:
    function, taken = server.client.function(name), []
    for number in range(rounds + 5):
        time.sleep(GAP)  # the process before has ended, and been cleaned up after
        called = time.monotonic()
        started = float(function.invoke(None))
        if number >= 5:
            taken.append(started - called)
    return taken


if __name__ == "__main__":
    program("coldstart", measure)
