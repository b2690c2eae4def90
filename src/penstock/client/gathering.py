"""A map's results without I/O: which have come, and where to go on.

The law: each result is passed on once, however often the stream breaks and begins anew.
"""

from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

from penstock.client.errors import ApiError
from penstock.client.models import MapCounts
from penstock.client.results import ItemResult
from penstock.client.sends import encode
from penstock.client.waiting import Reconnects

ITEMS, ENDS = "items", "ends"
"""The orders in which results come: that of the items, or that of their ends."""

RECONNECTS = 12
"""How often in a row a stream is begun anew, at least: about half a minute, in which a server may be started again."""

Progress = Callable[[MapCounts], None]


class Gathering:
    """Remember which results have come. `after` is where a stream begins anew: all up to that item have."""

    def __init__(self, items: int, order: str, after: int, retries: int) -> None:
        if order not in {ITEMS, ENDS}:
            raise ValueError(f"Results come in the order of the '{ITEMS}' or of their '{ENDS}', not of the '{order}'.")
        self.order = order
        self.after = after
        self.reconnects = Reconnects(max(retries, RECONNECTS))
        self._left = max(0, items - after - 1)
        self._ahead: set[int] = set()

    @property
    def whole(self) -> bool:
        """Return whether all results have come."""
        return not self._left

    def takes(self, found: ItemResult) -> bool:
        """Note that a result has come; return whether it is the first time."""
        self.reconnects.heard()
        if found.index <= self.after or found.index in self._ahead:
            return False
        self._ahead.add(found.index)
        while self.after + 1 in self._ahead:
            self.after += 1
            self._ahead.remove(self.after)
        self._left -= 1
        return True

    def pause_after(self, failure: ApiError) -> float:
        """Return the seconds to pause before the stream is begun anew. Raises the failure if it is one too many."""
        return self.reconnects.pause_after(failure)


def lines_of(items: Iterable[Any]) -> bytes:
    """Return items as NDJSON."""
    return b"\n".join(map(encode, items))


async def lines_of_async(items: AsyncIterable[Any] | Iterable[Any]) -> bytes:
    """Return items of either kind of iterable as NDJSON."""
    if isinstance(items, AsyncIterable):
        return b"\n".join([encode(item) async for item in items])
    return lines_of(items)
