"""Pools: a share of the machine that some functions and pipelines have, and no more."""

from pathlib import Path
from typing import Any

from tests.api.serving import Server, until


def pool(server: Server, name: str, **settings: Any) -> None:
    assert server.put(f"/v1/pools/{name}", settings).status in {200, 201}


def held(server: Server, name: str) -> Any:
    return server.get(f"/v1/pools/{name}").json()["functions"]


def test_a_pool_is_configured_like_anything_else(server: Server, name: str) -> None:
    path = f"/v1/pools/{name}"
    made = server.put(path, {"max_instances": 20, "description": "what takes long"})
    assert made.status == 201
    settings = {"max_instances": 20, "description": "what takes long"}
    assert made.json()["settings"] == settings
    assert (made.json()["instances"], made.json()["functions"], made.json()["waiting"]) == (0, {}, 0)
    del settings["description"]
    assert server.ask("PATCH", path, {"description": None}).json()["settings"] == settings
    assert name in [one["name"] for one in server.get("/v1/pools?limit=1000").json()["pools"]]
    wrong = server.put(path, {"max_instances": 0, "size": 3})
    assert wrong.code == "invalid-settings"
    assert {one["path"] for one in wrong.json()["errors"]} == {
        f"pools.{name}.max_instances",
        f"pools.{name}.size",
    }
    nowhere = server.put(f"/v1/pipelines/{name}", {"function": "echo", "pool": f"{name}s"})
    assert f"did you mean '{name}'?" in nowhere.body.decode()
    server.make(name, "echo", pool=name)
    used = server.ask("DELETE", path)
    assert (used.code, f"pipelines.{name}" in used.json()["detail"]) == ("conflict", True)
    assert server.ask("DELETE", f"/v1/pipelines/{name}").status == 204
    assert server.ask("DELETE", path).status == 204
    assert server.get(path).code == "not-found"


def test_no_more_run_than_the_pool_has_room_for_and_why_says_so(server: Server, name: str, tmp_path: Path) -> None:
    pool(server, name, max_instances=2)
    server.deploy(f"{name}-f", "waits", pool=name)
    server.make(name, f"{name}-f")
    file = tmp_path / "go on"
    tasks = server.send(name, *[str(file)] * 5)
    until(lambda: server.get(f"/v1/pipelines/{name}").json()["counts"]["running"] == 2)
    why = server.get(f"/v1/tasks/{tasks[-1]}/why").json()
    assert why["waits_for"] == f"the pool '{name}' is full: all its 2 instances are busy or starting"
    assert (why["kind"], why["position"]) == ("pool", 2)
    assert held(server, name) == {f"{name}-f": 2}
    assert server.get(f"/v1/pools/{name}").json()["waiting"] == 1
    assert server.ask("PATCH", f"/v1/pools/{name}", {"max_instances": 3}).status == 200  # a raise is felt at once
    until(lambda: server.get(f"/v1/pipelines/{name}").json()["counts"]["running"] == 3)
    file.touch()
    assert [server.wait(task)["outcome"] for task in tasks] == ["ok"] * 5


def test_an_idle_instance_goes_for_another_function(server: Server, name: str) -> None:
    pool(server, name, max_instances=1)
    server.deploy(f"{name}-a", "echo", pool=name, min_instances=1)
    server.deploy(f"{name}-b", "echo", pool=name)
    for _ in range(3):
        for function in (f"{name}-a", f"{name}-b"):
            assert server.post(f"/v1/functions/{function}/invoke", 7).json() == 7
            assert held(server, name) == {function: 1}


def test_a_function_with_many_tasks_lets_another_one_have_its_turn(server: Server, name: str) -> None:
    pool(server, name, max_instances=1)
    server.deploy(f"{name}-many", "sleeps", pool=name)
    server.deploy(f"{name}-few", "echo", pool=name)
    server.make(name, f"{name}-many")
    tasks = server.send(name, *[0.02] * 200)
    until(lambda: server.get(f"/v1/pipelines/{name}").json()["counts"]["done"] > 0)
    assert server.post(f"/v1/functions/{name}-few/invoke", "me, too").json() == "me, too"
    assert server.get(f"/v1/pipelines/{name}").json()["counts"]["queued"] > 0
    assert {server.wait(task)["outcome"] for task in tasks[::50]} == {"ok"}


