"""A FastAPI app that is hosted here, beside the same app on plain uvicorn: how many requests a second, and how late.

Both are up in the same run and take turns, each asked by the same 32 connections, all of which ask again as soon as they
are answered. On two cores the load generator, the server and the instance share what uvicorn and the load generator have for
themselves there. Then the same from zero instances: the zygote is up, nothing else, and a request comes.
"""

import asyncio
import sys
import time
from contextlib import ExitStack
from typing import Final, cast

import uvloop

from benchmarks.harness import ROOT, Figure, median, percentile, process, program, scratch, until
from benchmarks.server import Server, penstock
from benchmarks.services import free_port

APP: Final = ROOT / "benchmarks" / "peers" / "webapp.py"
CONNECTIONS: Final = 32
TURNS: Final = 3


class Visitor(asyncio.Protocol):
    """Ask the same again and again over one connection; note how long each answer took."""

    def __init__(self, port: int, path: str, until: float, taken: list[float]) -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        self._until, self._taken = until, taken
        self._rest = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Ask again if that was the whole answer."""
        data = self._rest + data
        head, found, body = data.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]):
            self._rest = data
            return
        self._rest = b""
        if not head.startswith(b"HTTP/1.1 200 "):
            self.done.set_exception(RuntimeError(f"answered {data[:300]!r}"))
            return
        now = time.perf_counter()
        self._taken.append(now - self._asked)
        if now < self._until:
            self._ask()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so if it was not meant."""
        if not self.done.done():
            self.done.set_exception(RuntimeError(f"the connection was lost: {exc}"))

    def _ask(self) -> None:
        self._asked = time.perf_counter()
        self._transport.write(self._request)


def visit(port: int, path: str, seconds: float, connections: int = CONNECTIONS) -> list[float]:
    """Return how long each answer took, in seconds."""
    taken: list[float] = []

    async def all_of_them() -> None:
        loop, end = asyncio.get_running_loop(), time.perf_counter() + seconds
        visitors = [Visitor(port, path, end, taken) for _ in range(connections)]
        for each in visitors:
            await loop.create_connection(lambda each=each: each, "127.0.0.1", port)  # type: ignore[misc]
        await asyncio.gather(*(each.done for each in visitors))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_of_them())
    return taken


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 40 s."""
    seconds, firsts = (1.0, 3) if quick else (5.0, 20)
    taken: dict[str, list[list[float]]] = {"penstock": [], "uvicorn": []}
    with scratch() as folder, ExitStack() as stack:
        server = stack.enter_context(penstock(folder / "data"))
        port = int(server.url.rpartition(":")[2])
        server.client.function("site").deploy(
            APP, handler="webapp:app", public=True, max_parallel_requests=CONNECTIONS, max_instances=1, min_instances=1
        )
        plain, log = free_port(), folder / "uvicorn.log"
        argv = [
            sys.executable,
            "-m",
            "uvicorn",
            "benchmarks.peers.webapp:app",
            "--host",
            "127.0.0.1",
            "--port",
            str(plain),
        ]
        child = stack.enter_context(process([*argv, "--log-level", "warning"], log))
        until(lambda: _answers(plain), child, log)
        targets = {"penstock": (port, "/web/site/hello/you"), "uvicorn": (plain, "/hello/you")}
        for target in targets.values():
            visit(*target, 1.0)
        for _ in range(TURNS):
            for name, target in targets.items():
                taken[name].append(visit(*target, seconds))
        cold = _first_answers(server, port, firsts)
    rates = {name: median([len(turn) / seconds for turn in turns]) for name, turns in taken.items()}
    late = {name: median([percentile(turn, 0.99) for turn in turns]) * 1e3 for name, turns in taken.items()}
    return [
        Figure("hosted FastAPI app", rates["penstock"], "requests/s"),
        Figure("the same on uvicorn", rates["uvicorn"], "requests/s"),
        Figure("requests a second, hosted / uvicorn", rates["penstock"] / rates["uvicorn"], "", 0.5),
        Figure("hosted, p99", late["penstock"], "ms"),
        Figure("uvicorn, p99", late["uvicorn"], "ms"),
        Figure("p99, hosted / uvicorn", late["penstock"] / late["uvicorn"], "", 2.0, "at most"),
        Figure("first answer from zero instances, p50", median(cold) * 1e3, "ms", 50.0, "at most"),
        Figure("first answer from zero instances, worst", max(cold) * 1e3, "ms"),
    ]


def _first_answers(server: Server, port: int, times: int) -> list[float]:
    """Return how long the first answer of an app takes that has a zygote and no instance, in seconds."""
    function, taken = server.client.function("cold"), []
    function.deploy(APP, handler="webapp:app", public=True, max_parallel_requests=10, idle_timeout="10ms")
    for _ in range(times):
        while any(function.show().instances.values()):
            time.sleep(0.02)
        taken += visit(port, "/web/cold/hello/you", 0.0, connections=1)
    return taken


def _answers(port: int) -> bool:
    try:
        visit(port, "/hello/you", 0.0, connections=1)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    program("web", measure)
