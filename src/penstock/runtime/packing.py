"""How frames are packed: a head of five bytes (length of the rest, kind) and a packed rest, little-endian.

The rooms `wire_*` each have the frames of one subject, with everything that is to say about one: its number, its fields,
the function that encodes it and the one that reads it. `wire` joins them into the codec.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from penstock.runtime.frames import Frame

INLINE: Final = 64 * 1024
CHUNK: Final = 64 * 1024
WINDOW: Final = 256 * 1024
MAX_BODY: Final = 64 * 1024 * 1024
MAX_FRAME: Final = 4 * 1024 * 1024

HEAD: Final = Struct("<IB")
NO_FIELDS: Final = Struct("")


class WireError(Exception):
    """Report bytes that are no frames. The stream cannot be read any further: close it."""


class Kind(NamedTuple):
    """Say how a frame is written and read.

    `fields` packs all of it (its tuple takes them), or its beginning (`parse` takes the bytes, from a position to another).
    """

    frame: type
    fields: Struct
    encode: Callable[..., bytes]
    parse: Callable[[bytes, int, int], Frame] | None = None


Kinds = dict[int, Kind]
"""The frames of one room by their numbers, which no other room has."""


def check_body(size: int, body: bytes) -> None:
    """Check that a body is all there or announced by its size alone. Raises `WireError`."""
    if len(body) == size if size <= INLINE else not body and size <= MAX_BODY:
        return
    raise WireError(f"a body said to be {size} bytes came with {len(body)}; at most {MAX_BODY} are allowed")
