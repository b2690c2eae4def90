"""What overstays is really ended, and its neighbours keep their work: each way to overstay, in each way to serve."""

import os
from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import Server, until

from penstock.engine import lives

SHARED = [
    ("overstays", "sleep"), ("overstays", "loop"),
    ("overstays_async", "await"), ("overstays_async", "deaf"), ("overstays_async", "block"), ("overstays_async", "loop"),
]  # fmt: skip
STUCK = {"loop", "block"}
"""Ways that keep the whole instance from going on."""


class Stage:
    """A function whose tasks overstay in one pipeline and end when told to in another, in the same instance."""

    def __init__(self, server: Server, name: str, folder: Path, handler: str, **settings: Any) -> None:
        self.server, self.name, self.folder = server, name, folder
        settings = {"timeout": "60s", "max_parallel_requests": 4, **settings}
        server.deploy(f"f-{name}", handler, **settings)
        server.make(f"{name}-in-time", f"f-{name}", retry={"attempts": 1})
        server.make(f"{name}-over", f"f-{name}", timeout="500ms", retry={"attempts": 1})

    def neighbours(self) -> list[str]:
        """Send two tasks that end when there is a file, and wait until they run."""
        tasks = self.server.send(f"{self.name}-in-time", *[{"how": "ends", "until": str(self.folder / "go")}] * 2)
        until(lambda: self.server.get(f"/v1/pipelines/{self.name}-in-time").json()["counts"]["running"] == 2)
        return tasks

    def overstayer(self, how: str, pipeline: str = "over") -> tuple[str, int]:
        """Send a task that overstays; return it with its process when it runs."""
        file = self.folder / "pid"
        (task,) = self.server.send(f"{self.name}-{pipeline}", {"how": how, "file": str(file)})
        until(lambda: file.exists() and file.read_text())
        return task, int(file.read_text())

    def go(self) -> None:
        """Let the neighbours end."""
        (self.folder / "go").touch()


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("rule", ["wait", "kill"])
@pytest.mark.parametrize(("handler", "how"), SHARED)
def test_an_overstayer_is_ended_and_its_neighbours_end_well(
    server: Server, name: str, tmp_path: Path, handler: str, how: str, rule: str
) -> None:
    stage = Stage(server, name, tmp_path, handler, on_timeout=rule)
    neighbours = stage.neighbours()
    guilty, pid = stage.overstayer(how)
    ended = server.wait(guilty)
    assert (ended["state"], ended["outcome"], ended["attempts"]) == ("dead", "timeout", 1)
    assert not ended["history"]
    killed = how in STUCK or (rule == "kill" and how != "await")
    if killed:
        until(lambda: not alive(pid))
    stage.go()
    for task in map(server.wait, neighbours):
        assert (task["outcome"], task["attempts"]) == ("ok", 1)
        assert [attempt["outcome"] for attempt in task["history"]] == ["interrupted"] * killed
        assert (task["result"] == pid) is not killed
    if how != "await":
        until(lambda: not alive(pid))


@pytest.mark.parametrize(
    ("handler", "how"), [("overstays", "deaf"), ("overstays", "loop"), ("overstays_async", "deaf")]
)
def test_who_has_its_instance_to_itself_is_killed_at_once(
    server: Server, name: str, tmp_path: Path, handler: str, how: str
) -> None:
    stage = Stage(server, name, tmp_path, handler, max_parallel_requests=1)
    guilty, pid = stage.overstayer(how)
    assert server.wait(guilty)["outcome"] == "timeout"
    until(lambda: not alive(pid))


@pytest.mark.parametrize(("handler", "how"), [pair for pair in SHARED if pair[1] in STUCK])
def test_who_is_held_up_by_another_beyond_its_own_limit_is_not_charged(
    server: Server, name: str, tmp_path: Path, handler: str, how: str
) -> None:
    stage = Stage(server, name, tmp_path, handler)
    file = str(tmp_path / "go")
    server.make(f"{name}-brief", f"f-{name}", timeout="1s", retry={"attempts": 1})
    (brief,) = server.send(f"{name}-brief", {"how": "ends", "until": file})
    until(lambda: server.get(f"/v1/pipelines/{name}-brief").json()["counts"]["running"])
    guilty, pid = stage.overstayer(how, "in-time")
    stage.go()
    ended = server.wait(brief)
    assert (ended["outcome"], ended["attempts"]) == ("ok", 1)
    assert [attempt["outcome"] for attempt in ended["history"]] == ["interrupted"]
    assert not alive(pid)
    assert server.get(f"/v1/tasks/{guilty}").json()["state"] in {"queued", "running"}, "its own time is not over"
    assert server.ask("DELETE", f"/v1/tasks/{guilty}").status == 200
    until(lambda: not server.get(f"/v1/pipelines/{name}-in-time").json()["counts"]["running"])


@pytest.mark.parametrize(("handler", "how"), SHARED)
def test_what_is_cancelled_is_ended_and_its_neighbours_end_well(
    server: Server, name: str, tmp_path: Path, handler: str, how: str
) -> None:
    stage = Stage(server, name, tmp_path, handler)
    neighbours = stage.neighbours()
    cancelled, pid = stage.overstayer(how, "in-time")
    assert server.ask("DELETE", f"/v1/tasks/{cancelled}").json()["state"] == "cancelled"
    stage.go()
    for task in map(server.wait, neighbours):
        assert (task["outcome"], task["attempts"]) == ("ok", 1)
    if how != "await":
        until(lambda: not alive(pid))


def test_a_limits_unit_is_free_when_the_work_has_really_ended(server: Server, name: str, tmp_path: Path) -> None:
    stage = Stage(server, name, tmp_path, "overstays")
    server.make(f"{name}-over", f"f-{name}", timeout="500ms", retry={"attempts": 1}, concurrency=1)
    stage.neighbours()
    guilty, pid = stage.overstayer("sleep")
    (following,) = server.send(f"{name}-over", {"how": "ends", "until": str(tmp_path / "go")})
    assert server.wait(guilty)["outcome"] == "timeout"
    assert alive(pid)
    assert server.get(f"/v1/tasks/{following}").json()["state"] == "queued", "the work of the first goes on"
    stage.go()
    assert server.wait(following)["result"] != pid
    assert not alive(pid)


@pytest.mark.parametrize("handler", ["leaves_threads", "leaves_a_loop"])
@pytest.mark.parametrize("slots", [1, 4])
def test_what_a_handler_leaves_running_does_not_keep_its_instance(
    server: Server, name: str, handler: str, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lives, "PATIENCE", 0.2)
    server.deploy(f"f-{name}", handler, max_parallel_requests=slots, idle_timeout="200ms")
    pid = server.post(f"/v1/functions/f-{name}/invoke").json()
    until(lambda: not alive(pid))


@pytest.mark.parametrize("slots", [0, 1])
def test_a_fresh_process_for_each_task(server: Server, name: str, slots: int) -> None:
    server.deploy(f"f-{name}", "pids", max_parallel_requests=slots, reuse=False)
    server.make(name, f"f-{name}", concurrency=2)
    tasks = [server.wait(task) for task in server.send(name, *range(10))]
    assert len({task["result"] for task in tasks}) == 10
    until(lambda: not any(server.get(f"/v1/functions/f-{name}").json()["instances"].values()))
