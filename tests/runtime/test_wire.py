import contextlib
import math
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtime import frames, wire, wire_executions, wire_limits, wire_lives, wire_orders, wire_web
from penstock.runtime.wire import Decoder, Frame, WireError

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
MOMENTS = st.floats(allow_nan=False)
COSTS = st.floats(0, allow_nan=False, allow_infinity=False)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
BODIES = st.binary(max_size=300)
INLINE = BODIES.map(lambda body: (len(body), body))
LONG = st.integers(wire.INLINE + 1, wire.MAX_BODY).map(lambda size: (size, b""))

ORDERED = st.integers(wire.INLINE + 1, wire.MAX_ORDER).map(lambda size: (size, b""))


def _open(head: tuple[int, int, int, bool, float, int], body: tuple[int, bytes]) -> wire.Open:
    return wire.Open(*head, *body)


def _end(head: tuple[int, int, float, float, float | None, str], body: tuple[int, bytes]) -> wire.End:
    return wire.End(*head, *body)


def _order(head: tuple[int, int, int, bool, str, bytes], body: tuple[int, bytes]) -> wire.Order:
    return wire.Order(*head, *body)


def _reply(head: tuple[int, int, int], body: tuple[int, bytes]) -> wire.Reply:
    return wire.Reply(*head, *body)


FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(wire.Hello, U32, MOMENTS),
    st.builds(wire.Define, U64, TEXT, BODIES),
    st.builds(_open, st.tuples(U64, U64, U32, st.booleans(), MOMENTS, U64), INLINE | LONG),
    st.builds(wire.Batch, U64, st.lists(st.builds(wire.Entry, U64, U32, U32), max_size=5).map(tuple)),
    st.builds(wire.Data, U64, BODIES),
    st.builds(wire.Credit, U64, U32),
    st.builds(wire.Cancel, U64),
    st.builds(wire.Started, U64, MOMENTS),
    st.builds(_end, st.tuples(U64, st.integers(0, 4), MOMENTS, MOMENTS, st.none() | MOMENTS, TEXT), INLINE | LONG),
    st.builds(wire.Log, U64, st.integers(0, 2), TEXT),
    st.builds(wire.Take, U64, U32, st.booleans(), COSTS.filter(bool), TEXT),
    st.builds(wire.Answer, U64, U32, st.integers(0, 4), TEXT),
    st.builds(wire.Took, U64, U32, MOMENTS),
    st.builds(wire.Give, U64, U32),
    st.builds(wire.Spent, U64, COSTS),
    st.builds(_order, st.tuples(U64, U32, st.integers(0, 1), st.booleans(), TEXT, BODIES), INLINE | ORDERED),
    st.builds(wire.Wait, U64, U32),
    st.builds(_reply, st.tuples(U64, U32, st.integers(0, 2)), INLINE | LONG),
    st.builds(frames.Visit, U64, st.booleans(), BODIES),
    st.builds(frames.Head, U64, st.integers(0, 2**16 - 1), BODIES),
    st.builds(frames.Piece, U64, st.integers(0, 3), BODIES),
    st.builds(frames.Close, U64, st.integers(0, 2**16 - 1), TEXT),
    st.builds(wire.Stop),
    st.builds(wire.Ping),
    st.builds(wire.Pong, MOMENTS),
)


