"""Idle: what do 10,000 pipelines cost in which nothing happens?

The memory of the server process on top of the same server without them, just after they were applied and again after a
restart (the applying itself leaves freed memory behind), and the CPU that it uses while nothing happens.
"""

import time
from pathlib import Path

from benchmarks.harness import Figure, program, scratch
from benchmarks.server import Server, penstock

PIPELINES = 10_000
MB = 1e6
SETTLE = 2.0


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about a minute."""
    watch = 5.0 if quick else 20.0
    with scratch() as folder:
        with penstock(folder / "data") as server:
            server.deploy("noop", handler="tasks:noop", max_parallel_requests=100)
        empty, _ = _restarted(folder / "data", 0)
        with penstock(folder / "data") as server:
            before = _rest(server)
            settings = {"function": "noop", "rate": "5/s", "concurrency": 4}
            begin = time.monotonic()
            server.client.apply({"pipelines": {f"customer-{n:05}": settings for n in range(PIPELINES)}})
            applied = time.monotonic() - begin
            after = _rest(server)
            share = _cpu_share(server, watch)
        full, share_restarted = _restarted(folder / "data", watch)
    figures = [Figure("empty server, RSS", empty["Rss"] / MB, "MB")]
    for when, base, filled in (("just applied", before, after), ("after a restart", empty, full)):
        on_top = {kind: (filled[kind] - base[kind]) / MB for kind in base}
        figures.append(Figure(f"10,000 pipelines on top, {when}, RSS", on_top["Rss"], "MB", 20, "at most"))
        figures.append(Figure(f"10,000 pipelines on top, {when}, anonymous memory", on_top["Anonymous"], "MB"))
    return [
        *figures,
        Figure("CPU with idle pipelines, share of one core", max(share, share_restarted), "", 0.01, "at most"),
        Figure(f"applying {PIPELINES:,} pipelines", applied, "s"),
    ]


def _restarted(data: Path, watch: float) -> tuple[dict[str, int], float]:
    """Return memory, and the share of a core over `watch` seconds, of a server that has just started."""
    with penstock(data) as server:
        rested = _rest(server)
        return rested, _cpu_share(server, watch) if watch else 0.0


def _rest(server: Server) -> dict[str, int]:
    server.client.status()  # so that what a first request loads is loaded
    time.sleep(SETTLE)
    return server.memory()


def _cpu_share(server: Server, watch: float) -> float:
    cpu, begin = server.cpu(), time.monotonic()
    time.sleep(watch)
    return (server.cpu() - cpu) / (time.monotonic() - begin)


if __name__ == "__main__":
    program("idle", measure)
