"""`map` and `maps`: results in a file, what is said of failures, and going on."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import Server, until
from tests.client.scripted import Answer, ScriptedServer, problem
from typer.testing import Result

Run = Callable[..., Result]
STARTED = {"id": "m1", "items": 3, "ended": 0, "ok": 0}


def line(index: int, outcome: str = "ok") -> dict[str, Any]:
    told: dict[str, Any] = {"index": index, "task": f"t{index}", "outcome": outcome}
    failed = {"error": {"type": "ValueError", "message": "no good"}}
    return told | ({"result": {"n": index}} if outcome == "ok" else failed)


def chunk(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


def written(path: Path) -> list[Any]:
    return [json.loads(one) for one in path.read_text().splitlines()]


def test_results_go_to_a_file(run: Run, server: ScriptedServer, here: Path) -> None:
    (here / "items.jsonl").write_text('1\n{"b": 2}\n\n"c"\n')
    server.answers = [Answer(202, STARTED), Answer(chunks=[chunk(line(0), line(1), line(2))])]
    result = run("map", "f", "@items.jsonl", "--output", "results.jsonl", "--stragglers", "3", "--key", "k")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "Map m1: 3 results in" in result.stderr
    assert "3 ok." in result.stderr
    assert written(here / "results.jsonl") == [line(0), line(1), line(2)]
    assert server.asked[0].body == b'1\n{"b": 2}\n"c"'
    assert server.asked[0].query == {"stragglers": "3.0"}
    assert server.asked[0].headers["idempotency-key"] == "k"


def test_a_map_that_is_refused_leaves_the_file_as_it_is(run: Run, server: ScriptedServer, here: Path) -> None:
    (here / "results.jsonl").write_text("of an earlier map\n")
    server.answers = [problem("not-found", 404, "There is no function 'g'.")]
    assert run("map", "g", "-", "--output", "results.jsonl", typed="1\n").exit_code == 3
    assert (here / "results.jsonl").read_text() == "of an earlier map\n"
    server.answers = [Answer(202, {**STARTED, "items": 1}), Answer(chunks=[chunk(line(0))])]
    assert run("map", "f", "-", "--output", "results.jsonl", typed="1\n").exit_code == 0
    assert written(here / "results.jsonl") == [line(0)]


def test_failures_are_told_and_exit_with_1(run: Run, server: ScriptedServer) -> None:
    told = [line(0), *(line(n, "error") for n in range(1, 8)), line(8, "timeout")]
    server.answers = [Answer(202, {**STARTED, "items": 9}), Answer(chunks=[chunk(*told)])]
    result = run("map", "p", "-", "--pipeline", "--as-they-end", typed="1\n" * 9)
    assert result.exit_code == 1
    assert [json.loads(one) for one in result.stdout.splitlines()] == told
    assert "1 ok, 7 error, 1 timeout" in result.stderr
    assert "Item 1 ended as error: ValueError: no good" in result.stderr
    assert "and 3 failures more" in result.stderr
    assert [asked.path for asked in server.asked] == ["/v1/pipelines/p/map", "/v1/maps/m1/results"]
    assert server.asked[1].query["order"] == "ends"


def test_a_map_is_gone_on_with(run: Run, server: ScriptedServer, here: Path) -> None:
    (here / "results.jsonl").write_bytes(chunk(line(0), line(2)) + b'{"index": 1, "ou')
    counts = {**STARTED, "ended": 3, "ok": 3}
    server.answers = [Answer(body=counts), Answer(chunks=[chunk(line(1), line(2))]), Answer(body=counts)]
    assert run("map", "--resume", "m1", "--output", "results.jsonl").exit_code == 0
    assert written(here / "results.jsonl") == [line(0), line(2), line(1)]
    assert server.asked[1].query["after"] == "0"


def test_what_failed_before_is_told(run: Run, server: ScriptedServer, here: Path) -> None:
    (here / "results.jsonl").write_bytes(chunk(line(0), line(1, "error"), line(2)))
    counts = {**STARTED, "ended": 3, "ok": 2, "failed": {"error": 1}}
    server.answers = [Answer(body=counts), Answer(body=counts)]
    result = run("map", "--resume", "m1", "--output", "results.jsonl")
    assert result.exit_code == 1
    assert "1 item of the map failed before" in result.stderr


def test_a_map_that_there_is_not_is_not_gone_on_with(run: Run, server: ScriptedServer) -> None:
    server.answers = [problem("not-found", 404, "There is no map 'm1'.")]
    result = run("map", "--resume", "m1")
    assert result.exit_code == 3
    assert "Go on with it" not in result.stderr


def test_a_file_of_something_else_is_not_gone_on_with(run: Run, here: Path) -> None:
    (here / "notes.txt").write_text("hello\n")
    result = run("map", "--resume", "m1", "--output", "notes.txt")
    assert result.exit_code == 2
    assert "notes.txt:1 is no result of a map" in result.stderr
    assert (here / "notes.txt").read_text() == "hello\n"


def test_a_map_is_left_to_itself(run: Run, server: ScriptedServer) -> None:
    server.answers = [Answer(202, STARTED)]
    assert run("map", "f", "-", "--detach", typed="1").stdout == "m1\n"
    assert len(server.asked) == 1


@pytest.mark.parametrize("words", [[], ["f", "@items", "--resume", "m1"], ["--resume", "m1", "--detach"], ["f", "1"]])
def test_what_is_typed_wrong(run: Run, server: ScriptedServer, words: list[str]) -> None:
    assert run("map", *words).exit_code == 2
    assert server.asked == []


def test_maps_are_listed_shown_and_cancelled(run: Run, server: ScriptedServer) -> None:
    counts = {
        **STARTED, "ended": 2, "ok": 1, "failed": {"error": 1}, "state": "running", "function": "f", "rate": 0.5, "running": 1,
        "created": "2026-11-20T19:04:43.123Z",
    }  # fmt: skip
    server.otherwise = lambda asked: Answer(
        body=counts if asked.path.endswith("m1") else {"maps": [counts], "next": None}
    )
    assert [word in run("maps", "list").stdout for word in ("m1", "running", "f")] == [True] * 3
    assert json.loads(run("maps", "list", "--json").stdout)[0]["id"] == "m1"
    shown = run("maps", "show", "m1").stdout
    assert "2 of 3 ended, 1 ok" in shown
    assert "1 error" in shown
    assert "2.0 s left" in shown
    assert run("maps", "cancel", "m1").exit_code == 0
    assert server.asked[-1].method == "DELETE"


def test_a_real_map_is_interrupted_and_gone_on_with(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    server.deploy("waits", max_instances=2, max_parallel_requests=4)
    gate, items, results = tmp_path / "gate", tmp_path / "items.jsonl", tmp_path / "results.jsonl"
    items.write_text("\n".join([json.dumps(str(tmp_path)), *[json.dumps(str(gate))] * 5]))
    command = [sys.executable, "-m", "penstock.cli.main", "--data", str(tmp_path / "data"), "map"]
    first = subprocess.Popen(
        [*command, "waits", f"@{items}", "--output", str(results)], stderr=subprocess.PIPE, text=True
    )
    until(lambda: [one["ok"] for one in server.get("/v1/maps").json()["maps"]] == [1])
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=30)
    assert first.returncode == 130
    (made,) = server.get("/v1/maps").json()["maps"]
    assert f"penstock map --resume {made['id']} --output {results}" in said
    gate.touch()
    again = subprocess.run([*command, "--resume", made["id"], "--output", str(results)], check=False, timeout=60)
    assert again.returncode == 0
    assert [one["index"] for one in written(results)] == list(range(6))
    server.close()
