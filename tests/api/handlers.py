"""The functions that the tests deploy."""

import asyncio
import contextlib
import itertools
import os
import signal
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from penstock import LimitError, Throttled

LEFT: list[Any] = []


def echo(event: Any, context: Any) -> Any:
    return event


def params(event: Any, context: Any) -> Any:
    return context.params


def loud(event: Any, context: Any) -> None:
    print(event)


def fails(event: Any, context: Any) -> None:
    raise ValueError(f"{event} is no good")


def dies(event: Any, context: Any) -> None:
    os._exit(3)


def sleeps(event: Any, context: Any) -> Any:
    time.sleep(event)
    return event


def sleeps_once(event: Any, context: Any) -> Any:
    """Return at once; with a file's name, do not return before it is there and somebody else has come."""
    if event is None:
        return None
    if os.path.exists(event):
        return "second"
    Path(event).touch()
    time.sleep(60)
    return "first"


def works(event: Any, context: Any) -> dict[str, float]:
    """Work for some milliseconds of CPU; return a checksum, and the moment of the end."""
    return {"sum": float(sum(range(event["steps"]))), "ended": time.monotonic()}


def waits(event: Any, context: Any) -> bool:
    """Wait until there is a file of that name."""
    while not os.path.exists(event):
        time.sleep(0.005)
    return True


def throttled(event: Any, context: Any) -> None:
    raise Throttled("later", retry_after=event)


def together(events: Any, context: Any) -> Any:
    """Answer each event with what its call was, and fail those that say so."""
    call = {"events": events, "ids": context.task_ids, "attempts": context.attempts, "batched": context.batched}
    return [ValueError("no good") if event == "bad" else call for event in events]


async def together_async(events: Any, context: Any) -> Any:
    return together(events, context)


def as_told(events: Any, context: Any) -> Any:
    """Do what the first event says to the whole call."""
    verb = events[0]["do"] if isinstance(events[0], dict) else None
    if verb == "raise":
        raise ValueError("the whole call")
    if verb == "throttle":
        raise Throttled("later", retry_after=0.05)
    if verb == "report":
        return {"batchItemFailures": [{"itemIdentifier": context.task_ids[1]}]}
    if verb == "wait":
        return waits(events[0]["file"], context) and [event["file"] for event in events]
    if verb == "exit" or "exit" in events:
        os._exit(3)
    return {"none": None, "short": events[1:], "number": 7}.get(verb or "", events)


def calls(event: Any, context: Any) -> int:
    """Call a URL, and let what its library raises pass."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(event) as answer:
        return int(answer.status)


def acquires(event: Any, context: Any) -> list[float]:
    """Take from a limit's rate some times; return the moments of going on."""
    moments = []
    for _ in range(event["times"]):
        context.acquire(event["limit"], event.get("cost", 1))
        moments.append(time.monotonic())
    return moments


async def acquires_async(event: Any, context: Any) -> list[float]:
    async def acquire() -> float:
        await context.acquire(event["limit"], event.get("cost", 1))
        return time.monotonic()

    return list(await asyncio.gather(*(acquire() for _ in range(event["times"]))))


def holds(event: Any, context: Any) -> list[float]:
    """Hold a slot, until there is a file if one is named; return from when until when."""
    with context.slot(event["limit"]):
        begun = time.monotonic()
        time.sleep(0.005)
        while "until" in event and not os.path.exists(event["until"]):
            time.sleep(0.005)
        return [begun, time.monotonic()]


async def holds_async(event: Any, context: Any) -> list[float]:
    async with context.slot(event["limit"]):
        begun = time.monotonic()
        await asyncio.sleep(0.005)
        return [begun, time.monotonic()]


def leaves_behind(event: Any, context: Any) -> None:
    """Leave a thread behind that waits for a slot, and makes a file when it is told that it gets none."""

    def wait() -> None:
        try:
            with context.slot(event["limit"]):
                pass
        except LimitError:
            Path(event["told"]).touch()

    threading.Thread(target=wait).start()
    waits(event["until"], context)


def nests(event: Any, context: Any) -> str:
    """Take a slot within a slot, which is refused; return what was said."""
    with context.slot(event[0]):
        try:
            with context.slot(event[1]):
                return ""
        except LimitError as error:
            return f"{type(error).__name__}: {error}"


def spends(event: Any, context: Any) -> float:
    """Tell another cost; return the moment of the start."""
    begun = time.monotonic()
    if event is not None:
        context.spent(event)
    return begun


def hoards(event: Any, context: Any) -> int:
    """Hold as many bytes as asked for; with a file's name, hold nothing and wait for that file."""
    if isinstance(event, str):
        return int(waits(event, context))
    print("hoards", event)
    held: list[bytes] = []
    while len(held) * 5_000_000 < event:
        held.append(b"x" * 5_000_000)
    return len(held)


def hoards_and_tells(event: Any, context: Any) -> int:
    """Hold as many bytes as asked for, or wait for a file; return what the instance may use, in MiB.

    If that is less, it holds them until it is ended for it.
    """
    limit = int(context.memory_limit_in_mb)
    if isinstance(event, str):
        waits(event, context)
        return limit
    held = b"x" * event
    while len(held) > limit << 20:
        time.sleep(0.1)
    return limit


def overstays(event: Any, context: Any) -> int:
    """Note the process in a file, and do not end: by sleeping, by holding the GIL, or deaf to every signal."""
    if event["how"] == "deaf":
        with contextlib.suppress(ValueError):  # only the main thread may
            for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
    if event["how"] == "ends":
        return int(waits(event["until"], context)) and os.getpid()
    Path(event["file"]).write_text(str(os.getpid()))
    while event["how"] == "loop":
        any(itertools.repeat(False))
    while True:
        time.sleep(3600)


async def overstays_async(event: Any, context: Any) -> int:
    """Note the process in a file, and do not end: by awaiting, deaf to cancellation, or by blocking the loop."""
    while event["how"] == "ends":
        if os.path.exists(event["until"]):  # noqa: ASYNC240
            return os.getpid()
        await asyncio.sleep(0.005)
    Path(event["file"]).write_text(str(os.getpid()))  # noqa: ASYNC240
    while event["how"] == "deaf":
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue
    while event["how"] == "loop":
        any(itertools.repeat(False))
    if event["how"] == "block":
        time.sleep(3600)  # noqa: ASYNC251 - that is what it is for
    await asyncio.sleep(3600)
    return 0


def leaves_threads(event: Any, context: Any) -> int:
    """Leave a thread behind that never ends."""
    threading.Thread(target=time.sleep, args=(3600,)).start()
    return os.getpid()


async def leaves_a_loop(event: Any, context: Any) -> int:
    """Leave a coroutine behind that blocks the loop as soon as this has ended."""

    async def block() -> None:
        await asyncio.sleep(0.1)
        time.sleep(3600)  # noqa: ASYNC251 - that is what it is for

    LEFT.append(asyncio.get_running_loop().create_task(block()))
    return os.getpid()


def pids(event: Any, context: Any) -> int:
    return os.getpid()


def hoards_until(event: Any, context: Any) -> bool:
    """Hold some memory, say so, and wait until told to go on."""
    held = bytearray(event["bytes"])
    held[::4096] = b"x" * len(held[::4096])
    Path(event["file"] + f".{context.task_id}").touch()
    return waits(event["file"], context) and bool(held)
