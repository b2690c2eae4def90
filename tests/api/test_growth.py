"""How instances grow: by their ramp, and as memory is left; `why` says what they wait for."""

from pathlib import Path

import pytest
from tests.api.serving import Server, until

from penstock.compute.machine import Machine


def test_a_ramp_starts_instances_one_after_the_other(server: Server, name: str, tmp_path: Path) -> None:
    server.deploy("ramped", "waits", ramp="1/h", timeout="60s")
    server.make(name, "ramped")
    file = tmp_path / "go on"
    first, second = server.send(name, str(file), str(file))
    until(lambda: server.get(f"/v1/tasks/{second}/why").json()["kind"] == "ramp")
    why = server.get(f"/v1/tasks/{second}/why").json()
    assert why["waits_for"] == "the ramp of 'ramped' lets no more than 1 in 3600 s start"
    assert why["until"].endswith("Z")
    file.touch()  # then the one instance that there is takes both
    assert [server.wait(task)["outcome"] for task in (first, second)] == ["ok", "ok"]


def test_tasks_wait_for_memory_and_go_on_when_it_is_free(
    server: Server, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.deploy("waits", timeout="60s")
    server.make(name, "waits")
    file = tmp_path / "go on"
    (first,) = server.send(name, str(file))
    until(lambda: server.get(f"/v1/tasks/{first}").json()["state"] == "running")
    with monkeypatch.context() as short:
        short.setattr(Machine, "memory_left", lambda _: (100_000_000, 1_000_000_000))
        (second,) = server.send(name, str(file))
        until(lambda: server.get(f"/v1/tasks/{second}/why").json()["kind"] == "memory")
        said = server.get(f"/v1/tasks/{second}/why").json()["waits_for"]
        assert said == "the machine has 100 MB of memory left, too little for another instance of 'waits'"
    until(lambda: server.get(f"/v1/tasks/{second}").json()["state"] == "running")
    file.touch()
    assert [server.wait(task)["outcome"] for task in (first, second)] == ["ok", "ok"]
