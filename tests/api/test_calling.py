"""Calling functions and pipelines: the result as it is, or a problem that says how the task ended."""

import contextlib
import threading
from http.client import HTTPConnection

import pytest
from tests.api.serving import Server, until

from penstock.engine.model import MOST_CALL_PAYLOAD


def running_in(server: Server, pipeline: str) -> int:
    return int(server.get(f"/v1/pipelines/{pipeline}").json()["counts"]["running"])


def test_the_result_is_the_bytes_that_the_handler_gave(server: Server, name: str) -> None:
    server.make(name, "echo")
    for path in ("/v1/functions/echo/invoke", f"/v1/pipelines/{name}/invoke"):
        answer = server.post(path, b' {"a": [1, 2.50, "\xc3\xbc"]} ')
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {"a": [1, 2.5, "ü"]}
        task = server.wait(answer.headers["penstock-task"])
        assert task["result"] == {"a": [1, 2.5, "ü"]}
        assert task["function"] == "echo"
        assert task["pipeline"] == (name if "pipelines" in path else None)


def test_no_body_is_null(server: Server) -> None:
    assert server.post("/v1/functions/echo/invoke").body == b"null"


@pytest.mark.parametrize("body", [b"{", b"nope", b'"\xff"', b"[" * 100_000, b'{"a":1}{'])
def test_a_body_that_is_not_json_is_refused(server: Server, body: bytes) -> None:
    assert server.post("/v1/functions/echo/invoke", body).code == "bad-request"


def test_failures_say_how_the_task_ended(server: Server) -> None:
    answer = server.post("/v1/functions/fails/invoke", "it")
    assert answer.status == 502
    assert answer.code == "task-failed"
    problem = answer.json()
    assert problem["outcome"] == "error"
    assert problem["error"]["type"] == "ValueError"
    assert problem["error"]["message"] == "it is no good"
    assert "handlers.py" in problem["error"]["traceback"]
    assert problem["detail"] == "The task failed: ValueError: it is no good"
    assert server.wait(problem["task"])["error"] == problem["error"]


def test_crashes(server: Server) -> None:
    server.deploy("dies")
    answer = server.post("/v1/functions/dies/invoke", 1)
    assert (answer.status, answer.code, answer.json()["outcome"]) == (502, "task-failed", "crashed")


def test_timeouts(server: Server) -> None:
    server.deploy("sleeps", timeout="100ms")
    answer = server.post("/v1/functions/sleeps/invoke", 60)
    assert (answer.status, answer.code, answer.json()["outcome"]) == (504, "task-failed", "timeout")
    assert "longer than its timeout of 0.1 s" in answer.json()["error"]["message"]
    server.deploy("sleeps2", "sleeps")
    answer = server.post("/v1/functions/sleeps2/invoke?timeout=200ms", 60)
    assert (answer.status, answer.code, answer.json()["outcome"]) == (504, "task-failed", "timeout")
    assert "longer than its caller's timeout" in answer.json()["error"]["message"]


def test_throttling_says_when_to_call_again(server: Server, name: str) -> None:
    server.deploy("throttled")
    server.make(name, "throttled")
    answer = server.post(f"/v1/pipelines/{name}/invoke", 40)
    assert (answer.status, answer.code, answer.json()["outcome"]) == (429, "task-failed", "throttled")
    assert 30 < int(answer.headers["retry-after"]) <= 40
    assert server.get(f"/v1/pipelines/{name}").json()["held_until"] is not None


def test_cancelled_calls(server: Server, name: str) -> None:
    server.deploy("naps", "sleeps")
    server.make(name, "naps")
    answers = []
    caller = threading.Thread(target=lambda: answers.append(server.post(f"/v1/pipelines/{name}/invoke", 60)))
    caller.start()
    until(lambda: running_in(server, name))
    attempts = server.running.engine.plant.running.values()
    (running,) = [task.id for one in attempts for task in one.tasks if task.pipeline == name]
    assert server.ask("DELETE", f"/v1/tasks/{running:016x}").json()["state"] == "cancelled"
    caller.join()
    assert (answers[0].status, answers[0].json()["outcome"]) == (409, "cancelled")


def test_a_caller_that_goes_away_cancels_its_task(server: Server, name: str) -> None:
    server.deploy("dozes", "sleeps")
    server.make(name, "dozes", concurrency=1)
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.request("POST", f"/v1/pipelines/{name}/invoke", b"60", server.headers())
        until(lambda: running_in(server, name))
    until(lambda: not running_in(server, name))
    (task,) = server.get(f"/v1/tasks?pipeline={name}").json()["tasks"]
    assert server.wait(task["id"])["state"] == "cancelled"


def test_a_call_that_cannot_start_is_turned_away(server: Server, name: str) -> None:
    server.make(name, "echo", rate="1/h")
    assert server.post(f"/v1/pipelines/{name}/invoke", 1).status == 200
    answer = server.post(f"/v1/pipelines/{name}/invoke?timeout=50ms", 2)
    assert (answer.status, answer.code) == (503, "saturated")
    assert int(answer.headers["retry-after"]) >= 1


def test_what_cannot_be_called(server: Server, blocked: str) -> None:
    assert server.post(f"/v1/pipelines/{blocked}/invoke", 1).code == "conflict"
    assert server.post("/v1/functions/ecco/invoke", 1).json()["nearest"] == "echo"
    assert server.post("/v1/functions/@echo/invoke", 1).code == "not-found"
    assert server.post("/v1/pipelines/@echo/invoke", 1).code == "not-found"
    server.put("/v1/functions/empty", {"handler": "a:b"})
    assert server.post("/v1/functions/empty/invoke", 1).code == "conflict"
    assert server.post("/v1/functions/echo/invoke", b"1" * (MOST_CALL_PAYLOAD + 1)).code == "too-large"
    assert server.post("/v1/functions/echo/invoke?timeout=soon", 1).code == "bad-request"
    assert server.post("/v1/functions/echo/invoke?timeout=0", 1).code == "bad-request"
    assert server.get("/v1/functions/echo/invoke").code == "method-not-allowed"
