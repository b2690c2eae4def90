"""What runs inside the workers, Penstock's and the peers' alike: tasks that note when they ran.

This one file is what is deployed to Penstock, so it needs nothing but the standard library. A task appends one record
(its number, start and end in seconds of CLOCK_MONOTONIC, which all processes of a machine share) to a file of its own
process in the folder that BENCH_RECORDS names. That costs about 2 µs and no result backend: it is the same for everyone.
"""

import asyncio
import os
import socket
import struct
import time
from typing import Any

RECORD = struct.Struct("<qdd")
ARRIVAL = struct.Struct("<q")
NAP = 0.05

_files: dict[int, int] = {}  # by process id: workers fork after this module was imported


def record(number: int, start: float) -> None:
    """Append that the task of this number started then and ends now."""
    append(RECORD.pack(number, start, time.monotonic()))


def append(records: bytes) -> None:
    """Append packed records."""
    process = os.getpid()
    file = _files.get(process)
    if file is None:
        path = os.path.join(os.environ["BENCH_RECORDS"], f"{process}.{time.monotonic_ns()}")
        file = _files[process] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(file, records)


def payload(number: int) -> dict[str, Any]:
    """Return what a task of this number is sent: 100 bytes as JSON without spaces, for numbers of up to five digits."""
    return {
        "i": number,
        "customer": "c-1842",
        "kind": "noop",
        "flags": [1, 2, 3],
        "note": "x" * (34 - len(str(number))),
    }


def run(event: dict[str, Any]) -> None:
    """Do nothing, and note it; this is the task of the peers that call a plain function."""
    record(event["i"], time.monotonic())


async def noop(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001
    """Do nothing on the instance's event loop."""
    record(event["i"], time.monotonic())


def noop_sync(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001
    """Do nothing in a thread of the instance."""
    record(event["i"], time.monotonic())


def noop_batch(events: list[dict[str, Any]], context: Any) -> None:  # noqa: ARG001
    """Do nothing with a batch, and note each of its tasks."""
    now = time.monotonic()
    append(b"".join([RECORD.pack(event["i"], now, now) for event in events]))


def same(event: Any, context: Any) -> Any:  # noqa: ARG001
    """Return what came in."""
    return event


async def echo(event: Any, context: Any) -> Any:  # noqa: ARG001
    """Return what came in."""
    return event


async def started(event: Any, context: Any) -> float:  # noqa: ARG001
    """Return the moment at which the handler started."""
    return time.monotonic()


def started_sync(event: Any, context: Any) -> float:  # noqa: ARG001
    """Return the moment at which the handler started, from a thread."""
    return time.monotonic()


async def nap(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001
    """Tell the receiver that a call arrives, take 50 ms, and note it."""
    start = time.monotonic()
    _receiver().send(ARRIVAL.pack(event["i"]))
    await asyncio.sleep(NAP)
    record(event["i"], start)


async def refused(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001
    """Meet a service that asks for ten minutes of patience."""
    from penstock import Throttled  # noqa: PLC0415 - peers run this file without it

    raise Throttled(retry_after=600)


async def rest(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001
    """Take 50 ms, and note it."""
    start = time.monotonic()
    await asyncio.sleep(NAP)
    record(event["i"], start)


def rest_sync(event: dict[str, Any]) -> None:
    """Take 50 ms, and note it; this is the task of the peers that call a plain function."""
    start = time.monotonic()
    time.sleep(NAP)
    record(event["i"], start)


def doze(event: dict[str, Any], context: Any = None) -> None:  # noqa: ARG001
    """Take the seconds that the task asks for, and note it; also the task of the peers that call a plain function."""
    start = time.monotonic()
    time.sleep(event["seconds"])
    record(event["i"], start)


async def doze_async(event: dict[str, Any], context: Any = None) -> None:  # noqa: ARG001
    """Take the seconds that the task asks for on an event loop, and note it."""
    start = time.monotonic()
    await asyncio.sleep(event["seconds"])
    record(event["i"], start)


class ServiceError(Exception):
    """Carry an HTTP response, as the exceptions of HTTP libraries do."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(f"HTTP {status}")
        self.status, self.headers = status, headers


async def call_service(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001
    """Call the service with a key over a connection that is used again, and let its refusal pass as a library would."""
    reader, writer = (
        _idle.pop() if _idle else await asyncio.open_connection("127.0.0.1", int(os.environ["BENCH_SERVICE"]))
    )
    writer.write(b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % event["key"])
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    await reader.readexactly(int(headers["Content-Length"]))
    _idle.append((reader, writer))
    status = int(head[0].split()[1])
    if status != 200:
        raise ServiceError(status, headers)


_idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
_sockets: dict[int, socket.socket] = {}


def _receiver() -> socket.socket:
    process = os.getpid()
    if process not in _sockets:
        _sockets[process] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        _sockets[process].connect(("127.0.0.1", int(os.environ["BENCH_RECEIVER"])))
    return _sockets[process]


def crowd(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001
    """Take 50 ms; or take 50 MB after 50 MB, and note after every MiB in a file how many bytes this process uses."""
    if "hoard" not in event:
        time.sleep(NAP)
        return
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    board = os.open(event["hoard"], os.O_WRONLY | os.O_CREAT)
    held = []
    while True:
        held.append(bytearray(50_000_000))  # not there yet: the kernel gives memory as it is written to
        for at in range(0, len(held[-1]), 1 << 20):
            piece = min(1 << 20, len(held[-1]) - at)
            held[-1][at : at + piece] = b"x" * piece
            used += piece
            os.pwrite(board, b"%12d" % used, 0)
