"""Every route that the schema tells of answers, whatever it is given, and never with a failure of the server's own."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import Server

GARBAGE: list[bytes | None] = [
    None, b"", b"null", b"[]", b"{}", b"7", b'"x"', b"{", b"\xff\xfe", b"[[[[1]]]]", b'{"a": {"b": [null]}}',
    b'[{"payload": 1}, 2]',
    b'{"function": 7, "handler": [], "rate": {}, "config": {"pipelines": {"a": null}}, "ids": [1]}',
    b'{"config": {"functions": [], "limits": 3, "pipelines": {"": {}}, "x": 1}}', b"[" * 3000,
    b'{"rate": "1/s", "rate": "x"}',
]  # fmt: skip
NAMES = ["echo", "nobody", "@echo", "..", "%00", "a%2Fb", "%E2%98%83", "x" * 300, "0123456789abcdef", " ", "%25", "-"]
VALUES = ["", "1", "-1", "x", "0", "99999999999999999999", "%00", "1e9", "true", "NaN", "1s", "%7B%7D", "%22", "refuse"]


@pytest.fixture(scope="module")
def schema(server: Server) -> dict[str, Any]:
    answer = server.get("/v1/openapi.json")
    assert answer.status == 200
    described: dict[str, Any] = answer.json()
    return described


def test_the_schema_tells_of_all_routes(schema: dict[str, Any]) -> None:
    routes = {f"{method.upper()} {path}" for path, methods in schema["paths"].items() for method in methods}
    assert {
        "GET /v1/functions", "PUT /v1/functions/{name}", "PUT /v1/functions/{name}/code", "POST /v1/functions/{name}/invoke",
        "POST /v1/pipelines/{name}/tasks", "POST /v1/pipelines/{name}/invoke", "GET /v1/tasks/{task}",
        "DELETE /v1/tasks/{task}", "GET /v1/tasks/{task}/why", "POST /v1/pipelines/{name}/dead/redrive", "GET /v1/logs",
        "PUT /v1/limits/{name}", "PUT /v1/pools/{name}",
        "POST /v1/apply", "GET /v1/changes", "GET /v1/status", "GET /healthz", "GET /readyz",
    } <= routes  # fmt: skip
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert operation["tags"], (method, path)
            for status, response in operation["responses"].items():
                assert ("application/problem+json" in response.get("content", {})) == (int(status) >= 400), (
                    method,
                    path,
                )
    assert schema["paths"]["/v1/pipelines/{name}/tasks"]["post"]["requestBody"]["content"]["application/x-ndjson"]
    operations = [one["operationId"] for methods in schema["paths"].values() for one in methods.values()]
    assert len(operations) == len(set(operations))


def test_garbage_never_makes_the_server_fail(schema: dict[str, Any], tmp_path: Path) -> None:
    server = Server(tmp_path)  # whatever becomes of it, no other test uses it
    try:
        server.deploy("echo")
        bombard(server, schema)
        assert server.get("/v1/status").status == 200
    finally:
        server.close()


def bombard(server: Server, schema: dict[str, Any]) -> None:
    rng = random.Random(7)
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            known = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
            for body in GARBAGE if "requestBody" in operation else [None, b"{}", b"\xff"]:
                asked = re.sub(r"{\w+}", rng.choice(NAMES).replace("\\", ""), path)
                query = "&".join(
                    f"{one}={rng.choice(VALUES)}" for one in known if rng.random() < 0.6 and one != "follow"
                )
                answer = server.ask(method.upper(), f"{asked.replace(' ', '%20')}?{query}", body)
                assert answer.status < 500 or answer.status in {502, 503, 504}, (
                    method,
                    asked,
                    query,
                    body,
                    answer.body,
                )
                if answer.status >= 400:
                    assert answer.code
                elif answer.body:
                    json.loads(answer.body)


def test_unknown_routes_and_methods(server: Server) -> None:
    for path in (
        "/",
        "/v1",
        "/v2/functions",
        "/v1/function",
        "/v1/functions/",
        "/v1/tasks/a/b/c",
        "/docs",
        "//v1/status",
    ):
        answer = server.get(path)
        assert (answer.status, answer.code) == (404, "not-found"), path
        assert path in answer.json()["detail"]
    answer = server.post("/v1/status")
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method-not-allowed", "GET")
    assert server.ask("BREW", "/v1/status").status in {400, 405}


def test_a_failure_of_the_server_tells_nothing_but_that(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the secret inside")

    with monkeypatch.context() as patched:
        patched.setattr(server.running.engine.configurer, "lookup", fail)
        patched.setattr(server.running.engine, "task", fail)
        for path in ("/v1/limits/broken", "/v1/tasks/0123456789abcdef"):
            answer = server.get(path)
            assert (answer.status, answer.code) == (500, "internal")
            assert b"secret inside" not in answer.body
            assert b"Traceback" not in answer.body
    assert len([record for record in caplog.records if record.exc_info]) == 2
    assert server.get("/v1/status").status == 200
