"""Routes: functions whose measured tasks do not fit run in the pool that takes them, without naming it."""

from pathlib import Path
from typing import Any

from tests.api.serving import Server, until


def place(server: Server, function: str) -> Any:
    return server.get(f"/v1/functions/{function}").json()["pool"]


def goes_to(server: Server, function: str, pool: str) -> None:
    until(lambda: place(server, function)["name"] == pool)


def test_what_takes_long_moves_and_no_plan_shows_it(server: Server, name: str) -> None:
    server.put(f"/v1/pools/{name}", {"max_instances": 3, "route": {"longer_than": "100ms"}})
    server.deploy(f"{name}-f", "sleeps")
    server.deploy(f"{name}-stays", "sleeps", pool="default")
    server.make(name, f"{name}-f")
    assert place(server, f"{name}-f") == {
        "name": "default", "routed": False, "why": "no other pool takes it", "p90": None, "memory": None,
    }  # fmt: skip
    before = server.get(f"/v1/functions/{name}-f").json()["settings"]
    try:
        for _ in range(3):
            for function in (f"{name}-f", f"{name}-stays"):
                assert server.post(f"/v1/functions/{function}/invoke", 0.15).json() == 0.15
        goes_to(server, f"{name}-f", name)
        shown = place(server, f"{name}-f")
        assert (shown["routed"], shown["why"].startswith("p90 of its tasks is 1")) == (True, True)
        assert shown["why"].endswith("ms, longer than 0.1s")
        assert 0.13 < shown["p90"] < 1
        assert place(server, f"{name}-stays") | {"p90": 0} == {
            "name": "default", "routed": False, "why": "its settings name it", "p90": 0, "memory": None,
        }  # fmt: skip
        assert server.get(f"/v1/pipelines/{name}").json()["pool"] == shown
        assert server.post(f"/v1/functions/{name}-f/invoke", 0).json() == 0
        assert server.get(f"/v1/pools/{name}").json()["functions"] == {f"{name}-f": 1}
        config = {"functions": {f"{name}-f": before}, "pipelines": {name: {"function": f"{name}-f"}}}
        planned = server.post("/v1/apply", {"config": config, "dry_run": True}).json()
        assert (planned["plan"], planned["unchanged"]) == ([], 2)
    finally:
        assert server.ask("DELETE", f"/v1/pools/{name}").status == 204
    assert place(server, f"{name}-f")["name"] == "default"
    assert server.post(f"/v1/functions/{name}-f/invoke", 0).json() == 0


def test_what_used_much_memory_moves_though_it_has_given_it_back(server: Server, name: str) -> None:
    server.put(f"/v1/pools/{name}", {"route": {"larger_than": "150MB"}})
    server.deploy(f"{name}-f", "hoards")
    server.deploy(f"{name}-small", "echo")
    try:
        assert server.post(f"/v1/functions/{name}-small/invoke", 1).json() == 1
        assert server.post(f"/v1/functions/{name}-f/invoke", 200_000_000).json() == 40
        goes_to(server, f"{name}-f", name)
        assert place(server, f"{name}-f")["memory"] > 200_000_000
        assert place(server, f"{name}-f")["why"].endswith(" MB, more than 150MB")
        assert place(server, f"{name}-small")["name"] == "default"
    finally:
        assert server.ask("DELETE", f"/v1/pools/{name}").status == 204


def test_timeouts_count_with_their_time(server: Server, name: str) -> None:
    server.put(f"/v1/pools/{name}", {"route": {"longer_than": "250ms"}})
    server.deploy(f"{name}-f", "sleeps", timeout="300ms")
    try:
        for _ in range(3):
            assert server.post(f"/v1/functions/{name}-f/invoke", 60).status == 504
        goes_to(server, f"{name}-f", name)
    finally:
        assert server.ask("DELETE", f"/v1/pools/{name}").status == 204


def test_it_is_remembered_over_restarts(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        server.put("/v1/pools/long", {"route": {"longer_than": "100ms"}})
        server.deploy("f", "sleeps", min_instances=1)
        for _ in range(3):
            assert server.post("/v1/functions/f/invoke", 0.15).json() == 0.15
        goes_to(server, "f", "long")
        assert server.post("/v1/functions/f/invoke", 0.15).json() == 0.15
        before = place(server, "f")
    finally:
        server.close()
    server = Server(tmp_path)
    try:
        assert place(server, "f") == before
        until(lambda: server.get("/v1/pools/long").json()["functions"] == {"f": 1})
    finally:
        server.close()
