"""The commands against a real server: what a newcomer types in the first minutes, and what goes wrong in them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from penstock.cli.main import app
from penstock.client import Client, ServerUnreachable

CODE = """
import sys

def double(event, context):
    print("doubling", event["n"])
    if event["n"] < 0:
        raise ValueError(f"{event['n']} is below zero")
    return {"doubled": event["n"] * 2, "unit": context.params.get("unit")}
"""

CONFIGURATION = """
functions:
  double: {handler: "tasks:double", timeout: 20s, max_parallel_requests: 10}
pipelines:
  meters:
    function: double
    rate: 200/s
    params: {unit: m, api_key: {secret: hush}}
    retry: {attempts: 1}
  still: {function: double, paused: true}
"""


class Tour:
    """A server of its own, a folder to work in, and the commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = (folder / "server.log").open("w+")
        command = [
            sys.executable,
            "-W",
            "error",
            "-m",
            "penstock.cli.main",
            "up",
            "--data",
            str(self.data),
            "--port",
            "0",
        ]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=subprocess.STDOUT)
        (folder / "tasks.py").write_text(CODE)
        (folder / "penstock.yaml").write_text(CONFIGURATION)

    def wait_until_ready(self) -> None:
        end = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < end:
            try:
                with Client(data=self.data) as client:
                    client.status()
                    return
            except ServerUnreachable:
                time.sleep(0.05)
        self.log.seek(0)
        raise AssertionError(f"the server did not start: {self.log.read()}")

    def __call__(self, *words: str, typed: str | None = None) -> Result:
        return CliRunner().invoke(app, ["--data", str(self.data), *words], input=typed)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.log.close()


@pytest.fixture(scope="module")
def tour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tour]:
    folder = tmp_path_factory.mktemp("tour")
    before = Path.cwd()
    os.chdir(folder)
    made = Tour(folder)
    try:
        made.wait_until_ready()
        for words in (["deploy", "double", "tasks.py", "--handler", "tasks:double"], ["apply", "--yes"]):
            result = made(*words)
            assert result.exit_code == 0, result.output
        yield made
    finally:
        made.stop()
        os.chdir(before)


@pytest.fixture(autouse=True)
def _in_the_folder(tour: Tour, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tour.folder)


def test_what_is_there(tour: Tour) -> None:
    listed = json.loads(tour("ls", "--json").stdout)
    assert [each["name"] for each in listed["functions"]] == ["double"]
    assert [each["name"] for each in listed["pipelines"]] == ["meters", "still"]
    assert "200/s" in tour("ls").stdout
    assert [each["live"] for each in json.loads(tour("versions", "double", "--json").stdout)].count(True) == 1
    assert json.loads(tour("status", "--json").stdout)["pipelines"] == 2


def test_secrets_are_not_shown(tour: Tour) -> None:
    for words in (["show", "meters"], ["show", "meters", "--json"], ["ls", "pipelines", "--json"]):
        result = tour(*words)
        assert result.exit_code == 0
        assert "hush" not in result.stdout


def test_applying_again_changes_nothing(tour: Tour) -> None:
    result = tour("diff")
    assert (result.exit_code, "Nothing to change" in result.stdout) == (0, True)
    assert tour("apply").exit_code == 0


def test_aliases(tour: Tour) -> None:
    assert tour("alias", "double").stdout.strip() == "It has no aliases."
    assert tour("alias", "double", "stable", "1").stdout.strip() == "double@stable is version 1 now."
    assert json.loads(tour("alias", "double", "--json").stdout) == {"stable": 1}
    assert json.loads(tour("invoke", "double@stable", '{"n": 21}').stdout)["doubled"] == 42
    assert "stable" in tour("versions", "double").stdout
    assert tour("alias", "double", "stable", "9").exit_code == 4
    assert tour("alias", "double", "other").exit_code == 3
    assert tour("alias", "double", "--remove").exit_code == 2
    assert tour("alias", "double", "stable", "--remove").stdout.strip() == "Removed double@stable."


def test_calling_and_waiting(tour: Tour) -> None:
    assert json.loads(tour("invoke", "double", '{"n": 21}').stdout) == {"doubled": 42, "unit": None}
    assert json.loads(tour("invoke", "-p", "meters", '{"n": 4}').stdout) == {"doubled": 8, "unit": "m"}


def test_sending_and_seeing_what_became_of_it(tour: Tour) -> None:
    task = tour("send", "meters", '{"n": 3}').stdout.strip()
    shown = tour("task", task, "--wait", "--json")
    assert json.loads(shown.stdout)["result"] == {"doubled": 6, "unit": "m"}
    assert task in tour("ls", "tasks", "-p", "meters").stdout


def test_what_it_printed(tour: Tour) -> None:
    task = json.loads(tour("send", "meters", '{"n": 5}', "--wait", "--json").stdout)["id"]
    end = time.monotonic() + 30
    while "doubling 5" not in (found := tour("logs", task).stdout) and time.monotonic() < end:
        time.sleep(0.02)
    assert "doubling 5" in found


def test_sending_many(tour: Tour) -> None:
    result = tour("send", "meters", "--many", "--json", typed="".join(f'{{"n": {n}}}\n' for n in range(60)))
    ids = json.loads(result.stdout)["ids"]
    with Client(data=tour.data) as client:
        assert [client.wait(task, 60).value()["doubled"] for task in ids] == [n * 2 for n in range(60)]


