"""Who keeps an instance from answering, seen from outside: a handler that holds the GIL, or blocks the event loop.

An instance notes whose turn it is. In an event loop that is all there is to know. Of threads, the one that holds the GIL and
works is running, or about to, at every look, while those that wait for it sleep. On a machine whose cores are all busy
others may seem to run, too; then it is the one that has worked by far the most.
"""

import asyncio
import os
from typing import Final

from penstock.runtime import turns

LOOKS: Final = 3
PAUSE: Final = 0.015
"""Seconds between two looks."""

MORE: Final = 4
"""How many times as much as any other the holder must have worked if several seem to run."""

_MOST: Final = 16 * 1024


async def find(notes: str, pid: int) -> int | None:
    """Return the attempt that has the turn at every look, None if it cannot be told. `notes` is the path of a file of turns."""
    found = _look(notes, pid)
    for _ in range(LOOKS - 1):
        if not found:
            return None
        await asyncio.sleep(PAUSE)
        found = {attempt: work for attempt, work in _look(notes, pid).items() if attempt in found}
    ordered = sorted(found, key=found.__getitem__, reverse=True)
    unclear = len(ordered) > 1 and found[ordered[0]] < MORE * max(1, found[ordered[1]])
    return None if unclear or not ordered else ordered[0]


def _look(notes: str, pid: int) -> dict[int, int]:
    """Return the attempts that may have the turn, with the CPU time (in clock ticks) of their threads."""
    rows = turns.read(_read(notes))
    if len(rows) == 1:
        return {attempt: 0 for attempt in rows.values() if attempt}
    found = {}
    for thread, attempt in rows.items():
        if attempt:
            fields = _read(f"/proc/{pid}/task/{thread}/stat").rpartition(b")")[2].split()
            if fields and fields[0] == b"R":
                found[attempt] = int(fields[11]) + int(fields[12])
    return found


def _read(path: str) -> bytes:
    """Return the beginning of a file; nothing if it is gone."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return b""
    try:
        return os.read(file, _MOST)
    except OSError:
        return b""
    finally:
        os.close(file)
