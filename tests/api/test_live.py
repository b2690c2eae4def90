"""Changes of what runs: rollback and drain, over HTTP, with a real server."""

from pathlib import Path
from typing import Any

from tests.api.serving import Server, bundle, until


def code(answer: str) -> bytes:
    return bundle({"handlers.py": f"def handler(event, context):\n    return {answer!r}\n"})


def deploy(server: Server, name: str, answer: str, query: str = "") -> None:
    assert server.put(f"/v1/functions/{name}/code{query}", code(answer)).status == 200


def make(server: Server, name: str, *answers: str) -> None:
    server.put(f"/v1/functions/{name}", {"handler": "handlers:handler"})
    for answer in answers:
        deploy(server, name, answer)


def call(server: Server, name: str) -> Any:
    return server.post(f"/v1/functions/{name}/invoke").json()


def back(server: Server, name: str, body: Any = None) -> Any:
    return server.post(f"/v1/functions/{name}/rollback", body)


def live(server: Server, name: str) -> Any:
    return server.get(f"/v1/functions/{name}").json()["live"]


# deploy with settings ---------------------------------------------------------------------------------------------------
def test_settings_that_come_with_code_change_those_that_there_are(server: Server, name: str) -> None:
    server.put(
        f"/v1/functions/{name}", {"handler": "handlers:handler", "timeout": "7s", "env": {"A": {"secret": "hush"}}}
    )
    deploy(server, name, "one", '?settings={"timeout":null,"max_instances":3}')
    settings = server.get(f"/v1/functions/{name}").json()["settings"]
    assert settings == {"handler": "handlers:handler", "max_instances": 3, "env": {"A": {"secret": True}}}
    assert call(server, name) == "one"


# rollback ---------------------------------------------------------------------------------------------------------------
def test_each_rollback_goes_one_further_back(server: Server, name: str) -> None:
    make(server, name, "one", "two", "three")
    answer = back(server, name)
    assert (answer.status, answer.json()["version"], answer.json()["live"]) == (200, 2, True)
    assert call(server, name) == "two"
    assert back(server, name).json()["version"] == 1
    assert call(server, name) == "one"
    answer = back(server, name)
    assert (answer.status, answer.code) == (409, "conflict")
    assert call(server, name) == "one"


def test_what_was_rolled_back_is_not_gone_back_to(server: Server, name: str) -> None:
    make(server, name, "one", "bad")
    back(server, name)
    deploy(server, name, "bad as well")
    assert back(server, name).json()["version"] == 1
    versions = server.get(f"/v1/functions/{name}/versions").json()["versions"]
    assert [(one["number"], one["previous"], one["live"]) for one in versions] == [
        (1, None, True), (2, 1, False), (3, 1, False),
    ]  # fmt: skip


def test_code_that_does_not_import_is_no_version(server: Server, name: str) -> None:
    make(server, name, "one")
    broken = bundle({"handlers.py": "import nothing_of_that_name"})
    refused = server.put(f"/v1/functions/{name}/code", broken)
    assert refused.code == "deploy-failed"
    assert refused.json()["detail"].endswith("No module named 'nothing_of_that_name'. Version 1 stays live.")
    versions = server.get(f"/v1/functions/{name}/versions").json()["versions"]
    assert [one["number"] for one in versions] == [1]
    nowhere = back(server, name, {"version": 2})
    assert nowhere.code == "not-found"
    assert nowhere.json()["detail"] == f"There is no version of '{name}' with the number '2'."
    pinned = server.put(f"/v1/pipelines/{name}-pinned", {"function": name, "version": 2})
    assert pinned.code == "invalid-settings"
    deploy(server, name, "two")
    assert live(server, name) == 2
    assert back(server, name).json()["version"] == 1


def test_a_version_can_be_named_and_gone_forward_to(server: Server, name: str) -> None:
    make(server, name, "one", "two", "three")
    assert back(server, name, {"version": 1}).json()["version"] == 1
    assert back(server, name, {"version": 3}).json()["version"] == 3
    assert call(server, name) == "three"
    assert back(server, name, {"version": None}).json()["version"] == 2
    assert back(server, name, {"version": 2}).code == "conflict"
    assert back(server, name, {"version": 9}).code == "not-found"
    for body in (b"{", b"[]", {"version": "2"}, {"to": 2}):
        assert back(server, name, body).code == "bad-request"
    assert back(server, "nothing").code == "not-found"
    server.put(f"/v1/functions/{name}-empty", {"handler": "handlers:handler"})
    assert back(server, f"{name}-empty").code == "conflict"


def test_a_rollback_brings_the_settings_back_too(server: Server, name: str) -> None:
    make(server, name, "one")
    server.ask("PATCH", f"/v1/functions/{name}", {"timeout": "7s", "env": {"KEY": {"secret": "hidden"}}})
    server.ask("PATCH", f"/v1/functions/{name}", {"timeout": "9s", "env": None})
    before = server.get("/v1/changes?limit=1000").json()["next"]
    assert back(server, name).json()["version"] == 2
    shown = server.get(f"/v1/functions/{name}").json()
    assert shown["settings"] == {"handler": "handlers:handler", "timeout": "7s", "env": {"KEY": {"secret": True}}}
    changes = server.get(f"/v1/changes?after={before}").json()["changes"]
    assert [(one["action"], one["before"], one["after"]) for one in changes if one["name"] == name] == [
        ("change", {"handler": "handlers:handler", "timeout": "9s"}, shown["settings"]),
        ("deploy", {"version": 3}, {"version": 2}),
    ]


