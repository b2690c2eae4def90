"""What a handler may return for a batch, and what that means for each task."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import Throttled
from penstock.runtime.batches import Tasks
from penstock.runtime.results import NotJSON, Result
from penstock.runtime.wire import ERROR, OK, PARTS, THROTTLED, Entry, decode_parts

NAMES = [f"{number:016x}" for number in (7, 8, 9)]


def batch(*payloads: bytes) -> tuple[Tasks, bytes]:
    """Return a batch of tasks numbered from 7 on, and its body."""
    entries = tuple(Entry(7 + at, 1, len(payload)) for at, payload in enumerate(payloads))
    return Tasks(entries), b"".join(payloads)


def answered(value: Any, *payloads: bytes) -> Result:
    """Return what a value comes to for three tasks, or for those given."""
    tasks, body = batch(*(payloads or (b"1", b"2", b"3")))
    tasks.decode(body)
    return tasks.encode(value)


def told(result: Result) -> list[tuple[int, Any]]:
    assert result.ending == PARTS
    return [(ending, json.loads(body)) for ending, body in decode_parts(result.body)]


JSON = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3))


@given(st.lists(JSON, min_size=1, max_size=6))
def test_events_and_results_travel_in_order_whatever_they_are(events: list[Any]) -> None:
    tasks, body = batch(*(json.dumps(event).encode() for event in events))
    assert tasks.decode(body) == events
    assert told(tasks.encode(events)) == [(OK, event) for event in events]


@pytest.mark.parametrize("value", [(1, None, "three"), [1, None, "three"]])
def test_a_list_or_a_tuple_has_a_result_for_each(value: Any) -> None:
    assert told(answered(value)) == [(OK, 1), (OK, None), (OK, "three")]


def test_nothing_is_null_for_all() -> None:
    assert told(answered(None)) == [(OK, None)] * 3


@pytest.mark.parametrize("value", [[], [1, 2], [1, 2, 3, 4], 7, "abc", {"a": 1}, {1, 2, 3}, {"batchItemFailures": 7}])
def test_what_says_nothing_of_each_is_an_error_of_all(value: Any) -> None:
    result = answered(value)
    assert result.ending == ERROR
    assert json.loads(result.body)["type"] == "BadBatchResult"
    assert "3 events" in json.loads(result.body)["message"]


def test_an_exception_or_what_is_not_json_fails_alone() -> None:
    parts = told(answered([1, KeyError("gone"), {1}]))
    assert [ending for ending, _ in parts] == [OK, ERROR, ERROR]
    assert [body["type"] for _, body in parts[1:]] == ["KeyError", "NotJSON"]


def test_some_may_be_wanted_later_and_the_longest_wait_counts() -> None:
    result = answered([1, Throttled(retry_after=2.0, limit="a"), Throttled(retry_after=5.0, limit="b")])
    assert [ending for ending, _ in told(result)] == [OK, THROTTLED, THROTTLED]
    assert (result.retry_after, result.limit) == (5.0, "b")


@pytest.mark.parametrize(
    ("reported", "endings"),
    [
        ([], [OK, OK, OK]),
        (None, [OK, OK, OK]),
        ([{"itemIdentifier": NAMES[1]}], [OK, ERROR, OK]),
        ([{"itemIdentifier": NAMES[0]}, {"itemIdentifier": NAMES[2]}], [ERROR, OK, ERROR]),
    ],
)
def test_failures_may_be_reported_as_for_aws_lambda(reported: Any, endings: list[int]) -> None:
    assert [ending for ending, _ in told(answered({"batchItemFailures": reported}))] == endings


@pytest.mark.parametrize("reported", [[{"itemIdentifier": "0" * 16}], [{}], [NAMES[0]], [{"itemIdentifier": []}]])
def test_a_report_of_what_is_not_in_the_batch_fails_all(reported: Any) -> None:
    assert answered({"batchItemFailures": reported}).ending == ERROR


def test_a_payload_that_is_not_json_fails_alone_and_the_handler_does_not_see_it() -> None:
    tasks, body = batch(b"1", b"{nope", b"", b"[" + b"9" * 5000 + b"]")
    assert tasks.decode(body) == [1, None]
    assert [entry.task for entry in tasks.entries] == [7, 9]
    parts = told(tasks.encode(["one", "none"]))
    assert [(ending, body if ending == OK else body["type"]) for ending, body in parts] == [
        (OK, "one"), (ERROR, "NotJSON"), (OK, "none"), (ERROR, "NotJSON"),
    ]  # fmt: skip


def test_a_batch_without_a_single_event_is_not_called() -> None:
    tasks, body = batch(b"{", b"}")
    with pytest.raises(NotJSON):
        tasks.decode(body)
