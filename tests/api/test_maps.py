"""Maps over HTTP: all items or none, results as they come, and what the end of a map, a pipeline or a server does to them."""

import json
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import Answer, Server, until

from penstock.api.exchange import MOST_BODY
from penstock.engine.maps import MOST_ITEMS
from penstock.engine.model import MOST_CALL_PAYLOAD

LINES = {"Content-Type": "application/x-ndjson"}


def start(server: Server, name: str, items: Any, kind: str = "functions", query: str = "", **headers: str) -> Any:
    answer = server.post(f"/v1/{kind}/{name}/map{query}", items, **headers)
    assert answer.status == 202, answer.body
    return answer.json()


def shown(server: Server, made: Any) -> Any:
    answer = server.get(f"/v1/maps/{made['id']}")
    assert answer.status == 200, answer.body
    return answer.json()


def lines(answer: Answer) -> list[Any]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.splitlines() if line]


def results(server: Server, made: Any, query: str = "") -> list[Any]:
    return lines(server.get(f"/v1/maps/{made['id']}/results{query}"))


def test_results_come_in_the_order_of_the_items(server: Server) -> None:
    items = [{"n": n, "text": "ü\n"} for n in range(1200)]
    made = start(server, "echo", items)
    assert (made["function"], made["pipeline"], made["items"]) == ("echo", None, 1200)
    found = results(server, made)
    assert [one["index"] for one in found] == list(range(1200))
    assert [one["result"] for one in found] == items
    assert {one["outcome"] for one in found} == {"ok"}
    ended = shown(server, made)
    assert (ended["state"], ended["ended"], ended["ok"], ended["failed"]) == ("done", 1200, 1200, {})
    assert server.get(f"/v1/tasks/{found[7]['task']}").json()["result"] == items[7]
    assert server.get(f"/v1/tasks/{found[7]['task']}").json()["function"] == "echo"


def test_an_item_a_line(server: Server) -> None:
    body = b'1\n\n  {"a": [2]}  \r\n"three"'
    assert [one["result"] for one in results(server, start(server, "echo", body, **LINES))] == [1, {"a": [2]}, "three"]


def test_no_items_are_a_map_too(server: Server) -> None:
    made = start(server, "echo", [])
    assert (made["state"], made["items"], made["ended"]) == ("done", 0, 0)
    assert results(server, made) == []


def test_failures_are_seen_and_are_no_dead_letters(server: Server, name: str) -> None:
    server.deploy(name, "as_told")
    made = start(server, "fails", ["a", "b"])
    found = results(server, made)
    assert [(one["index"], one["outcome"], one["error"]["message"]) for one in found] == [
        (0, "error", "a is no good"),
        (1, "error", "b is no good"),
    ]
    assert shown(server, made)["failed"] == {"error": 2}
    assert server.get(f"/v1/tasks/{found[0]['task']}").json()["state"] == "done"


