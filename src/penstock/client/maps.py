"""A map as the sync client shows it. `AsyncMap` is its mirror."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from penstock.client import calls
from penstock.client.errors import ServerUnreachable, Unavailable
from penstock.client.events import LineReader
from penstock.client.gathering import ENDS, ITEMS, Gathering, Progress
from penstock.client.models import MapCounts
from penstock.client.results import ItemResult

if TYPE_CHECKING:
    from penstock.client.client import Client


class Map:
    """Read the results of a map while they come, as often as you like: each loop begins with the first item.

    A loop yields the results in the order of the items. It raises TaskFailed at the first item that ended without one, or
    with `return_exceptions` yields that error in the place of the result. Leaving a loop early leaves the map running;
    `cancel` ends it. A connection that breaks is taken up again behind what has come.
    """

    def __init__(
        self,
        client: "Client",
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
        """Return the number of items."""
        if self._items is None:
            self._items = self.counts().items
        return self._items

    def __iter__(self) -> Iterator[Any]:
        """Yield the results in the order of the items."""
        for found in self.results(progress=self._progress):
            yield self._shown(found)

    def as_completed(self) -> Iterator[tuple[int, Any]]:
        """Yield (index of the item, result) as they end."""
        for found in self.results(ENDS, progress=self._progress):
            yield found.index, self._shown(found)

    def _shown(self, found: ItemResult) -> Any:
        return found.failure() if self._return_exceptions and not found.ok else found.value()

    def results(self, order: str = ITEMS, *, after: int = -1, progress: Progress | None = None) -> Iterator[ItemResult]:
        """Yield how each item ended, in the order of the `items` or of their `ends`; failures raise nothing.

        Items up to `after` are left out. `progress` is called with the counts whenever the server tells them.
        """
        gathering = Gathering(len(self), order, after, self._client._retries)
        while not gathering.whole:
            stream = calls.follow_map(self.id, order, gathering.after, progress=progress is not None)
            try:
                for told in self._client._sender.events(stream, LineReader()):
                    if isinstance(told, MapCounts):
                        if progress is not None:
                            progress(told)
                    elif gathering.takes(told):
                        yield told
                if not gathering.whole:
                    time.sleep(gathering.reconnects.pause_after_end())
            except (ServerUnreachable, Unavailable) as failure:
                time.sleep(gathering.pause_after(failure))

    def counts(self) -> MapCounts:
        """Return how many items have ended, and how. Raises NotFound."""
        return self._client._run(calls.show_map(self.id))

    def cancel(self) -> MapCounts:
        """Cancel all items that have not ended; they are by then. Raises Conflict if there is none."""
        return self._client._run(calls.cancel_map(self.id))