def test_a_task_that_fails_for_good(tour: Tour) -> None:
    result = tour("send", "meters", '{"n": -1}', "--wait")
    assert result.exit_code == 1
    assert "-1 is below zero" in result.stdout
    dead = json.loads(tour("dead", "list", "meters", "--json").stdout)
    assert dead[0]["error"]["type"] == "ValueError"
    assert "1 queued again" in tour("dead", "redrive", "meters", dead[0]["id"]).stdout
    assert tour("task", dead[0]["id"], "--wait").exit_code == 1
    assert tour("dead", "purge", "meters", "--yes").exit_code == 0
    assert json.loads(tour("dead", "list", "meters", "--json").stdout) == []


def test_a_call_that_fails(tour: Tour) -> None:
    result = tour("invoke", "double", '{"n": -2}')
    assert result.exit_code == 1
    assert "ValueError: -2 is below zero" in result.stderr


def test_why_it_waits_and_cancelling(tour: Tour) -> None:
    task = tour("send", "still", '{"n": 1}').stdout.strip()
    assert "paused" in tour("why", task).stdout
    assert tour("cancel", task).exit_code == 0
    assert json.loads(tour("task", task, "--json").stdout)["state"] == "cancelled"
    assert tour("cancel", task).exit_code == 4


def test_pausing_and_resuming(tour: Tour) -> None:
    assert tour("pause", "meters").exit_code == 0
    task = tour("send", "meters", '{"n": 1}').stdout.strip()
    assert json.loads(tour("ls", "pipelines", "--json").stdout)[0]["paused"] is True
    assert tour("task", task, "--timeout", "0").exit_code == 6
    assert tour("resume", "meters").exit_code == 0
    assert tour("task", task, "--wait").exit_code == 0


def test_settings_are_changed_by_themselves(tour: Tour) -> None:
    result = tour("set", "double", "timeout=25s", "idle_timeout=2m")
    assert result.stdout == 'function double: timeout is "25s", idle_timeout is "2m".\n'
    after = json.loads(tour("show", "function/double", "--json").stdout)
    assert (after["settings"]["timeout"], after["settings"]["idle_timeout"]) == ("25s", "2m")
    assert len({version["bundle"] for version in json.loads(tour("versions", "double", "--json").stdout)}) == 1
    assert tour("set", "meters", "concurrency=3").exit_code == 0
    assert tour("set", "meters", "concurrency=null").stdout == "pipeline meters: concurrency is not set.\n"
    assert "concurrency" not in json.loads(tour("show", "meters", "--json").stdout)["settings"]
    assert (tour("set", "meters", "concurency=3").exit_code, tour("set", "nothing", "a=1").exit_code) == (4, 3)
    assert tour("set", "double", "timeout=20s", "idle_timeout=null").exit_code == 0


def test_code_that_does_not_import(tour: Tour) -> None:
    (tour.folder / "broken").mkdir(exist_ok=True)
    (tour.folder / "broken" / "tasks.py").write_text("import nothing_of_that_name\n")
    result = tour("deploy", "double", "broken")
    assert result.exit_code == 4
    assert "No module named 'nothing_of_that_name'" in result.stderr
    assert json.loads(tour("invoke", "double", '{"n": 1}').stdout)["doubled"] == 2


def test_mistakes_in_the_configuration(tour: Tour) -> None:
    (tour.folder / "wrong.yaml").write_text(
        "pipelines:\n  p:\n    function: double\n    rate: fast\n    concurency: 4\n  q:\n    function: duble\n"
    )
    result = tour("apply", "wrong.yaml", "--yes")
    assert result.exit_code == 4
    for place in ("wrong.yaml:4: ", "wrong.yaml:5: ", "wrong.yaml:7: ", "concurrency", "'double'"):
        assert place in result.stderr
    assert tour("show", "p").exit_code == 3


def test_names_that_nothing_has(tour: Tour) -> None:
    result = tour("send", "meter", "{}")
    assert result.exit_code == 3
    assert "meters" in result.stderr


def test_removing_what_still_has_tasks(tour: Tour) -> None:
    (tour.folder / "more.yaml").write_text("pipelines:\n  gone: {function: double, paused: true}\n")
    assert tour("apply", "more.yaml", "--yes").exit_code == 0
    assert tour("send", "gone", "1").exit_code == 0
    assert tour("rm", "gone", "--yes").exit_code == 4
    assert tour("rm", "gone", "--yes", "--tasks", "discard").exit_code == 0
    assert tour("show", "gone").exit_code == 3


def test_a_second_server_on_the_same_data(tour: Tour) -> None:
    command = [sys.executable, "-m", "penstock.cli.main", "up", "--data", str(tour.data), "--port", "0"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 4
    assert "Traceback" not in ended.stderr
    assert tour("status").exit_code == 0


def test_a_port_that_is_taken(tour: Tour, tmp_path: Path) -> None:
    with Client(data=tour.data) as client:
        port = client.url.rpartition(":")[2]
    command = [sys.executable, "-m", "penstock.cli.main", "up", "--data", str(tmp_path), "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 4
    assert "--port 0 takes a free one" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_stopping(tmp_path: Path) -> None:
    own = Tour(tmp_path)
    own.wait_until_ready()
    assert own.stop() == 0
    assert own("status").exit_code == 5
