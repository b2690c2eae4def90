"""Functions, pipelines, limits, apply and the change log over HTTP; no secret is ever shown."""

import json
from typing import Any
from urllib.parse import quote

from tests.api.serving import Server, bundle, until

SECRET = "s3cr3t-of-customer-a"


def test_a_function_from_settings_to_removal(server: Server) -> None:
    made = server.put("/v1/functions/life", {"handler": "handlers:echo", "timeout": 5})
    assert made.status == 201
    shown = made.json()
    assert shown["settings"] == {"handler": "handlers:echo", "timeout": "5s"}
    assert (shown["live"], shown["versions"]) == (None, 0)
    assert shown["instances"] == {"ready": 0, "starting": 0, "draining": 0}
    deployed = server.put("/v1/functions/life/code", bundle()).json()
    shown_as = {"function": "life", "version": 1, "bundle": "", "live": True, "environment": None}
    assert {**deployed, "bundle": ""} == shown_as
    assert server.put("/v1/functions/life", {"handler": "handlers:echo"}).status == 200
    assert server.post("/v1/functions/life/invoke", 1).json() == 1
    patched = server.ask("PATCH", "/v1/functions/life", {"timeout": "9s", "max_parallel_requests": None})
    assert patched.json()["settings"] == {"handler": "handlers:echo", "timeout": "9s"}
    shown = server.get("/v1/functions/life").json()
    assert shown["live"] == shown["versions"] == 3
    assert shown["instances"]["ready"] <= 1
    assert 0 <= shown["usage"]["request_seconds"] < shown["usage"]["instance_seconds"]
    versions = server.get("/v1/functions/life/versions").json()["versions"]
    assert [(one["number"], one["live"]) for one in versions] == [(1, False), (2, False), (3, True)]
    assert {one["bundle"] for one in versions} == {deployed["bundle"]}
    removed = server.ask("DELETE", "/v1/functions/life")
    assert (removed.status, removed.body) == (204, b"")
    assert server.get("/v1/functions/life").code == "not-found"


def test_code_that_does_not_import_is_refused_and_the_old_stays(server: Server) -> None:
    server.deploy("solid", "echo")
    answer = server.put("/v1/functions/solid/code", bundle({"handlers.py": "import nothing_of_that_name"}))
    assert (answer.status, answer.code) == (422, "deploy-failed")
    assert "nothing_of_that_name" in answer.json()["traceback"]
    assert server.post("/v1/functions/solid/invoke", 1).json() == 1
    assert server.get("/v1/functions/solid").json()["live"] == 1


def test_deploys_that_cannot_be(server: Server) -> None:
    assert server.put("/v1/functions/nobody/code", bundle()).code == "not-found"
    assert server.put("/v1/functions/echo/code", b"no zip").code == "bad-request"
    assert server.put("/v1/functions/echo/code").code == "bad-request"
    assert server.put("/v1/functions/echo/code?settings=%7B", bundle()).code == "bad-request"
    answer = server.put(f"/v1/functions/echo/code?settings={quote(json.dumps({'handle': 'a:b'}))}", bundle())
    assert (answer.status, answer.code) == (422, "invalid-settings")
    assert server.get("/v1/functions/echo").json()["live"] == 1


def test_every_mistake_is_told_at_once(server: Server) -> None:
    answer = server.put("/v1/pipelines/mistaken", {"function": "eco", "rate": "2 per second", "concurency": 2})
    assert (answer.status, answer.code) == (422, "invalid-settings")
    mistakes = {one["path"]: one for one in answer.json()["errors"]}
    assert set(mistakes) == {f"pipelines.mistaken.{name}" for name in ("function", "rate", "concurency")}
    assert "echo" in mistakes["pipelines.mistaken.function"]["suggestion"]
    assert "2/s" in mistakes["pipelines.mistaken.rate"]["suggestion"]
    assert "concurrency" in mistakes["pipelines.mistaken.concurency"]["suggestion"]
    assert server.get("/v1/pipelines/mistaken").code == "not-found"
    assert server.put("/v1/pipelines/bad%20name", {"function": "echo"}).code == "invalid-settings"


def test_what_cannot_be_applied_is_not_planned_either(server: Server, name: str) -> None:
    config = {"pipelines": {name: {"function": "echo", "version": 99}}}
    for dry_run in (True, False):
        answer = server.post("/v1/apply", {"config": config, "dry_run": dry_run})
        assert answer.code == "invalid-settings"
        assert "has no version 99" in answer.json()["errors"][0]["message"]


