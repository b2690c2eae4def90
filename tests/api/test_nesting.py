"""Calls within tasks: no deadlock whatever the limits are, no limit exceeded, and nothing left when a task ends."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.api.serving import Server, until

from penstock.engine.orders import DEPTH

CODE = Path(__file__).with_name("nested_handlers.py")


def deploy(server: Server, function: str, handler: str, **settings: Any) -> str:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("nested_handlers.py", CODE.read_text())
    written = json.dumps({"handler": f"nested_handlers:{handler}", **settings})
    answer = server.put(f"/v1/functions/{function}/code?settings={quote(written)}", packed.getvalue())
    assert answer.status == 200, answer.body
    return function


def call(server: Server, function: str, payload: Any, pipeline: str | None = None) -> Any:
    where = f"functions/{function}" if pipeline is None else f"pipelines/{pipeline}"
    answer = server.post(f"/v1/{where}/invoke?timeout=60s", payload)
    assert answer.status == 200, answer.body
    return answer.json()


def tasks_of_tree(depth: int, width: int) -> int:
    return sum(width**level for level in range(depth + 1))


@pytest.mark.parametrize("handler", ["tree", "tree_async"])
@pytest.mark.parametrize("slots", [1, 3])
def test_a_tree_of_calls_ends_with_one_instance(
    server: Server, name: str, tmp_path: Path, handler: str, slots: int
) -> None:
    deploy(server, name, handler, max_instances=1, max_parallel_requests=slots, timeout="60s")
    event = {"to": name, "depth": 3, "width": 3, "folder": str(tmp_path)}
    tasks, at_once = call(server, name, event)
    assert tasks == tasks_of_tree(3, 3)
    assert at_once <= slots


@pytest.mark.parametrize("where", ["pipeline", "function", "shared", "project"])
def test_a_tree_of_calls_never_exceeds_the_concurrency_it_passes(
    server: Server, name: str, tmp_path: Path, where: str
) -> None:
    settings: dict[str, Any] = {"concurrency": 1} if where == "function" else {}
    limits: dict[str, Any] = {}
    if where == "project":
        assert server.put(f"/v1/limits/{name}-all", {"concurrency": 1, "scope": "project"}).status == 201
    if where == "shared":
        assert server.put(f"/v1/limits/{name}-one", {"concurrency": 1}).status == 201
        limits = {"limits": [f"{name}-one"]}
    if where == "pipeline":
        limits = {"concurrency": 1}
    deploy(server, name, "tree", timeout="60s", max_instances=20, **settings)
    server.make(f"{name}-in", name, **limits)
    event = {"to": f"{name}-in", "depth": 3, "width": 2, "folder": str(tmp_path)}
    try:
        ids = server.send(f"{name}-in", *[event] * 5)
        for ended in map(server.wait, ids):
            assert ended["outcome"] == "ok", ended
            tasks, at_once = ended["result"]
            assert (tasks, at_once) == (tasks_of_tree(3, 2), 1)
    finally:
        if where == "project":
            assert server.ask("DELETE", f"/v1/limits/{name}-all").status == 204
    gates = server.running.engine.plant.admission.pipelines[f"{name}-in"].gates
    until(lambda: all(gate.in_use == 0 and not gate.asks for gate in gates))


def test_many_trees_go_deep_first_and_keep_few_instances(server: Server, name: str, tmp_path: Path) -> None:
    deploy(server, name, "tree", max_instances=2, timeout="60s")
    server.make(f"{name}-in", name)
    event = {"to": f"{name}-in", "depth": 2, "width": 2, "folder": str(tmp_path)}
    ids = server.send(f"{name}-in", *[event] * 20)
    sleepers = server.running.engine.sleepers
    most = 0
    for task in ids:
        most = max(most, sleepers.count)
        assert server.wait(task)["outcome"] == "ok"
    assert most <= 8
    fleet = server.running.engine.plant.fleets[name]
    until(lambda: fleet.present <= 2)
    assert (sleepers.count, fleet.sleepers) == (0, {})


def test_threads_of_a_handler_call_too(server: Server, name: str) -> None:
    deploy(server, f"{name}-doubles", "doubles", max_instances=1)
    deploy(server, name, "pooled", max_instances=1)
    assert call(server, name, {"to": f"{name}-doubles", "items": [1, 2, 3, 4, 5]}) == [2, 4, 6, 8, 10]


@pytest.mark.parametrize("handler", ["calls", "calls_async"])
def test_a_call_tells_what_became_of_it(server: Server, name: str, handler: str, tmp_path: Path) -> None:
    deploy(server, f"{name}-doubles", "doubles")
    deploy(server, f"{name}-stays", "stays")
    deploy(server, name, handler)
    assert call(server, name, {"to": f"{name}-doubles", "payload": [1]}) == [1, 1]
    failed = call(server, name, {"to": f"{name}-doubles", "payload": "bad"})
    assert (failed["type"], failed["outcome"], failed["error_type"]) == ("CallFailed", "error", "ValueError")
    assert "in doubles" in failed["traceback"]
    assert server.wait(failed["task"])["outcome"] == "error"
    unknown = call(server, name, {"to": f"{name}-double"})
    assert (unknown["type"], unknown["code"]) == ("CallRefused", "not-found")
    assert f"Did you mean '{name}-doubles'?" in unknown["message"]
    large = call(server, name, {"to": f"{name}-doubles", "payload": "x" * 1_000_000})
    assert len(large) == 2_000_000
    late = call(server, name, {"to": f"{name}-stays", "payload": {"until": str(tmp_path / "no")}, "timeout": 0.2})
    assert (late["type"], late["outcome"]) == ("CallFailed", "timeout")


def test_a_payload_that_is_too_large_is_refused(server: Server, name: str) -> None:
    deploy(server, f"{name}-big", "big")
    deploy(server, f"{name}-calls", "calls")
    deploy(server, name, "calls")
    assert len(call(server, name, {"to": f"{name}-big", "payload": 20_000_000})) == 20_000_000


def test_a_task_that_calls_itself_for_ever_is_told(server: Server, name: str) -> None:
    deploy(server, name, "endless", max_instances=1)
    assert f"{DEPTH} are allowed" in call(server, name, name)


@pytest.mark.parametrize("handler", ["sends", "sends_async"])
def test_what_is_sent_stays(server: Server, name: str, handler: str) -> None:
    deploy(server, f"{name}-doubles", "doubles")
    server.make(f"{name}-to", f"{name}-doubles")
    deploy(server, name, handler)
    task = call(server, name, {"to": f"{name}-to", "payload": 4})
    assert server.wait(task)["result"] == 8
    again = {"to": f"{name}-to", "payload": 4, "options": {"key": "once", "delay": "10ms", "priority": 3}}
    assert call(server, name, again) == call(server, name, again)
    direct = call(server, name, {"to": f"{name}-doubles", "payload": 5})
    assert server.wait(direct)["result"] == 10


@pytest.mark.parametrize("handler", ["sums", "sums_async"])
def test_a_map_of_many_items_takes_them_as_there_is_room(server: Server, name: str, handler: str) -> None:
    deploy(server, f"{name}-doubles", "doubles", max_parallel_requests=50)
    deploy(server, name, handler, timeout="60s")
    assert call(server, name, {"to": f"{name}-doubles", "items": list(range(3000))}) == 2 * sum(range(3000))


def test_a_map_tells_of_failures_in_their_place(server: Server, name: str) -> None:
    deploy(server, f"{name}-doubles", "doubles")
    deploy(server, name, "fails_between")
    event = {"to": f"{name}-doubles", "items": [1, "bad", 2]}
    assert call(server, name, event) == [2, "bad item", 4, "ValueError"]


def test_a_call_that_is_given_up_is_withdrawn(server: Server, name: str, tmp_path: Path) -> None:
    deploy(server, f"{name}-stays", "stays")
    deploy(server, name, "hedges_async", concurrency=1)
    folder, begun = tmp_path / "works", tmp_path / "begun"
    folder.mkdir()
    event = {"to": f"{name}-stays", "payload": {"until": str(tmp_path / "never"), "begun": str(begun)}}
    assert call(server, name, {**event, "folder": str(folder)}) == "gave up, 1 at work"
    until(lambda: not server.running.engine.plant.fleets[f"{name}-stays"].running)


def test_calls_that_were_given_up_take_no_room(server: Server, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.engine.orders.MOST_BYTES", 1_000_000)
    deploy(server, f"{name}-sleeps", "sleeps_long")
    deploy(server, f"{name}-doubles", "doubles")
    deploy(server, name, "hedges_often", timeout="60s")
    event = {"to": f"{name}-sleeps", "then": f"{name}-doubles", "times": 12, "size": 100_000}
    assert call(server, name, event) == "camecame"


@pytest.mark.parametrize("slots", [1, 2])
def test_what_a_task_called_ends_with_it(server: Server, name: str, tmp_path: Path, slots: int) -> None:
    begun = tmp_path / "begun"
    deploy(server, f"{name}-stays", "stays", timeout="60s")
    deploy(server, name, "calls", timeout="60s", max_parallel_requests=slots)
    server.make(f"{name}-in", name, retry={"attempts": 1})
    payload = {"until": str(tmp_path / "never"), "begun": str(begun)}
    (task,) = server.send(f"{name}-in", {"to": f"{name}-stays", "payload": payload})
    until(begun.exists)
    why = server.get(f"/v1/tasks/{task}/why").json()
    assert (why["kind"], "waits for 1 of the calls" in why["waits_for"]) == ("calls", True)
    assert server.ask("DELETE", f"/v1/tasks/{task}").status in {200, 202}
    assert server.wait(task)["state"] == "cancelled"
    plant = server.running.engine.plant
    until(lambda: not plant.fleets[f"{name}-stays"].running and not plant.fleets[name].running)
    assert server.running.engine.sleepers.count == 0


def test_a_thread_that_waits_beyond_the_end_is_told(server: Server, name: str, tmp_path: Path) -> None:
    deploy(server, f"{name}-stays", "stays", timeout="60s")
    deploy(server, name, "leaves_thread")
    told = tmp_path / "told"
    payload = {"until": str(tmp_path / "never"), "begun": str(tmp_path / "begun")}
    assert call(server, name, {"to": f"{name}-stays", "payload": payload, "told": str(told)}) is None
    until(told.exists)
    until(lambda: not server.running.engine.plant.fleets[f"{name}-stays"].running)


def test_who_holds_a_slot_may_not_wait_for_others(server: Server, name: str) -> None:
    assert server.put(f"/v1/limits/{name}", {"concurrency": 1}).status == 201
    deploy(server, f"{name}-doubles", "doubles")
    deploy(server, name, "holding")
    assert "Leave that block before you call" in call(server, name, {"limit": name, "to": f"{name}-doubles"})


@pytest.mark.parametrize(
    ("handler", "by"), [("visits", "invoke"), ("visits", "map"), ("visits", "task"), ("visits_async", "")]
)
@pytest.mark.parametrize("slots", [1, 3])
def test_a_client_in_a_handler_does_not_block_what_it_waits_for(
    server: Server, name: str, tmp_path: Path, handler: str, by: str, slots: int
) -> None:
    deploy(server, name, handler, max_instances=1, max_parallel_requests=slots, concurrency=1, timeout="60s")
    server.make(f"{name}-in", name)
    where = {"to": name, "in": f"{name}-in", "url": server.running.url, "token": server.running.token}
    event = {**where, "by": by, "depth": 2, "folder": str(tmp_path)}
    assert call(server, name, event) == [1]
    until(lambda: server.running.engine.sleepers.count == 0)


def test_where_too_many_wait_a_task_is_tried_later_and_not_charged(
    server: Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(server, f"{name}-doubles", "doubles")
    deploy(server, name, "sums")
    server.make(f"{name}-in", name, retry={"attempts": 1})
    monkeypatch.setattr("penstock.engine.orders.MOST_ASLEEP", 0)
    (task,) = server.send(f"{name}-in", {"to": f"{name}-doubles", "items": [1, 2]})
    until(lambda: server.get(f"/v1/tasks/{task}").json()["history"])
    monkeypatch.undo()
    ended = server.wait(task)
    assert (ended["result"], ended["attempts"]) == (6, 1)
    assert ended["history"][0]["outcome"] == "throttled"


def test_an_instance_that_dies_while_it_waits_leaves_nothing(server: Server, name: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    deploy(server, f"{name}-stays", "stays", timeout="60s")
    deploy(server, name, "calls", timeout="60s", max_instances=1)
    server.make(f"{name}-in", name, concurrency=1, retry={"attempts": 1})
    payload = {"until": str(tmp_path / "go"), "begun": str(begun)}
    (task,) = server.send(f"{name}-in", {"to": f"{name}-stays", "payload": payload})
    until(begun.exists)
    plant = server.running.engine.plant
    (member,) = plant.fleets[name].members.values()
    server.loop.call_soon_threadsafe(member.instance.kill)
    until(lambda: member.instance.id not in plant.members)
    begun.unlink()
    until(begun.exists)
    (tmp_path / "go").touch()
    assert server.wait(task)["result"] == "done"
    assert server.running.engine.sleepers.count == 0
