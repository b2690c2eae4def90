"""Aliases: names that point at versions, over HTTP and the client, with a real server."""

from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import Server, bundle
from tests.api.test_live import call, deploy, make

from penstock.client import Client, InvalidSettings, NotFound


def turn(server: Server, name: str, alias: str, number: int | None) -> Any:
    return server.ask("PATCH", f"/v1/functions/{name}", {"aliases": {alias: number}})


def via(server: Server, pipeline: str) -> Any:
    return server.post(f"/v1/pipelines/{pipeline}/invoke").json()


def test_all_that_name_an_alias_follow_it_at_once(server: Server, name: str) -> None:
    make(server, name, "one", "two", "three")
    assert turn(server, name, "stable", 1).status == 200
    server.make(f"{name}-a", name, version="stable")
    server.make(f"{name}-b", name, version="stable", env={"A": "b"})
    server.make(f"{name}-live", name)
    assert call(server, f"{name}@stable") == via(server, f"{name}-a") == via(server, f"{name}-b") == "one"
    assert turn(server, name, "stable", 2).status == 200
    assert call(server, f"{name}@stable") == via(server, f"{name}-a") == via(server, f"{name}-b") == "two"
    assert call(server, name) == via(server, f"{name}-live") == "three"
    deploy(server, name, "four")
    assert (call(server, name), via(server, f"{name}-a")) == ("four", "two")


def test_an_alias_of_the_live_version_stays_when_another_goes_live(server: Server, name: str) -> None:
    make(server, name, "one")
    turn(server, name, "stable", 1)
    assert call(server, f"{name}@stable") == call(server, name) == "one"
    deploy(server, name, "two")
    assert call(server, f"{name}@stable") == "one"
    turn(server, name, "stable", 2)
    turn(server, name, "old", 1)
    assert call(server, f"{name}@stable") == call(server, name) == "two"
    assert call(server, f"{name}@old") == "one"


def test_a_rollback_and_new_settings_leave_aliases_alone(server: Server, name: str) -> None:
    make(server, name, "one", "two")
    turn(server, name, "stable", 2)
    assert server.post(f"/v1/functions/{name}/rollback").status == 200
    assert (call(server, name), call(server, f"{name}@stable")) == ("one", "two")
    assert server.ask("PATCH", f"/v1/functions/{name}", {"timeout": "9s"}).status == 200
    shown = server.get(f"/v1/functions/{name}").json()
    assert (shown["settings"]["aliases"], shown["live"]) == ({"stable": 2}, 3)
    versions = server.get(f"/v1/functions/{name}/versions").json()["versions"]
    assert [one["aliases"] for one in versions] == [[], ["stable"], []]


def test_turning_an_alias_makes_no_version_and_one_change(server: Server, name: str) -> None:
    make(server, name, "one", "two")
    before = server.get("/v1/changes?limit=1000").json()["next"]
    turn(server, name, "stable", 1)
    (change,) = [one for one in server.get(f"/v1/changes?after={before}").json()["changes"] if one["name"] == name]
    assert (change["action"], change["after"]["aliases"]) == ("change", {"stable": 1})
    assert server.get(f"/v1/functions/{name}").json()["versions"] == 2


def test_what_an_alias_cannot_be(server: Server, name: str) -> None:
    make(server, name, "one")
    wrong = [{"stable": 2}, {"stable": "1"}, {"stable": True}, {"3": 1}, {"a b": 1}, {"": 1}, ["stable"]]
    for aliases in wrong:
        answer = server.ask("PATCH", f"/v1/functions/{name}", {"aliases": aliases})
        assert (answer.status, answer.code) == (422, "invalid-settings"), aliases
    turn(server, name, "stable", 1)
    for version in ("stabel", "1", "", 0, True, 2):
        answer = server.put(f"/v1/pipelines/{name}", {"function": name, "version": version})
        assert (answer.status, answer.code) == (422, "invalid-settings"), version
    wrong_name = server.post(f"/v1/functions/{name}@stabel/invoke")
    assert (wrong_name.status, wrong_name.json()["nearest"]) == (404, f"{name}@stable")
    assert server.post("/v1/functions/nothing@stable/invoke").code == "not-found"


def test_an_alias_that_is_used_cannot_go(server: Server, name: str) -> None:
    make(server, name, "one")
    turn(server, name, "stable", 1)
    server.make(f"{name}-a", name, version="stable")
    for refused in (
        turn(server, name, "stable", None),
        server.put(f"/v1/functions/{name}", {"handler": "handlers:handler"}),
    ):
        assert refused.code == "invalid-settings"
        assert f"pipelines.{name}-a" in refused.json()["errors"][0]["message"]
    together = {
        "functions": {name: {"handler": "handlers:handler"}},
        "pipelines": {f"{name}-a": {"function": name}},
    }
    assert server.post("/v1/apply", {"config": together}).status == 200
    assert server.post(f"/v1/functions/{name}@stable/invoke").code == "not-found"
    assert via(server, f"{name}-a") == "one"
    turn(server, name, "stable", 1)
    assert turn(server, name, "stable", None).status == 200
    assert server.ask("DELETE", f"/v1/pipelines/{name}-a").status == 204
    assert server.ask("DELETE", f"/v1/functions/{name}").status == 204


def test_an_alias_does_not_turn_to_code_that_imports_no_more(server: Server, name: str, tmp_path: Path) -> None:
    door = tmp_path / "door"
    door.touch()
    needs = bundle({"handlers.py": f"open({str(door)!r}).close()\ndef handler(event, context):\n    return 'one'\n"})
    server.put(f"/v1/functions/{name}", {"handler": "handlers:handler"})
    assert server.put(f"/v1/functions/{name}/code", needs).status == 200
    deploy(server, name, "two")
    turn(server, name, "stable", 2)
    door.unlink()
    refused = turn(server, name, "stable", 1)
    assert (refused.status, refused.code) == (422, "deploy-failed")
    assert "'stable' stays where it is" in refused.json()["detail"]
    assert call(server, f"{name}@stable") == "two"


def test_a_restart_finds_aliases_where_they_were(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        make(server, "f", "one", "two")
        turn(server, "f", "stable", 1)
        server.make("p", "f", version="stable")
    finally:
        server.close()
    server = Server(tmp_path)
    try:
        assert (via(server, "p"), call(server, "f@stable"), call(server, "f")) == ("one", "one", "two")
    finally:
        server.close()


def test_the_client_turns_aliases(server: Server, name: str) -> None:
    make(server, name, "one", "two")
    with Client(server.running.url, server.running.token) as client:
        function = client.function(name)
        assert function.alias("stable", 1).settings["aliases"] == {"stable": 1}
        assert client.function(f"{name}@stable").invoke() == "one"
        assert [one.aliases for one in function.versions()] == [["stable"], []]
        with pytest.raises(InvalidSettings):
            function.alias("stable", 7)
        assert function.alias("stable", None).settings.get("aliases", {}) == {}
        with pytest.raises(NotFound):
            client.function(f"{name}@stable").invoke()
