"""The one codec of frames between the server and an instance, whatever carries them.

The laws: a body up to `INLINE` bytes travels inside its `Open` or `End`; a longer one is announced there by its `size`
alone and follows in `Data` frames of that attempt, never more than `WINDOW` bytes ahead of the `Credit` that came back
(`bodies.py` keeps that count). Moments are monotonic seconds of the machine the instance runs on. Bodies are bytes and
never decoded here.

For each frame there is a tuple (what `Decoder` returns) and a function that takes the same fields and returns bytes; they
are at home in the rooms `wire_*`, by subject, and `packing` says how a frame is made.
"""

from typing import Final

from penstock.runtime import wire_executions, wire_limits, wire_lives, wire_orders, wire_web
from penstock.runtime.frames import (
    CANCELLED,
    DONE,
    ERROR,
    FAILED,
    GRANTED,
    HOLDS,
    INVOKE,
    LOG,
    MISUSED,
    OK,
    PARTS,
    REFUSED,
    SEND,
    STDERR,
    STDOUT,
    STREAMS,
    THROTTLED,
    TOO_COSTLY,
    UNKNOWN,
    Answer,
    Batch,
    Cancel,
    Credit,
    Data,
    Define,
    End,
    Entry,
    Frame,
    Give,
    Hello,
    Log,
    Open,
    Order,
    Ping,
    Pong,
    Reply,
    Request,
    Spent,
    Started,
    Stop,
    Take,
    Took,
    Wait,
)
from penstock.runtime.packing import CHUNK, HEAD, INLINE, MAX_BODY, MAX_FRAME, WINDOW, Kind, Kinds, WireError
from penstock.runtime.wire_executions import (
    decode_parts,
    encode_batch,
    encode_cancel,
    encode_credit,
    encode_data,
    encode_define,
    encode_end,
    encode_log,
    encode_open,
    encode_parts,
    encode_started,
)
from penstock.runtime.wire_limits import (
    encode_answer,
    encode_give,
    encode_spent,
    encode_take,
    encode_took,
)
from penstock.runtime.wire_lives import (
    encode_hello,
    encode_ping,
    encode_pong,
    encode_stop,
)
from penstock.runtime.wire_orders import (
    MAX_OPTIONS,
    MAX_ORDER,
    ORDERS,
    announce_reply,
    encode_order,
    encode_reply,
    encode_wait,
)

__all__ = [
    "CANCELLED",
    "CHUNK",
    "DONE",
    "ERROR",
    "FAILED",
    "GRANTED",
    "HOLDS",
    "INLINE",
    "INVOKE",
    "LOG",
    "MAX_BODY",
    "MAX_FRAME",
    "MAX_OPTIONS",
    "MAX_ORDER",
    "MISUSED",
    "OK",
    "ORDERS",
    "PARTS",
    "REFUSED",
    "SEND",
    "STDERR",
    "STDOUT",
    "STREAMS",
    "THROTTLED",
    "TOO_COSTLY",
    "UNKNOWN",
    "WINDOW",
    "Answer",
    "Batch",
    "Cancel",
    "Credit",
    "Data",
    "Decoder",
    "Define",
    "End",
    "Entry",
    "Frame",
    "Give",
    "Hello",
    "Log",
    "Open",
    "Order",
    "Ping",
    "Pong",
    "Reply",
    "Request",
    "Spent",
    "Started",
    "Stop",
    "Take",
    "Took",
    "Wait",
    "WireError",
    "announce_reply",
    "decode_parts",
    "encode",
    "encode_answer",
    "encode_batch",
    "encode_cancel",
    "encode_credit",
    "encode_data",
    "encode_define",
    "encode_end",
    "encode_give",
    "encode_hello",
    "encode_log",
    "encode_open",
    "encode_order",
    "encode_parts",
    "encode_ping",
    "encode_pong",
    "encode_reply",
    "encode_spent",
    "encode_started",
    "encode_stop",
    "encode_take",
    "encode_took",
    "encode_wait",
]

_KINDS: Final[Kinds] = {
    **wire_lives.KINDS,
    **wire_executions.KINDS,
    **wire_limits.KINDS,
    **wire_orders.KINDS,
    **wire_web.KINDS,
}
_ENCODERS: Final = {kind.frame: kind.encode for kind in _KINDS.values()}


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame given as a tuple; the hot path calls the function of its kind instead."""
    return _ENCODERS[type(frame)](*frame)


def _parse(kind: Kind, data: bytes, at: int, stop: int) -> Frame:
    if kind.parse is not None:
        try:
            return kind.parse(data, at, stop)
        except UnicodeDecodeError as error:
            raise WireError(f"a frame holds text that is not UTF-8: {error}") from error
    if stop - at != kind.fields.size:
        raise WireError(f"a frame of {kind.fields.size} bytes came with {stop - at}")
    made: Frame = kind.frame(*kind.fields.unpack_from(data, at))
    return made


class Decoder:
    """Cut a stream into frames, however it was chunked."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._need = 0

    def feed(self, chunk: bytes) -> list[Frame]:
        """Return every frame that is complete now. Raises `WireError` for what is no frame."""
        data = chunk
        if self._rest:
            self._rest += chunk
            if len(self._rest) < self._need:
                return []
            data = bytes(self._rest)
        frames: list[Frame] = []
        at, end = 0, len(data)
        self._need = HEAD.size
        while end - at >= 5:
            length, number = HEAD.unpack_from(data, at)
            stop = at + 5 + length
            kind = _KINDS.get(number)
            if kind is None or length > MAX_FRAME or length < kind.fields.size:
                raise WireError(f"no frame has the kind {number} and {length} bytes")
            if stop > end:
                self._need = stop - at
                break
            frames.append(_parse(kind, data, at + 5, stop))
            at = stop
        if at < end:
            self._rest = bytearray(data[at:] if at else data)
        elif self._rest:
            self._rest = bytearray()
        return frames
