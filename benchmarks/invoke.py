"""A synchronous invoke over HTTP of a warm function, 200 times a second, beside two runtimes for functions on this machine.

Peers are Google's functions-framework, as its program starts it, and AWS's Lambda runtime interface emulator with its Python
runtime. All three are up in the same run and take turns; one caller on one connection to each, which asks on the beat
whether or not the last answer was late: then the time counts from the beat, so that a late answer counts for those behind.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from benchmarks.environments import environment
from benchmarks.harness import ROOT, Figure, percentile, process, program, scratch, until
from benchmarks.server import penstock
from benchmarks.services import NotHere, free_port
from benchmarks.tasks import payload

PACE: Final = 200
TURNS: Final = 3
BODY: Final = json.dumps(payload(0), separators=(",", ":")).encode()


class Caller:
    """Ask for one URL path again and again, over one connection for as long as the other side keeps it."""

    def __init__(self, port: int, path: str, token: str = "") -> None:
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        self._request = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
            f"{authorization}Content-Length: {len(BODY)}\r\n\r\n"
        ).encode() + BODY
        self._port = port
        self._line: socket.socket | None = None

    def call(self) -> None:
        """Ask, and read the whole answer. Raises RuntimeError if it is not what was sent."""
        if self._line is None:
            self._line = socket.create_connection(("127.0.0.1", self._port))
            self._line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._line.sendall(self._request)
        answer = b""
        while (end := answer.find(b"\r\n\r\n")) < 0:
            answer += self._more(answer)
        head = answer[:end].lower()
        length = int(head.partition(b"content-length:")[2].split()[0])
        while len(answer) < end + 4 + length:
            answer += self._more(answer)
        if not head.startswith(b"http/1.1 200 ") or json.loads(answer[end + 4 :]) != json.loads(BODY):
            raise RuntimeError(f"an echo came back changed: {answer[:1000]!r}")
        if b"connection: close" in head:
            self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _more(self, answer: bytes) -> bytes:
        assert self._line is not None
        piece = self._line.recv(65536)
        if not piece:
            raise RuntimeError(f"the connection ended after {answer!r}")
        return piece


@contextmanager
def framework(folder: Path) -> Iterator[Caller]:
    """Run functions-framework. Raises NotHere if it cannot be installed."""
    python, port, log = environment("functions-framework"), free_port(), folder / "framework.log"
    source = str(ROOT / "benchmarks" / "peers" / "framework.py")
    argv = [str(python.with_name("functions-framework")), "--source", source, "--target", "same", "--host", "127.0.0.1"]
    with process([*argv, "--port", str(port)], log) as child:
        caller = Caller(port, "/")
        until(lambda: _answers(caller), child, log)
        yield caller
        caller.close()


@contextmanager
def emulator(folder: Path) -> Iterator[Caller]:
    """Run the Lambda runtime interface emulator, which a package carries, and the runtime below it. Raises NotHere."""
    python, port, log = environment("lambda"), free_port(), folder / "emulator.log"
    program = next(python.parent.parent.glob("lib/python*/site-packages/samcli/local/rapid/aws-lambda-rie-x86_64"))
    if os.uname().machine != "x86_64":
        raise NotHere("the emulator is taken for x86_64")
    program.chmod(0o755)
    argv = [str(program), "--log-level", "error", "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    argv += ["--runtime-api-address", f"127.0.0.1:{free_port()}", str(python), "-m", "awslambdaric"]
    with process([*argv, "benchmarks.tasks.same"], log) as child:
        caller = Caller(port, "/2015-03-31/functions/function/invocations")
        until(lambda: _answers(caller), child, log)
        yield caller
        caller.close()


def _answers(caller: Caller) -> bool:
    try:
        caller.call()
    except OSError:
        caller.close()
        return False
    return True


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about a minute."""
    seconds = 1 if quick else 6
    callers: dict[str, Caller] = {}
    missing: dict[str, str] = {}
    with scratch() as folder, ExitStack() as stack:
        server = stack.enter_context(penstock(folder / "data"))
        server.client.function("same").deploy(ROOT / "benchmarks" / "tasks.py", handler="tasks:same", min_instances=1)
        callers["penstock"] = Caller(int(server.url.rpartition(":")[2]), "/v1/functions/same/invoke", server.token)
        peers: dict[str, Callable[[Path], object]] = {
            "functions-framework": framework,
            "Lambda emulator": emulator,
        }
        for name, start in peers.items():
            try:
                callers[name] = stack.enter_context(start(folder))  # type: ignore[arg-type]
            except NotHere as reason:
                missing[name] = str(reason)
        taken: dict[str, list[float]] = {name: [] for name in callers}
        for caller in callers.values():
            _turn(caller, 1)
        for _ in range(TURNS):
            for name, caller in callers.items():
                taken[name] += _turn(caller, seconds)
        callers["penstock"].close()
    return [*_figures(taken), *(Figure(f"{name}, p50", None, note=reason) for name, reason in missing.items())]


def _turn(caller: Caller, seconds: int) -> list[float]:
    """Return the times from the beat to the whole answer, in seconds."""
    caller.close()  # some end a connection that rested while others had their turn
    caller.call()
    taken, begin = [], time.monotonic() + 0.01
    for number in range(seconds * PACE):
        beat = begin + number / PACE
        asked, early = beat, beat - time.monotonic()
        if early > 0:
            time.sleep(early)
            asked = time.monotonic()  # that sleep takes longer than asked for is not theirs
        caller.call()
        taken.append(time.monotonic() - asked)
    return taken


def _figures(taken: dict[str, list[float]]) -> list[Figure]:
    ours = taken.pop("penstock")
    p50 = percentile(ours, 0.5)
    figures = [
        Figure(f"Penstock, {PACE}/s, p50", p50 * 1e3, "ms", 0.8, "at most"),
        Figure(f"Penstock, {PACE}/s, p99", percentile(ours, 0.99) * 1e3, "ms", 4.0, "at most"),
    ]
    for name, times in taken.items():
        middle = percentile(times, 0.5)
        figures.append(Figure(f"{name}, p50", middle * 1e3, "ms", note=f"{middle / p50:.2g} times Penstock's"))
        figures.append(Figure(f"{name}, p99", percentile(times, 0.99) * 1e3, "ms"))
    return figures


if __name__ == "__main__":
    program("invoke", measure)
