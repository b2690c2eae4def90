"""Long work a little at a time, so that nobody else waits for it."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

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


async def let_go_in_slices(collections: Iterable[list[Any] | dict[Any, Any]]) -> None:
    """Empty collections that nobody needs any more: to free ten thousand settings at once takes tens of milliseconds."""
    clock = asyncio.get_running_loop().time
    began = clock()
    for collection in collections:
        take = collection.popitem if isinstance(collection, dict) else collection.pop
        while collection:
            take()
            if clock() - began > SLICE:
                await asyncio.sleep(0)
                began = clock()
