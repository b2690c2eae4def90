"""Tasks over HTTP: waiting, cancelling, why they wait, dead ones, and lists."""

import threading
from http.client import HTTPConnection

from tests.api.serving import Server, until


def test_waiting_ends_with_the_task_or_the_time(server: Server, blocked: str) -> None:
    (task,) = server.send(blocked, 5)
    assert server.get(f"/v1/tasks/{task}?wait=20ms").json()["state"] == "queued"
    assert server.get(f"/v1/tasks/{task}?wait=0").json()["state"] == "queued"
    ended = []
    waiter = threading.Thread(target=lambda: ended.append(server.get(f"/v1/tasks/{task}?wait=20s").json()))
    waiter.start()
    server.post(f"/v1/pipelines/{blocked}/resume")
    waiter.join()
    assert (ended[0]["state"], ended[0]["result"]) == ("done", 5)
    for wrong in ("soon", "-1", "2000d"):
        assert server.get(f"/v1/tasks/{task}?wait={wrong}").code == "bad-request"


def test_a_waiter_that_goes_away_is_forgotten(server: Server, blocked: str) -> None:
    (task,) = server.send(blocked, 5)
    recorder = server.running.engine.recorder
    connection = HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", f"/v1/tasks/{task}?wait=20s", headers=server.headers())
    until(lambda: int(task, 16) in recorder._waiters)
    connection.close()
    until(lambda: int(task, 16) not in recorder._waiters)


def test_unknown_tasks(server: Server) -> None:
    for name in ("0123456789abcdef", "x", "ffffffffffffffff", "0" * 17):
        for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/why")):
            assert server.ask(method, f"/v1/tasks/{name}{path}").code == "not-found"
    assert server.ask("PUT", "/v1/tasks/0123456789abcdef").code == "method-not-allowed"


def test_cancelling(server: Server, blocked: str) -> None:
    first, second = server.send(blocked, 1, 2)
    cancelled = server.ask("DELETE", f"/v1/tasks/{first}")
    assert cancelled.status == 200
    assert (cancelled.json()["state"], cancelled.json()["outcome"]) == ("cancelled", "cancelled")
    assert server.ask("DELETE", f"/v1/tasks/{first}").code == "conflict"
    assert server.get(f"/v1/pipelines/{blocked}").json()["counts"]["queued"] == 1
    server.post(f"/v1/pipelines/{blocked}/resume")
    assert server.wait(second)["state"] == "done"


def test_why_a_task_waits(server: Server, name: str) -> None:
    server.make(name, "echo", rate="1/h")
    first, second = server.send(name, 1, 2)
    server.wait(first)
    until(lambda: server.get(f"/v1/tasks/{second}/why").json()["until"])
    why = server.get(f"/v1/tasks/{second}/why").json()
    assert (why["state"], why["kind"], why["limit"]) == ("queued", "rate", None)
    assert "rate" in why["waits_for"]
    assert why["until"].endswith("Z")
    assert (why["position"], why["exact"], why["because"]) == (0, True, None)
    assert why["expected_start"][:19] == why["until"][:19]
    shown = server.get(f"/v1/pipelines/{name}").json()
    assert (shown["kind"], shown["backlog"], shown["exact"]) == ("rate", 1, True)
    assert shown["expected_end"][:19] == why["expected_start"][:19]
    assert server.get(f"/v1/tasks/{first}/why").json() == {
        "state": "done",
        "waits_for": None,
        "kind": "nothing",
        "limit": None,
        "until": None,
        "position": None,
        "expected_start": None,
        "exact": False,
        "because": "it does not wait: it is done",
    }
    (later,) = server.post(f"/v1/pipelines/{name}/tasks", {"delay": "1h"}).json()["ids"]
    why = server.get(f"/v1/tasks/{later}/why").json()
    assert (why["state"], why["until"]) == ("delayed", server.get(f"/v1/tasks/{later}").json()["due"])
    assert (why["kind"], why["position"], why["expected_start"], why["exact"]) == ("delayed", None, why["until"], False)
    [listed] = [one for one in server.get("/v1/pipelines").json()["pipelines"] if one["name"] == name]
    assert (listed["backlog"], listed["exact"]) == (2, False)
    server.post(f"/v1/pipelines/{name}/pause")
    shown = server.get(f"/v1/pipelines/{name}").json()
    assert (shown["kind"], shown["expected_end"]) == ("paused", None)


