"""The web on the wire: requests, the heads of answers, and pieces of bodies and messages both ways.

The law: never more than `WINDOW` bytes of pieces are on their way in one direction of a request; who takes them gives
credit; a piece without bytes counts as one. A piece has at most `CHUNK` bytes, so that a large body never blocks others.
"""

from struct import Struct
from typing import Final

from penstock.runtime.frames import LAST, TEXT, Close, Head, Piece, Visit
from penstock.runtime.packing import HEAD, MAX_FRAME, Kind, Kinds, WireError

(_VISIT, _HEAD, _PIECE, _CLOSE) = range(20, 24)

_VISIT_FIELDS = Struct("<QB")
_HEAD_FIELDS = Struct("<QH")
_PIECE_FIELDS = Struct("<QB")
_CLOSE_FIELDS = Struct("<QH")

_pack_visit = Struct("<IBQB").pack
_pack_head = Struct("<IBQH").pack


def encode_visit(attempt: int, more: bool, head: bytes) -> bytes:
    """Return a `Visit` frame. Raises `WireError` if the head is too large for one."""
    _check(head)
    return _pack_visit(9 + len(head), _VISIT, attempt, more) + head


def encode_head(attempt: int, status: int, headers: bytes) -> bytes:
    """Return a `Head` frame. Raises `WireError` if the headers are too large for one."""
    _check(headers)
    return _pack_head(10 + len(headers), _HEAD, attempt, status) + headers


def encode_piece(attempt: int, flags: int, data: bytes | memoryview) -> bytes:
    """Return a `Piece` frame."""
    return _pack_visit(9 + len(data), _PIECE, attempt, flags) + data


def encode_close(attempt: int, code: int, reason: str) -> bytes:
    """Return a `Close` frame."""
    text = reason.encode("utf-8", "replace")
    return HEAD.pack(10 + len(text), _CLOSE) + _CLOSE_FIELDS.pack(attempt, code) + text


def _check(head: bytes) -> None:
    if len(head) > MAX_FRAME // 2:
        raise WireError(f"the head of a web request or answer has {len(head)} bytes; at most {MAX_FRAME // 2} fit")


def _visit(data: bytes, at: int, stop: int) -> Visit:
    attempt, more = _VISIT_FIELDS.unpack_from(data, at)
    return Visit(attempt, more != 0, data[at + 9 : stop])


def _head(data: bytes, at: int, stop: int) -> Head:
    attempt, status = _HEAD_FIELDS.unpack_from(data, at)
    return Head(attempt, status, data[at + 10 : stop])


def _piece(data: bytes, at: int, stop: int) -> Piece:
    attempt, flags = _PIECE_FIELDS.unpack_from(data, at)
    if flags > LAST | TEXT:
        raise WireError(f"a Piece frame has the unknown flags {flags}")
    return Piece(attempt, flags, data[at + 9 : stop])


def _close(data: bytes, at: int, stop: int) -> Close:
    attempt, code = _CLOSE_FIELDS.unpack_from(data, at)
    return Close(attempt, code, data[at + 10 : stop].decode())


KINDS: Final[Kinds] = {
    _VISIT: Kind(Visit, _VISIT_FIELDS, encode_visit, _visit),
    _HEAD: Kind(Head, _HEAD_FIELDS, encode_head, _head),
    _PIECE: Kind(Piece, _PIECE_FIELDS, encode_piece, _piece),
    _CLOSE: Kind(Close, _CLOSE_FIELDS, encode_close, _close),
}
