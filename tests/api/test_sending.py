"""Sending tasks: one, a list, or one a line; what is refused is refused as a whole."""

import asyncio
import contextlib
import json
import time
from datetime import UTC, datetime, timedelta, timezone
from http.client import HTTPConnection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.api.serving import Answer, Server

from penstock.api.exchange import MOST_BODY
from penstock.api.sending import MOST_TASKS, SLICE_BYTES, read_tasks
from penstock.domain.errors import BadRequest
from penstock.engine.intake import Item

LINES = {"Content-Type": "application/x-ndjson"}


def send(server: Server, pipeline: str, body: Any, **headers: str) -> Answer:
    return server.post(f"/v1/pipelines/{pipeline}/tasks", body, **headers)


def read(body: bytes, content_type: bytes = b"application/json") -> list[Item]:
    return asyncio.run(read_tasks(body, {b"content-type": content_type}, 1000.0))[0]


def test_one_task_is_done_with_its_result(server: Server, name: str) -> None:
    server.make(name, "echo")
    answer = send(server, name, {"payload": {"a": [1, 2.5, None, "ü"]}})
    assert answer.status == 202
    (task,) = answer.json()["ids"]
    ended = server.wait(task)
    assert ended["id"] == task
    assert ended["state"] == "done"
    assert ended["outcome"] == "ok"
    assert ended["result"] == {"a": [1, 2.5, None, "ü"]}
    assert ended["error"] is None
    assert ended["pipeline"] == name
    assert ended["function"] == "echo"
    assert ended["attempts"] == 1
    assert ended["created"] <= ended["started"] <= ended["finished"]
    assert ended["finished"].endswith("Z")


def test_a_list_and_lines_give_ids_in_order(server: Server, name: str) -> None:
    server.make(name, "echo")
    tasks = [{"payload": number} for number in range(20)]
    listed = send(server, name, tasks).json()["ids"]
    lined = send(server, name, b"\n".join(json.dumps(one).encode() for one in tasks), **LINES).json()["ids"]
    assert [server.wait(task)["result"] for task in listed + lined] == [*range(20), *range(20)]
    assert listed + lined == sorted(listed + lined)


def test_nothing_is_a_batch_too(server: Server, blocked: str) -> None:
    assert send(server, blocked, []).json() == {"ids": []}
    assert send(server, blocked, b"\n\n", **LINES).json() == {"ids": []}


def test_a_task_without_a_payload_carries_null(server: Server, name: str) -> None:
    server.make(name, "echo")
    (task,) = send(server, name, {}).json()["ids"]
    assert server.wait(task)["result"] is None


def test_keys_make_sending_safe_to_repeat(server: Server, blocked: str) -> None:
    first = send(server, blocked, {"payload": 1, "key": "order-1"}).json()
    assert send(server, blocked, {"payload": 2, "key": "order-1"}).json() == {**first, "duplicates": [0]}
    one = send(server, blocked, {"payload": 1}, **{"Idempotency-Key": "k"}).json()["ids"]
    assert send(server, blocked, {"payload": 1}, **{"Idempotency-Key": "k"}).json() == {"ids": one, "duplicates": [0]}
    tasks = [{"payload": 1}, {"payload": 2, "key": "order-1"}, {"payload": 3}]
    many = send(server, blocked, tasks, **{"Idempotency-Key": "batch"}).json()
    assert many["duplicates"] == [1]
    assert many["ids"][1] == first["ids"][0]
    again = send(server, blocked, tasks, **{"Idempotency-Key": "batch"}).json()
    assert again == {"ids": many["ids"], "duplicates": [0, 1, 2]}
    longer = send(server, blocked, [*tasks, {}], **{"Idempotency-Key": "batch"}).json()
    assert longer["ids"][:3] == many["ids"]
    assert longer["duplicates"] == [0, 1, 2]
    assert server.get(f"/v1/tasks/{one[0]}").json()["key"] == "k"


def test_delay_and_moment(server: Server, name: str) -> None:
    server.make(name, "echo")
    (later,) = send(server, name, {"delay": "1h", "cost": 2.5, "priority": -3}).json()["ids"]
    shown = server.get(f"/v1/tasks/{later}").json()
    assert shown["state"] == "delayed"
    assert shown["due"] > shown["created"]
    assert (shown["cost"], shown["priority"]) == (2.5, -3)
    moment = datetime.now(UTC) + timedelta(days=30)
    (then,) = send(server, name, {"at": moment.astimezone(timezone(timedelta(hours=5))).isoformat()}).json()["ids"]
    due = datetime.fromisoformat(server.get(f"/v1/tasks/{then}").json()["due"])
    assert abs(due - moment) < timedelta(milliseconds=2)
    (past,) = send(server, name, {"at": "2001-01-01T00:00:00Z"}).json()["ids"]
    assert server.wait(past)["state"] == "done"


