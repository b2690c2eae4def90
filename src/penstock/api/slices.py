"""Long work a little at a time, so that nobody else waits for it."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

A = TypeVar("A")
B = TypeVar("B")

SLICE: Final = 0.002
"""Seconds of work between two looks at everything else."""


async def map_in_slices(work: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """Return what work makes of each item."""
    clock = asyncio.get_running_loop().time
    made = []
    began = clock()
    for item in items:
        made.append(work(item))
        if clock() - began > SLICE:
            await asyncio.sleep(0)
            began = clock()
    return made
