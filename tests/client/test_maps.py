"""Maps as Python shows them: in order or as they end, raising or not, and through connections that break."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.realwork import mapped
from hypothesis import given
from hypothesis import strategies as st
from tests.api.serving import Server
from tests.client.scripted import Answer, ScriptedServer, problem

from penstock.client import (
    AsyncClient,
    AsyncMap,
    Client,
    ItemResult,
    MapCounts,
    NotFound,
    ServerUnreachable,
    TaskFailed,
    calls,
    waiting,
)
from penstock.client.events import LineReader
from penstock.client.gathering import ENDS, Gathering

STARTED = {"id": "m1", "items": 3, "ended": 0, "ok": 0}


def line(index: int, **members: Any) -> bytes:
    return json.dumps({"index": index, "task": "t", "outcome": "ok", "result": index * 10, **members}).encode() + b"\n"


FAILED = {"outcome": "error", "result": None, "error": {"type": "ValueError", "message": "no good"}}


def test_a_stream_that_has_gone_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one does whose server vanished without a word: no end of the connection tells of it."""
    monkeypatch.setattr(waiting, "SILENCE", 0.2)

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        stream = calls.follow_map("m1", "items", -1, progress=False)
        with Client(url, "t") as client, pytest.raises(ServerUnreachable):
            list(client._sender.events(stream, LineReader()))

        async def mirrored() -> None:
            async with AsyncClient(url, "t") as client:
                async for _ in client._sender.events(stream, LineReader()):
                    pass

        with pytest.raises(ServerUnreachable):
            asyncio.run(mirrored())


def test_a_loop_yields_results_in_order(server: ScriptedServer, client: Client) -> None:
    server.answers = [Answer(202, STARTED), Answer(chunks=[b"\n", line(0) + line(1)[:9], line(1)[9:] + line(2)])]
    made = client.function("f").map(iter([1, {"b": 2}, "c"]))
    assert (made.id, len(made), list(made)) == ("m1", 3, [0, 10, 20])
    started, read = server.asked
    assert (started.method, started.path, started.body) == ("POST", "/v1/functions/f/map", b'1\n{"b":2}\n"c"')
    assert started.headers["idempotency-key"]
    assert read.query == {"order": "items", "after": "-1", "progress": "false"}


def test_a_failure_raises_at_its_item_or_is_returned(server: ScriptedServer, client: Client) -> None:
    told = [line(0) + line(1, **FAILED) + line(2)]
    server.answers = [Answer(202, STARTED), Answer(chunks=told), Answer(202, STARTED), Answer(chunks=told)]
    results = iter(client.pipeline("p").map([1, 2, 3], stragglers=2.5, key="mine"))
    assert next(results) == 0
    with pytest.raises(TaskFailed, match=r"Item 1 ended as error: ValueError: no good") as raised:
        next(results)
    assert (raised.value.outcome, raised.value.task, raised.value.error_message) == ("error", "t", "no good")
    assert server.asked[0].query == {"stragglers": "2.5"}
    assert server.asked[0].headers["idempotency-key"] == "mine"
    first, second, third = client.pipeline("p").map([1, 2, 3], return_exceptions=True)
    assert (first, third) == (0, 20)
    assert isinstance(second, TaskFailed)


def test_results_come_as_they_end_and_twice_never(server: ScriptedServer, client: Client) -> None:
    server.answers = [
        Answer(202, STARTED),
        Answer(chunks=[line(2) + line(0)], breaks_after_chunks=True),
        problem("unavailable", 503, "It stops.", {"Retry-After": "1"}),
        Answer(chunks=[line(2)]),
        Answer(chunks=[line(1)]),
    ]
    assert list(client.function("f").map([1, 2, 3]).as_completed()) == [(2, 20), (0, 0), (1, 10)]
    assert [asked.query["after"] for asked in server.asked[1:]] == ["-1", "0", "0", "0"]


def test_progress_is_told_from_what_the_server_pushes(server: ScriptedServer, client: Client) -> None:
    counts = json.dumps({"items": 3, "ended": 2, "ok": 1, "failed": {"error": 1}, "rate": 0.5}).encode() + b"\n"
    server.answers = [Answer(202, STARTED), Answer(chunks=[line(0), counts, line(1), line(2)])]
    heard: list[MapCounts] = []
    assert list(client.function("f").map([1, 2, 3], progress=heard.append)) == [0, 10, 20]
    assert [(one.ended, one.failed, one.left, one.seconds_left) for one in heard] == [(2, {"error": 1}, 1, 2.0)]
    assert server.asked[1].query["progress"] == "true"


