import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.runtime import blackbox
from penstock.runtime.blackbox import BlackBox
from penstock.runtime.output import KEPT, Capture, Output
from penstock.runtime.wire import LOG, STDERR, STDOUT, Decoder, Log


class Sent:
    def __init__(self, folder: Path) -> None:
        self.file = os.open(folder / "output", os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self.box = folder / "box"
        self.frames: list[Log] = []
        self.output = Output(self.take, self.file, str(self.box))

    def take(self, data: bytes) -> None:
        self.frames += [frame for frame in Decoder().feed(data) if isinstance(frame, Log)]

    def text(self, attempt: int, stream: int = STDOUT) -> str:
        return "".join(frame.text for frame in self.frames if (frame.attempt, frame.stream) == (attempt, stream))


@pytest.fixture
def sent(tmp_path: Path) -> Iterator[Sent]:
    made = Sent(tmp_path)
    yield made
    os.close(made.file)


def test_text_of_several_is_kept_apart_and_is_there_before_the_end(sent: Sent) -> None:
    one, two = Capture(1), Capture(2)
    for number in range(3):
        sent.output.write(STDOUT, f"one {number}\n", one)
        sent.output.write(STDOUT, f"two {number}\n", two)
        sent.output.write(STDERR, "e", one)
    sent.output.end(one)
    assert sent.text(1) == "one 0\none 1\none 2\n"
    assert sent.text(1, STDERR) == "eee"
    sent.output.end(two)
    assert sent.text(2) == "two 0\ntwo 1\ntwo 2\n"


def test_what_is_printed_bit_by_bit_is_one_frame(sent: Sent) -> None:
    capture = Capture(1)
    for bit in ("a", " ", "b", "\n"):
        sent.output.write(STDOUT, bit, capture)
    sent.output.end(capture)
    assert [frame.text for frame in sent.frames] == ["a b\n"]


def test_a_flood_is_bounded_and_what_was_dropped_is_counted(sent: Sent) -> None:
    capture = Capture(1)
    line = "ü" * 49 + "\n"
    for _ in range(20_000):
        sent.output.write(STDOUT, line, capture)
    sent.output.end(capture)
    kept = len(sent.text(1).encode())
    assert KEPT - 4 < kept <= KEPT
    assert f"{20_000 * 99 - KEPT} bytes of output were dropped" in sent.text(1, LOG)


def test_one_huge_text_is_cut_between_characters(sent: Sent) -> None:
    capture = Capture(1)
    sent.output.write(STDOUT, "x" + "€" * KEPT, capture)
    sent.output.end(capture)
    assert sent.text(1) == "x" + "€" * ((KEPT - 1) // 3)


def test_what_comes_after_the_end_belongs_to_none(sent: Sent) -> None:
    capture = Capture(1)
    sent.output.write(STDOUT, "before", capture)
    sent.output.end(capture)
    sent.output.write(STDOUT, "after", capture)
    sent.output.flush()
    assert sent.text(1) == "before"
    assert sent.text(0) == "after"


def test_many_threads_lose_nothing(sent: Sent) -> None:
    captures = [Capture(number) for number in range(1, 9)]

    def work(capture: Capture) -> None:
        for number in range(500):
            sent.output.write(STDOUT, f"{number}\n", capture)
        sent.output.end(capture)

    threads = [threading.Thread(target=work, args=(capture,)) for capture in captures]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wanted = "".join(f"{number}\n" for number in range(500))
    assert [sent.text(number) for number in range(1, 9)] == [wanted] * 8


def test_the_file_is_fetched_and_emptied(sent: Sent) -> None:
    os.write(sent.file, b"from C\n")
    sent.take(sent.output.raw(3))
    assert sent.text(3) == "from C\n"
    assert os.fstat(sent.file).st_size == 0
    assert sent.output.raw(3) == b""


def test_what_was_not_sent_is_found_after_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "box"
    box = BlackBox(str(path))
    assert box.add(1, STDOUT, b"one ")
    assert box.add(1, STDOUT, b"more\n")
    assert box.add(2, STDERR, b"other\n")
    assert blackbox.recover(path.read_bytes()) == [Log(1, STDOUT, "one more\n"), Log(2, STDERR, "other\n")]
    box.take()
    assert blackbox.recover(path.read_bytes()) == []
    assert box.add(1, STDOUT, b"again\n")
    assert blackbox.recover(path.read_bytes()) == [Log(1, STDOUT, "again\n")]


@pytest.mark.parametrize("damage", [b"", b"\xff\xff\xff\xff", b"\x05\0\0\0\0\0\0\0\x63"])
def test_a_box_that_makes_no_sense_holds_nothing(damage: bytes) -> None:
    assert blackbox.recover(damage) == []


def test_a_full_box_takes_nothing_more(tmp_path: Path) -> None:
    box = BlackBox(str(tmp_path / "box"))
    assert not box.add(1, STDOUT, b"x" * blackbox.SIZE)
    assert box.filled == 0