def test_a_rollback_to_settings_whose_limit_is_gone_is_refused(server: Server, name: str) -> None:
    server.put(f"/v1/limits/{name}-l", {"concurrency": 1})
    make(server, name, "one")
    server.ask("PATCH", f"/v1/functions/{name}", {"limits": [f"{name}-l"]})
    server.ask("PATCH", f"/v1/functions/{name}", {"limits": None})
    assert server.ask("DELETE", f"/v1/limits/{name}-l").status == 204
    assert back(server, name).code == "invalid-settings"
    assert live(server, name) == 3
    assert back(server, name, {"version": 1}).status == 200


def test_pinned_pipelines_stay_and_others_follow(server: Server, name: str) -> None:
    make(server, name, "one", "two")
    server.make(f"{name}-pinned", name, version=2)
    server.make(f"{name}-live", name)
    assert server.post(f"/v1/pipelines/{name}-live/invoke").json() == "two"
    back(server, name)
    assert server.post(f"/v1/pipelines/{name}-pinned/invoke").json() == "two"
    assert server.post(f"/v1/pipelines/{name}-live/invoke").json() == "one"


# drain ------------------------------------------------------------------------------------------------------------------
def test_a_drained_pipeline_takes_nothing_and_finishes_what_it_has(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy("waits")
    server.make(name, "waits", concurrency=1)
    path, door = f"/v1/pipelines/{name}", tmp_path / "door"
    tasks = server.send(name, str(door), str(door))
    drained = server.post(f"{path}/drain").json()
    assert (drained["draining"], drained["settings"]["draining"]) == (True, True)
    refused = server.post(f"{path}/tasks", {"payload": 1})
    assert (refused.status, refused.code) == (409, "conflict")
    assert "resumed" in refused.json()["detail"]
    assert server.post(f"{path}/invoke").code == "conflict"
    door.touch()
    assert [server.wait(task)["state"] for task in tasks] == ["done", "done"]
    assert server.get(path).json()["draining"] is True
    resumed = server.post(f"{path}/resume").json()
    assert (resumed["draining"], "draining" in resumed["settings"]) == (False, False)
    (task,) = server.send(name, str(door))
    assert server.wait(task)["state"] == "done"


def test_what_was_paused_goes_on_when_it_is_drained(server: Server, blocked: str) -> None:
    (task,) = server.send(blocked, 7)
    assert server.post(f"/v1/pipelines/{blocked}/drain").json()["paused"] is False
    assert server.wait(task)["result"] == 7
    assert server.post("/v1/pipelines/nothing/drain").code == "not-found"


def test_a_drained_pipeline_that_is_to_go_goes(server: Server, name: str) -> None:
    server.make(name, "echo", remove_when_empty=True)
    assert server.get(f"/v1/pipelines/{name}").status == 200
    server.post(f"/v1/pipelines/{name}/drain")
    until(lambda: server.get(f"/v1/pipelines/{name}").status == 404)


def test_a_removal_is_undone_by_resuming(server: Server, name: str) -> None:
    path = f"/v1/pipelines/{name}"
    server.make(name, "echo", rate="1/h")
    first, task = server.send(name, 1, 2)
    assert server.wait(first)["state"] == "done"
    assert server.ask("DELETE", f"{path}?tasks=drain").status == 202
    assert server.post(f"{path}/resume").json()["settings"] == {"function": "echo", "rate": "1/h"}
    assert server.ask("DELETE", f"/v1/tasks/{task}").status == 200
    assert server.get(path).status == 200


def test_draining_outlives_the_server(tmp_path: Path) -> None:
    first = Server(tmp_path / "data")
    try:
        first.deploy("echo")
        first.deploy("waits")
        first.make("kept", "echo")
        first.make("goes", "waits", concurrency=1)
        first.send("goes", str(tmp_path / "door"))
        first.post("/v1/pipelines/kept/drain")
        assert first.ask("DELETE", "/v1/pipelines/goes?tasks=drain").status == 202
        assert first.post("/v1/pipelines/goes/tasks", {}).code == "conflict"
    finally:
        first.close()
    second = Server(tmp_path / "data")
    try:
        assert second.post("/v1/pipelines/kept/tasks", {}).code == "conflict"
        assert second.post("/v1/pipelines/goes/tasks", {}).code == "conflict"
        (tmp_path / "door").touch()
        until(lambda: second.get("/v1/pipelines/goes").status == 404)
        assert second.get("/v1/pipelines/kept").json()["draining"] is True
    finally:
        second.close()


def test_a_plan_that_would_be_refused_is_refused_before(server: Server, blocked: str) -> None:
    server.send(blocked, 7)
    others = [
        one["name"] for one in server.get("/v1/pipelines?limit=1000").json()["pipelines"] if one["name"] != blocked
    ]
    config = {
        "functions": {
            one["name"]: one["settings"] for one in server.get("/v1/functions?limit=1000").json()["functions"]
        },
        "limits": {one["name"]: one["settings"] for one in server.get("/v1/limits?limit=1000").json()["limits"]},
        "pipelines": {one: server.get(f"/v1/pipelines/{one}").json()["settings"] for one in others},
    }
    asked = {"config": config, "prune": True, "dry_run": True}
    assert server.post("/v1/apply", asked).code == "conflict"
    planned = server.post("/v1/apply", {**asked, "tasks": "discard"}).json()["plan"]
    assert [(step["action"], step["name"]) for step in planned] == [("remove", blocked)]