def test_bodies_that_are_no_settings(server: Server) -> None:
    for path in ("/v1/functions/x", "/v1/pipelines/x", "/v1/limits/x"):
        assert server.put(path, b"").code == "bad-request"
        assert server.put(path, b"{").code == "bad-request"
        assert server.put(path, b'{"a":"\xff"}').code == "bad-request"
        assert server.put(path, [1]).code == "invalid-settings"
        assert server.ask("PATCH", path, {}).code == "not-found"
        assert server.ask("PATCH", path, [1]).code == "bad-request"
        assert server.ask("DELETE", path).code == "not-found"


def test_a_pipeline_from_settings_to_removal(server: Server, name: str) -> None:
    path = f"/v1/pipelines/{name}"
    assert server.put(path, {"function": "echo", "rate": "2/s"}).status == 201
    shown = server.put(path, {"function": "echo", "rate": "1000/s", "concurrency": 2}).json()
    assert shown["settings"] == {"function": "echo", "rate": "1000/s", "concurrency": 2}
    assert shown["counts"] == {"delayed": 0, "queued": 0, "running": 0, "dead": 0, "done": 0}
    assert (shown["paused"], shown["held_until"], shown["waits_for"]) == (False, None, None)
    assert server.ask("PATCH", path, {"rate": None}).json()["settings"] == {"function": "echo", "concurrency": 2}
    assert server.post(f"{path}/pause").json()["paused"] is True
    (task,) = server.send(name, 7)
    shown = server.get(path).json()
    assert shown["counts"]["queued"] == 1
    assert "paused" in shown["waits_for"]
    assert server.ask("DELETE", path).code == "conflict"
    assert server.post(f"{path}/resume").json()["paused"] is False
    assert server.wait(task)["result"] == 7
    assert server.get(path).json()["counts"]["done"] == 1
    assert server.ask("DELETE", path).status == 204
    assert server.get(path).code == "not-found"
    assert server.wait(task)["function"] is None


def test_a_pipeline_with_tasks_goes_when_told_what_becomes_of_them(server: Server, name: str) -> None:
    server.make(name, "echo", paused=True)
    (task,) = server.send(name, 1)
    assert server.ask("DELETE", f"/v1/pipelines/{name}?tasks=burn").code == "bad-request"
    drained = server.ask("DELETE", f"/v1/pipelines/{name}?tasks=drain")
    assert drained.status == 202
    assert server.wait(task)["state"] == "done"
    until(lambda: server.get(f"/v1/pipelines/{name}").status == 404)
    server.make(name, "echo", paused=True)
    server.send(name, 1)
    assert server.ask("DELETE", f"/v1/pipelines/{name}?tasks=discard").status == 204


def test_a_shared_limit(server: Server, name: str) -> None:
    path = "/v1/limits/provider"
    assert server.put(path, {"rate": "1/h"}).status == 201
    assert server.put(path, {"rate": ["1/h"], "concurrency": 5}).json()["settings"] == {"rate": "1/h", "concurrency": 5}
    server.make(name, "echo", limits=["provider"])
    first, second = server.send(name, 1, 2)
    assert server.wait(first)["state"] == "done"
    until(lambda: server.get(f"/v1/tasks/{second}/why").json()["until"])
    why = server.get(f"/v1/tasks/{second}/why").json()
    assert (why["state"], why["limit"]) == ("queued", "provider")
    assert why["until"] > server.get(f"/v1/tasks/{first}").json()["finished"]
    answer = server.ask("DELETE", path)
    assert (answer.status, answer.code) == (409, "conflict")
    assert name in answer.json()["detail"]
    assert server.ask("PATCH", path, {"rate": None}).json()["settings"] == {"concurrency": 5}
    assert server.wait(second)["state"] == "done"
    assert server.ask("DELETE", f"/v1/pipelines/{name}").status == 204
    assert server.ask("DELETE", path).status == 204


