"""What commands ask, print and exit with."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.client.scripted import Answer, Asked, ScriptedServer, problem
from typer.testing import CliRunner, Result

from penstock.cli.main import app

Run = Callable[..., Result]
T0 = "2026-11-20T19:04:43.123Z"
T1 = "2026-11-20T19:04:45.623Z"


def ids_for(asked: Asked) -> Answer:
    return Answer(202, {"ids": [f"{n:016x}" for n, _ in enumerate(asked.body.splitlines())]})


class TestSend:
    def test_one_prints_its_id(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = ids_for
        options = ("--delay", "10s", "--key", "k", "--priority", "-2", "--expires-after", "30s")
        result = run("send", "customer-a", '{"n": 1}', *options)
        assert (result.exit_code, result.stdout) == (0, "0" * 16 + "\n")
        assert server.asked[0].json() == {
            "payload": {"n": 1}, "delay": "10s", "key": "k", "priority": -2, "expires_after": "30s",
        }  # fmt: skip

    def test_a_payload_from_a_file_and_from_stdin(self, run: Run, server: ScriptedServer, here: Path) -> None:
        server.otherwise = ids_for
        (here / "payload.json").write_text(" [1, 2]\n")
        assert run("send", "a", "@payload.json").exit_code == 0
        assert run("send", "a", "-", typed='"typed"').exit_code == 0
        assert run("send", "a").exit_code == 0
        assert [asked.json() for asked in server.asked] == [
            {"payload": [1, 2]},
            {"payload": "typed"},
            {"payload": None},
        ]

    def test_many_from_stdin(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = ids_for
        result = run("send", "a", "-", "--many", typed='{"n": 1}\n\n{"n": 2}\n3')
        assert (result.exit_code, result.stdout) == (0, "3 tasks sent to a.\n")
        assert run("send", "a", "--many", "--ids", typed="1\n2\n").stdout.split() == ["0" * 16, "0" * 15 + "1"]
        assert len(json.loads(run("send", "a", "--many", "--json", typed="1\n2\n").stdout)["ids"]) == 2

    def test_many_says_which_line_is_wrong(self, run: Run, server: ScriptedServer, here: Path) -> None:
        server.otherwise = ids_for
        (here / "tasks.ndjson").write_text("1\nhello\n")
        result = run("send", "a", "@tasks.ndjson", "--many")
        assert result.exit_code == 2
        assert "tasks.ndjson:2 is not JSON: 'hello'" in result.stderr
        assert "0 tasks before that were sent" in result.stderr

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["hello"], "is not JSON"),
            (["[" * 100_000 + "]" * 100_000], "the payload is nested too deeply"),
            (["@missing.json"], "missing.json cannot be read"),
            (["1", "--many"], "one a line: from @file"),
            (["-", "--many", "--delay", "1s"], "none of the options"),
            (["1", "--patience", "soon"], "soon"),
            (["1", "--cost", "much"], "--cost"),
        ],
    )
    def test_what_is_typed_wrong(self, run: Run, server: ScriptedServer, words: list[str], said: str) -> None:
        result = run("send", "a", *words)
        assert result.exit_code == 2
        assert said in result.stderr
        assert server.asked == []

    def test_a_full_queue(self, run: Run, server: ScriptedServer) -> None:
        server.answers = [problem("queue-full", 429, "The queue of 'a' is full.", {"Retry-After": "3"})]
        result = run("send", "a", "1")
        assert result.exit_code == 6
        assert "Error: The queue of 'a' is full." in result.stderr
        assert "Try again in 3 s." in result.stderr

    def test_patience_waits_for_room(self, run: Run, server: ScriptedServer) -> None:
        server.answers = [problem("queue-full", 429, "full", {"Retry-After": "0.05"})]
        server.otherwise = ids_for
        assert run("send", "a", "1", "--patience", "1m").exit_code == 0

    def test_waiting_for_the_end(self, run: Run, server: ScriptedServer) -> None:
        server.answers = [
            Answer(202, {"ids": ["01"]}),
            Answer(body={"id": "01", "state": "dead", "outcome": "timeout", "pipeline": "a"}),
        ]
        result = run("send", "a", "1", "--wait")
        assert result.exit_code == 1
        assert "timeout" in result.stdout


class TestInvoke:
    def test_the_result(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(body={"area": 6, "unit": "m²"})
        result = run("invoke", "area", '{"w": 2}', "--timeout", "1500ms")
        assert json.loads(result.stdout) == {"area": 6, "unit": "m²"}
        assert (server.asked[0].path, server.asked[0].query) == ("/v1/functions/area/invoke", {"timeout": "1.5s"})
        assert run("invoke", "-p", "customer-a").exit_code == 0
        assert server.asked[1].path == "/v1/pipelines/customer-a/invoke"

    def test_a_handler_that_failed(self, run: Run, server: ScriptedServer) -> None:
        error = {
            "type": "KeyError",
            "message": "'w'",
            "traceback": "Traceback (most recent call last):\n  …\nKeyError: 'w'",
        }
        server.answers = [problem("task-failed", 502, "KeyError: 'w'", outcome="error", task="00ff", error=error)]
        result = run("invoke", "area")
        assert result.exit_code == 1
        assert result.stdout == ""
        assert "Traceback (most recent call last)" in result.stderr
        assert "penstock task 00ff" in result.stderr

    def test_a_name_that_nothing_has(self, run: Run, server: ScriptedServer) -> None:
        server.answers = [
            problem("not-found", 404, "There is no function 'aera'. Did you mean 'area'?", nearest="area")
        ]
        result = run("invoke", "aera")
        assert (result.exit_code, "Did you mean 'area'?" in result.stderr) == (3, True)


class TestTasks:
    TASK: ClassVar[dict[str, Any]] = {
        "id": "01", "state": "done", "outcome": "ok", "pipeline": "customer-a", "attempts": 2, "created": T0, "started": T0,
        "finished": T1, "result": {"x": 1},
        "history": [
            {"number": 1, "outcome": "crashed", "started": T0, "finished": T1, "error": None},
            {"number": 2, "outcome": "ok", "started": T0, "finished": T1, "error": None},
        ],
    }  # fmt: skip

    def test_its_record(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(body=self.TASK)
        result = run("task", "01")
        for said in ("customer-a", "done", '{"x":1}', "2.5 s", "crashed", T0):
            assert said in result.stdout
        assert json.loads(run("task", "01", "--json").stdout)["finished"] == T1

    def test_a_failed_task_is_shown_without_failing_unless_waited_for(self, run: Run, server: ScriptedServer) -> None:
        error = {"type": "ValueError", "message": "no", "traceback": "Traceback…"}
        server.otherwise = lambda asked: Answer(body={"id": "1", "state": "dead", "outcome": "error", "error": error})
        result = run("task", "1")
        assert result.exit_code == 0
        assert "ValueError: no" in result.stdout
        assert "Traceback…" in result.stdout
        assert run("task", "1", "--wait").exit_code == 1

    def test_not_ended_in_time(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(body={"id": "1", "state": "queued"})
        assert run("task", "1", "--timeout", "0").exit_code == 6

    def test_cancel_and_why(self, run: Run, server: ScriptedServer) -> None:
        server.answers = [
            Answer(body={"id": "1", "state": "running"}),
            problem("conflict", 409, "It has ended."),
            Answer(body={"state": "queued", "waits_for": "its rate of 2/s", "limit": None, "until": T0}),
            Answer(body=FORETOLD | {"position": 12, "expected_start": T0, "because": "others use it"}),
            Answer(body=FORETOLD | {"position": 0, "expected_start": T0, "exact": True}),
            Answer(body=FORETOLD | {"position": 3, "because": "the pipeline is paused"}),
            Answer(body={"state": "done", "kind": "nothing"}),
        ]
        assert "being cancelled" in run("cancel", "1").stdout
        assert run("cancel", "2").exit_code == 4
        assert "its rate of 2/s" in run("why", "3").stdout
        said = run("why", "3").stdout
        assert ["ahead", "of", "it", "12"] in [line.split() for line in said.splitlines()]
        assert "at the earliest" in said
        assert "(others use it)" in said
        said = run("why", "3").stdout
        assert "nothing" in said
        assert "at the earliest" not in said
        assert "nobody knows: the pipeline is paused" in run("why", "3").stdout
        assert run("why", "3").stdout == "It is done: it waits for nothing.\n"

    def test_logs(self, run: Run, server: ScriptedServer) -> None:
        line = {"position": 1, "task": "1", "stream": "stderr", "text": "\x1b[31mred\x1b[0m", "at": T0}
        server.otherwise = lambda asked: Answer(body={"lines": [line] if "after" not in asked.query else [], "next": 1})
        result = run("logs", "1")
        assert "\x1b" not in result.stdout
        assert "red" in result.stdout
        assert json.loads(run("logs", "-p", "a", "--json").stdout)["position"] == 1

    def test_following_logs(self, run: Run, server: ScriptedServer) -> None:
        server.answers = [Answer(chunks=[b'data: {"position": 1, "text": "one"}\n\n'])]
        server.otherwise = lambda asked: problem("not-found", 404, "It has gone.")
        result = run("logs", "--follow")
        assert (result.exit_code, result.stdout) == (3, "one\n")

    def test_the_dead(self, run: Run, server: ScriptedServer) -> None:
        server.answers = [
            Answer(
                body={"tasks": [{"id": "01", "state": "dead", "outcome": "crashed", "pipeline": "a"}], "next": None}
            ),
            Answer(body={"redriven": 3}),
            Answer(body={"purged": 2}),
        ]
        assert "dead (crashed)" in run("dead", "list", "a").stdout
        assert run("dead", "redrive", "a", "01", "--json").stdout.split() == ["{", '"redriven":', "3", "}"]
        unasked = run("dead", "purge", "a")
        assert (unasked.exit_code, "nobody to ask" in unasked.stderr) == (2, True)
        assert run("dead", "purge", "a", "--yes").stdout == "2 forgotten.\n"
        assert server.asked[1].json() == {"ids": ["01"]}


FORETOLD = {"state": "queued", "waits_for": "the rate of the limit 'provider'", "kind": "limit", "limit": "provider"}


class TestListing:
    FUNCTION: ClassVar[dict[str, Any]] = {
        "name": "call_api", "settings": {"handler": "tasks:call_api"}, "live": 2, "versions": 2, "created": T0, "updated": T0,
        "instances": {"ready": 1, "starting": 0, "draining": 0},
        "usage": {"instance_seconds": 50.0, "request_seconds": 800.0}, "learned": {"memory": "512MB", "runs": 1200},
        "pool": {"name": "long", "routed": True, "why": "p90 of its tasks is 7m, longer than 5m", "p90": 420.0, "memory": None},
    }  # fmt: skip
    SITE: ClassVar[dict[str, Any]] = FUNCTION | {
        "settings": {"handler": "main:app", "public": True},
        "usage": {"instance_seconds": 20_000.0, "request_seconds": 3.5},
        "web": {"path": "/web/site/", "answered": 7, "failed": 0, "open": 0},
    }
    PIPELINE: ClassVar[dict[str, Any]] = {
        "name": "customer-a", "settings": {"function": "call_api", "rate": "2/s", "concurrency": 4, "limits": ["provider"]},
        "created": T0, "updated": T0, "paused": False, "held_until": None,
        "counts": {"delayed": 1, "queued": 20, "running": 4, "dead": 5, "done": 100}, "waits_for": "its rate of 2/s",
        "kind": "rate", "limit": None, "until": T0, "backlog": 21, "expected_end": T0, "exact": False,
        "because": "one is delayed",
    }  # fmt: skip
    LIMIT: ClassVar[dict[str, Any]] = {
        "name": "provider",
        "settings": {"rate": ["100/s", "5000/m"]},
        "created": T0,
        "updated": T0,
    }

    POOL: ClassVar[dict[str, Any]] = {
        "name": "long", "settings": {"max_instances": 20}, "created": T0, "updated": T0, "instances": 3,
        "functions": {"call_api": 3}, "waiting": 1, "memory": 120_000_000,
    }  # fmt: skip

    def answer(self, asked: Asked) -> Answer:
        listings: dict[str, Any] = {
            "/v1/pools": {"pools": [self.POOL], "next": None},
            "/v1/pools/long": self.POOL,
            "/v1/functions": {"functions": [self.FUNCTION], "next": None},
            "/v1/pipelines": {"pipelines": [self.PIPELINE], "next": None},
            "/v1/limits": {"limits": [self.LIMIT], "next": None},
            "/v1/tasks": {"tasks": [{"id": "01", "state": "queued", "pipeline": "customer-a"}], "next": None},
            "/v1/functions/call_api": self.FUNCTION,
            "/v1/functions/site": self.SITE,
            "/v1/pipelines/customer-a": self.PIPELINE,
            "/v1/functions/call_api/versions": {
                "versions": [{"number": 2, "bundle": "abcdef", "live": True, "created": T0}]
            },
            "/v1/status": {"version": "0.1.0", "uptime": 65.0, "tasks": {"queued": 5}},
        }
        if asked.path in listings:
            return Answer(body=listings[asked.path])
        return problem("not-found", 404, f"There is no {asked.path}.")

    def test_everything(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = self.answer
        result = run("ls")
        assert result.exit_code == 0
        for said in (
            "call_api",
            "version 2",
            "1 ready",
            "customer-a",
            "2/s, 4 at once, provider",
            "its rate of 2/s",
            "now at the earliest",
            "100/s",
            "call_api 3",
        ):
            assert said in result.stdout
        assert set(json.loads(run("ls", "--json").stdout)) == {"functions", "pipelines", "limits", "pools"}

    def test_one_kind(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = self.answer
        assert json.loads(run("ls", "pipelines", "--json").stdout)[0]["counts"]["queued"] == 20
        assert "01" in run("ls", "tasks", "-p", "customer-a", "-s", "queued").stdout
        assert server.asked[-1].query == {"pipeline": "customer-a", "state": "queued"}
        assert run("ls", "functions", "--state", "queued").exit_code == 2
        assert "abcdef" in run("versions", "call_api").stdout
        assert "tasks queued" in run("status").stdout

    def test_nothing_there(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(body={asked.path.rsplit("/")[-1]: [], "next": None})
        result = run("ls")
        assert "`penstock deploy` makes one" in result.stdout
        assert "`penstock apply` makes them" in result.stdout

    def test_show_finds_the_kind(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = self.answer
        assert "pipeline customer-a" in run("show", "customer-a").stdout
        shown = run("show", "function/call_api").stdout
        assert "version 2 of 2" in shown
        assert "800 s of requests in 50 s of instances: 16 s in each" in shown
        assert "512MB for each instance, learned from 1,200 runs" in shown
        assert "long: p90 of its tasks is 7m, longer than 5m" in " ".join(shown.split())
        shown = run("show", "site").stdout
        assert f"{server.url}/web/site/; 7 answered" in shown
        assert "3.5 s of requests in 20,000 s of instances: <0.01 s in each" in shown
        assert json.loads(run("show", "customer-a", "--json").stdout)["name"] == "customer-a"
        shown = run("show", "pool/long").stdout
        assert "3 of call_api" in shown
        assert "120 MB" in shown
        nothing = run("show", "nothing")
        assert nothing.exit_code == 3
        assert "There is no pipeline, function, limit or pool 'nothing'." in nothing.stderr
        assert "There is no route" not in run("show", "bogus/nothing").stderr

    def test_rm_asks_which(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: (
            Answer(204) if asked.method == "DELETE" else Answer(body={"name": "x", "settings": {}})
        )
        result = run("rm", "x", "--yes")
        assert result.exit_code == 2
        assert "pipeline/x or function/x or limit/x" in result.stderr
        assert "Removed pipeline x." in run("rm", "pipeline/x", "--yes", "--tasks", "drain").stdout
        assert (server.asked[-1].method, server.asked[-1].query) == ("DELETE", {"tasks": "drain"})

    def test_rm_of_a_pipeline_that_is_drained(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(202) if asked.method == "DELETE" else self.answer(asked)
        assert "goes when those it has are done" in run("rm", "customer-a", "--yes", "--tasks", "drain").stdout

    def test_rm_does_not_remove_unasked(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = self.answer
        assert run("rm", "customer-a").exit_code == 2
        assert all(asked.method == "GET" for asked in server.asked)

    def test_rollback(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(body={"function": "f", "version": 2, "bundle": "abc", "live": True})
        assert run("rollback", "f").stdout == "f: version 2 is live (bundle abc).\n"
        assert json.loads(run("rollback", "f", "--to", "2", "--json").stdout)["version"] == 2
        assert [(asked.path, asked.json()) for asked in server.asked] == [
            ("/v1/functions/f/rollback", {}),
            ("/v1/functions/f/rollback", {"version": 2}),
        ]

    def test_draining_until_empty(self, run: Run, server: ScriptedServer) -> None:
        def counts(queued: int) -> Answer:
            return Answer(body={"name": "a", "settings": {}, "counts": {"queued": queued, "running": 1}})

        empty = Answer(body={"name": "a", "settings": {}, "counts": {"queued": 0, "running": 0, "done": 9}})
        server.answers = [counts(3), counts(3), counts(2), counts(1), empty]
        result = run("drain", "a", "--wait")
        assert result.stdout == "a drains: 4 left, 1 of them running.\nIt is empty.\n"
        server.answers = [counts(3), problem("not-found", 404, "It has gone.")]
        assert run("drain", "b", "--wait").stdout.endswith("It is empty.\n")
        server.answers = [counts(3)]
        assert run("drain", "c").stdout == "c drains: 4 left, 1 of them running.\n"

    def test_pause_and_resume(self, run: Run, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(body=self.PIPELINE)
        assert "customer-a is paused: 20 wait, 4 still run." in run("pause", "customer-a").stdout
        assert run("resume", "customer-a", "customer-b").exit_code == 0
        assert [asked.path.rsplit("/")[-1] for asked in server.asked] == ["pause", "resume", "resume"]


class TestConfiguration:
    PLAN: ClassVar[dict[str, Any]] = {
        "plan": [
            {"action": "create", "kind": "pipeline", "name": "a", "before": None, "after": {"rate": "2/s"}},
            {"action": "change", "kind": "pipeline", "name": "b", "before": {"rate": "1/s", "x": 1}, "after": {"rate": "3/s"}},
            {"action": "remove", "kind": "limit", "name": "c", "before": {"rate": "1/s"}, "after": None},
        ],
        "unchanged": 4, "applied": False, "change": None,
    }  # fmt: skip

    def test_diff_shows_the_plan(self, run: Run, server: ScriptedServer, here: Path) -> None:
        (here / "penstock.yaml").write_text("pipelines: {a: {rate: 2/s}}")
        server.otherwise = lambda asked: Answer(body=self.PLAN)
        shown = run("diff", "--prune").stdout
        assert "+ pipeline a\n    + rate: 2/s\n" in shown
        assert "~ pipeline b\n    ~ rate: 1/s → 3/s\n    - x: 1\n" in shown
        assert "- limit c\n" in shown
        assert "1 to create, 1 to change, 1 to remove, 4 unchanged." in shown
        assert server.asked[0].json()["dry_run"] is True
        assert server.asked[0].json()["prune"] is True

    def test_apply_does_not_ask_if_told_so(self, run: Run, server: ScriptedServer, here: Path) -> None:
        (here / "other.json").write_text('{"pipelines": {}}')
        server.otherwise = lambda asked: Answer(body=self.PLAN | {"applied": True, "change": 7})
        result = run("apply", "other.json", "--yes", "--tasks", "discard")
        assert "1 created, 1 changed, 1 removed" in result.stdout
        assert [asked.json()["dry_run"] for asked in server.asked] == [False]
        assert server.asked[0].json()["tasks"] == "discard"

    def test_apply_with_nobody_to_ask(self, run: Run, server: ScriptedServer, here: Path) -> None:
        (here / "penstock.yaml").write_text("pipelines: {}")
        server.otherwise = lambda asked: Answer(body=self.PLAN)
        result = run("apply")
        assert result.exit_code == 2
        assert "--yes" in result.stderr
        assert [asked.json()["dry_run"] for asked in server.asked] == [True]

    def test_mistakes_are_shown_where_they_stand(self, run: Run, server: ScriptedServer, here: Path) -> None:
        (here / "penstock.yaml").write_text("pipelines:\n  a:\n    function: f\n    rate: fast\n")
        mistakes = [
            {"path": "pipelines.a.rate", "message": "'fast' is not a rate", "suggestion": "such as 2/s"},
            {"path": "pipelines.a.retry.attempts", "message": "must be at least 1", "suggestion": ""},
            {"path": "functions", "message": "is missing", "suggestion": ""},
        ]
        server.answers = [problem("invalid-settings", 422, "3 mistakes", errors=mistakes)]
        result = run("apply", "--yes")
        assert result.exit_code == 4
        assert "3 mistakes; nothing was applied." in result.stderr
        assert "penstock.yaml:4: pipelines.a.rate: 'fast' is not a rate (such as 2/s)" in result.stderr
        assert "penstock.yaml:2: pipelines.a.retry.attempts: must be at least 1" in result.stderr
        assert "penstock.yaml: functions: is missing" in result.stderr

    def test_deploy(self, run: Run, server: ScriptedServer, here: Path) -> None:
        (here / "tasks.py").write_text("def f(event, context): ...")
        server.answers = [Answer(body={"function": "f", "version": 3, "bundle": "0123456789abcdef", "live": True})]
        result = run(
            "deploy",
            "f",
            "tasks.py",
            "--handler",
            "tasks:f",
            "--set",
            "timeout=30s",
            "--set",
            "reuse=false",
        )
        assert result.stdout == "f: version 3 is live (bundle 0123456789ab).\n"
        assert json.loads(server.asked[0].query["settings"]) == {"timeout": "30s", "reuse": False, "handler": "tasks:f"}

    def test_a_deploy_with_packages(self, run: Run, server: ScriptedServer, here: Path) -> None:
        (here / "code").mkdir()
        (here / "code" / "tasks.py").write_text("def f(event, context): ...")
        (here / "code" / "requirements.txt").write_text("idna")
        made = {"digest": "fedcba9876543210", "packages": 1, "seconds": 3.24, "fresh": True}
        deployed = {"function": "f", "version": 3, "bundle": "0123456789abcdef", "live": True, "environment": made}
        server.answers = [Answer(body=deployed), Answer(body={**deployed, "environment": {**made, "fresh": False}})]
        result = run("deploy", "f", "code")
        assert "Packages that requirements.txt names are installed" in result.stderr
        assert result.stdout.endswith("\nIts environment was made in 3.2 s: 1 package (fedcba987654).\n")
        assert run("deploy", "f", "code").stdout.endswith("\nIts environment was there: 1 package (fedcba987654).\n")

    def test_versions_tell_their_environment(self, run: Run, server: ScriptedServer) -> None:
        made = {"digest": "fedcba9876543210", "packages": 12, "seconds": 3.2}
        version = {"number": 1, "bundle": "abc", "live": True, "created": None, "previous": None, "environment": made}
        server.answers = [Answer(body={"versions": [version, {**version, "number": 2, "environment": None}]})]
        assert "fedcba987654 (12 packages)" in run("versions", "f").stdout

    def test_a_refused_deploy(self, run: Run, server: ScriptedServer, here: Path) -> None:
        (here / "tasks.py").write_text("import nothing_of_that_name")
        trace = "Traceback (most recent call last):\nModuleNotFoundError: No module named 'nothing_of_that_name'"
        server.answers = [problem("deploy-failed", 422, "tasks.py does not import.", traceback=trace)]
        result = run("deploy", "f", "tasks.py")
        assert result.exit_code == 4
        assert "ModuleNotFoundError: No module named" in result.stderr

    def test_nothing_to_deploy(self, run: Run, here: Path) -> None:
        result = run("deploy", "f", "missing.py")
        assert (result.exit_code, "missing.py" in result.stderr) == (2, True)
        result = run("deploy", "f", ".", "--set", "timeout")
        assert (result.exit_code, "NAME=VALUE" in result.stderr) == (2, True)

    def test_settings_alone_are_no_deploy_of_what_happens_to_be_here(self, run: Run, here: Path) -> None:
        result = run("deploy", "f", "--set", "timeout=5s")
        assert (result.exit_code, "`penstock set function/f NAME=VALUE`" in result.stderr.replace("\n", " ")) == (
            2,
            True,
        )


class TestTheServer:
    def test_none_is_known(self) -> None:
        result = CliRunner().invoke(app, ["ls"])
        assert result.exit_code == 5
        assert "`penstock up` starts a server" in result.stderr

    def test_a_wrong_token(self, run: Run, server: ScriptedServer) -> None:
        server.answers = [problem("unauthorized", 401, "The token is not this server's.")]
        result = run("ls")
        assert result.exit_code == 4
        assert "PENSTOCK_TOKEN" in result.stderr

    def test_help_states_the_exit_codes(self) -> None:
        shown = " ".join(CliRunner().invoke(app, ["--help"]).stdout.split())
        for said in ("0 done", "3 there is nothing of that name", "5 no server answered"):
            assert said in shown

    def test_a_real_process(self, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: problem("conflict", 409, "no")
        environment = {**os.environ, "PENSTOCK_URL": server.url, "PENSTOCK_TOKEN": "t"}
        command = [sys.executable, "-W", "error", "-m", "penstock.cli.main", "cancel", "01"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr) == (4, "", "Error: no\n")
