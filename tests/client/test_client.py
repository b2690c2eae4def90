"""What the client asks, and what it makes of the answers."""

import asyncio
import inspect
import json
import multiprocessing
import os
import socket
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.client.scripted import Answer, Asked, ScriptedServer, problem

from penstock.client import (
    ApiError,
    AsyncClient,
    Client,
    Conflict,
    DeployFailed,
    InvalidSettings,
    NotFound,
    QueueFull,
    Send,
    ServerUnreachable,
    TaskFailed,
    TaskNotEnded,
    TooLarge,
)
from penstock.client import async_client as async_module
from penstock.client import client as sync_module

T0 = "2026-11-20T19:04:43.123Z"


def ids_for(asked: Asked) -> Answer:
    return Answer(202, {"ids": [f"{n:016x}" for n, _ in enumerate(asked.body.splitlines())]})


class TestSending:
    def test_send_describes_the_task(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = ids_for
        at = datetime(2026, 11, 20, 20, 0, tzinfo=timezone(timedelta(hours=1)))
        task = client.pipeline("a/b ü").send(
            {"n": 1}, delay=timedelta(seconds=90), at=at, cost=2.5, priority=3, expires_after="30s"
        )
        assert task == "0" * 16
        (asked,) = server.asked
        assert (asked.method, asked.path) == ("POST", "/v1/pipelines/a%2Fb%20%C3%BC/tasks")
        assert asked.headers["authorization"] == "Bearer sesame"
        assert asked.json()["payload"] == {"n": 1}
        assert asked.json()["delay"] == 90
        assert asked.json()["expires_after"] == "30s"
        assert datetime.fromisoformat(asked.json()["at"]) == at
        assert (asked.json()["cost"], asked.json()["priority"]) == (2.5, 3)
        assert "key" not in asked.json()

    def test_a_moment_without_a_time_zone_is_local(self) -> None:
        sent = Send(at=datetime(2026, 11, 20, 20, 0))
        assert isinstance(sent.at, datetime)
        assert sent.at.tzinfo is not None

    def test_every_send_has_a_key_of_its_own_unless_it_brings_one(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = ids_for
        pipeline = client.pipeline("a")
        pipeline.send(1)
        pipeline.send(1)
        pipeline.send(1, key="order-7")
        first, second, third = server.asked
        assert first.headers["idempotency-key"] != second.headers["idempotency-key"]
        assert "idempotency-key" not in third.headers
        assert third.json()["key"] == "order-7"

    def test_send_many_cuts_batches_and_keeps_the_order(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = ids_for
        ids = client.pipeline("a").send_many([1, Send(2, priority=9), None, {"x": "y"}, 5], batch=2)
        assert len(ids) == 5
        assert [asked.headers["content-type"] for asked in server.asked] == ["application/x-ndjson"] * 3
        lines = [json.loads(line) for asked in server.asked for line in asked.body.splitlines()]
        assert lines == [
            {"payload": 1},
            {"payload": 2, "priority": 9},
            {"payload": None},
            {"payload": {"x": "y"}},
            {"payload": 5},
        ]
        assert len({asked.connection for asked in server.asked}) == 1

    def test_a_batch_is_bounded_in_bytes(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = ids_for
        client.pipeline("a").send_many(["x" * 400_000] * 5)
        assert [len(asked.body.splitlines()) for asked in server.asked] == [3, 2]

    def test_send_batches_reads_no_further_than_the_batch(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = ids_for
        endless = iter(range(10**9))
        sending = client.pipeline("a").send_batches(endless, batch=10)
        assert len(next(sending)) == 10
        assert next(endless) == 10

    def test_raw_json_passes_as_it_is(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = ids_for
        client.pipeline("a").send(msgspec.Raw(b'{"as":  "it is"}'))
        assert server.asked[0].body == b'{"payload":{"as":  "it is"}}'

    def test_what_json_cannot_say_is_refused_before_anything_is_sent(
        self, client: Client, server: ScriptedServer
    ) -> None:
        with pytest.raises(TypeError, match="must be JSON"):
            client.pipeline("a").send(object())
        assert server.asked == []


class TestConnections:
    def test_a_connection_is_kept(self, client: Client, server: ScriptedServer) -> None:
        for _ in range(3):
            client.status()
        assert len({asked.connection for asked in server.asked}) == 1

    def test_threads_share_a_client(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = ids_for
        got: list[str] = []
        threads = [
            threading.Thread(target=lambda: got.extend(client.pipeline("a").send(n) for n in range(25)))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 200
        assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 200

    def test_a_send_is_repeated_with_its_key_when_the_connection_breaks(
        self, client: Client, server: ScriptedServer
    ) -> None:
        server.answers = [Answer(breaks=True), Answer(breaks=True)]
        server.otherwise = ids_for
        assert client.pipeline("a").send(1)
        assert len(server.asked) == 3
        assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 1

    def test_it_gives_up_after_its_retries(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(breaks=True)
        with pytest.raises(ServerUnreachable, match="safe to repeat"):
            client.pipeline("a").send(1)
        assert len(server.asked) == 3

    def test_an_invoke_is_never_repeated(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(breaks=True)
        with pytest.raises(ServerUnreachable, match="may have been done"):
            client.function("f").invoke(1)
        assert len(server.asked) == 1

    def test_an_unkeyed_send_is_never_repeated(self, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(breaks=True)
        with Client(server.url, safe_sends=False) as client, pytest.raises(ServerUnreachable):
            client.pipeline("a").send(1)
        assert len(server.asked) == 1
        assert "idempotency-key" not in server.asked[0].headers

    def test_nobody_listens(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with Client(url, retries=1) as client, pytest.raises(ServerUnreachable, match="Nothing was sent"):
                client.function("f").invoke(1)

    def test_what_does_not_speak_http(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def greet() -> None:
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(b"220 mail.example ESMTP\r\n")
                    peer.recv(1000)

            thread = threading.Thread(target=greet)
            thread.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with Client(url, retries=0) as client, pytest.raises(ServerUnreachable, match="does not speak HTTP"):
                client.status()
            thread.join()

    def test_an_answer_before_the_body_was_taken_is_heard(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def refuse() -> None:
                peer, _ = listener.accept()
                with peer:
                    peer.recv(1000)
                    body = b'{"type":"/problems/too-large","detail":"too much"}'
                    peer.sendall(
                        b"HTTP/1.1 413 X\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)
                    )
                    peer.shutdown(socket.SHUT_WR)
                    while peer.recv(1 << 20):
                        pass

            thread = threading.Thread(target=refuse)
            thread.start()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            with Client(url, retries=0) as client, pytest.raises(TooLarge, match="too much"):
                client.function("f").invoke("x" * (8 << 20))
            thread.join()

    def test_a_closed_client_says_so(self, server: ScriptedServer) -> None:
        client = Client(server.url)
        client.close()
        with pytest.raises(RuntimeError, match="closed"):
            client.status()

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_forked_child_has_connections_and_keys_of_its_own(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = ids_for
        client.pipeline("a").send(1)
        child = multiprocessing.get_context("fork").Process(target=lambda: client.pipeline("a").send(2))
        child.start()
        child.join()
        client.pipeline("a").send(3)
        parents_first, childs, parents_second = server.asked
        assert parents_first.connection == parents_second.connection != childs.connection
        stems = [asked.headers["idempotency-key"].rpartition("-")[0] for asked in server.asked]
        assert stems[0] == stems[2] != stems[1]


class TestErrors:
    def test_invalid_settings_carry_every_mistake(self, client: Client, server: ScriptedServer) -> None:
        mistakes = [
            {"path": "pipelines.a.rate", "message": "not a rate", "suggestion": "2/s"},
            {"path": "b", "message": "m"},
        ]
        server.answers = [problem("invalid-settings", 422, "two mistakes", errors=mistakes)]
        with pytest.raises(InvalidSettings) as raised:
            client.apply({})
        assert [str(each) for each in raised.value.mistakes] == ["pipelines.a.rate: not a rate (2/s)", "b: m"]

    def test_not_found_names_the_nearest(self, client: Client, server: ScriptedServer) -> None:
        server.answers = [problem("not-found", 404, "There is no pipeline 'customer-z'.", nearest="customer-a")]
        with pytest.raises(NotFound, match="customer-z") as raised:
            client.pipeline("customer-z").show()
        assert raised.value.nearest == "customer-a"

    def test_a_failed_task_tells_how(self, client: Client, server: ScriptedServer) -> None:
        error = {"type": "KeyError", "message": "'size'", "traceback": "Traceback…"}
        server.answers = [problem("task-failed", 502, "KeyError: 'size'", outcome="error", task="00ff", error=error)]
        with pytest.raises(TaskFailed, match="'size'") as raised:
            client.function("f").invoke({})
        failed = raised.value
        assert (failed.outcome, failed.task, failed.error_type) == ("error", "00ff", "KeyError")
        assert (failed.error_message, failed.traceback, failed.status) == ("'size'", "Traceback…", 502)

    def test_a_throttled_task_is_not_run_again_by_the_client(self, server: ScriptedServer) -> None:
        server.answers = [problem("task-failed", 429, "slow down", {"Retry-After": "3"}, outcome="throttled", task="1")]
        with Client(server.url, try_later_for=60) as client, pytest.raises(TaskFailed) as raised:
            client.pipeline("p").invoke(1)
        assert raised.value.retry_after == 3

    def test_a_full_queue_says_when_to_come_again(self, client: Client, server: ScriptedServer) -> None:
        server.answers = [problem("queue-full", 429, "full", {"Retry-After": "7"})]
        with pytest.raises(QueueFull) as raised:
            client.pipeline("p").send(1)
        assert raised.value.retry_after == 7

    def test_it_comes_again_if_told_to_be_patient(self, server: ScriptedServer) -> None:
        server.answers = [problem("queue-full", 429, "full", {"Retry-After": "0.05"})] * 2
        server.otherwise = ids_for
        with Client(server.url, try_later_for=10) as client:
            assert client.pipeline("p").send(1)
        assert len(server.asked) == 3

    def test_a_refused_deploy_has_the_traceback(self, client: Client, server: ScriptedServer, tmp_path: Path) -> None:
        (tmp_path / "tasks.py").write_text("import nothing_of_that_name")
        server.answers = [problem("deploy-failed", 422, "does not import", traceback="ModuleNotFoundError")]
        with pytest.raises(DeployFailed) as raised:
            client.function("f").deploy(tmp_path / "tasks.py", handler="tasks:f")
        assert raised.value.traceback == "ModuleNotFoundError"
        assert json.loads(server.asked[0].query["settings"]) == {"handler": "tasks:f"}

    def test_an_answer_that_is_no_problem_document(self, client: Client, server: ScriptedServer) -> None:
        server.answers = [Answer(502, b"<html>Bad Gateway</html>", {"Content-Type": "text/html"})]
        with pytest.raises(ApiError, match="Bad Gateway") as raised:
            client.status()
        assert raised.value.status == 502

    def test_an_answer_of_another_service(self, client: Client, server: ScriptedServer) -> None:
        server.answers = [Answer(200, b"<html>", {"Content-Type": "text/html"})]
        with pytest.raises(ApiError, match="Is this a Penstock server"):
            client.task("1")

    def test_a_token_that_cannot_stand_in_a_header(self, server: ScriptedServer) -> None:
        with pytest.raises(ValueError, match="header"):
            Client(server.url, "a\r\nHost: evil")


class TestTasks:
    def test_a_task_has_types(self, client: Client, server: ScriptedServer) -> None:
        history = [{"number": 1, "outcome": "ok", "started": T0, "finished": T0, "error": None}]
        body = {
            "id": "1",
            "state": "done",
            "outcome": "ok",
            "result": [1],
            "created": T0,
            "history": history,
            "newer": 1,
        }
        server.answers = [Answer(body=body)]
        task = client.task("1")
        assert task.created == datetime(2026, 11, 20, 19, 4, 43, 123000, tzinfo=UTC)
        assert task.history[0].outcome == "ok"
        assert task.ended
        assert task.value() == [1]

    def test_wait_asks_until_it_has_ended(self, client: Client, server: ScriptedServer) -> None:
        server.answers = [Answer(body={"id": "1", "state": "running"}), Answer(body={"id": "1", "state": "dead"})]
        task = client.wait("1")
        assert [asked.query for asked in server.asked] == [{"wait": "20s"}, {"wait": "20s"}]
        with pytest.raises(TaskFailed, match="dead"):
            task.value()

    def test_wait_ends_in_time(self, client: Client, server: ScriptedServer) -> None:
        server.otherwise = lambda asked: Answer(body={"id": "1", "state": "queued"})
        with pytest.raises(TimeoutError, match="still queued") as raised:
            client.wait("1", timeout=0)
        assert isinstance(raised.value, TaskNotEnded)
        assert server.asked[0].query == {"wait": "0s"}

    def test_listings_fetch_page_by_page(self, client: Client, server: ScriptedServer) -> None:
        server.answers = [
            Answer(body={"tasks": [{"id": "3", "state": "dead"}, {"id": "2", "state": "dead"}], "next": "2"}),
            Answer(body={"tasks": [{"id": "1", "state": "dead"}], "next": None}),
        ]
        assert [task.id for task in client.tasks("p", "dead")] == ["3", "2", "1"]
        assert [asked.query for asked in server.asked] == [
            {"pipeline": "p", "state": "dead"},
            {"pipeline": "p", "state": "dead", "before": "2"},
        ]

    def test_cancelling_what_has_ended(self, client: Client, server: ScriptedServer) -> None:
        server.answers = [problem("conflict", 409, "it has ended")]
        with pytest.raises(Conflict):
            client.cancel("1")


class TestFollowing:
    def test_events_are_read_as_they_come_and_resumed_where_they_broke(
        self, client: Client, server: ScriptedServer
    ) -> None:
        def event(position: int) -> bytes:
            return f'id: {position}\r\ndata: {{"position": {position}, "text": "line {position}"}}\r\n\r\n'.encode()

        whole = event(1) + b": alive\n\n" + event(2)
        server.answers = [
            Answer(chunks=[whole[:10], whole[10:50], whole[50:]], breaks_after_chunks=True),
            Answer(chunks=[event(3)]),
            Answer(chunks=[event(4)]),
        ]
        lines = list(islice(client.logs(pipeline="p", follow=True), 4))
        assert [line.text for line in lines] == ["line 1", "line 2", "line 3", "line 4"]
        assert [asked.query for asked in server.asked] == [
            {"pipeline": "p", "follow": "1"},
            {"pipeline": "p", "follow": "1", "after": "2"},
            {"pipeline": "p", "follow": "1", "after": "3"},
        ]
        assert server.asked[0].headers["accept"] == "text/event-stream"

    def test_a_stream_that_is_refused(self, client: Client, server: ScriptedServer) -> None:
        server.answers = [problem("not-found", 404, "There is no task 'x'.")]
        with pytest.raises(NotFound):
            next(client.logs(task="x", follow=True))

    def test_changes_page_by_page(self, client: Client, server: ScriptedServer) -> None:
        change = {"sequence": 5, "at": T0, "action": "create", "kind": "limit", "name": "l"}
        server.answers = [Answer(body={"changes": [change], "next": 5}), Answer(body={"changes": [], "next": 5})]
        assert [each.name for each in client.changes(4)] == ["l"]
        assert [asked.query["after"] for asked in server.asked] == ["4", "5"]


class TestConfiguration:
    @pytest.mark.parametrize("kind", ["function", "pipeline", "limit"])
    def test_settings_are_put_patched_shown_and_deleted(
        self, client: Client, server: ScriptedServer, kind: str
    ) -> None:
        server.otherwise = lambda asked: (
            Answer(204) if asked.method == "DELETE" else Answer(body={"name": "n", "settings": {"a": 1}})
        )
        handle: Any = getattr(client, kind)("n")
        assert handle.put({"a": 1}).settings == {"a": 1}
        assert handle.patch({"a": None}).name == "n"
        assert handle.show().name == "n"
        assert handle.delete() in (None, True)
        assert [asked.method for asked in server.asked] == ["PUT", "PATCH", "GET", "DELETE"]
        assert {asked.path for asked in server.asked} == {f"/v1/{kind}s/n"}

    def test_apply_returns_the_plan(self, client: Client, server: ScriptedServer) -> None:
        step = {"action": "create", "kind": "pipeline", "name": "a", "before": None, "after": {"rate": "2/s"}}
        server.answers = [Answer(body={"plan": [step], "unchanged": 2, "applied": False, "change": None})]
        plan = client.apply({"pipelines": {"a": {}}}, prune=True, dry_run=True)
        assert plan.plan[0].after == {"rate": "2/s"}
        assert server.asked[0].json() == {
            "config": {"pipelines": {"a": {}}}, "prune": True, "dry_run": True, "tasks": "refuse",
        }  # fmt: skip

    def test_the_dead_are_listed_redriven_and_purged(self, client: Client, server: ScriptedServer) -> None:
        server.answers = [
            Answer(body={"tasks": [{"id": "1", "state": "dead"}], "next": None}),
            Answer(body={"redriven": 1}),
            Answer(body={"purged": 4}),
        ]
        pipeline = client.pipeline("p")
        assert [task.id for task in pipeline.dead()] == ["1"]
        assert pipeline.redrive(["1"]) == 1
        assert pipeline.purge() == 4
        assert server.asked[1].json() == {"ids": ["1"]}

    def test_invoke_bounds_the_whole_call(self, client: Client, server: ScriptedServer) -> None:
        server.answers = [Answer(body={"area": 6})]
        assert client.function("f").invoke({"w": 2}, timeout=timedelta(seconds=1.5)) == {"area": 6}
        assert server.asked[0].query == {"timeout": "1.5s"}
        assert server.asked[0].body == b'{"w":2}'


class TestFindingTheServer:
    def test_the_data_directory_names_it(self, server: ScriptedServer, tmp_path: Path) -> None:
        folder = tmp_path / ".penstock"
        folder.mkdir()
        (folder / "server.json").write_text(json.dumps({"url": server.url, "pid": os.getpid()}))
        (folder / "token").write_text("from-the-file\n")
        with Client() as client:
            client.status()
        assert server.asked[0].headers["authorization"] == "Bearer from-the-file"

    def test_the_environment_comes_first(
        self, server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PENSTOCK_URL", server.url + "/")
        monkeypatch.setenv("PENSTOCK_TOKEN", "from-the-environment")
        with Client() as client:
            client.status()
        assert server.asked[0].path == "/v1/status"
        assert server.asked[0].headers["authorization"] == "Bearer from-the-environment"

    def test_the_token_of_a_data_directory_goes_nowhere_else(self, server: ScriptedServer, tmp_path: Path) -> None:
        folder = tmp_path / ".penstock"
        folder.mkdir()
        (folder / "server.json").write_text('{"url": "http://127.0.0.1:1", "pid": 1}')
        (folder / "token").write_text("secret")
        with Client(server.url) as client:
            client.status()
        assert "authorization" not in server.asked[0].headers

    def test_no_server_is_known(self) -> None:
        with pytest.raises(ServerUnreachable, match="penstock up"):
            Client()


class TestAsync:
    def test_it_mirrors_the_sync_client(self) -> None:
        for name in ("Client", "FunctionHandle", "PipelineHandle", "LimitHandle"):
            ours = vars(getattr(sync_module, name))
            theirs = vars(getattr(async_module, f"Async{name}"))
            public = {key for key in ours if not key.startswith("_")}
            assert public == {key for key in theirs if not key.startswith("_")}
            for method in public - {"url"}:
                assert list(inspect.signature(ours[method]).parameters) == list(
                    inspect.signature(theirs[method]).parameters
                )

    def test_many_calls_share_few_connections(self, server: ScriptedServer) -> None:
        server.otherwise = ids_for

        async def main() -> list[str]:
            async with AsyncClient(server.url, "sesame", connections=4) as client:
                pipeline = client.pipeline("a")
                return await asyncio.gather(*[pipeline.send(n) for n in range(100)])

        assert len(asyncio.run(main())) == 100
        assert len({asked.connection for asked in server.asked}) <= 4
        assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 100

    def test_send_many_takes_an_async_iterator(self, server: ScriptedServer) -> None:
        server.otherwise = ids_for

        async def numbers() -> AsyncIterator[int]:
            for number in range(5):
                yield number

        async def main() -> tuple[list[str], list[str]]:
            async with AsyncClient(server.url) as client:
                pipeline = client.pipeline("a")
                return await pipeline.send_many(numbers(), batch=2), await pipeline.send_many(range(3))

        first, second = asyncio.run(main())
        assert (len(first), len(second)) == (5, 3)

    def test_errors_retries_and_patience_are_the_same(self, server: ScriptedServer, tmp_path: Path) -> None:
        full = problem("queue-full", 429, "full", {"Retry-After": "0.05"})
        server.answers = [Answer(breaks=True), full]
        server.otherwise = ids_for
        (tmp_path / "tasks.py").write_text("")

        async def main() -> None:
            async with AsyncClient(server.url, retries=1, try_later_for=5) as client:
                assert await client.pipeline("a").send(1)
                server.answers = [Answer(breaks=True)]
                with pytest.raises(ServerUnreachable):
                    await client.function("f").invoke(1)
                server.answers = [problem("conflict", 409, "no")]
                with pytest.raises(Conflict):
                    await client.cancel("1")
                server.answers = [Answer(body={"function": "f", "version": 2, "bundle": "ab", "live": True})]
                assert (await client.function("f").deploy(tmp_path / "tasks.py")).version == 2
                server.answers = [Answer(body={"id": "1", "state": "done", "outcome": "ok", "result": 5})]
                assert (await client.wait("1", 5)).value() == 5

        asyncio.run(main())

    def test_listings_and_streams(self, server: ScriptedServer) -> None:
        page = {"pipelines": [{"name": "a", "settings": {}}], "next": None}
        server.answers = [
            Answer(body=page),
            Answer(chunks=[b'data: {"position": 1, "text": "x"}\n\n'], breaks_after_chunks=True),
            Answer(chunks=[b'data: {"position": 2, "text": "y"}\n\n']),
            problem("not-found", 404, "There is no task 'x'."),
        ]

        async def main() -> None:
            async with AsyncClient(server.url) as client:
                assert [each.name async for each in client.pipelines("f")] == ["a"]
                lines = client.logs(follow=True)
                assert [(await anext(lines)).text, (await anext(lines)).text] == ["x", "y"]
                with pytest.raises(NotFound):
                    await anext(lines)

        asyncio.run(main())

    def test_a_cancelled_call_takes_its_connection_with_it(self, server: ScriptedServer) -> None:
        asked = threading.Event()
        answer = threading.Event()

        def late(request: Asked) -> Answer:
            if request.path.endswith("invoke"):
                asked.set()
                answer.wait(10)
            return Answer(body={"of": request.path})

        server.otherwise = late

        async def main() -> None:
            async with AsyncClient(server.url) as client:
                call = asyncio.ensure_future(client.function("f").invoke(1))
                await asyncio.to_thread(asked.wait, 10)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
                answer.set()
                assert await client.status() == {"of": "/v1/status"}

        asyncio.run(main())

    def test_nobody_listens(self) -> None:
        async def main() -> None:
            async with AsyncClient("http://127.0.0.1:1", retries=0) as client:
                with pytest.raises(ServerUnreachable, match="Nothing was sent"):
                    await client.status()

        asyncio.run(main())
