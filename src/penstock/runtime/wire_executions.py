"""Executions on the wire: what is to be executed, long bodies in pieces, starts, ends and output."""

import math
from collections.abc import Iterable
from struct import Struct
from typing import Final

from penstock.runtime.frames import (
    CANCELLED,
    PARTS,
    STREAMS,
    Batch,
    Cancel,
    Credit,
    Data,
    Define,
    End,
    Entry,
    Log,
    Open,
    Started,
)
from penstock.runtime.packing import HEAD, MAX_FRAME, Kind, Kinds, WireError, check_body

(_DEFINE, _OPEN, _DATA, _CREDIT, _CANCEL, _STARTED, _END, _LOG) = range(2, 10)
_BATCH = 13

_DEFINE_FIELDS = Struct("<QH")
_OPEN_FIELDS = Struct("<QQIBdQI")
_DATA_FIELDS = Struct("<Q")
_CREDIT_FIELDS = Struct("<QI")
_CANCEL_FIELDS = Struct("<Q")
_STARTED_FIELDS = Struct("<Qd")
_END_FIELDS = Struct("<QBdddHI")
_LOG_FIELDS = Struct("<QB")
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


def encode_define(key: int, name: str, params: bytes) -> bytes:
    """Return a `Define` frame. Raises `WireError` if the params are too large for one frame."""
    label = name.encode()
    length = _DEFINE_FIELDS.size + len(label) + len(params)
    if length > MAX_FRAME:
        raise WireError(
            f"the params of pipeline '{name}' are {len(params)} bytes; at most {MAX_FRAME // 2} fit in a frame"
        )
    return b"".join((HEAD.pack(length, _DEFINE), _DEFINE_FIELDS.pack(key, len(label)), label, params))


def encode_open(
    attempt: int, task: int, number: int, dated: bool, timeout: float, pipeline: int, size: int, body: bytes
) -> bytes:
    """Return an `Open` frame; `body` is empty if `size` is over `INLINE`."""
    return _pack_open(41 + len(body), _OPEN, attempt, task, number, dated, timeout, pipeline, size) + body


def encode_batch(attempt: int, entries: Iterable[Entry]) -> bytes:
    """Return a `Batch` frame."""
    packed = b"".join([_ENTRY.pack(*entry) for entry in entries])
    return HEAD.pack(_BATCH_FIELDS.size + len(packed), _BATCH) + _BATCH_FIELDS.pack(attempt) + packed


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


def _encode_log_text(attempt: int, stream: int, text: str) -> bytes:
    return encode_log(attempt, stream, text.encode())


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
        check_body(size, body)
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
        check_body(size, body)
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


KINDS: Final[Kinds] = {
    _DEFINE: Kind(Define, _DEFINE_FIELDS, encode_define, _define),
    _OPEN: Kind(Open, _OPEN_FIELDS, encode_open, _open),
    _DATA: Kind(Data, _DATA_FIELDS, encode_data, _data),
    _CREDIT: Kind(Credit, _CREDIT_FIELDS, encode_credit),
    _CANCEL: Kind(Cancel, _CANCEL_FIELDS, encode_cancel),
    _STARTED: Kind(Started, _STARTED_FIELDS, encode_started),
    _END: Kind(End, _END_FIELDS, encode_end, _end),
    _LOG: Kind(Log, _LOG_FIELDS, _encode_log_text, _log),
    _BATCH: Kind(Batch, _BATCH_FIELDS, encode_batch, _batch),
}
