"""Adaptive limits: 20 pipelines, each to its own key of an HTTP service with limits that Penstock is not told.

The keys' limits are spread evenly from 5 to 50 calls a second, and of three kinds in turn: a token bucket that holds one
second's worth, a fixed and a sliding window of one second. Every other key is told Retry-After (whole seconds, rounded up),
the others are told nothing. What is refused does not count against the limit. Every pipeline has `adaptive: true` and a
rate ten times as high as the true limit, and more tasks than it can do.

The service is a process of its own and counts by its own clock. *Refused* is its 429s as a share of all calls, from 30 s
after the first one on. *Throughput* of a key is the calls that were taken in that time against what its limit lets pass.
"""

import asyncio
import json
import math
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from benchmarks.harness import Figure, median, program, scratch
from benchmarks.server import Server, penstock
from benchmarks.services import watched

KEYS, LOWEST, HIGHEST, TOO_HIGH = 20, 5.0, 50.0, 10
SETTLING = 30.0
WORK = 0.05
"""Seconds that the service takes for a call that it accepts."""

KINDS = ("bucket", "fixed", "sliding")


@dataclass
class Key:
    """Let so many calls a second pass, in one of three ways; note when each came and whether it was taken."""

    limit: float
    kind: str
    tells: bool
    calls: list[tuple[float, bool]] = field(default_factory=list)
    taken: deque[float] = field(default_factory=deque)
    level: float = math.inf
    seen: float = 0.0

    def call(self, now: float) -> float | None:
        """Take a call (None), or say in how many seconds there is room."""
        wait = self._bucket(now) if self.kind == "bucket" else self._window(now)
        self.calls.append((now, wait is None))
        return wait

    def _bucket(self, now: float) -> float | None:
        self.level = min(self.limit, self.level + (now - self.seen) * self.limit)
        self.seen = now
        if self.level < 1:
            return (1 - self.level) / self.limit
        self.level -= 1
        return None

    def _window(self, now: float) -> float | None:
        begin = now - 1.0 if self.kind == "sliding" else math.floor(now)
        while self.taken and self.taken[0] < begin:
            self.taken.popleft()
        if len(self.taken) >= self.limit:
            return (self.taken[0] if self.kind == "sliding" else begin) + 1.0 - now
        self.taken.append(now)
        return None


def keys() -> list[Key]:
    """Return the service's keys; windows have whole limits."""
    limits = [round(LOWEST + (HIGHEST - LOWEST) * number / (KEYS - 1)) for number in range(KEYS)]
    return [Key(limit, KINDS[number % 3], number % 2 == 0) for number, limit in enumerate(limits)]


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 100 s, 50 s if `quick`."""
    lasts = 15.0 if quick else 60.0
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        found: list[Key] = stack.enter_context(watched(_serve))
        server = stack.enter_context(penstock(folder / "data"))
        server.deploy("call_service", handler="tasks:call_service", max_parallel_requests=100, max_instances=2)
        names = [f"key-{number}" for number in range(KEYS)]
        for name, key in zip(names, keys(), strict=True):
            ceiling = f"{key.limit * TOO_HIGH:g}/s"
            server.client.pipeline(name).put({"function": "call_service", "rate": ceiling, "adaptive": True})
        _send(server, names, SETTLING + lasts)
        time.sleep(SETTLING + lasts)
        counts = [server.client.pipeline(name).show().counts for name in names]
        stack.close()  # which also makes the service tell
    return [*_figures(found, lasts), *_task_figures(counts)]


def _send(server: Server, names: Sequence[str], seconds: float) -> None:
    for number, (name, key) in enumerate(zip(names, keys(), strict=True)):
        tasks = int(2 * key.limit * seconds)
        server.client.pipeline(name).send_many([{"key": number}] * tasks)


def _figures(found: Sequence[Key], lasts: float) -> list[Figure]:
    begin = min(key.calls[0][0] for key in found) + SETTLING
    refused, used = [], []
    for key in found:
        later = [taken for at, taken in key.calls if begin <= at < begin + lasts]
        refused.append((later.count(False), len(later)))
        used.append(later.count(True) / (key.limit * lasts))
    share = sum(no for no, _ in refused) / sum(all_of for _, all_of in refused)
    worst = max(no / max(1, all_of) for no, all_of in refused)
    before = [taken for key in found for at, taken in key.calls if at < begin]
    worst_key = min(range(len(used)), key=used.__getitem__)
    where = f"{found[worst_key].limit:g}/s, {found[worst_key].kind}"
    return [
        Figure("calls refused after 30 s, all keys", 100 * share, "%", 1.0, "at most"),
        Figure("calls refused after 30 s, worst key", 100 * worst, "%"),
        Figure("calls refused in the first 30 s", 100 * before.count(False) / len(before), "%"),
        Figure("throughput / limit, median key", median(used), "", 0.9),
        Figure("throughput / limit, worst key", used[worst_key], "", 0.9, note=where),
    ]


def _task_figures(counts: Sequence[dict[str, int]]) -> list[Figure]:
    return [
        Figure("tasks done", sum(one["done"] for one in counts), ""),
        Figure("tasks dead", sum(one["dead"] for one in counts), "", 0, "at most"),
    ]


# the service ------------------------------------------------------------------------------------------------------------
def _serve(pipe: Connection) -> None:
    asyncio.run(_answer_all(pipe))


async def _answer_all(pipe: Connection) -> None:
    served, stop = keys(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                key = served[int(head.split(b" ", 2)[1].strip(b"/"))]
                wait = key.call(time.monotonic())
                if wait is None:
                    await asyncio.sleep(WORK)
                writer.write(_response(None if wait is None else math.ceil(wait), tells=key.tells))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
    pipe.send(server.sockets[0].getsockname()[1])
    await stop.wait()
    pipe.send(served)


def _response(wait: int | None, *, tells: bool) -> bytes:
    body = json.dumps({"ok": wait is None}).encode()
    status = "200 OK" if wait is None else "429 Too Many Requests"
    retry = f"Retry-After: {wait}\r\n" if wait is not None and tells else ""
    return f"HTTP/1.1 {status}\r\n{retry}Content-Length: {len(body)}\r\n\r\n".encode() + body


if __name__ == "__main__":
    program("adaptive", measure)
