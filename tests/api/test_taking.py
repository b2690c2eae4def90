"""Limits inside tasks, from HTTP to the handler: strict over instances and pipelines, and given back whatever happens."""

from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import Server, until

from penstock.sim.laws import exceeded, most_at_once


def limit(server: Server, name: str, **settings: Any) -> str:
    answer = server.put(f"/v1/limits/{name}", settings)
    assert answer.status in {200, 201}, answer.body
    return name


def send_all(server: Server, name: str, function: str, tasks: int, payload: Any) -> list[Any]:
    """Send tasks through two pipelines, wait for them, and return their results."""
    ids = []
    for pipeline in (name, f"{name}-too"):
        server.make(pipeline, function)
        ids += server.send(pipeline, *[payload] * tasks)
    ended = [server.wait(task) for task in ids]
    assert {task["outcome"] for task in ended} == {"ok"}, ended
    return [task["result"] for task in ended]


@pytest.mark.parametrize("kind", ["serial", "threads", "async"])
def test_a_rate_holds_over_all_handlers_that_acquire(server: Server, name: str, kind: str) -> None:
    provider = limit(server, name, rate={"rate": "6/400ms", "style": "window"})
    slots = 1 if kind == "serial" else 4
    handler = "acquires_async" if kind == "async" else "acquires"
    server.deploy(f"acquires-{kind}", handler, max_parallel_requests=slots, max_instances=3)
    results = send_all(server, name, f"acquires-{kind}", 3, {"limit": provider, "times": 5})
    moments = sorted(moment for result in results for moment in result)
    assert len(moments) == 30
    assert exceeded(moments, 6, 0.4) is None


def test_starts_and_what_runs_share_a_limit_that_meters_cost(server: Server, name: str) -> None:
    provider = limit(server, name, rate={"rate": "10/300ms", "style": "window", "meter": "cost"})
    server.deploy("acquires-cost", "acquires", max_parallel_requests=4)
    server.make(name, "acquires-cost", limits=[provider])
    body = [{"payload": {"limit": provider, "times": 2, "cost": 3}, "cost": 4} for _ in range(4)]
    ids = server.post(f"/v1/pipelines/{name}/tasks", body).json()["ids"]
    taken = []
    for task in map(server.wait, ids):
        assert task["outcome"] == "ok", task
        taken += [(moment, 3) for moment in task["result"]]
    moments, costs = zip(*sorted(taken), strict=True)
    assert exceeded(moments, 10, 0.3, costs) is None


@pytest.mark.parametrize("kind", ["serial", "threads", "async"])
def test_slots_are_never_held_by_more_than_may(server: Server, name: str, kind: str) -> None:
    database = limit(server, name, concurrency=2)
    slots = 1 if kind == "serial" else 4
    handler = "holds_async" if kind == "async" else "holds"
    server.deploy(f"holds-{kind}", handler, max_parallel_requests=slots, max_instances=4)
    results = send_all(server, name, f"holds-{kind}", 10, {"limit": database})
    assert most_at_once((begun, ended) for begun, ended in results) <= 2


def test_a_mistake_is_told_to_the_handler(server: Server, name: str) -> None:
    limit(server, f"{name}-rate", rate="100/s")
    database = limit(server, f"{name}-room", concurrency=3)
    server.deploy("acquires")
    server.deploy("nests")

    def error_of(function: str, payload: Any) -> Any:
        return server.post(f"/v1/functions/{function}/invoke", payload).json()["error"]

    error = error_of("acquires", {"limit": f"{name}-rat", "times": 1})
    assert (error["type"], f"did you mean '{name}-rate'?" in error["message"]) == ("UnknownLimit", True)
    error = error_of("acquires", {"limit": database, "times": 1})
    assert (error["type"], "has no rate" in error["message"]) == ("LimitError", True)
    said = server.post("/v1/functions/nests/invoke", [database, database]).json()
    assert said.startswith(f"HoldAndWait: The task holds a slot of '{database}' already")
    server.make(name, "nests", limits=[database])
    error = server.post(f"/v1/pipelines/{name}/invoke", [database, database]).json()["error"]
    assert (error["type"], "since it started" in error["message"]) == ("HoldAndWait", True)
    everything = limit(server, f"{name}-everything", concurrency=1000, scope="project")
    error = error_of("nests", [everything, database])
    assert server.ask("DELETE", f"/v1/limits/{everything}").status == 204
    assert (error["type"], "or everything passes it" in error["message"]) == ("HoldAndWait", True)