def test_results_come_as_they_end(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy(name, "waits", max_parallel_requests=4)
    files = [tmp_path / str(n) for n in range(3)]
    made = start(server, name, [str(file) for file in files])
    connection, response = server.open("GET", f"/v1/maps/{made['id']}/results?order=ends&progress=true")
    assert response.readline() == b"\n"
    assert json.loads(response.readline())["ended"] == 0
    for n in (2, 0, 1):
        files[n].touch()
        told = [json.loads(response.readline()) for _ in range(2)]
        assert {"index": n, "outcome": "ok", "result": True}.items() <= told[0].items()
    assert told[1]["ended"] == told[1]["items"] == 3
    assert response.read() == b""
    connection.close()


def test_counts_come_between_results(server: Server) -> None:
    made = start(server, "echo", list(range(2000)))
    told = results(server, made, "?progress=true")
    counts = [one["ended"] for one in told if "ended" in one]
    assert counts == sorted(counts)
    assert counts[-1] == 2000
    assert [one["result"] for one in told if "index" in one] == list(range(2000))


def test_reading_goes_on_behind_an_item(server: Server) -> None:
    made = start(server, "echo", list(range(50)))
    assert [one["index"] for one in results(server, made, "?after=39")] == list(range(40, 50))
    assert sorted(one["index"] for one in results(server, made, "?after=39&order=ends")) == list(range(40, 50))
    assert results(server, made, "?after=99") == []


def test_what_there_is_can_be_read_without_waiting(server: Server, blocked: str) -> None:
    made = start(server, blocked, [1, 2], "pipelines")
    assert results(server, made, "?follow=false") == []
    assert shown(server, made)["state"] == "running"


def test_a_key_makes_a_map_once(server: Server, blocked: str) -> None:
    key = {"Idempotency-Key": "once"}
    first = start(server, blocked, [1, 2, 3], "pipelines", **key)
    assert start(server, blocked, [1, 2, 3], "pipelines", **key)["id"] == first["id"]
    assert server.get(f"/v1/pipelines/{blocked}").json()["counts"]["queued"] == 3
    other = server.post(f"/v1/pipelines/{blocked}/map", [1], **key)
    assert (other.status, other.code) == (409, "conflict")
    assert "3 items" in other.json()["detail"]
    assert server.get(f"/v1/pipelines/{blocked}").json()["counts"]["queued"] == 3


def test_a_pipelines_map_keeps_to_its_limits_and_retries(server: Server, name: str) -> None:
    server.make(name, "fails", retry={"attempts": 2, "backoff": "0s..0s"}, concurrency=1)
    made = start(server, name, ["x"], "pipelines")
    (one,) = results(server, made)
    assert one["outcome"] == "error"
    task = server.get(f"/v1/tasks/{one['task']}").json()
    assert (task["state"], task["attempts"], task["pipeline"]) == ("dead", 2, name)


def test_a_redriven_item_ends_anew(server: Server, name: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    server.deploy(name, "waits", timeout="200ms")
    server.make(name, name, retry={"attempts": 1})
    made = start(server, name, [str(gate)], "pipelines")
    assert [one["outcome"] for one in results(server, made)] == ["timeout"]
    assert shown(server, made)["state"] == "done"
    gate.touch()
    assert server.post(f"/v1/pipelines/{name}/dead/redrive", {}).json() == {"redriven": 1}
    assert [one["outcome"] for one in results(server, made)] == ["ok"]
    assert shown(server, made)["ok"] == 1


def test_cancelling_ends_what_has_not(server: Server, name: str, tmp_path: Path) -> None:
    gate, never = tmp_path / "gate", tmp_path / "never"
    gate.touch()
    server.deploy(name, "waits", max_instances=2)
    made = start(server, name, [str(gate), *[str(never)] * 1500])
    until(lambda: shown(server, made)["running"] == 2 and shown(server, made)["ok"] == 1)
    answer = server.ask("DELETE", f"/v1/maps/{made['id']}")
    assert (answer.status, answer.json()["state"], answer.json()["ended"]) == (200, "cancelled", 1501)
    found = results(server, made)
    assert [one["outcome"] for one in found] == ["ok", *["cancelled"] * 1500]
    assert server.ask("DELETE", f"/v1/maps/{made['id']}").code == "conflict"
    until(lambda: server.get("/v1/status").json()["tasks"]["running"] == 0)


def test_a_removed_pipeline_takes_its_items_along(server: Server, blocked: str) -> None:
    made = start(server, blocked, [1, 2], "pipelines")
    connection, response = server.open("GET", f"/v1/maps/{made['id']}/results")
    assert server.ask("DELETE", f"/v1/pipelines/{blocked}?tasks=discard").status == 204
    assert [json.loads(line)["outcome"] for line in response.read().splitlines() if line] == ["gone", "gone"]
    connection.close()
    assert shown(server, made)["failed"] == {"gone": 2}


def test_two_read_and_one_stops(server: Server) -> None:
    made = start(server, "echo", b"\n".join([b'"%b"' % (b"x" * 200_000)] * 40), **LINES)
    stuck, _ = server.open("GET", f"/v1/maps/{made['id']}/results")
    assert len(results(server, made)) == 40
    stuck.close()
    assert len(results(server, made, "?order=ends")) == 40


def test_a_straggler_runs_twice_and_the_first_result_counts(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy(name, "sleeps_once", max_parallel_requests=1, max_instances=4)
    mark = tmp_path / "mark"
    made = start(server, name, [*[None] * 12, str(mark)], query="?stragglers=3")
    assert [one["result"] for one in results(server, made)] == [*[None] * 12, "second"]
    ended = shown(server, made)
    assert (ended["rerun"], ended["ok"], ended["stragglers"]) == (1, 13, 3)
    own = server.get(f"/v1/tasks/{int(made['id'], 16) + 13:016x}?wait=20s").json()
    assert own["state"] == "cancelled"


def test_maps_are_listed_newest_first(server: Server, blocked: str) -> None:
    made = [start(server, blocked, [n], "pipelines")["id"] for n in range(3)]
    listed = server.get("/v1/maps?limit=2").json()
    assert [one["id"] for one in listed["maps"]] == made[:0:-1]
    assert listed["next"] == made[1]
    assert server.get(f"/v1/maps?limit=1&before={made[1]}").json()["maps"][0]["id"] == made[0]


# refusals -------------------------------------------------------------------------------------------------------------
def test_too_many_are_refused_whole(server: Server, name: str) -> None:
    server.make(name, "echo", paused=True, max_queued=5)
    large = server.post(f"/v1/pipelines/{name}/map", list(range(6)))
    assert (large.status, large.code) == (413, "too-large")
    assert "max_queued" in large.json()["detail"]
    start(server, name, [1, 2, 3], "pipelines")
    full = server.post(f"/v1/pipelines/{name}/map", [1, 2, 3])
    assert (full.status, full.code) == (429, "queue-full")
    assert server.get(f"/v1/pipelines/{name}").json()["counts"]["queued"] == 3
    many = server.post("/v1/functions/echo/map", b"1\n" * (MOST_ITEMS + 1), **LINES)
    assert (many.status, many.code) == (413, "too-large")


@pytest.mark.parametrize(
    ("body", "headers"), [(b"[1, 2", {}), (b'{"a": 1}', {}), (b"1\n{oops}\n3", LINES), (b"1\n\xff\n", LINES), (b"", {})]
)
def test_what_is_no_list_of_items_is_refused(server: Server, body: bytes, headers: dict[str, str]) -> None:
    answer = server.post("/v1/functions/echo/map", body, **headers)
    assert (answer.status, answer.code) == (400, "bad-request")


def test_the_item_that_is_wrong_is_named(server: Server) -> None:
    assert "Item 1 " in server.post("/v1/functions/echo/map", b"1\n{oops}\n3", **LINES).json()["detail"]


def test_a_body_that_is_too_long_is_refused_before_it_comes(server: Server) -> None:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest("POST", "/v1/functions/echo/map")
    for header, value in server.headers({**LINES, "Content-Length": str(MOST_BODY + 1)}).items():
        connection.putheader(header, value)
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


@pytest.mark.parametrize("query", ["?stragglers=1", "?stragglers=x"])
def test_wrong_options_are_refused(server: Server, query: str) -> None:
    assert server.post(f"/v1/functions/echo/map{query}", [1]).code == "bad-request"


def test_names_that_nothing_has(server: Server, name: str) -> None:
    assert server.post("/v1/functions/ecco/map", [1]).json()["nearest"] == "echo"
    server.make(name, "echo")
    assert (
        server.post(f"/v1/functions/{name}/map", [1])
        .json()["detail"]
        .startswith(f"There is no function '{name}'. '{name}' is a pipeline, and called as one")
    )
    assert (
        server.post("/v1/pipelines/echo/map", [1])
        .json()["detail"]
        .startswith("There is no pipeline 'echo'. 'echo' is a function: invoke it")
    )
    assert server.post("/v1/pipelines/@map echo/map".replace(" ", "%20"), [1]).code == "not-found"
    for path in ("/v1/maps/nothing", "/v1/maps/00000000000000ff", "/v1/maps/00000000000000ff/results"):
        assert server.get(path).code == "not-found"


def test_debounced_pipelines_and_draining_ones_refuse(server: Server, name: str) -> None:
    server.make(name, "echo", debounce="1s")
    assert "debounces" in server.post(f"/v1/pipelines/{name}/map", [1]).json()["detail"]
    server.make(name, "echo", draining=True)
    assert server.post(f"/v1/pipelines/{name}/map", [1]).code == "conflict"


# restarts -------------------------------------------------------------------------------------------------------------
def test_a_map_outlives_its_server(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = Server(tmp_path / "data")
    first.deploy("waits", max_instances=2)
    first.deploy("echo")
    done = start(first, "echo", [1, 2])
    assert len(results(first, done)) == 2
    made = start(first, "waits", [str(gate)] * 30)
    connection, response = first.open("GET", f"/v1/maps/{made['id']}/results")
    first.close()
    assert response.read().strip() == b""
    connection.close()
    gate.touch()
    second = Server(tmp_path / "data")
    assert [one["index"] for one in results(second, made)] == list(range(30))
    assert [one["result"] for one in results(second, done)] == [1, 2]
    assert [one["state"] for one in second.get("/v1/maps").json()["maps"]] == ["done", "done"]
    second.close()


def test_payloads_of_all_sizes(server: Server) -> None:
    items = [b"[%b]" % b",".join([b"7"] * n) for n in range(0, 20_000, 397)]
    made = start(server, "echo", b"\n".join(items), **LINES)
    assert [len(one["result"]) for one in results(server, made)] == list(range(0, 20_000, 397))


def test_an_item_of_a_functions_map_may_be_as_large_as_a_call(server: Server) -> None:
    (found,) = results(server, start(server, "echo", [7] * 1_000_000, **LINES))
    assert found["result"] == [7] * 1_000_000
    refused = server.post("/v1/functions/echo/map", b"[" + b"7," * MOST_CALL_PAYLOAD + b"7]", **LINES)
    assert refused.code == "too-large"
    assert "'echo' takes 6291456. Send a reference to the data instead." in refused.json()["detail"]
