"""The sandbox from outside: what is wanted, what is reached, and that a deploy is refused where it cannot be."""

from pathlib import Path

import pytest
from tests.api.serving import Server

from penstock.compute.isolation import Walls
from penstock.runtime import sandbox


def test_the_status_and_each_function_say_what_is_reached(server: Server, name: str) -> None:
    missing = sandbox.parts()
    found = server.get("/v1/status").json()["sandbox"]
    for level, parts in (("standard", sandbox.STANDARD), ("strict", sandbox.STRICT)):
        assert set(found[level]["by"]) | set(found[level]["missing"]) == set(parts)
        assert set(found[level]["missing"]) == set(parts) & missing.keys()
    server.ask("PUT", f"/v1/functions/{name}", {"handler": "handlers:echo", "sandbox": "off"})
    shown = server.get(f"/v1/functions/{name}").json()["sandbox"]
    assert shown == {"wanted": "off", "reached": "off", "by": [], "missing": {}}


def test_a_deploy_that_asks_for_more_than_there_is_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(self: Walls) -> None:
        self._missing = {sandbox.PROCESSES: "taken away"}

    monkeypatch.setattr(Walls, "probe", lacks)
    server = Server(tmp_path)
    try:
        server.deploy("echo")
        answer = server.ask("PATCH", "/v1/functions/echo", {"sandbox": "strict"})
        assert answer.code == "deploy-failed"
        assert answer.json()["detail"].startswith("'echo' asks for sandbox: strict, and this machine does not give all")
        assert "process namespace (taken away)" in answer.json()["detail"]
        assert server.get("/v1/functions/echo").json()["sandbox"]["wanted"] == "standard"
    finally:
        server.close()