def test_instances_that_serve_several_give_way_as_well(server: Server, name: str) -> None:
    pool(server, name, max_instances=1)
    server.deploy(f"{name}-many", "sleeps", pool=name, max_parallel_requests=4)
    server.deploy(f"{name}-few", "echo", pool=name)
    server.make(name, f"{name}-many")
    server.send(name, *[0.02] * 1500)
    until(lambda: server.get(f"/v1/pipelines/{name}").json()["counts"]["done"] > 0)
    assert server.post(f"/v1/functions/{name}-few/invoke", "me, too").json() == "me, too"
    assert server.get(f"/v1/pipelines/{name}").json()["counts"]["queued"] > 0
    assert server.ask("DELETE", f"/v1/pipelines/{name}?tasks=discard").status in {202, 204}


def test_a_pipeline_may_have_its_instances_elsewhere(server: Server, name: str) -> None:
    pool(server, name, max_instances=1)
    pool(server, f"{name}-own", max_instances=1)
    server.deploy(f"{name}-f", "echo", pool=name)
    server.make(name, f"{name}-f", pool=f"{name}-own")
    assert server.post(f"/v1/pipelines/{name}/invoke", 1).json() == 1
    assert server.post(f"/v1/functions/{name}-f/invoke", 2).json() == 2
    assert held(server, name) == held(server, f"{name}-own") == {f"{name}-f": 1}
    server.make(name, f"{name}-f")  # back to the function's
    assert server.post(f"/v1/pipelines/{name}/invoke", 3).json() == 3
    until(lambda: held(server, f"{name}-own") == {})
    settings = server.get(f"/v1/functions/{name}-f").json()["settings"]
    assert server.put(f"/v1/functions/{name}-f", settings | {"pool": f"{name}-own"}).status == 200
    until(lambda: held(server, name) == {})
    assert server.post(f"/v1/functions/{name}-f/invoke", 4).json() == 4
    assert held(server, f"{name}-own") == {f"{name}-f": 1}


def test_a_suspect_runs_beside_a_full_pool(server: Server, name: str, tmp_path: Path) -> None:
    """What crashed beside others runs apart, and need not wait for a place."""
    pool(server, name, max_instances=1)
    server.deploy(f"{name}-f", "as_told", pool=name, max_parallel_requests=4)
    server.make(name, f"{name}-f", retry={"attempts": 1}, batch=2)
    file = tmp_path / "go on"
    waiting = server.send(name, {"do": "wait", "file": str(file)}, "x")
    until(lambda: server.get(f"/v1/pipelines/{name}").json()["counts"]["running"] == 2)
    dying = server.send(name, {"do": "exit"}, "exit")
    file.touch()
    assert {server.wait(task)["outcome"] for task in dying} == {"crashed"}
    assert {server.wait(task)["state"] for task in waiting} <= {"done", "dead"}


def test_measured_memory_keeps_further_instances_from_starting(server: Server, name: str, tmp_path: Path) -> None:
    pool(server, name, memory="250MB")
    server.deploy(f"{name}-f", "hoards_until", pool=name)
    server.make(name, f"{name}-f")
    order = {"bytes": 150_000_000, "file": str(tmp_path / "go on")}
    (first,) = server.send(name, order)
    until(lambda: list(tmp_path.iterdir()))
    (second,) = server.send(name, order)
    full = f"the pool '{name}' is full: its instances use "
    until(lambda: (server.get(f"/v1/tasks/{second}/why").json()["waits_for"] or "").startswith(full))
    assert server.get(f"/v1/pools/{name}").json()["memory"] > 150_000_000
    assert held(server, name) == {f"{name}-f": 1}
    (tmp_path / "go on").touch()
    assert [server.wait(task)["outcome"] for task in (first, second)] == ["ok", "ok"]
