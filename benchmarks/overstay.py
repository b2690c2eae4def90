"""Handlers that are done in time, but for some that overstay in the ways there are. They note each start and end."""

import asyncio
import itertools
import os
import time
from typing import Any

WORK = 0.5


def note(event: dict[str, Any], what: str) -> None:
    """Append a line to this process's notes: what happened to which task, and when."""
    file = os.open(f"{os.environ['BENCH_NOTES']}/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, f"{event['i']} {what} {time.time()}\n".encode())
    finally:
        os.close(file)


def blocking(event: dict[str, Any], _: object) -> int:
    """Sleep, or hold the GIL in a loop in C, or sleep for very long."""
    note(event, "start")
    if event["how"] == "loop":
        any(itertools.repeat(False))
    time.sleep(3600 if event["how"] == "sleep" else WORK)
    note(event, "end")
    return int(event["i"]) * 2


async def waiting(event: dict[str, Any], _: object) -> int:
    """Sleep, or sleep for very long, or do so again whenever cancelled."""
    note(event, "start")
    while event["how"] == "deaf":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    await asyncio.sleep(3600 if event["how"] == "await" else WORK)
    note(event, "end")
    return int(event["i"]) * 2