@given(st.lists(FRAMES, max_size=12), st.lists(st.integers(1, 400), min_size=1, max_size=30))
def test_frames_come_out_as_they_went_in_however_the_stream_is_cut(frames: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(map(wire.encode, frames))
    decoder, out, at, turn = Decoder(), [], 0, 0
    while at < len(stream):
        step = cuts[turn % len(cuts)]
        out += decoder.feed(stream[at : at + step])
        at, turn = at + step, turn + 1
    assert out == frames


@given(st.lists(FRAMES, min_size=1, max_size=5))
def test_one_byte_at_a_time(frames: list[Frame]) -> None:
    decoder, out = Decoder(), []
    for byte in b"".join(map(wire.encode, frames)):
        out += decoder.feed(bytes([byte]))
    assert out == frames


def test_every_frame_has_a_number_of_its_own() -> None:
    rooms = (wire_executions, wire_limits, wire_lives, wire_orders, wire_web)
    numbers = [number for room in rooms for number in room.KINDS]
    assert len(numbers) == len(set(numbers))
    assert {kind.frame for room in rooms for kind in room.KINDS.values()} == set(get_args(Frame))


@given(st.binary(max_size=200), st.lists(FRAMES, max_size=3))
def test_what_is_no_frame_is_refused_and_never_raises_anything_else(noise: bytes, frames: list[Frame]) -> None:
    decoder = Decoder()
    try:
        out = decoder.feed(b"".join(map(wire.encode, frames)) + noise)
    except WireError:
        return
    assert out[: len(frames)] == frames


@given(st.data(), FRAMES)
def test_a_damaged_frame_is_read_as_some_frame_or_refused(data: st.DataObject, frame: Frame) -> None:
    damaged = bytearray(wire.encode(frame))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        Decoder().feed(bytes(damaged))


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (b"\x00\x00\x00\x00\x63", "kind 99"),
        (b"\xff\xff\xff\xff\x04", "4294967295 bytes"),
        (b"\x01\x00\x00\x00\x0a\x00", "0 bytes came with 1"),
        (wire.encode_open(1, 1, 1, False, 1.0, 1, 5, b"four"), "5 bytes came with 4"),
        (wire.encode_open(1, 1, 1, False, 1.0, 1, wire.MAX_BODY + 1, b""), "at most"),
        (wire.encode_end(1, 9, 1.0, 1.0, None, "", 0, b""), "unknown ending 9"),
        (wire.encode_order(1, 1, 2, True, "f", b"", 0, b""), "verb 2"),
        (wire.encode_order(1, 1, 0, True, "f", b" " * 5000, 0, b""), "longer than the frame, or than they may be"),
        (wire.encode_reply(1, 1, 3, 0, b""), "unknown status 3"),
        (wire.encode_log(1, 7, b"x"), "unknown stream 7"),
        (wire_web.encode_piece(1, 4, b"x"), "unknown flags 4"),
        (wire.encode_log(1, 0, b"\xff"), "not UTF-8"),
        (b"\x0a\x00\x00\x00\x02" + b"\0" * 8 + b"\xff\xff", "longer than the frame"),
    ],
)
def test_the_error_says_what_is_wrong(stream: bytes, says: str) -> None:
    with pytest.raises(WireError, match=says):
        Decoder().feed(stream)


def test_a_wait_that_is_not_named_is_none_and_zero_is_zero() -> None:
    (none, zero) = Decoder().feed(
        wire.encode_end(1, 2, 1.0, 2.0, None, "", 0, b"") + wire.encode_end(1, 2, 1.0, 2.0, 0.0, "l", 0, b"")
    )
    assert isinstance(none, wire.End)
    assert isinstance(zero, wire.End)
    assert none.retry_after is None
    assert zero.retry_after == 0.0
    assert zero.limit == "l"
    assert not math.isnan(none.started)


def test_params_that_do_not_fit_are_refused_by_name() -> None:
    with pytest.raises(WireError, match="pipeline 'big'"):
        wire.encode_define(1, "big", b"x" * wire.MAX_FRAME)


@given(st.lists(st.tuples(st.integers(0, 2), BODIES), max_size=8))
def test_parts_come_out_as_they_went_in(parts: list[tuple[int, bytes]]) -> None:
    assert wire.decode_parts(wire.encode_parts(parts)) == parts


@given(BODIES)
def test_what_is_no_parts_is_refused_and_nothing_else(garbage: bytes) -> None:
    with contextlib.suppress(WireError):
        assert wire.encode_parts(wire.decode_parts(garbage)) == garbage


@pytest.mark.parametrize(
    "frame",
    [
        wire.encode_take(1, 1, False, 0.0, "l"),
        wire.encode_take(1, 1, False, math.nan, "l"),
        wire.encode_take(1, 1, False, math.inf, "l"),
        wire.encode_answer(1, 1, 5, ""),
        wire.encode_spent(1, -1.0),
        wire.encode_spent(1, math.nan),
    ],
)
def test_costs_that_are_none_are_no_frames(frame: bytes) -> None:
    with pytest.raises(WireError):
        Decoder().feed(frame)
