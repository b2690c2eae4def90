"""Who asks for limits is told something, also just when the task ends."""

from collections.abc import Callable

import pytest

from penstock.runtime import wire
from penstock.runtime.errors import LimitError, UnknownLimit
from penstock.runtime.orders import over
from penstock.runtime.taking import SyncTaking
from penstock.runtime.wire import Answer

TASK = 7


class Line:
    """Be a channel that keeps what is sent, and lets something happen at that moment."""

    abandoned = False

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def send(self, frames: bytes) -> None:
        self.sent.append(frames)
        self.meanwhile()


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def taking(line: Line) -> SyncTaking:
    """The limits of an instance in which a task runs; nobody waits for an answer for ever."""
    made = SyncTaking(line, lambda answers: answers.get(timeout=10), lambda _encode: None)  # type: ignore[arg-type]
    made.begin(TASK)
    return made


def test_who_asks_after_the_end_is_refused_and_nothing_is_kept_of_it(taking: SyncTaking, line: Line) -> None:
    taking.end(TASK)
    for _ in range(2):
        with pytest.raises(LimitError, match="has ended"):
            taking.acquire(TASK, "provider", 1)
    assert (line.sent, taking._waiting) == ([], {})


def test_who_asks_just_before_the_end_hears_of_it(taking: SyncTaking, line: Line) -> None:
    line.meanwhile = lambda: taking.end(TASK)
    with pytest.raises(LimitError, match="has ended"):
        taking.acquire(TASK, "provider", 1)
    assert not taking._waiting


def test_an_answer_that_comes_just_at_the_end_disturbs_nobody(taking: SyncTaking) -> None:
    """The reader and a thread that ends its task touch the same requests."""

    class Hearer:
        """Let the next answer come while this one is passed on."""

        def __init__(self, heard: list[int], then: Callable[[], object]) -> None:
            self.heard, self.then = heard, then

        def put(self, answer: Answer) -> None:
            self.heard.append(answer.number)
            self.then()

    heard: list[int] = []
    waiting = taking._waiting[TASK]
    waiting[1] = Hearer(heard, lambda: waiting.pop(2, None)), over
    waiting[2] = Hearer(heard, lambda: None), over
    taking.end(TASK)
    assert heard == [1, 2]


def test_a_name_that_no_limit_can_have_is_refused_at_once(taking: SyncTaking, line: Line) -> None:
    with pytest.raises(UnknownLimit, match="5,000,000 characters"):
        taking.acquire(TASK, "x" * 5_000_000, 1)
    assert not line.sent
    taking._wait = lambda answers: Answer(TASK, 1, wire.GRANTED, "")
    taking.acquire(TASK, "x" * 100, 1)
    assert len(line.sent) == 1
