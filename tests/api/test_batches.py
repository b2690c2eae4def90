"""Batches over HTTP: real instances that are called with lists, and what becomes of each task."""

from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import Server, until

WAYS = [("together", 0), ("together", 4), ("together_async", 0), ("together_async", 4)]
SLOW = {"size": 10, "wait": "1h"}


def send_together(server: Server, pipeline: str, *payloads: Any) -> list[Any]:
    """Send tasks that make one whole batch, and return them when all have ended."""
    return [server.wait(task) for task in server.send(pipeline, *payloads)]


@pytest.mark.parametrize(("handler", "slots"), WAYS)
def test_each_task_gets_its_own_result(server: Server, name: str, handler: str, slots: int) -> None:
    server.deploy(name, handler, max_parallel_requests=slots)
    server.make(name, name, batch={"size": 3, "wait": "1h"}, retry={"attempts": 1})
    ids = server.send(name, {"a": 1}, "bad", [2], None, "four", "x" * 100_000)
    tasks = [server.wait(task) for task in ids]
    assert [task["outcome"] for task in tasks] == ["ok", "error", "ok", "ok", "ok", "ok"]
    for first, events in ((0, [{"a": 1}, "bad", [2]]), (3, [None, "four", "x" * 100_000])):
        call = {"events": events, "ids": ids[first : first + 3], "attempts": [1, 1, 1], "batched": True}
        good = [task["result"] for task in tasks[first : first + 3] if task["outcome"] == "ok"]
        assert good == [call] * len(good)
    assert tasks[1]["error"]["type"] == "ValueError"
    assert tasks[1]["error"]["message"] == "no good"
    assert server.get(f"/v1/pipelines/{name}").json()["counts"]["done"] == 5


def test_a_single_task_comes_in_a_list_too(server: Server, name: str) -> None:
    server.deploy(name, "together")
    server.make(name, name, batch={"size": 100, "wait": 0})
    (task,) = send_together(server, name, 7)
    assert task["result"]["events"] == [7]
    answer = server.post(f"/v1/pipelines/{name}/invoke", 8)
    assert (answer.status, answer.json()["events"]) == (200, [8])
    assert server.post(f"/v1/functions/{name}/invoke", [9]).json()[0]["batched"] is False


def test_what_a_handler_returns_or_raises_for_all(server: Server, name: str) -> None:
    server.deploy(name, "as_told")
    server.make(name, name, batch={"size": 2, "wait": "1h"}, retry={"attempts": 1})
    both = send_together(server, name, {"do": "none"}, 2)
    assert [(task["outcome"], task["result"]) for task in both] == [("ok", None)] * 2
    for verb, kind, says in (
        ("raise", "ValueError", "the whole call"),
        ("short", "BadBatchResult", "its 2 events"),
        ("number", "BadBatchResult", "returned a int"),
    ):
        both = send_together(server, name, {"do": verb}, 2)
        assert [(task["state"], task["error"]["type"]) for task in both] == [("dead", kind)] * 2
        assert says in both[0]["error"]["message"]
    good, bad = send_together(server, name, {"do": "report"}, 2)
    assert (good["outcome"], bad["outcome"], bad["error"]["type"]) == ("ok", "error", "BatchItemFailure")


def test_throttling_puts_all_back_and_costs_no_attempt(server: Server, name: str) -> None:
    server.deploy(name, "as_told")
    server.make(name, name, batch={"size": 2, "wait": "1h"})
    ids = server.send(name, {"do": "throttle"}, 2)
    until(lambda: all(server.get(f"/v1/tasks/{task}").json()["history"] for task in ids))
    for task in ids:
        told = server.get(f"/v1/tasks/{task}").json()
        assert (told["history"][0]["outcome"], told["attempts"]) == ("throttled", 0)
    server.ask("DELETE", f"/v1/pipelines/{name}?tasks=discard")


def test_who_ends_the_instance_is_found_and_the_others_lose_nothing(server: Server, name: str) -> None:
    server.deploy(name, "as_told")
    server.make(name, name, batch={"size": 4, "wait": "1h"}, retry={"attempts": 1})
    tasks = send_together(server, name, 1, "exit", 3, 4)
    assert [task["outcome"] for task in tasks] == ["ok", "crashed", "ok", "ok"]
    assert [task["attempts"] for task in tasks] == [1, 1, 1, 1]
    assert [[one["outcome"] for one in task["history"]][:1] for task in tasks] == [["interrupted"]] * 4


def test_the_limit_of_time_is_that_of_the_call(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy(name, "as_told")
    server.make(name, name, batch={"size": 2, "wait": "1h"}, timeout="300ms", retry={"attempts": 1})
    both = send_together(server, name, {"do": "wait", "file": str(tmp_path / "never")}, 2)
    assert [task["outcome"] for task in both] == ["timeout", "timeout"]


def test_one_of_a_running_batch_is_cancelled_and_the_others_go_on(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy(name, "as_told")
    server.make(name, name, batch={"size": 3, "wait": "1h"})
    file = str(tmp_path / "go")
    ids = server.send(name, *[{"do": "wait", "file": file}] * 3)
    until(lambda: server.get(f"/v1/pipelines/{name}").json()["counts"]["running"] == 3)
    assert server.ask("DELETE", f"/v1/tasks/{ids[1]}").status == 200
    assert server.get(f"/v1/tasks/{ids[1]}").json()["outcome"] == "cancelled"
    assert server.get(f"/v1/pipelines/{name}").json()["counts"]["running"] == 2
    Path(file).touch()
    assert [server.wait(task)["outcome"] for task in ids] == ["ok", "cancelled", "ok"]


def test_the_call_is_cancelled_when_all_of_its_tasks_are(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy(name, "as_told")
    server.make(name, name, batch={"size": 2, "wait": "1h"})
    ids = server.send(name, *[{"do": "wait", "file": str(tmp_path / "never")}] * 2)
    until(lambda: server.get(f"/v1/pipelines/{name}").json()["counts"]["running"] == 2)
    for task in ids:
        assert server.ask("DELETE", f"/v1/tasks/{task}").status == 200
    after = send_together(server, name, {"do": "none"}, 2)  # the instance was freed
    assert [task["outcome"] for task in after] == ["ok", "ok"]


def test_what_waits_for_company_says_so(server: Server, name: str) -> None:
    server.deploy(name, "together")
    server.make(name, name, batch=SLOW)
    (task,) = server.send(name, 1)
    until(lambda: "batch fills up" in server.get(f"/v1/tasks/{task}/why").json()["waits_for"])
    assert server.get(f"/v1/pipelines/{name}").json()["settings"]["batch"] == SLOW
    server.ask("PATCH", f"/v1/pipelines/{name}", {"batch": None})
    assert server.wait(task)["outcome"] == "error"  # the handler was called with the event itself, which is no list