def test_of_tasks_with_one_key_only_the_last_runs_where_a_pipeline_debounces(server: Server, name: str) -> None:
    server.make(name, "echo", debounce={"wait": "2s", "most": "1m"})
    first = send(server, name, [{"payload": 1}, {"payload": 2, "key": "k"}, {"payload": 3}]).json()
    assert first["ids"][0] == first["ids"][2] != first["ids"][1]
    assert first["replaced"] == [2]
    second = send(server, name, {"payload": 4}, **{"Idempotency-Key": "x"}).json()
    assert second == {"ids": [first["ids"][0]], "replaced": [0]}
    assert send(server, name, {"payload": 4}, **{"Idempotency-Key": "x"}).json() == {
        "ids": [first["ids"][0]], "duplicates": [0],
    }  # fmt: skip
    assert [server.wait(task)["result"] for task in first["ids"]] == [4, 2, 4]
    later = send(server, name, {"payload": 5}).json()["ids"]
    assert later != first["ids"][:1]
    assert server.wait(later[0])["result"] == 5
    refused = send(server, name, {"payload": 1, "delay": "1s"})
    assert refused.code == "bad-request"
    assert "debounces" in refused.json()["detail"]


def test_a_pipeline_may_remember_keys_for_a_shorter_time(server: Server, name: str) -> None:
    server.make(name, "echo", dedup="2s")
    first = send(server, name, {"key": "k"}).json()["ids"]
    assert send(server, name, {"key": "k"}).json() == {"ids": first, "duplicates": [0]}
    deadline = time.monotonic() + 20
    while send(server, name, {"key": "k"}).json()["ids"] == first:
        assert time.monotonic() < deadline


def test_a_task_that_has_not_started_in_time_ends_as_expired(server: Server, blocked: str) -> None:
    urgent, later, patient = (
        send(server, blocked, [{"expires_after": "100ms"}, {"delay": "50ms", "expires_after": 0.1}, {}]).json()["ids"]
    )  # fmt: skip
    for task in (urgent, later):
        ended = server.wait(task)
        assert (ended["state"], ended["outcome"], ended["attempts"]) == ("expired", "expired", 0)
        assert "had not started" in ended["error"]["message"]
    lines = b'{"expires_after": "1h"}\n{"delay": "1h", "expires_after": "30d"}'
    soon, bounded = send(server, blocked, lines, **LINES).json()["ids"]
    shown = server.get(f"/v1/tasks/{soon}").json()
    waits = datetime.fromisoformat(shown["expires"]) - datetime.fromisoformat(shown["created"])
    assert waits == timedelta(hours=1)
    shown = server.get(f"/v1/tasks/{bounded}").json()  # max_age is two weeks, and counts from when it is due
    assert datetime.fromisoformat(shown["expires"]) - datetime.fromisoformat(shown["due"]) == timedelta(days=14)
    assert server.get(f"/v1/tasks/{patient}").json()["state"] == "queued"


@pytest.mark.parametrize(
    ("task", "says"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"7", "expected an object, got a whole number"),
        (b'{"paylod": 1}', "paylod"),
        (b'{"payload": 1, "delay": "soon"}', "'soon' is not a duration"),
        (b'{"payload": 1, "delay": -1}', "negative"),
        (b'{"payload": 1, "delay": "1s", "at": "2035-01-01T00:00:00Z"}', "two ways"),
        (b'{"payload": 1, "at": "2035-01-01T00:00:00"}', "time zone"),
        (b'{"payload": 1, "at": "tomorrow"}', "expected a moment such as 2030-01-31T12:00:00Z, at "),
        (b'{"payload": 1, "delay": "500d"}', "a year at most"),
        (b'{"payload": 1, "expires_after": "soon"}', "expires_after is wrong: 'soon' is not a duration"),
        (b'{"payload": 1, "expires_after": 0}', "could never start"),
        (b'{"payload": 1, "cost": 0}', "expected a number > 0.0, at "),
        (b'{"payload": 1, "cost": 1e999}', "cost"),
        (b'{"payload": 1, "priority": 1.5}', "priority"),
        (b'{"payload": 1, "key": ""}', "expected text of length >= 1"),
        (b'{"payload": nul}', "not JSON"),
        (b'{"payload": NaN}', "not JSON"),
        (b'{"payload": "\xff"}', "not UTF-8"),
        (b'{"payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deeply"),
    ],
)
def test_what_is_no_task_is_refused(server: Server, blocked: str, task: bytes, says: str) -> None:
    for body, headers in ((task, {}), (b"[{},%b]" % task, {}), (b"{}\n%b" % (task or b"{"), LINES)):
        answer = send(server, blocked, body, **headers)
        assert answer.status == 400, (body[:80], answer.body)
        assert answer.code == "bad-request"
        assert says in answer.json()["detail"]
    assert server.get(f"/v1/tasks?pipeline={blocked}").json()["tasks"] == []


def test_a_mistake_names_the_task(server: Server, blocked: str) -> None:
    assert "at [2].cost" in send(server, blocked, [{}, {}, {"cost": "x"}]).json()["detail"]
    assert "Task 1: delay" in send(server, blocked, [{}, {"delay": "x"}]).json()["detail"]