def test_listings_go_page_by_page(server: Server) -> None:
    server.deploy("paged", "echo")
    for number in range(5):
        server.make(f"page-{number}", "paged")
        server.put(f"/v1/limits/page-{number}", {"concurrency": 1})
    found: list[str] = []
    after = ""
    while after is not None:
        page = server.get(f"/v1/pipelines?function=paged&limit=2&after={after}").json()
        assert len(page["pipelines"]) <= 2
        found += [one["name"] for one in page["pipelines"]]
        after = page["next"]
    assert found == [f"page-{number}" for number in range(5)]
    page = server.get("/v1/limits?after=page-1&limit=2").json()
    assert ([one["name"] for one in page["limits"]], page["next"]) == (["page-2", "page-3"], "page-3")
    names = [one["name"] for one in server.get("/v1/functions").json()["functions"]]
    assert names == sorted(names)
    assert {"echo", "paged"} <= set(names)
    assert server.get("/v1/pipelines?function=page").json()["nearest"] == "paged"
    for wrong in ("limit=0", "limit=1001", "limit=x"):
        answer = server.get(f"/v1/pipelines?{wrong}")
        assert (answer.status, answer.code) == (400, "bad-request")
        assert answer.json()["errors"][0]["path"] == "limit"


def config_of(name: str, **pipeline: Any) -> dict[str, Any]:
    return {"limits": {f"{name}-l": {"concurrency": 3}}, "pipelines": {name: {"function": "echo", **pipeline}}}


def test_apply_plans_then_does_and_then_has_nothing_to_do(server: Server, name: str) -> None:
    config = config_of(name, limits=[f"{name}-l"], rate="5/s")
    planned = server.post("/v1/apply", {"config": config, "dry_run": True}).json()
    assert [(one["action"], one["kind"], one["name"]) for one in planned["plan"]] == [
        ("create", "limit", f"{name}-l"),
        ("create", "pipeline", name),
    ]
    assert (planned["applied"], planned["change"]) == (False, None)
    assert server.get(f"/v1/pipelines/{name}").code == "not-found"
    applied = server.post("/v1/apply", {"config": config}).json()
    assert applied["plan"] == planned["plan"]
    assert applied["applied"] is True
    changes = server.get(f"/v1/changes?after={applied['change'] - 2}").json()["changes"]
    assert [(one["action"], one["name"], one["after"]) for one in changes[:2]] == [
        (one["action"], one["name"], one["after"]) for one in planned["plan"]
    ]
    again = server.post("/v1/apply", {"config": config}).json()
    assert (again["plan"], again["unchanged"], again["change"]) == ([], 2, None)
    changed = server.post("/v1/apply", {"config": config_of(name, rate="6/s")}).json()["plan"]
    assert changed[0]["before"]["rate"] == "5/s"
    assert changed[0]["after"]["rate"] == "6/s"


def test_apply_refuses_what_it_cannot_do_whole(server: Server, name: str) -> None:
    config = config_of(name, limits=["nowhere"])
    answer = server.post("/v1/apply", {"config": config})
    assert (answer.status, answer.code) == (422, "invalid-settings")
    assert answer.json()["errors"][0]["path"] == f"pipelines.{name}.limits[0]"
    assert server.get(f"/v1/limits/{name}-l").code == "not-found"
    assert server.post("/v1/apply", {"config": 7}).code == "invalid-settings"
    for body in (b"", b"{", b"[]", b"{}", b'{"config": {}, "prun": true}', b'{"config": {}, "tasks": "burn"}'):
        assert server.post("/v1/apply", body).code == "bad-request"
    assert server.post("/v1/apply", b'{"config":' + b"[" * 5000 + b"]" * 5000 + b"}").code == "bad-request"


def test_secrets_are_shown_to_the_handler_only(server: Server, name: str) -> None:
    server.deploy("params", env={"KEY": {"secret": SECRET}})
    settings = {"function": "params", "params": {"api_key": {"secret": SECRET}, "region": "eu"}}
    seen = [
        server.put(f"/v1/pipelines/{name}", settings).body,
        server.get(f"/v1/pipelines/{name}").body,
        server.get("/v1/pipelines").body,
        server.get("/v1/functions").body,
        server.get("/v1/functions/params").body,
        server.get("/v1/functions/params/versions").body,
        server.post("/v1/apply", {"config": {"pipelines": {name: {**settings, "rate": "9/s"}}}, "dry_run": True}).body,
        server.post("/v1/apply", {"config": {"pipelines": {name: {**settings, "rate": "9/s"}}}}).body,
        server.ask("PATCH", f"/v1/pipelines/{name}", {"rate": "8/s"}).body,
        server.get("/v1/changes?limit=1000").body,
    ]
    assert not any(SECRET.encode() in one for one in seen)
    assert json.loads(seen[1])["settings"]["params"] == {"api_key": {"secret": True}, "region": "eu"}
    shown = json.loads(seen[1])["settings"]
    assert server.put(f"/v1/pipelines/{name}", shown).status == 200
    assert server.post(f"/v1/pipelines/{name}/invoke").json() == {"api_key": SECRET, "region": "eu"}
    assert server.put(f"/v1/pipelines/{name}x", shown).code == "invalid-settings"


