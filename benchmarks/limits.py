"""Limits: 200 pipelines of 5/s, 50 tasks of 50 ms each. Is every limit held, and is every limit used up?

*Held at handler start*: no half-open window of one second sees more than 5 starts of a pipeline, exactly, by the moments
that the handlers note. *Held at the receiver*: the same for the calls that the handlers make (datagrams), by the moment
at which the receiver's kernel takes them in and in windows that are 20 ms shorter, which is what two busy cores may add
between a start and its call. When the receiving process gets round to reading them is its own affair, and not counted.

*Utilisation* of a pipeline, with its starts s1 … sk at the rate r = n per second, is the smaller one of
 - (k - 1) / (r * (sk - s1)): the starts from the first one to the last against what an evenly paced limit allows, and
 - (k - n) / (r * (sk - sn)): the same without the first n, which a limit may let start at once; by the law it is never
   above 1.
It therefore counts everything between a pipeline's first start and its last: no pause within is forgiven. How long
pipelines wait for their first start is told apart.
"""

import multiprocessing
import os
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.connection import Connection

from benchmarks.harness import Figure, median, program, scratch
from benchmarks.server import Server, penstock, records
from benchmarks.tasks import ARRIVAL, payload

RATE, TOLERANCE, LARGEST = 5, 0.02, 1000
STOP = -1
TIMESTAMP = 35
"""SO_TIMESTAMPNS, which Python has no name for: every datagram comes with the moment of its arrival."""

Moments = dict[int, list[float]]


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 12 s, 5 s if `quick`."""
    pipelines, each = (20, 20) if quick else (200, 50)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        notes = records(folder)
        arrivals: list[tuple[int, float]] = stack.enter_context(_receiver())
        server = stack.enter_context(penstock(folder / "data"))
        server.deploy("nap", handler="tasks:nap", max_parallel_requests=100, max_instances=2)
        names = [f"customer-{pipeline:03}" for pipeline in range(pipelines)]
        settings = {"function": "nap", "rate": f"{RATE}/s"}
        server.client.apply({"pipelines": dict.fromkeys(names, settings)})
        _warm_up(server)
        begin, cpu = time.monotonic(), server.cpu()
        sent = []
        for pipeline, name in enumerate(names):
            server.client.pipeline(name).send_many([payload(pipeline * LARGEST + task) for task in range(each)])
            sent.append(time.monotonic())
        rows = notes.wait(
            frozenset(pipeline * LARGEST + task for pipeline in range(pipelines) for task in range(each)), 120
        )
        share = (server.cpu() - cpu) / (max(end for _, _, end in rows) - begin)
        for name in names:
            server.settled(name, each)
        stack.close()  # which also stops the receiver
    if len(arrivals) < pipelines * each:
        raise RuntimeError(f"{pipelines * each} calls were made, and the receiver got {len(arrivals)}")
    starts = by_pipeline([(number, start) for number, start, _ in rows])
    return [*_held(starts, by_pipeline(arrivals)), *_used(starts, sent), _cpu_figure(share)]


def _warm_up(server: Server) -> None:
    """Make the function's instances start: the limits are measured, not that."""
    server.client.function("nap").invoke(payload(-LARGEST))


def _held(starts: Moments, arrivals: Moments) -> list[Figure]:
    at_start = [most_in_window(moments, 1.0) for moments in starts.values()]
    at_receiver = [most_in_window(moments, 1.0 - TOLERANCE) for moments in arrivals.values()]
    return [
        Figure("most starts of a pipeline in any 1 s", max(at_start), "", RATE, "at most"),
        Figure("pipelines above their limit at handler start", sum(m > RATE for m in at_start), "", 0, "at most"),
        Figure("pipelines above their limit at the receiver", sum(m > RATE for m in at_receiver), "", 0, "at most"),
    ]


def _used(starts: Moments, sent: Sequence[float]) -> list[Figure]:
    used = [utilisation(moments, RATE) for moments in starts.values()]
    late = [moments[0] - sent[pipeline] for pipeline, moments in starts.items()]
    return [
        Figure("utilisation, median pipeline", median(used), "", 0.99),
        Figure("utilisation, worst pipeline", min(used), "", 0.97),
        Figure("first start after the send, worst pipeline", max(0.0, *late) * 1e3, "ms"),
    ]


def _cpu_figure(share: float) -> Figure:
    return Figure("server CPU, share of one core", share, "", 0.10, "at most")


def most_in_window(moments: Sequence[float], width: float) -> int:
    """Return the most of these ordered moments that any half-open window of `width` seconds holds."""
    most = first = 0
    for last, moment in enumerate(moments):
        while moment - moments[first] >= width:  # a difference of floats this near is exact, a sum is not
            first += 1
        most = max(most, last - first + 1)
    return most


def utilisation(moments: Sequence[float], rate: int) -> float:
    """Return the share of a rate of `rate` a second that these ordered starts have used."""
    count = len(moments)
    whole = (count - 1) / (rate * (moments[-1] - moments[0]))
    steady = (count - rate) / (rate * (moments[-1] - moments[rate - 1]))
    return min(whole, steady)


def by_pipeline(rows: Sequence[tuple[int, float]]) -> Moments:
    """Return the ordered moments of each pipeline, from (number of the task, moment)."""
    found: Moments = defaultdict(list)
    for number, moment in rows:
        if number >= 0:
            found[number // LARGEST].append(moment)
    return {pipeline: sorted(moments) for pipeline, moments in found.items()}


@contextmanager
def _receiver() -> Iterator[list[tuple[int, float]]]:
    """Run a process that notes calls as it gets them; the yielded list is filled in the end. BENCH_RECEIVER is its port."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    child = spawn.Process(target=_receive, args=(theirs,), daemon=True)
    child.start()
    theirs.close()  # so that its end is noticed
    port = ours.recv()
    os.environ["BENCH_RECEIVER"] = str(port)
    arrivals: list[tuple[int, float]] = []
    try:
        yield arrivals
    finally:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(ARRIVAL.pack(STOP), ("127.0.0.1", port))
        arrivals += ours.recv()
        child.join()


def _receive(pipe: Connection) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sock.setsockopt(socket.SOL_SOCKET, TIMESTAMP, 1)
    sock.bind(("127.0.0.1", 0))
    pipe.send(sock.getsockname()[1])
    arrivals = []
    while True:
        body, notes, _, _ = sock.recvmsg(64, 64)
        number = ARRIVAL.unpack(body)[0]
        if number == STOP:
            break
        seconds, nanoseconds = struct.unpack("qq", notes[0][2])
        arrivals.append((number, seconds + nanoseconds / 1e9))
    pipe.send(arrivals)


if __name__ == "__main__":
    program("limits", measure)
