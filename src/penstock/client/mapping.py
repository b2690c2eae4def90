"""`penstock.map`: a local function over many items, on the server that is found by itself."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from penstock.client.client import Client
from penstock.client.local import LocalMap


def map(function: Callable[[Any], Any], items: Iterable[Any], **how: Any) -> Iterator[Any]:  # noqa: A001 - as users name it
    """Run a function of this program on the server for every item, and return an iterator of the results, in order.

    What runs is on its way when this returns. `how` is what `Client.map` takes; see there.
    """
    client = Client()
    try:
        started = client.map(function, items, **how)
    except BaseException:
        client.close()
        raise
    return _results(client, started)


def _results(client: Client, started: LocalMap) -> Iterator[Any]:
    with client:
        yield from started
