"""Tokens: a real hour of requests to an LLM, at ten times its speed, against a service with two quotas.

The trace is Azure's public one of 2023 for code (8,819 requests in 57 minutes, up to 7,841 tokens each; CC-BY 4.0). It is no
part of the project: BENCH_TRACE names the file, and without it nothing is measured.

The service has a quota of 200 requests and one of 360,000 tokens a minute, as 6 s are one at this speed: strict sliding
windows of exactly 6 s, by its own clock, at the moment at which it has read a call. What is beyond either of them gets a 429.
The mean load is 89 % of the tokens, in bursts of four times as much. One pipeline has both quotas as its rates, with a margin
of 50 ms for the way to the service, and each task has its tokens as `cost`.

*Used* is the share of a quota that the window that ends at a moment holds, of the quota of which more is used; it is the mean
over all moments, 50 ms apart, at which requests have waited for a whole window or longer.
"""

import asyncio
import csv
import os
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from itertools import accumulate
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness import Figure, program, scratch
from benchmarks.server import Server, penstock
from benchmarks.services import watched
from penstock.client import Send

SPEED: Final = 10.0
WINDOW: Final = 60.0 / SPEED
REQUESTS: Final = 200
TOKENS: Final = 360_000
MARGIN: Final = 0.05
WORK: Final = 0.02
STEP: Final = 0.05
TRACE: Final = "AzureLLMInferenceTrace_code.csv"
QUICK: Final = 600.0
"""Seconds of the trace that are replayed if `quick`."""


class Request(NamedTuple):
    """Be one line of the trace: when it came (seconds after the first one), and its tokens in and out."""

    at: float
    tokens: int


class Call(NamedTuple):
    """Be one call as the service saw it."""

    at: float
    tokens: int
    taken: bool


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 6 minutes, 1 minute if `quick`."""
    path = Path(os.environ.get("BENCH_TRACE", TRACE))
    if not path.is_file():
        return [Figure("requests replayed", None, note=f"skipped: there is no {path}; BENCH_TRACE names the trace")]
    requests = [one for one in trace(path) if not quick or one.at < QUICK]
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        calls: list[Call] = stack.enter_context(watched(_serve))
        server = stack.enter_context(penstock(folder / "data"))
        server.deploy("call_service", handler="tasks:call_service", max_parallel_requests=100, max_instances=2)
        rates = [
            {"rate": f"{REQUESTS}/{WINDOW:g}s", "style": "window", "margin": MARGIN},
            {"rate": f"{TOKENS}/{WINDOW:g}s", "style": "window", "margin": MARGIN, "meter": "cost"},
        ]
        server.client.pipeline("llm").put({"function": "call_service", "rate": rates})
        sent = _replay(server, requests)
        last = _done(server, len(requests))
        stack.close()  # which also makes the service tell
    return _figures(requests, sent, calls, last)


def trace(path: Path) -> list[Request]:
    """Return the requests of the trace."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    moments = [datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in rows]
    return [
        Request((at - moments[0]).total_seconds(), int(row["ContextTokens"]) + int(row["GeneratedTokens"]))
        for at, row in zip(moments, rows, strict=True)
    ]


def _replay(server: Server, requests: Sequence[Request]) -> list[float]:
    """Send each request when its time has come, those together that have; return when each was sent."""
    pipeline = server.client.pipeline("llm")
    begin, sent = time.monotonic(), list[float]()
    while len(sent) < len(requests):
        time.sleep(max(0.0, begin + requests[len(sent)].at / SPEED - time.monotonic()))
        due = bisect_right(requests, (time.monotonic() - begin) * SPEED, key=lambda one: one.at)
        batch = requests[len(sent) : due]
        if batch:
            pipeline.send_many([Send({"key": one.tokens}, cost=one.tokens) for one in batch])
            sent += [time.monotonic()] * len(batch)
    return sent