def test_bounds(server: Server, blocked: str) -> None:
    assert send(server, blocked, {"payload": "x" * 300_000}).code == "too-large"
    assert send(server, blocked, b"{}\n" * (MOST_TASKS + 1), **LINES).code == "too-large"
    assert send(server, blocked, b"[" + b"{}," * MOST_TASKS + b"{}]").code == "too-large"
    assert send(server, blocked, {}, **{"Idempotency-Key": "x" * 257}).code == "bad-request"
    assert server.get(f"/v1/tasks?pipeline={blocked}").json()["tasks"] == []


def test_a_body_over_the_bound_is_refused_before_it_comes(server: Server, blocked: str) -> None:
    connection, response = server.open(
        "POST", f"/v1/pipelines/{blocked}/tasks", b"", {"Content-Length": str(MOST_BODY + 1)}
    )
    assert response.status == 413
    connection.close()


def test_a_full_pipeline_says_when_to_come_again(server: Server, name: str) -> None:
    server.make(name, "echo", paused=True, max_queued=2)
    assert send(server, name, [{}, {}, {}]).code == "queue-full"
    assert send(server, name, [{}, {}]).status == 202
    answer = send(server, name, {})
    assert answer.status == 429
    assert answer.code == "queue-full"
    assert int(answer.headers["retry-after"]) >= 1


def test_unknown_pipelines(server: Server, blocked: str) -> None:
    answer = send(server, blocked + "x", {})
    assert answer.status == 404
    assert answer.code == "not-found"
    assert answer.json()["nearest"] == blocked
    assert send(server, "@echo", {}).code == "not-found"
    assert server.get(f"/v1/pipelines/{blocked}/tasks").status == 405
    assert server.get(f"/v1/pipelines/{blocked}/tasks").headers["allow"] == "POST"


def test_a_chunked_body_is_a_body(server: Server, name: str) -> None:
    server.make(name, "echo")
    pieces = [b'{"payl', b'oad": ', b"1}"]
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("POST", f"/v1/pipelines/{name}/tasks", iter(pieces), server.headers(), encode_chunked=True)
        response = connection.getresponse()
        assert response.status == 202
        (task,) = json.loads(response.read())["ids"]
    assert server.wait(task)["result"] == 1


# the law: what is read is what was written ---------------------------------------------------------------------------------
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
spacing = st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " : ")])


@given(st.lists(json_values, max_size=6), spacing, st.booleans())
def test_payloads_stay_the_bytes_that_they_are(payloads: list[Any], spaces: tuple[str, str], ascii_only: bool) -> None:
    texts = [
        json.dumps(one, separators=spaces, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for one in payloads
    ]
    tasks = [b'{"payload":%b}' % text for text in texts]
    try:
        b"".join(texts).decode()
    except UnicodeDecodeError:
        return
    assert [item.payload for item in read(b"[" + b" ,".join(tasks) + b"]")] == texts
    assert [item.payload for item in read(b"\n".join(tasks), b"application/x-ndjson; charset=utf-8")] == texts
    for task, text in zip(tasks, texts, strict=True):
        assert [item.payload for item in read(b" \n" + task + b"\r\n")] == [text]


@given(st.binary(max_size=60))
def test_garbage_is_refused_and_nothing_else(body: bytes) -> None:
    for content_type in (b"application/json", b"application/x-ndjson"):
        with contextlib.suppress(BadRequest):
            for item in read(body, content_type):
                json.loads(item.payload)


def test_long_bodies_are_read_in_slices() -> None:
    line = json.dumps({"payload": "x" * 1000, "delay": 1}).encode()
    count = 2 * SLICE_BYTES // len(line)
    items = read(b"\n".join([line] * count), b"application/x-ndjson")
    assert [len(item.payload) for item in items] == [1002] * count
    assert {item.due for item in items} == {1001.0}


@pytest.mark.parametrize("change", ["the limit is lowered", "a metered limit is added", "a shared limit is lowered"])
def test_a_task_that_has_become_too_dear_ends_as_dead_with_the_reason(server: Server, name: str, change: str) -> None:
    def tokens(n: int) -> dict[str, str]:
        return {"rate": f"{n}/h", "style": "window", "meter": "cost"}

    assert server.put(f"/v1/limits/{name}", {"rate": tokens(100)}).status == 201
    own = {} if change == "a metered limit is added" else {"rate": tokens(100)}
    server.make(name, "echo", paused=True, limits=[name], **own)
    dear, cheap = send(server, name, [{"cost": 80}, {"cost": 5, "payload": 5}]).json()["ids"]
    if change == "a shared limit is lowered":
        server.ask("PATCH", f"/v1/limits/{name}", {"rate": tokens(10)})
    else:
        server.ask("PATCH", f"/v1/pipelines/{name}", {"rate": tokens(10)})
    assert server.post(f"/v1/pipelines/{name}/resume", None).status == 200
    assert server.wait(cheap)["result"] == 5
    ended = server.wait(dear)
    assert (ended["state"], ended["outcome"], ended["attempts"]) == ("dead", "error", 0)
    assert f"costs 80, more than the limit '{name}' ever lets pass" in ended["error"]["message"]