def test_who_waits_is_timed_out_and_what_was_held_is_free_again(server: Server, name: str, tmp_path: Path) -> None:
    database = limit(server, name, concurrency=1)
    gone = tmp_path / "now"
    server.deploy("holds-long", "holds", max_parallel_requests=4, timeout="20s")
    server.make(name, "holds-long")
    server.make(f"{name}-hasty", "holds-long", timeout="100ms", retry={"attempts": 1})
    (first,) = server.send(name, {"limit": database, "until": str(gone)})
    until(lambda: server.running.engine.plant.admission.gates[database].in_use == 1)
    (hasty,) = server.send(f"{name}-hasty", {"limit": database})
    assert server.wait(hasty)["outcome"] == "timeout"
    (third,) = server.send(name, {"limit": database})
    until(lambda: server.get(f"/v1/tasks/{third}/why").json()["limit"] == database)
    assert "its handler waits for" in server.get(f"/v1/tasks/{third}/why").json()["waits_for"]
    gone.touch()
    assert {server.wait(task)["outcome"] for task in (first, third)} == {"ok"}


def test_what_a_dead_instance_held_is_free_again(server: Server, name: str, tmp_path: Path) -> None:
    database = limit(server, name, concurrency=1)
    server.deploy("holds-dead", "holds", timeout="150ms")
    server.make(name, "holds-dead", retry={"attempts": 1})
    (dead,) = server.send(name, {"limit": database, "until": str(tmp_path / "never")})
    assert server.wait(dead)["outcome"] == "timeout"
    server.deploy("holds-after", "holds")
    server.make(f"{name}-after", "holds-after")
    (after,) = server.send(f"{name}-after", {"limit": database})
    assert server.wait(after)["outcome"] == "ok"


@pytest.mark.parametrize("slots", [1, 4])
def test_who_waits_beyond_the_end_of_its_task_is_told(server: Server, name: str, tmp_path: Path, slots: int) -> None:
    database = limit(server, name, concurrency=1)
    gone, told, over = tmp_path / "gone", tmp_path / "told", tmp_path / "over"
    server.deploy("holds-still", "holds")
    server.deploy(f"leaves-{slots}", "leaves_behind", max_parallel_requests=slots)
    server.make(name, "holds-still")
    server.make(f"{name}-leaves", f"leaves-{slots}")
    (holder,) = server.send(name, {"limit": database, "until": str(gone)})
    gate = server.running.engine.plant.admission.gates[database]
    until(lambda: gate.in_use == 1)
    (leaver,) = server.send(f"{name}-leaves", {"limit": database, "told": str(told), "until": str(over)})
    until(lambda: gate.asks)
    over.touch()
    assert server.wait(leaver)["outcome"] == "ok"
    until(told.exists)
    gone.touch()
    assert server.wait(holder)["outcome"] == "ok"


def test_what_was_spent_counts_for_those_who_follow(server: Server, name: str) -> None:
    provider = limit(server, name, rate={"rate": "10/700ms", "style": "window", "meter": "cost"})
    server.deploy("spends")
    server.make(name, "spends", limits=[provider])
    first = server.post(f"/v1/pipelines/{name}/invoke", 10).json()
    second = server.post(f"/v1/pipelines/{name}/invoke", 0).json()
    assert second - first >= 0.7
    third = server.post(f"/v1/pipelines/{name}/invoke").json()
    assert third > second