def _done(server: Server, tasks: int) -> dict[str, int]:
    """Return the pipeline's counts when all tasks have ended."""
    limit = time.monotonic() + 300
    while True:
        counts = server.client.pipeline("llm").show().counts
        if counts["done"] + counts["dead"] == tasks or time.monotonic() > limit:
            return counts
        time.sleep(0.2)


# figures ----------------------------------------------------------------------------------------------------------------
def _figures(
    requests: Sequence[Request], sent: Sequence[float], calls: Sequence[Call], counts: dict[str, int]
) -> list[Figure]:
    taken = [call for call in calls if call.taken]
    used, tokens_bind = _used(sent, taken)
    lasted = taken[-1].at - taken[0].at
    waited = sorted(call.at - at for call, at in zip(taken, sent, strict=False))
    return [
        Figure(
            "requests replayed",
            len(requests),
            note=f"in {lasted:.0f} s, {sum(one.tokens for one in requests):,} tokens",
        ),
        Figure("calls refused with 429", len(calls) - len(taken), "", 0, "at most"),
        Figure(
            "quota used while there is a backlog",
            100 * sum(used) / len(used) if used else None,
            "%",
            97,
            note=f"for {len(used) * STEP:.0f} s; tokens bind for {100 * tokens_bind:.0f} % of them, requests else",
        ),
        Figure("wait from the send to the service, p50", waited[len(waited) // 2], "s"),
        Figure("wait from the send to the service, longest", waited[-1], "s"),
        Figure("tasks that ended well", counts["done"], "", len(requests)),
    ]


def _used(sent: Sequence[float], taken: Sequence[Call]) -> tuple[list[float], float]:
    """Return the shares of the binding quota at moments with a backlog, and the share of these at which tokens bind."""
    arrived = [call.at for call in taken]
    total = [0, *accumulate(call.tokens for call in taken)]
    used, tokens_bind, since = [], 0, None
    moment = arrived[0]
    while moment < arrived[-1]:
        backlog = bisect_right(sent, moment) > bisect_right(arrived, moment)
        since = (moment if since is None else since) if backlog else None
        if since is not None and moment - since >= WINDOW:
            first, last = bisect_right(arrived, moment - WINDOW), bisect_right(arrived, moment)
            by_tokens, by_requests = (total[last] - total[first]) / TOKENS, (last - first) / REQUESTS
            used.append(max(by_tokens, by_requests))
            tokens_bind += by_tokens > by_requests
        moment += STEP
    return used, tokens_bind / max(1, len(used))


# the service ------------------------------------------------------------------------------------------------------------
class Quotas:
    """Take calls within both quotas, in sliding windows; what is refused does not count."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._taken: deque[Call] = deque()
        self._tokens = 0

    def call(self, tokens: int) -> float | None:
        """Take a call (None), or say in how many seconds to come again."""
        now = time.monotonic()
        while self._taken and now - self._taken[0].at >= WINDOW:
            self._tokens -= self._taken.popleft().tokens
        taken = len(self._taken) < REQUESTS and self._tokens + tokens <= TOKENS
        call = Call(now, tokens, taken)
        self.calls.append(call)
        if not taken:
            return WINDOW - (now - self._taken[0].at)
        self._taken.append(call)
        self._tokens += tokens
        return None


def _serve(pipe: Connection) -> None:
    asyncio.run(_answer_all(pipe))


async def _answer_all(pipe: Connection) -> None:
    quotas, stop = Quotas(), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                wait = quotas.call(int(head.split(b" ", 2)[1].strip(b"/")))
                if wait is None:
                    await asyncio.sleep(WORK)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                else:
                    later = (
                        f"HTTP/1.1 429 Too Many Requests\r\nRetry-After: {wait:.3f}\r\nContent-Length: 2\r\n\r\n{{}}"
                    )
                    writer.write(later.encode())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    asyncio.get_running_loop().add_reader(pipe.fileno(), stop.set)
    pipe.send(server.sockets[0].getsockname()[1])
    await stop.wait()
    pipe.send(quotas.calls)


if __name__ == "__main__":
    program("tokens", measure)
