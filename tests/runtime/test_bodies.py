import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtime.bodies import Receiver, Sender
from penstock.runtime.wire import CHUNK, WINDOW, Credit, Data, Decoder, Open, WireError


def head(attempt: int, size: int) -> Open:
    return Open(attempt, 1, 1, False, 1.0, 1, size, b"")


@given(st.lists(st.integers(1, 6 * WINDOW), min_size=1, max_size=4), st.randoms())
def test_bodies_arrive_whole_and_none_is_ever_further_ahead_than_the_window(sizes: list[int], chance: object) -> None:
    bodies = {attempt: bytes([attempt]) * size for attempt, size in enumerate(sizes, 1)}
    sender, receiver = Sender(), Receiver[Open]()
    line: list[Data] = []
    arrived: dict[int, bytes] = {}

    def put(frames: bytes) -> None:
        line.extend(frame for frame in Decoder().feed(frames) if isinstance(frame, Data))

    for attempt, body in bodies.items():
        receiver.expect(head(attempt, len(body)))
        put(sender.begin(attempt, body))
    while line:
        for attempt in bodies:
            assert sum(len(data.piece) for data in line if data.attempt == attempt) <= WINDOW
        assert all(len(data.piece) <= CHUNK for data in line)
        # Pieces of one body stay in order; which body comes next is chance.
        attempt = chance.choice(sorted({data.attempt for data in line}))  # type: ignore[attr-defined]
        data = next(data for data in line if data.attempt == attempt)
        line.remove(data)
        credit, complete = receiver.take(data)
        if complete:
            arrived[complete[0].attempt] = complete[1]
        for frame in Decoder().feed(credit):
            assert isinstance(frame, Credit)
            put(sender.credit(frame.attempt, frame.granted))
    assert arrived == bodies
    assert len(sender) == 0
    assert len(receiver) == 0


def test_a_dropped_body_is_sent_no_further_and_its_pieces_are_ignored() -> None:
    sender, receiver = Sender(), Receiver[Open]()
    sender.begin(1, b"x" * (2 * WINDOW))
    receiver.expect(head(1, 2 * WINDOW))
    sender.drop(1)
    assert receiver.drop(1)
    assert not receiver.drop(1)
    assert sender.credit(1, CHUNK) == b""
    assert receiver.take(Data(1, b"x")) == (b"", None)


def test_more_than_was_announced_is_refused() -> None:
    receiver = Receiver[Open]()
    receiver.expect(head(1, 3))
    with pytest.raises(WireError, match="longer than the 3 bytes"):
        receiver.take(Data(1, b"four"))


def test_a_body_is_announced_once() -> None:
    receiver = Receiver[Open]()
    receiver.expect(head(1, 3))
    with pytest.raises(WireError, match="second body"):
        receiver.expect(head(1, 3))
