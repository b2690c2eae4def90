"""`memory: auto`: instances get the size that their function was found to need."""

from pathlib import Path
from typing import Any

from tests.api.serving import Server, until

MB = 10**6
WHOLE: dict[str, Any] = {"retry": {"attempts": 1}}


def learned(server: Server, function: str) -> Any:
    return server.get(f"/v1/functions/{function}").json()["learned"]


def test_it_grows_without_a_spent_attempt_and_is_remembered(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        server.deploy("hoards", "hoards_and_tells", memory="auto", timeout="60s")
        assert learned(server, "hoards") == {"memory": "256MB", "runs": 0}
        server.make("line", "hoards", **WHOLE)
        small, large = server.send("line", 10 * MB, 300 * MB)
        assert server.wait(small)["result"] == 256 * MB >> 20
        ended = server.wait(large)
        assert (ended["outcome"], ended["attempts"], ended["result"]) == ("ok", 1, 512 * MB >> 20)
        assert [attempt["outcome"] for attempt in ended["history"]] == ["out_of_memory"]
        said = ended["history"][0]["error"]["message"]
        assert "256MB in each instance. `memory: auto` makes the next ones larger." in said
        assert learned(server, "hoards")["memory"] == "512MB"
        assert server.get("/v1/functions/hoards").json()["versions"] == 1
        called = server.post("/v1/functions/hoards/invoke", 600 * MB)  # a call is run again, too
        assert called.json() == 1024 * MB >> 20
    finally:
        server.close()
    server = Server(tmp_path)
    try:
        assert learned(server, "hoards")["memory"] == "1024MB"
        assert learned(server, "hoards")["runs"] >= 2
        assert server.post("/v1/functions/hoards/invoke", 300 * MB).json() == 1024 * MB >> 20
        assert server.ask("DELETE", "/v1/pipelines/line").status < 300
        assert server.ask("DELETE", "/v1/functions/hoards").status < 300
        server.deploy("hoards", "hoards_and_tells", memory="auto")
        assert learned(server, "hoards") == {"memory": "256MB", "runs": 0}
    finally:
        server.close()


def test_what_needs_more_than_the_greatest_ends_out_of_memory(server: Server, name: str) -> None:
    assert server.put("/v1/pools/small", {"memory": "300MB"}).status < 300
    server.deploy("greedy", "hoards_and_tells", memory="auto", pool="small", timeout="60s")
    server.make(name, "greedy", **WHOLE)
    (task,) = server.send(name, 3000 * MB)
    ended = server.wait(task)
    assert (ended["state"], ended["outcome"], ended["attempts"]) == ("dead", "out_of_memory", 1)
    assert [attempt["outcome"] for attempt in ended["history"]] == ["out_of_memory"]
    said = "`memory: auto` gives no more than 300MB here, the memory of the pool 'small'."
    assert said in ended["error"]["message"]
    assert learned(server, "greedy")["memory"] == "300MB"


def test_it_shrinks_after_some_runs(server: Server, name: str) -> None:
    server.deploy("modest", "hoards_and_tells", memory="auto", reuse=False)
    server.make(name, "modest")
    for task in server.send(name, *[MB] * 10):
        assert server.wait(task)["result"] == 256 * MB >> 20
    until(lambda: learned(server, "modest")["memory"] == "64MB")
    (task,) = server.send(name, MB)
    assert server.wait(task)["result"] == 64 * MB >> 20


def test_of_several_inside_nobody_loses_an_attempt(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy("shared", "hoards_and_tells", memory="auto", timeout="60s", max_parallel_requests=4)
    server.make(name, "shared", concurrency=4, **WHOLE)
    file = tmp_path / "go on"
    beside = server.send(name, *[str(file)] * 3)
    until(lambda: server.get(f"/v1/pipelines/{name}").json()["counts"]["running"] == 3)
    (large,) = server.send(name, 700 * MB)
    ended = server.wait(large)
    assert (ended["outcome"], ended["attempts"], ended["result"]) == ("ok", 1, 1024 * MB >> 20)
    file.touch()
    assert [server.wait(task)["attempts"] for task in beside] == [1, 1, 1]


def test_it_follows_the_pool_and_its_memory(server: Server, name: str) -> None:
    def gets(size: int) -> bool:
        invoked = server.post(f"/v1/functions/{name}-f/invoke", 1).json()
        return bool(invoked == size * MB >> 20 and learned(server, f"{name}-f")["memory"] == f"{size}MB")

    server.put(f"/v1/pools/{name}", {"memory": "100MB"})
    server.put(f"/v1/pools/{name}-other", {"memory": "120MB"})
    server.deploy(f"{name}-f", "hoards_and_tells", memory="auto", pool=name)
    assert gets(100)
    server.put(f"/v1/pools/{name}", {"memory": "110MB"})
    assert gets(110)
    settings = server.get(f"/v1/functions/{name}-f").json()["settings"]
    assert server.put(f"/v1/functions/{name}-f", settings | {"pool": f"{name}-other"}).status == 200
    assert gets(120)


def test_a_function_learns_nothing_from_an_earlier_one_of_its_name(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy(f"{name}-f", "hoards_and_tells", memory="auto")
    server.make(name, f"{name}-f")
    file = tmp_path / "go on"
    server.send(name, str(file))
    until(lambda: server.get(f"/v1/pipelines/{name}").json()["counts"]["running"] == 1)
    assert server.ask("DELETE", f"/v1/pipelines/{name}?tasks=discard").status < 300
    assert server.ask("DELETE", f"/v1/functions/{name}-f").status < 300
    server.deploy(f"{name}-f", "hoards_and_tells", memory="auto")
    file.touch()
    until(lambda: not any(server.get(f"/v1/functions/{name}-f").json()["instances"].values()))
    assert learned(server, f"{name}-f")["runs"] == 0


def test_fixed_sizes_are_not_learned(server: Server) -> None:
    server.deploy("fixed", "hoards", memory="100MB")
    assert learned(server, "fixed") is None