def test_dead_tasks_are_listed_redriven_and_purged(server: Server, name: str) -> None:
    server.make(name, "fails", retry={"attempts": 2, "backoff": "1ms..1ms"})
    tasks = server.send(name, "a", "b", "c")
    for task in tasks:
        dead = server.wait(task)
        assert (dead["state"], dead["outcome"], dead["attempts"]) == ("dead", "error", 2)
        assert dead["error"]["type"] == "ValueError"
        assert dead["result"] is None
        assert [(one["number"], one["outcome"]) for one in dead["history"]] == [(1, "error")]
        assert dead["history"][0]["error"]["type"] == "ValueError"
    path = f"/v1/pipelines/{name}/dead"
    assert [one["id"] for one in server.get(path).json()["tasks"]] == tasks[::-1]
    page = server.get(f"{path}?limit=2").json()
    assert [one["id"] for one in server.get(f"{path}?before={page['next']}").json()["tasks"]] == tasks[:1]
    assert server.post(f"{path}/redrive", {"ids": tasks[:1]}).json() == {"redriven": 1}
    assert server.wait(tasks[0])["attempts"] == 2
    server.ask("PATCH", f"/v1/pipelines/{name}", {"function": "echo"})
    assert server.post(f"{path}/redrive").json() == {"redriven": 3}
    assert [server.wait(task)["result"] for task in tasks] == ["a", "b", "c"]
    assert server.post(f"{path}/redrive", {}).json() == {"redriven": 0}
    server.ask("PATCH", f"/v1/pipelines/{name}", {"function": "fails"})
    (task,) = server.send(name, "d")
    server.wait(task)
    assert server.get(f"/v1/pipelines/{name}").json()["counts"]["dead"] == 1
    assert server.ask("DELETE", path).json() == {"purged": 1}
    assert server.get(path).json() == {"tasks": [], "next": None}
    assert server.get(f"/v1/tasks/{task}").code == "not-found"


def test_redriving_what_is_not_there(server: Server, name: str) -> None:
    server.make(name, "fails")
    for path in (f"/v1/pipelines/{name}x/dead", "/v1/pipelines/@echo/dead"):
        assert server.get(path).code == "not-found"
        assert server.post(f"{path}/redrive").code == "not-found"
        assert server.ask("DELETE", path).code == "not-found"
    path = f"/v1/pipelines/{name}/dead/redrive"
    assert server.post(path, {"ids": ["0123456789abcdef"]}).json() == {"redriven": 0}
    assert server.post(path, {"ids": ["x"]}).code == "not-found"
    assert server.post(path, {"ids": "all"}).code == "bad-request"
    assert server.post(path, b"{").code == "bad-request"


def test_lists_of_tasks(server: Server, blocked: str) -> None:
    tasks = server.send(blocked, *range(5))
    first = server.get(f"/v1/tasks?pipeline={blocked}&limit=2").json()
    second = server.get(f"/v1/tasks?pipeline={blocked}&limit=3&before={first['next']}").json()
    assert [one["id"] for one in first["tasks"] + second["tasks"]] == tasks[::-1]
    assert {one["state"] for one in first["tasks"]} == {"queued"}
    assert server.get(f"/v1/tasks?pipeline={blocked}&state=done").json() == {"tasks": [], "next": None}
    assert server.get("/v1/tasks?limit=1").json()["tasks"][0]["id"] == tasks[-1]
    assert server.get("/v1/tasks?state=asleep").code == "bad-request"
    assert server.get("/v1/tasks?before=x").code == "not-found"
    assert server.get(f"/v1/tasks?pipeline={blocked}x").json()["nearest"] == blocked


def test_what_runs_is_listed_as_running(server: Server, name: str) -> None:
    server.deploy("rests", "sleeps")
    server.make(name, "rests")
    (task,) = server.send(name, 60)
    until(lambda: server.get(f"/v1/tasks/{task}").json()["state"] == "running")
    assert [one["id"] for one in server.get(f"/v1/tasks?pipeline={name}&state=running").json()["tasks"]] == [task]
    assert server.get(f"/v1/tasks?pipeline={name}&state=queued").json()["tasks"] == []
    assert server.ask("DELETE", f"/v1/tasks/{task}").json()["state"] == "cancelled"
