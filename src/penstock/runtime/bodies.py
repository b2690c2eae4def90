"""Long bodies, in pieces, so that one never blocks others and no buffer grows with it.

Both ends of a stream have a `Sender` for what they send and a `Receiver` for what they are sent. The law: never more
than `WINDOW` bytes of a body are on their way; the receiver gives credit for what it has taken. No I/O here: frames come
in as tuples and go out as bytes.
"""

from typing import Generic, TypeVar

from penstock.runtime.wire import (
    CHUNK,
    ORDERS,
    WINDOW,
    Data,
    End,
    Open,
    Order,
    Reply,
    WireError,
    encode_credit,
    encode_data,
)

HeadT = TypeVar("HeadT", bound=Open | End | Order | Reply)


class Sender:
    """Send long bodies piece by piece, each at the pace of its credit."""

    def __init__(self) -> None:
        self._bodies: dict[int, memoryview] = {}

    def __len__(self) -> int:
        return len(self._bodies)

    def __contains__(self, attempt: int) -> bool:
        return attempt in self._bodies

    def begin(self, attempt: int, body: bytes) -> bytes:
        """Return the first frames of a body."""
        self._bodies[attempt] = memoryview(body)
        return self.credit(attempt, WINDOW)

    def credit(self, attempt: int, count: int) -> bytes:
        """Return the next frames of a body, `count` bytes of it; nothing if it is complete or was dropped."""
        rest = self._bodies.get(attempt)
        if rest is None:
            return b""
        now, later = rest[:count], rest[count:]
        if later:
            self._bodies[attempt] = later
        else:
            del self._bodies[attempt]
        return b"".join([encode_data(attempt, now[at : at + CHUNK]) for at in range(0, len(now), CHUNK)])

    def drop(self, attempt: int) -> None:
        """Send no more of a body."""
        self._bodies.pop(attempt, None)


class _Arrival(Generic[HeadT]):
    __slots__ = ("body", "head")

    def __init__(self, head: HeadT) -> None:
        self.head = head
        self.body = bytearray()


class Receiver(Generic[HeadT]):
    """Put long bodies together, and give credit for each piece."""

    def __init__(self) -> None:
        self._arrivals: dict[int, _Arrival[HeadT]] = {}

    def __len__(self) -> int:
        return len(self._arrivals)

    def expect(self, head: HeadT) -> None:
        """Begin a body that the head announced. Raises `WireError` if what it names has one already."""
        name = ORDERS | head.number if isinstance(head, Order | Reply) else head.attempt
        if name in self._arrivals:
            raise WireError(f"attempt {head.attempt} announced a second body before the first was complete")
        self._arrivals[name] = _Arrival(head)

    def take(self, data: Data) -> tuple[bytes, tuple[HeadT, bytes] | None]:
        """Take a piece; return the credit to send back, and the head with its whole body when that is complete.

        Pieces of a body that was dropped are ignored. Raises `WireError` if there is more than was announced.
        """
        arrival = self._arrivals.get(data.attempt)
        if arrival is None:
            return b"", None
        arrival.body += data.piece
        missing = arrival.head.size - len(arrival.body)
        if missing < 0:
            raise WireError(
                f"the body of attempt {data.attempt} is longer than the {arrival.head.size} bytes announced"
            )
        if missing:
            return encode_credit(data.attempt, len(data.piece)), None
        del self._arrivals[data.attempt]
        return b"", (arrival.head, bytes(arrival.body))

    def drop(self, attempt: int) -> bool:
        """Forget a body; return whether there was one."""
        return self._arrivals.pop(attempt, None) is not None
