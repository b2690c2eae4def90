"""A map as the async client shows it: the mirror of `Map`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from penstock.client import calls
from penstock.client.errors import ServerUnreachable, Unavailable
from penstock.client.events import LineReader
from penstock.client.gathering import ENDS, ITEMS, Gathering, Progress
from penstock.client.models import MapCounts
from penstock.client.results import ItemResult

if TYPE_CHECKING:
    from penstock.client.async_client import AsyncClient


class AsyncMap:
    """Read the results of a map while they come, as often as you like: each loop begins with the first item.

    A loop yields the results in the order of the items. It raises TaskFailed at the first item that ended without one, or
    with `return_exceptions` yields that error in the place of the result. Leaving a loop early leaves the map running;
    `cancel` ends it. A connection that breaks is taken up again behind what has come.
    """

    def __init__(
        self,
        client: "AsyncClient",
        name: str,
        *,
        items: int | None = None,
        return_exceptions: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self._client = client
        self._items = items
        self._return_exceptions = return_exceptions
        self._progress = progress
        self.id = name

    def __len__(self) -> int:
        """Return the number of items. Raises TypeError for a map that was taken up by its id and not read yet."""
        if self._items is None:
            raise TypeError("How many items this map has is not known yet: ask its counts() first.")
        return self._items

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yield the results in the order of the items."""
        async for found in self.results(progress=self._progress):
            yield self._shown(found)

    async def as_completed(self) -> AsyncIterator[tuple[int, Any]]:
        """Yield (index of the item, result) as they end."""
        async for found in self.results(ENDS, progress=self._progress):
            yield found.index, self._shown(found)

    def _shown(self, found: ItemResult) -> Any:
        return found.failure() if self._return_exceptions and not found.ok else found.value()

    async def results(
        self, order: str = ITEMS, *, after: int = -1, progress: Progress | None = None
    ) -> AsyncIterator[ItemResult]:
        """Yield how each item ended, in the order of the `items` or of their `ends`; failures raise nothing.

        Items up to `after` are left out. `progress` is called with the counts whenever the server tells them.
        """
        if self._items is None:
            await self.counts()
        gathering = Gathering(len(self), order, after, self._client._retries)
        while not gathering.whole:
            stream = calls.follow_map(self.id, order, gathering.after, progress=progress is not None)
            try:
                async with aclosing(self._client._sender.events(stream, LineReader())) as lines:
                    async for told in lines:
                        if isinstance(told, MapCounts):
                            if progress is not None:
                                progress(told)
                        elif gathering.takes(told):
                            yield told
                if not gathering.whole:
                    await asyncio.sleep(gathering.reconnects.pause_after_end())
            except (ServerUnreachable, Unavailable) as failure:
                await asyncio.sleep(gathering.pause_after(failure))

    async def counts(self) -> MapCounts:
        """Return how many items have ended, and how. Raises NotFound."""
        found = await self._client._run(calls.show_map(self.id))
        self._items = found.items
        return found

    async def cancel(self) -> MapCounts:
        """Cancel all items that have not ended; they are by then. Raises Conflict if there is none."""
        return await self._client._run(calls.cancel_map(self.id))
