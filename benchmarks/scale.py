"""Scale: 100,000 pipelines configured and idle, a million tasks in one queue, ten million in all.

Memory is that of the server process on top of an empty one. *The longest wait* is that of a request which asks, all the
time and on a connection of its own, whether the server is healthy: what a large change adds to everybody else's.
"""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from benchmarks.harness import Figure, program, scratch
from benchmarks.server import Server, penstock

MB = 1e6
PART = 50_000
SETTLE = 2.0


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 10 minutes, one if `quick`."""
    pipelines, queue, more = (10_000, 100_000, 1) if quick else (100_000, 1_000_000, 9)
    with scratch() as folder:
        with penstock(folder / "data") as server:
            server.deploy("noop", handler="tasks:noop", max_parallel_requests=100)
            figures = _configure(server, pipelines)
            figures += _fill(server, queue, more)
        begin = time.monotonic()
        with penstock(folder / "data") as server:
            figures.append(Figure("ready again after a restart", time.monotonic() - begin, "s"))
            time.sleep(SETTLE)
            figures.append(Figure("memory after the restart, RSS", server.memory()["Rss"] / MB, "MB"))
            waiting = server.client.status()["tasks"]["queued"]
    if waiting != queue * (more + 1):
        raise RuntimeError(f"{queue * (more + 1)} tasks should wait; there are {waiting}")
    return figures


def _configure(server: Server, pipelines: int) -> list[Figure]:
    settings = {"function": "noop", "rate": "5/s", "concurrency": 4}
    document = {"pipelines": {f"customer-{number:06}": settings for number in range(pipelines)}}
    empty = _rest(server)
    with _longest(server) as longest:
        begin = time.monotonic()
        server.client.apply(document)
        first = time.monotonic() - begin
    applied = _rest(server)
    begin = time.monotonic()
    again = server.client.apply(document)
    second = time.monotonic() - begin
    if again.plan:
        raise RuntimeError(f"applying the same again should change nothing; it changed {len(again.plan)} objects")
    cpu, begin = server.cpu(), time.monotonic()
    time.sleep(5)
    share = (server.cpu() - cpu) / (time.monotonic() - begin)
    return [
        Figure(f"applying {pipelines:,} pipelines", first, "s"),
        Figure("longest wait of another request meanwhile", longest[0] * 1e3, "ms"),
        Figure("applying them again, which changes nothing", second, "s"),
        Figure(f"{pipelines:,} idle pipelines on top, RSS", (applied - empty) / MB, "MB"),
        Figure("CPU with idle pipelines, share of one core", share, "", 0.01, "at most"),
    ]


def _fill(server: Server, queue: int, more: int) -> list[Figure]:
    """Fill one queue, then others."""
    names = [f"full-{number}" for number in range(more + 1)]
    settings = {"function": "noop", "paused": True, "max_queued": queue}
    server.client.apply({"pipelines": dict.fromkeys(names, settings)})
    before = _rest(server)
    rate = _send(server, names[:1], queue)
    one = _rest(server)
    _send(server, names[1:], queue)
    every = _rest(server)
    return [
        Figure(f"{queue:,} tasks in one queue: sent", rate, "/s"),
        Figure(f"{queue:,} tasks in one queue on top, RSS", (one - before) / MB, "MB"),
        Figure(f"{queue * (more + 1):,} tasks in all on top, RSS", (every - before) / MB, "MB"),
    ]


def _send(server: Server, names: list[str], queue: int) -> float:
    """Fill queues; return how many tasks were sent in a second."""
    begin = time.monotonic()
    for name in names:
        for first in range(0, queue, PART):
            server.client.pipeline(name).send_many([{"i": number} for number in range(first, min(first + PART, queue))])
    return queue * len(names) / (time.monotonic() - begin)


@contextmanager
def _longest(server: Server) -> Iterator[list[float]]:
    """Yield a list whose one element is the longest wait (seconds) so far."""
    longest, done = [0.0], threading.Event()

    def ask() -> None:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=60)
        while not done.is_set():
            begin = time.monotonic()
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            longest[0] = max(longest[0], time.monotonic() - begin)
        connection.close()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield longest
    finally:
        done.set()
        thread.join()


def _rest(server: Server) -> int:
    server.client.status()
    time.sleep(SETTLE)
    return server.memory()["Rss"]


if __name__ == "__main__":
    program("scale", measure)
