"""The one codec of frames between the server and an instance, whatever carries them.

A frame is a head of five bytes (length of the rest, kind) and a packed rest, little-endian. The laws: a body up to
`INLINE` bytes travels inside its `Open` or `End`; a longer one is announced there by its `size` alone and follows in
`Data` frames of that attempt, never more than `WINDOW` bytes ahead of the `Credit` that came back (`bodies.py` keeps
that count). Moments are monotonic seconds of the machine the instance runs on. Bodies are bytes and never decoded here.

For each frame there is a tuple (what `Decoder` returns) and a function that takes the same fields and returns bytes.
"""

import math
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Final, NamedTuple

from penstock.runtime.frames import (
    CANCELLED,
    ERROR,
    GRANTED,
    HOLDS,
    LOG,
    MISUSED,
    OK,
    PARTS,
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
    Ping,
    Pong,
    Request,
    Spent,
    Started,
    Stop,
    Take,
    Took,
)

__all__ = [
    "CANCELLED",
    "ERROR",
    "GRANTED",
    "HOLDS",
    "LOG",
    "MISUSED",
    "OK",
    "PARTS",
    "STDERR",
    "STDOUT",
    "STREAMS",
    "THROTTLED",
    "TOO_COSTLY",
    "UNKNOWN",
    "Answer",
    "Batch",
    "Cancel",
    "Credit",
    "Data",
    "Define",
    "End",
    "Entry",
    "Frame",
    "Give",
    "Hello",
    "Log",
    "Open",
    "Ping",
    "Pong",
    "Request",
    "Spent",
    "Started",
    "Stop",
    "Take",
    "Took",
]

INLINE: Final = 64 * 1024
CHUNK: Final = 64 * 1024
WINDOW: Final = 256 * 1024
MAX_BODY: Final = 64 * 1024 * 1024
MAX_FRAME: Final = 4 * 1024 * 1024


class WireError(Exception):
    """Report bytes that are no frames. The stream cannot be read any further: close it."""


(_HELLO, _DEFINE, _OPEN, _DATA, _CREDIT, _CANCEL, _STARTED, _END, _LOG, _STOP, _PING, _PONG, _BATCH) = range(1, 14)
(_TAKE, _ANSWER, _TOOK, _GIVE, _SPENT) = range(14, 19)

_HEAD = Struct("<IB")
_HELLO_FIELDS = Struct("<Id")
_DEFINE_FIELDS = Struct("<QH")
_OPEN_FIELDS = Struct("<QQIBdQI")
_DATA_FIELDS = Struct("<Q")
_CREDIT_FIELDS = Struct("<QI")
_CANCEL_FIELDS = Struct("<Q")
_STARTED_FIELDS = Struct("<Qd")
_END_FIELDS = Struct("<QBdddHI")
_LOG_FIELDS = Struct("<QB")
_PONG_FIELDS = Struct("<d")
_TAKE_FIELDS = Struct("<QIBd")
_ANSWER_FIELDS = Struct("<QIB")
_TOOK_FIELDS = Struct("<QId")
_GIVE_FIELDS = Struct("<QI")
_SPENT_FIELDS = Struct("<Qd")
_NO_FIELDS = Struct("")
_BATCH_FIELDS = Struct("<Q")
_ENTRY = Struct("<QII")
_PART = Struct("<BI")

# On the hot path the head and the fields are packed at once.
_pack_open = Struct("<IBQQIBdQI").pack
_pack_end = Struct("<IBQBdddHI").pack
_pack_data = Struct("<IBQ").pack
_pack_credit = Struct("<IBQI").pack
_pack_started = Struct("<IBQd").pack
_pack_log = Struct("<IBQB").pack


def encode_hello(pid: int, at: float) -> bytes:
    """Return a `Hello` frame."""
    return _HEAD.pack(_HELLO_FIELDS.size, _HELLO) + _HELLO_FIELDS.pack(pid, at)


