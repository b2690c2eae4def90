"""Secrets: sealed on the disk, shown by nobody, and taken out of what tasks print and raise."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import Server, bundle, until

from penstock.domain.errors import PenstockError

SECRET = "hunter2-is-not-enough"
BACK = SECRET[::-1]  # results are kept as they are
CODE = """
import os, sys
def handler(event, context):
    secret = context.params.get("token", {}).get("key") or os.environ["KEY"]
    print("out", secret)
    print("err", secret, file=sys.stderr)
    context.log.warning("log %s", secret)
    if event == "fail":
        raise ValueError(f"{secret} was wrong")
    if event == "die":
        print(secret, file=sys.stderr, flush=True)
        os._exit(3)
    return secret[::-1]
"""


def on_disk(data: Path, text: str = SECRET) -> list[str]:
    """Return the files of a data directory, those of its database among them, that have a text in them."""
    return [path.name for path in data.iterdir() if path.is_file() and text.encode() in path.read_bytes()]


def fill(server: Server) -> None:
    server.put("/v1/functions/f", {"handler": "handlers:handler", "env": {"KEY": {"secret": SECRET}}})
    assert server.put("/v1/functions/f/code", bundle({"handlers.py": CODE})).status == 200
    server.make("p", "f", params={"token": {"key": {"secret": SECRET}}}, retry={"attempts": 1})
    server.make("plain", "f", retry={"attempts": 1})


def test_secrets_are_sealed_wherever_they_lie(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        fill(server)
        server.ask("PATCH", "/v1/pipelines/p", {"rate": "50/s"})
        server.ask("PATCH", "/v1/functions/f", {"timeout": "9s"})
        assert server.post("/v1/functions/f/rollback").status == 200
        assert on_disk(tmp_path) == []
        assert server.post("/v1/pipelines/p/invoke").json() == BACK
    finally:
        server.close()
    assert on_disk(tmp_path) == []
    key = tmp_path / "secrets.key"
    assert key.stat().st_mode & 0o777 == 0o600
    server = Server(tmp_path)
    try:
        assert server.post("/v1/pipelines/p/invoke").json() == BACK
        assert server.post("/v1/functions/f/invoke").json() == BACK
        shown = [server.get(f"/v1/{path}").body for path in ("functions/f", "pipelines/p", "changes", "pipelines")]
        assert [SECRET.encode() in body or b"sealed" in body for body in shown] == [False] * len(shown)
        nothing = server.post(
            "/v1/apply", {"config": {"pipelines": {"p": server.get("/v1/pipelines/p").json()["settings"]}}}
        )
        assert (nothing.json()["plan"], nothing.json()["unchanged"]) == ([], 1)
    finally:
        server.close()


def test_what_stood_in_clear_is_sealed_at_the_next_start(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        fill(server)
    finally:
        server.close()
    plain = json.dumps({"function": "f", "params": {"token": {"key": {"secret": SECRET}}}}, separators=(",", ":"))
    with sqlite3.connect(tmp_path / "penstock.sqlite") as database:
        database.execute("UPDATE objects SET settings = ? WHERE name = 'p'", (plain.replace("hunter2", "older-1"),))
        database.execute("UPDATE objects SET settings = ? WHERE name = 'p'", (plain,))
    database.close()
    assert on_disk(tmp_path)
    server = Server(tmp_path)
    try:
        assert on_disk(tmp_path) == []
        assert on_disk(tmp_path, "older-1") == []
        assert server.post("/v1/pipelines/p/invoke").json() == BACK
    finally:
        server.close()


def test_a_lost_key_stops_the_start_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(tmp_path)
    try:
        fill(server)
    finally:
        server.close()
    key = tmp_path / "secrets.key"
    kept = key.read_text()
    key.unlink()
    with pytest.raises(PenstockError, match="Put the key back"):
        Server(tmp_path)
    assert not key.exists()
    monkeypatch.setenv("PENSTOCK_SECRETS_KEY", kept.strip())
    Server(tmp_path).close()
    monkeypatch.delenv("PENSTOCK_SECRETS_KEY")
    monkeypatch.setenv("PENSTOCK_SECRETS_LOST", "empty")
    server = Server(tmp_path)
    try:
        server.put("/v1/pipelines/plain", {"function": "f", "params": {"token": {"key": {"secret": "set anew"}}}})
        assert server.post("/v1/pipelines/plain/invoke").json() == "wena tes"
        assert server.post("/v1/pipelines/p/invoke").json() == ""
    finally:
        server.close()


def test_rotation_seals_everything_with_a_new_key(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        fill(server)
        before = (tmp_path / "secrets.key").read_text()
        assert server.post("/v1/secrets/rotate").json() == {"sealed": 3}
        after = (tmp_path / "secrets.key").read_text()
        assert (before != after, len(after.split())) == (True, 1)
        assert server.post("/v1/pipelines/p/invoke").json() == BACK
        server.make("q", "f", params={"token": {"key": {"secret": SECRET}}})
    finally:
        server.close()
    server = Server(tmp_path)
    try:
        assert [server.post(f"/v1/pipelines/{one}/invoke").json() for one in "pq"] == [BACK, BACK]
    finally:
        server.close()


def test_a_new_first_key_from_outside_seals_everything_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path)
    try:
        fill(server)
    finally:
        server.close()
    old = (tmp_path / "secrets.key").read_text().strip()
    new = "A" * 43 + "="
    monkeypatch.setenv("PENSTOCK_SECRETS_KEY", f"{new},{old}")
    server = Server(tmp_path)
    try:
        refused = server.post("/v1/secrets/rotate")
        assert (refused.status, refused.code) == (409, "conflict")
    finally:
        server.close()
    monkeypatch.setenv("PENSTOCK_SECRETS_KEY", new)
    server = Server(tmp_path)
    try:
        assert server.post("/v1/pipelines/p/invoke").json() == BACK
    finally:
        server.close()


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = Server(tmp_path_factory.mktemp("leaky"))
    fill(server)
    yield server
    server.close()


@pytest.mark.parametrize(("pipeline", "name"), [("p", "token.key"), ("plain", "KEY")])
@pytest.mark.parametrize("event", ["fail", "die"])
def test_what_tasks_print_and_raise_has_no_secrets(leaky: Server, pipeline: str, name: str, event: str) -> None:
    (task,) = leaky.send(pipeline, event)
    record = leaky.wait(task)
    until(lambda: leaky.get(f"/v1/logs?task={task}").json()["lines"])
    lines = leaky.get(f"/v1/logs?task={task}").json()["lines"]
    said = "\n".join(line["text"] for line in lines)
    assert "[secret " in said
    assert "[secret " in str(record["error"]) or event == "die"
    call = leaky.post(f"/v1/pipelines/{pipeline}/invoke", event)
    for shown in (said, str(record), call.body.decode(), str(leaky.get("/v1/logs?function=f").json())):
        assert SECRET not in shown


def test_the_traceback_of_a_deploy_has_no_secrets(leaky: Server) -> None:
    code = bundle({"handlers.py": "import os\nraise ValueError('bad ' + os.environ['KEY'])"})
    refused = leaky.put("/v1/functions/f/code", code)
    assert refused.code == "deploy-failed"
    assert SECRET not in refused.body.decode()
    assert "[secret KEY]" in refused.json()["detail"]
    assert "[secret KEY]" in refused.json()["traceback"]