def test_a_map_is_taken_up_by_its_id(server: ScriptedServer, client: Client) -> None:
    server.answers = [
        Answer(body=STARTED),
        Answer(chunks=[line(1), line(2)]),
        Answer(body={**STARTED, "state": "cancelled"}),
    ]
    made = client.map_of("m1")
    assert list(made.results(after=0)) == [ItemResult(1, "ok", "t", 10), ItemResult(2, "ok", "t", 20)]
    assert made.cancel().state == "cancelled"
    assert [(asked.method, asked.path) for asked in server.asked] == [
        ("GET", "/v1/maps/m1"),
        ("GET", "/v1/maps/m1/results"),
        ("DELETE", "/v1/maps/m1"),
    ]


def test_a_map_that_is_not_there(server: ScriptedServer, client: Client) -> None:
    server.otherwise = lambda _: problem("not-found", 404, "There is no map 'm1'.")
    with pytest.raises(NotFound):
        list(client.map_of("m1"))


def test_maps_are_listed(server: ScriptedServer, client: Client) -> None:
    server.answers = [Answer(body={"maps": [STARTED], "next": "m1"}), Answer(body={"maps": [], "next": None})]
    assert [one.id for one in client.maps()] == ["m1"]


@given(st.permutations(range(12)), st.lists(st.integers(0, 12), max_size=4))
def test_each_result_is_passed_on_once(order: list[int], breaks: list[int]) -> None:
    gathering = Gathering(12, ENDS, -1, 0)
    passed: list[int] = []
    for upto in [*breaks, 12]:
        left_out = gathering.after
        told = [index for index in order[:upto] if index > left_out]
        passed += [index for index in told if gathering.takes(ItemResult(index, "ok"))]
    assert sorted(passed) == list(range(12))
    assert gathering.whole
    assert gathering.after == 11


@given(st.lists(st.binary(max_size=9).filter(lambda b: b"\n" not in b), max_size=9), st.lists(st.integers(0, 99)))
def test_lines_are_cut_wherever_a_stream_is(told: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(one + b"\n" for one in told)
    places = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    reader = LineReader()
    found = [each.body for a, b in itertools.pairwise(places) for each in reader.feed(stream[a:b])]
    assert found == [one for one in told if one]


# a real server --------------------------------------------------------------------------------------------------------
def test_progress_is_never_ahead_of_the_truth(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    server.deploy("works", max_instances=2)
    with Client(server.running.url, server.running.token) as client:
        _, sums, _, watch = mapped(client, "works", 20_000, 300)
    server.close()
    assert sums == {sum(range(20_000))}
    assert watch.received == watch.told[-1][1] == 300


def test_the_async_mirror_and_a_server_that_goes_and_comes_back(tmp_path: Path) -> None:
    first = Server(tmp_path / "data")
    first.deploy("waits", max_instances=2)
    first.deploy("echo")
    gate = tmp_path / "gate"

    async def items() -> AsyncIterator[str]:
        for _ in range(8):
            yield str(gate)

    async def talk() -> None:
        async with AsyncClient(first.running.url, first.running.token) as client:
            heard: list[MapCounts] = []
            echoed = await client.function("echo").map(range(5), progress=heard.append)
            assert (len(echoed), [one async for one in echoed]) == (5, [0, 1, 2, 3, 4])
            assert heard[-1].ended == 5
            made = await client.function("waits").map(items())
            reading = asyncio.ensure_future(collect(made))
            await asyncio.to_thread(first.close)
            gate.touch()
            second = await asyncio.to_thread(Server, tmp_path / "data", "127.0.0.1", first.port)
            try:
                assert sorted(await reading) == [(index, True) for index in range(8)]
                assert (await client.map_of(made.id).counts()).state == "done"
                assert [one.id async for one in client.maps()] == [made.id, echoed.id]
            finally:
                await client.close()
                await asyncio.to_thread(second.close)

    async def collect(made: AsyncMap) -> list[tuple[int, Any]]:
        return [pair async for pair in made.as_completed()]

    asyncio.run(talk())
