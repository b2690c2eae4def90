"""Latency at low load, with a warm instance: from a send to the handler's start, and a synchronous invoke there and back.

A send is on disk before its task starts, so the pick-up is put beside what one fsync takes on the same disk in the same
run and at the same pace: a disk that rests between two writes takes longer for one than a busy one. One task every 20 ms,
so that nothing ever waits for another; one caller, the sync client, over HTTP.
"""

import time

from benchmarks.harness import Figure, Records, fsync_seconds, percentile, program, scratch
from benchmarks.server import Server, penstock, records
from benchmarks.tasks import payload

GAP = 0.02
ALLOWED_ON_TOP = 1.0  # ms


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 15 s."""
    sends, invokes = (50, 200) if quick else (500, 2000)
    with scratch() as folder:
        notes = records(folder)
        busy = fsync_seconds(folder)
        disk = fsync_seconds(folder, sends // 2, GAP)
        with penstock(folder / "data") as server:
            server.deploy("noop", handler="tasks:noop", max_parallel_requests=100, max_instances=1)
            server.deploy("echo", handler="tasks:echo", max_parallel_requests=100, max_instances=1)
            server.client.pipeline("noop").put({"function": "noop"})
            late = _pick_up(server, notes, sends)
            round_trips = _invoke(server, invokes)
        disk += fsync_seconds(folder, sends // 2, GAP)
    fsync = percentile(disk, 0.5) * 1e3
    return [
        Figure("fsync of this disk, one every 20 ms, p50", fsync, "ms"),
        Figure("fsync of this disk, one after the other, p50", percentile(busy, 0.5) * 1e3, "ms"),
        Figure("send to handler start, p50", percentile(late, 0.5) * 1e3, "ms", fsync + ALLOWED_ON_TOP, "at most"),
        Figure("send to handler start, p99", percentile(late, 0.99) * 1e3, "ms"),
        Figure("invoke round trip, p50", percentile(round_trips, 0.5) * 1e3, "ms", 0.8, "at most"),
        Figure("invoke round trip, p99", percentile(round_trips, 0.99) * 1e3, "ms"),
    ]


def _pick_up(server: Server, notes: Records, sends: int) -> list[float]:
    pipeline, warm_up = server.client.pipeline("noop"), range(10)
    for number in warm_up:
        pipeline.send(payload(number))
    notes.wait(warm_up, 30)
    numbers, sent = range(len(warm_up), len(warm_up) + sends), {}
    for number in numbers:
        time.sleep(GAP)
        sent[number] = time.monotonic()
        pipeline.send(payload(number))
    starts = notes.wait(numbers, 30)
    return [start - sent[number] for number, start, _ in starts]


def _invoke(server: Server, invokes: int) -> list[float]:
    function, body = server.client.function("echo"), payload(0)
    for _ in range(50):
        function.invoke(body)
    taken = []
    for _ in range(invokes):
        start = time.monotonic()
        answer = function.invoke(body)
        taken.append(time.monotonic() - start)
        if answer != body:
            raise RuntimeError(f"an echo came back changed: {answer!r}")
    return taken


if __name__ == "__main__":
    program("latency", measure)
