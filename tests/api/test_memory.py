"""Memory limits, from the settings of a function to what its tasks and callers are told."""

from pathlib import Path

from tests.api.serving import Server, until

LIMIT = "100MB"
MUCH = 3_000_000_000


def test_a_task_that_uses_too_much_ends_out_of_memory(server: Server, name: str) -> None:
    server.deploy("hoards", memory=LIMIT, timeout="60s")
    server.make(name, "hoards", retry={"attempts": 2, "backoff": "0s..0s"})
    greedy, modest = server.send(name, MUCH, 30_000_000)
    assert server.wait(modest)["result"] == 6
    ended = server.wait(greedy)
    assert (ended["state"], ended["outcome"], ended["attempts"]) == ("dead", "out_of_memory", 2)
    assert [attempt["outcome"] for attempt in ended["history"]] == ["out_of_memory"]
    assert ended["error"]["type"] == "OutOfMemory"
    assert "'hoards' may use 100MB in each instance. Raise `memory`" in ended["error"]["message"]
    assert "hoards 3000000000" in "".join(
        line["text"] for line in server.get(f"/v1/logs?task={greedy}").json()["lines"]
    )
    called = server.post("/v1/functions/hoards/invoke", MUCH)
    assert (called.status, called.code, called.json()["outcome"]) == (502, "task-failed", "out_of_memory")


def test_the_guilty_one_of_several_is_found_and_the_others_lose_no_attempt(
    server: Server, name: str, tmp_path: Path
) -> None:
    server.deploy("hoards", memory=LIMIT, timeout="60s", max_parallel_requests=4)
    server.make(name, "hoards", retry={"attempts": 1}, concurrency=4)
    file = tmp_path / "go on"
    innocent = server.send(name, *[str(file)] * 3)
    until(lambda: server.get(f"/v1/pipelines/{name}").json()["counts"]["running"] == 3)
    (guilty,) = server.send(name, MUCH)
    ended = server.wait(guilty)
    assert (ended["outcome"], ended["attempts"]) == ("out_of_memory", 1)
    assert [attempt["outcome"] for attempt in ended["history"]] == ["interrupted"]
    file.touch()
    for task in innocent:
        found = server.wait(task)
        assert (found["outcome"], found["attempts"], found["result"]) == ("ok", 1, 1)
        assert {attempt["outcome"] for attempt in found["history"]} == {"interrupted"}
    said = "".join(line["text"] for line in server.get("/v1/logs?function=hoards").json()["lines"])
    assert "Up to 4 tasks share it (max_parallel_requests)." in said


def test_the_status_says_how_limits_are_enforced(server: Server) -> None:
    assert server.get("/v1/status").json()["memory_limits"] in {"cgroup v2", "cgroup v1", "polling"}