def test_the_change_log_goes_on_where_it_was_left(server: Server, name: str) -> None:
    server.make(name, "echo")
    everything = []
    place = 0
    while changes := (page := server.get(f"/v1/changes?after={place}&limit=3").json())["changes"]:
        everything += changes
        place = page["next"]
    sequences = [one["sequence"] for one in everything]
    assert sequences == sorted(set(sequences))
    assert everything[-1]["name"] == name
    assert {"sequence", "at", "action", "kind", "name", "before", "after"} == set(everything[-1])
    assert server.get("/v1/changes?after=-1").code == "bad-request"


def test_status(server: Server) -> None:
    status = server.get("/v1/status").json()
    assert status["epoch"] == 1
    assert status["functions"] >= 2
    assert set(status["tasks"]) == {"delayed", "queued", "running", "dead", "done"}


def test_what_is_reserved_needs_a_ceiling_that_has_it(server: Server) -> None:
    server.deploy("guarded", "echo")
    reserving = {"handler": "handlers:echo", "reserved_concurrency": 5}
    refused = server.put("/v1/functions/guarded", reserving)
    assert (refused.status, refused.code) == (422, "invalid-settings")
    (mistake,) = refused.json()["errors"]
    assert mistake["path"] == "functions.guarded.reserved_concurrency"
    assert "scope: project" in mistake["suggestion"]
    assert server.put("/v1/limits/everything", {"scope": "project", "concurrency": 6}).status == 201
    assert server.put("/v1/functions/guarded", reserving).status == 200
    assert server.post("/v1/functions/guarded/invoke", 7).json() == 7
    lowered = server.ask("PATCH", "/v1/limits/everything", {"concurrency": 5})
    assert [one["path"] for one in lowered.json()["errors"]] == ["limits.everything.concurrency"]
    assert server.ask("DELETE", "/v1/limits/everything").code == "invalid-settings"
    assert server.put("/v1/functions/guarded", {"handler": "handlers:echo"}).status == 200
    assert server.ask("DELETE", "/v1/limits/everything").status == 204
    assert server.post("/v1/functions/guarded/invoke", 8).json() == 8
    assert server.ask("DELETE", "/v1/functions/guarded").status == 204


def test_neither_a_deploy_nor_a_rollback_reserves_what_no_ceiling_has(server: Server) -> None:
    server.deploy("kept", "echo")
    assert server.put("/v1/limits/everything", {"scope": "project", "concurrency": 6}).status == 201
    server.deploy("kept", "echo", reserved_concurrency=5)
    server.deploy("kept", "echo", reserved_concurrency=None)
    assert server.ask("PATCH", "/v1/limits/everything", {"concurrency": 5}).status == 200
    written = quote(json.dumps({"handler": "handlers:echo", "reserved_concurrency": 5}))
    refused = server.put(f"/v1/functions/kept/code?settings={written}", bundle())
    assert [one["path"] for one in refused.json()["errors"]] == ["limits.everything.concurrency"]
    refused = server.post("/v1/functions/kept/rollback")
    assert [one["path"] for one in refused.json()["errors"]] == ["limits.everything.concurrency"]
    assert server.get("/v1/functions/kept").json()["live"] == 3
    assert server.ask("DELETE", "/v1/functions/kept").status == 204
    assert server.ask("DELETE", "/v1/limits/everything").status == 204


def test_nothing_is_kept_of_deploys_that_are_over(server: Server) -> None:
    server.deploy("over", "echo")
    for number in range(3):
        assert server.put(f"/v1/functions/nothing-{number}/code", bundle()).code == "not-found"
        assert server.post(f"/v1/functions/nothing-{number}/rollback").code == "not-found"
    assert not server.running.engine.configurer._turns
    assert server.ask("DELETE", "/v1/functions/over").status == 204
