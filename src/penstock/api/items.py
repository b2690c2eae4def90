"""The items of a map, from the body of a request as it comes: each is JSON that is checked, never decoded, and kept as it was.

One a line, read in pieces while they arrive; or a list, which is small enough to be read at once.
"""

import asyncio
from typing import Final

import msgspec

from penstock.api.exchange import (
    MOST_BODY,
    ClientGone,
    Headers,
    Receive,
    check_text,
    not_understood,
    read_body,
    too_large,
)
from penstock.domain.errors import TooLarge
from penstock.engine.maps import MOST_ITEMS

MOST_LIST: Final = 1 << 20
"""Bytes that a list of items may have; more come one a line."""

PIECE: Final = 32 << 10
"""Bytes that are read between two looks at everything else: they may be ten thousand items."""

LINES: Final = frozenset({b"application/x-ndjson", b"application/ndjson", b"application/jsonl"})

_list: Final = msgspec.json.Decoder(list[msgspec.Raw])
_one: Final = msgspec.json.Decoder(msgspec.Raw)
_WHAT: Final = "The body"


async def read_items(headers: Headers, receive: Receive) -> list[bytes]:
    """Return the items in a body. Raises `BadRequest` and `TooLarge`."""
    if headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower() in LINES:
        return await _read_lines(headers, receive)
    try:
        body = await read_body(receive, headers, MOST_LIST)
    except TooLarge as error:
        raise TooLarge(
            f"A list of items may have {MOST_LIST} bytes. Send more as NDJSON: one item a line, "
            "with Content-Type: application/x-ndjson."
        ) from error
    check_text(body, _WHAT)
    try:
        return [bytes(item) for item in _list.decode(body)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_understood(_WHAT, error) from error


async def _read_lines(headers: Headers, receive: Receive) -> list[bytes]:
    """Read an item a line, while the body comes; empty lines are passed over."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > MOST_BODY:
        raise too_large(MOST_BODY)
    items: list[bytes] = []
    rest, size, more = bytearray(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        rest += message["body"]
        size += len(message["body"])
        more = message["more_body"]
        if size > MOST_BODY:
            raise too_large(MOST_BODY)
        upto = rest.rfind(b"\n") + 1 if more else len(rest)
        at = 0
        while at < upto:
            end = rest.find(b"\n", min(at + PIECE, upto - 1), upto) + 1 or upto
            _take(bytes(rest[at:end]), items)
            at = end
            await asyncio.sleep(0)
        del rest[:upto]
    return items


def _take(piece: bytes, items: list[bytes]) -> None:
    """Take whole lines."""
    what = f"Item {len(items)} or one soon behind it"
    check_text(piece, what)
    for line in piece.split(b"\n"):
        if line and (item := line.strip()):
            try:
                _one.decode(item)
            except (msgspec.DecodeError, RecursionError) as error:
                raise not_understood(f"Item {len(items)}", error) from error
            items.append(item)
    if len(items) > MOST_ITEMS:
        raise TooLarge(f"A map has at most {MOST_ITEMS} items; this one has more. Nothing was kept: map it in parts.")