def encode_define(key: int, name: str, params: bytes) -> bytes:
    """Return a `Define` frame. Raises `WireError` if the params are too large for one frame."""
    label = name.encode()
    length = _DEFINE_FIELDS.size + len(label) + len(params)
    if length > MAX_FRAME:
        raise WireError(
            f"the params of pipeline '{name}' are {len(params)} bytes; at most {MAX_FRAME // 2} fit in a frame"
        )
    return b"".join((_HEAD.pack(length, _DEFINE), _DEFINE_FIELDS.pack(key, len(label)), label, params))


def encode_open(
    attempt: int, task: int, number: int, dated: bool, timeout: float, pipeline: int, size: int, body: bytes
) -> bytes:
    """Return an `Open` frame; `body` is empty if `size` is over `INLINE`."""
    return _pack_open(41 + len(body), _OPEN, attempt, task, number, dated, timeout, pipeline, size) + body


def encode_batch(attempt: int, entries: Iterable[Entry]) -> bytes:
    """Return a `Batch` frame."""
    packed = b"".join([_ENTRY.pack(*entry) for entry in entries])
    return _HEAD.pack(_BATCH_FIELDS.size + len(packed), _BATCH) + _BATCH_FIELDS.pack(attempt) + packed


def encode_parts(parts: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the body of an `End` that tells of each task of a batch: (ending, body) pairs, in order."""
    return b"".join([_PART.pack(ending, len(body)) + body for ending, body in parts])


def decode_parts(body: bytes) -> list[tuple[int, bytes]]:
    """Cut the body of an `End` into its parts. Raises `WireError` if it has none."""
    parts, at = [], 0
    while at < len(body):
        if len(body) - at < _PART.size:
            raise WireError("the body of an End frame ends within the head of a part")
        ending, size = _PART.unpack_from(body, at)
        at += _PART.size
        if ending >= CANCELLED or at + size > len(body):
            raise WireError(f"a part of an End frame has the ending {ending} and {size} bytes")
        parts.append((ending, body[at : at + size]))
        at += size
    return parts


def encode_data(attempt: int, piece: bytes | memoryview) -> bytes:
    """Return a `Data` frame."""
    return _pack_data(8 + len(piece), _DATA, attempt) + piece


def encode_credit(attempt: int, granted: int) -> bytes:
    """Return a `Credit` frame."""
    return _pack_credit(12, _CREDIT, attempt, granted)


def encode_cancel(attempt: int) -> bytes:
    """Return a `Cancel` frame."""
    return _pack_data(8, _CANCEL, attempt)


def encode_started(attempt: int, at: float) -> bytes:
    """Return a `Started` frame."""
    return _pack_started(16, _STARTED, attempt, at)


def encode_end(
    attempt: int,
    ending: int,
    started: float,
    finished: float,
    retry_after: float | None,
    limit: str,
    size: int,
    body: bytes,
) -> bytes:
    """Return an `End` frame; `body` is empty if `size` is over `INLINE`."""
    wait = math.nan if retry_after is None else retry_after
    if not limit:
        return _pack_end(39 + len(body), _END, attempt, ending, started, finished, wait, 0, size) + body
    label = limit.encode()
    length = 39 + len(label) + len(body)
    return _pack_end(length, _END, attempt, ending, started, finished, wait, len(label), size) + label + body


def encode_log(attempt: int, stream: int, text: bytes) -> bytes:
    """Return a `Log` frame of text that is UTF-8 already."""
    return _pack_log(9 + len(text), _LOG, attempt, stream) + text


def encode_stop() -> bytes:
    """Return a `Stop` frame."""
    return _HEAD.pack(0, _STOP)


def encode_ping() -> bytes:
    """Return a `Ping` frame."""
    return _HEAD.pack(0, _PING)


def encode_pong(at: float) -> bytes:
    """Return a `Pong` frame."""
    return _HEAD.pack(_PONG_FIELDS.size, _PONG) + _PONG_FIELDS.pack(at)


def encode_take(attempt: int, number: int, slot: bool, cost: float, limit: str) -> bytes:
    """Return a `Take` frame."""
    label = limit.encode()
    return _HEAD.pack(21 + len(label), _TAKE) + _TAKE_FIELDS.pack(attempt, number, slot, cost) + label


def encode_answer(attempt: int, number: int, refusal: int, message: str) -> bytes:
    """Return an `Answer` frame."""
    text = message.encode()
    return _HEAD.pack(13 + len(text), _ANSWER) + _ANSWER_FIELDS.pack(attempt, number, refusal) + text


def encode_took(attempt: int, number: int, at: float) -> bytes:
    """Return a `Took` frame."""
    return _HEAD.pack(_TOOK_FIELDS.size, _TOOK) + _TOOK_FIELDS.pack(attempt, number, at)


def encode_give(attempt: int, number: int) -> bytes:
    """Return a `Give` frame."""
    return _HEAD.pack(_GIVE_FIELDS.size, _GIVE) + _GIVE_FIELDS.pack(attempt, number)


def encode_spent(attempt: int, cost: float) -> bytes:
    """Return a `Spent` frame."""
    return _HEAD.pack(_SPENT_FIELDS.size, _SPENT) + _SPENT_FIELDS.pack(attempt, cost)


def _check_body(size: int, body: bytes) -> None:
    if len(body) == size if size <= INLINE else not body and size <= MAX_BODY:
        return
    raise WireError(f"a body said to be {size} bytes came with {len(body)}; at most {MAX_BODY} are allowed")


def _define(data: bytes, at: int, stop: int) -> Define:
    key, length = _DEFINE_FIELDS.unpack_from(data, at)
    at += 10
    if at + length > stop:
        raise WireError("the name in a Define frame is longer than the frame")
    return Define(key, data[at : at + length].decode(), data[at + length : stop])


def _open(data: bytes, at: int, stop: int) -> Open:
    attempt, task, number, dated, timeout, pipeline, size = _OPEN_FIELDS.unpack_from(data, at)
    body = data[at + 41 : stop]
    if size != len(body):
        _check_body(size, body)
    return Open(attempt, task, number, dated != 0, timeout, pipeline, size, body)


def _batch(data: bytes, at: int, stop: int) -> Batch:
    (attempt,) = _BATCH_FIELDS.unpack_from(data, at)
    if (stop - at - _BATCH_FIELDS.size) % _ENTRY.size:
        raise WireError("a Batch frame ends within an entry")
    return Batch(attempt, tuple(map(Entry._make, _ENTRY.iter_unpack(data[at + _BATCH_FIELDS.size : stop]))))


def _data(data: bytes, at: int, stop: int) -> Data:
    (attempt,) = _DATA_FIELDS.unpack_from(data, at)
    return Data(attempt, data[at + 8 : stop])


def _end(data: bytes, at: int, stop: int) -> End:
    attempt, ending, started, finished, wait, length, size = _END_FIELDS.unpack_from(data, at)
    at += 39
    limit = ""
    if length:
        limit = data[at : at + length].decode()
        at += length
    body = data[at:stop]
    if size != len(body):
        _check_body(size, body)
    if at > stop:
        raise WireError("the limit's name in an End frame is longer than the frame")
    if ending > PARTS:
        raise WireError(f"an End frame names the unknown ending {ending}")
    return End(attempt, ending, started, finished, None if math.isnan(wait) else wait, limit, size, body)


def _log(data: bytes, at: int, stop: int) -> Log:
    attempt, stream = _LOG_FIELDS.unpack_from(data, at)
    if stream >= len(STREAMS):
        raise WireError(f"a Log frame names the unknown stream {stream}")
    return Log(attempt, stream, data[at + 9 : stop].decode())


def _take(data: bytes, at: int, stop: int) -> Take:
    attempt, number, slot, cost = _TAKE_FIELDS.unpack_from(data, at)
    if not 0 < cost < math.inf:
        raise WireError(f"a Take frame names the cost {cost}")
    return Take(attempt, number, slot != 0, cost, data[at + 21 : stop].decode())


def _answer(data: bytes, at: int, stop: int) -> Answer:
    attempt, number, refusal = _ANSWER_FIELDS.unpack_from(data, at)
    if refusal > TOO_COSTLY:
        raise WireError(f"an Answer frame names the unknown refusal {refusal}")
    return Answer(attempt, number, refusal, data[at + 13 : stop].decode())


def _spent(data: bytes, at: int, stop: int) -> Spent:
    if stop - at != _SPENT_FIELDS.size:
        raise WireError(f"a Spent frame of {_SPENT_FIELDS.size} bytes came with {stop - at}")
    attempt, cost = _SPENT_FIELDS.unpack_from(data, at)
    if not 0 <= cost < math.inf:
        raise WireError(f"a Spent frame names the cost {cost}")
    return Spent(attempt, cost)


class _Kind(NamedTuple):
    """Say how a frame is read: `fields` packs all of it (make takes them), or its beginning (parse takes the bytes)."""

    fields: Struct
    make: Callable[..., Frame] | None = None
    parse: Callable[[bytes, int, int], Frame] | None = None


_KINDS: Final = {
    _HELLO: _Kind(_HELLO_FIELDS, Hello),
    _DEFINE: _Kind(_DEFINE_FIELDS, parse=_define),
    _OPEN: _Kind(_OPEN_FIELDS, parse=_open),
    _DATA: _Kind(_DATA_FIELDS, parse=_data),
    _CREDIT: _Kind(_CREDIT_FIELDS, Credit),
    _CANCEL: _Kind(_CANCEL_FIELDS, Cancel),
    _STARTED: _Kind(_STARTED_FIELDS, Started),
    _END: _Kind(_END_FIELDS, parse=_end),
    _LOG: _Kind(_LOG_FIELDS, parse=_log),
    _STOP: _Kind(_NO_FIELDS, Stop),
    _PING: _Kind(_NO_FIELDS, Ping),
    _PONG: _Kind(_PONG_FIELDS, Pong),
    _BATCH: _Kind(_BATCH_FIELDS, parse=_batch),
    _TAKE: _Kind(_TAKE_FIELDS, parse=_take),
    _ANSWER: _Kind(_ANSWER_FIELDS, parse=_answer),
    _TOOK: _Kind(_TOOK_FIELDS, Took),
    _GIVE: _Kind(_GIVE_FIELDS, Give),
    _SPENT: _Kind(_SPENT_FIELDS, parse=_spent),
}

_ENCODERS: Final[dict[type, Callable[..., bytes]]] = {
    Hello: encode_hello,
    Define: encode_define,
    Open: encode_open,
    Batch: encode_batch,
    Data: encode_data,
    Credit: encode_credit,
    Cancel: encode_cancel,
    Started: encode_started,
    End: encode_end,
    Stop: encode_stop,
    Ping: encode_ping,
    Pong: encode_pong,
    Take: encode_take,
    Answer: encode_answer,
    Took: encode_took,
    Give: encode_give,
    Spent: encode_spent,
}


def encode(frame: Frame) -> bytes:
    """Return the bytes of a frame given as a tuple; the hot path calls the function of its kind instead."""
    if isinstance(frame, Log):
        return encode_log(frame.attempt, frame.stream, frame.text.encode())
    return _ENCODERS[type(frame)](*frame)


def _parse(kind: _Kind, data: bytes, at: int, stop: int) -> Frame:
    if kind.parse is not None:
        try:
            return kind.parse(data, at, stop)
        except UnicodeDecodeError as error:
            raise WireError(f"a frame holds text that is not UTF-8: {error}") from error
    if kind.make is None or stop - at != kind.fields.size:
        raise WireError(f"a frame of {kind.fields.size} bytes came with {stop - at}")
    return kind.make(*kind.fields.unpack_from(data, at))


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
        self._need = _HEAD.size
        while end - at >= 5:
            length, number = _HEAD.unpack_from(data, at)
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
