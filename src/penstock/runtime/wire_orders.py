"""Orders on the wire: what an execution wants made, that it waits for it, and what became of it."""

from struct import Struct
from typing import Final

from penstock.runtime.frames import REFUSED, SEND, Order, Reply, Wait
from penstock.runtime.packing import HEAD, INLINE, Kind, Kinds, WireError, check_body

(_ORDER, _WAIT, _REPLY) = range(40, 43)

_ORDER_FIELDS = Struct("<QIBBHHI")
_WAIT_FIELDS = Struct("<QI")
_REPLY_FIELDS = Struct("<QIBI")

ORDERS: Final = 1 << 63
"""Long bodies of orders and replies are named by this and their number; those of executions by their attempt."""

MAX_ORDER: Final = 6 << 20
"""The most bytes of an order's body: what a call over HTTP takes, too."""

MAX_OPTIONS: Final = 4096


def encode_order(
    attempt: int, number: int, verb: int, waits: bool, target: str, options: bytes, size: int, body: bytes
) -> bytes:
    """Return an `Order` frame; `body` is empty if `size` is over `INLINE`."""
    label = target.encode()
    length = _ORDER_FIELDS.size + len(label) + len(options) + len(body)
    fields = _ORDER_FIELDS.pack(attempt, number, verb, waits, len(label), len(options), size)
    return b"".join((HEAD.pack(length, _ORDER), fields, label, options, body))


def encode_wait(attempt: int, number: int) -> bytes:
    """Return a `Wait` frame."""
    return HEAD.pack(_WAIT_FIELDS.size, _WAIT) + _WAIT_FIELDS.pack(attempt, number)


def encode_reply(attempt: int, number: int, status: int, size: int, body: bytes) -> bytes:
    """Return a `Reply` frame; `body` is empty if `size` is over `INLINE`."""
    return HEAD.pack(17 + len(body), _REPLY) + _REPLY_FIELDS.pack(attempt, number, status, size) + body


def announce_reply(reply: Reply) -> bytes:
    """Return the frame of a reply that has its whole body; one over `INLINE` is announced by its size, and follows."""
    body = reply.body if reply.size <= INLINE else b""
    return encode_reply(reply.attempt, reply.number, reply.status, reply.size, body)


def _order(data: bytes, at: int, stop: int) -> Order:
    attempt, number, verb, waits, label, extra, size = _ORDER_FIELDS.unpack_from(data, at)
    at += _ORDER_FIELDS.size
    if at + label + extra > stop or extra > MAX_OPTIONS:
        raise WireError("the target and the options of an Order frame are longer than the frame, or than they may be")
    if verb > SEND or size > MAX_ORDER:
        raise WireError(f"an Order frame names the verb {verb} and a body of {size} bytes")
    target, options = data[at : at + label].decode(), data[at + label : at + label + extra]
    body = data[at + label + extra : stop]
    check_body(size, body)
    return Order(attempt, number, verb, waits != 0, target, options, size, body)


def _reply(data: bytes, at: int, stop: int) -> Reply:
    attempt, number, status, size = _REPLY_FIELDS.unpack_from(data, at)
    body = data[at + 17 : stop]
    check_body(size, body)
    if status > REFUSED:
        raise WireError(f"a Reply frame names the unknown status {status}")
    return Reply(attempt, number, status, size, body)


KINDS: Final[Kinds] = {
    _ORDER: Kind(Order, _ORDER_FIELDS, encode_order, _order),
    _WAIT: Kind(Wait, _WAIT_FIELDS, encode_wait),
    _REPLY: Kind(Reply, _REPLY_FIELDS, encode_reply, _reply),
}
