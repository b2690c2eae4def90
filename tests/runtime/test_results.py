import json
from typing import Any

import pytest

from penstock.runtime.results import MAX_TRACEBACK, NotJSON, decode_event, encode_exception, encode_result
from penstock.runtime.wire import ERROR, OK, THROTTLED


def error_of(body: bytes) -> dict[str, str]:
    error: dict[str, str] = json.loads(body)
    return error


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "ü€😀", [1, [2]], {"a": {"b": None}}])
def test_json_goes_through(value: Any) -> None:
    result = encode_result(value)
    assert result.ending == OK
    assert json.loads(result.body) == value
    assert decode_event(result.body) == value


def test_half_a_surrogate_pair_goes_through_as_an_escape() -> None:
    assert encode_result("\ud83d").body == b'"\\ud83d"'


def test_nothing_is_none() -> None:
    assert decode_event(b"") is None


@pytest.mark.parametrize(
    ("value", "names"),
    [({1, 2}, "set"), (object(), "object"), (float("nan"), "float"), ([float("inf")], "float"), (b"x", "bytes")],
)
def test_what_is_not_json_is_an_error_that_names_it(value: Any, names: str) -> None:
    result = encode_result(value)
    assert result.ending == ERROR
    error = error_of(result.body)
    assert error["type"] == "NotJSON"
    assert names in error["message"]


def test_a_circle_is_an_error() -> None:
    circle: list[Any] = []
    circle.append(circle)
    assert encode_result(circle).ending == ERROR


@pytest.mark.parametrize("payload", [b"{", b"\xff", b"nope"])
def test_a_payload_that_is_not_json_is_refused(payload: bytes) -> None:
    with pytest.raises(NotJSON, match="handler was not called"):
        decode_event(payload)


def raised(raise_it: Any) -> BaseException:
    try:
        raise_it()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_a_long_traceback_is_cut_in_the_middle() -> None:
    def fail() -> None:
        raise ValueError("x" * 1_000_000)

    error = error_of(encode_exception(raised(fail)).body)
    assert len(error["traceback"]) <= MAX_TRACEBACK
    assert error["traceback"].startswith("Traceback")
    assert "the middle was cut" in error["traceback"]
    assert len(error["message"]) < 20_000


def test_an_exception_that_cannot_be_formatted_is_still_told() -> None:
    class Hostile(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    def fail() -> None:
        raise Hostile

    error = error_of(encode_exception(raised(fail)).body)
    assert error["type"] == "Hostile"
    assert "RuntimeError" in error["message"]


def test_endless_recursion_is_an_error_of_bounded_size() -> None:
    def fall() -> None:
        fall()

    error = error_of(encode_exception(raised(fall)).body)
    assert error["type"] == "RecursionError"
    assert len(error["traceback"]) <= MAX_TRACEBACK


def test_a_throttled_execution_carries_its_wait() -> None:
    from penstock import Throttled  # noqa: PLC0415 - as a handler does

    result = encode_exception(Throttled(retry_after=3, limit="provider"))
    assert (result.ending, result.retry_after, result.limit) == (THROTTLED, 3.0, "provider")
