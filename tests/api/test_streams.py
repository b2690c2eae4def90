"""Following changes and output as they happen, over server-sent events."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from tests.api.serving import Server, until

EVENTS = {"Accept": "text/event-stream"}


@contextmanager
def follow(server: Server, path: str, **headers: str) -> Iterator[HTTPResponse]:
    connection, response = server.open("GET", path, headers=EVENTS | headers)
    try:
        assert response.status == 200
        assert response.getheader("content-type", "").startswith("text/event-stream")
        assert response.readline() == b": penstock\n"
        yield response
    finally:
        response.close()
        connection.close()


def next_event(response: HTTPResponse) -> tuple[int, Any]:
    """Return the place and the data of the next event."""
    place = 0
    while True:
        line = response.readline()
        assert line, "the stream ended"
        if line.startswith(b"id: "):
            place = int(line[4:])
        if line.startswith(b"data: "):
            return place, json.loads(line[6:])


def last_change(server: Server) -> int:
    place = 0
    while (page := server.get(f"/v1/changes?after={place}&limit=1000").json())["changes"]:
        place = page["next"]
    return place


def test_changes_come_as_they_happen(server: Server, name: str) -> None:
    after = last_change(server)
    with follow(server, f"/v1/changes?after={after}") as stream:
        for number in range(3):
            server.make(f"{name}-{number}", "echo")
            place, change = next_event(stream)
            assert place == change["sequence"] > after
            assert (change["action"], change["kind"], change["name"]) == ("create", "pipeline", f"{name}-{number}")
            after = place
    with follow(server, "/v1/changes", **{"Last-Event-ID": str(after - 1)}) as stream:
        assert next_event(stream) == (after, change)


def test_output_is_listed_and_followed(server: Server, name: str) -> None:
    server.deploy("loud")
    server.make(name, "loud")
    first, second = server.send(name, "one", "two")
    server.wait(first)
    server.wait(second)
    with follow(server, f"/v1/logs?pipeline={name}&follow=1") as stream:
        seen = [next_event(stream)[1] for _ in range(2)]
        assert {(line["task"], line["text"].strip()) for line in seen} == {(first, "one"), (second, "two")}
        (third,) = server.send(name, "three")
        place, line = next_event(stream)
    assert (line["task"], line["pipeline"], line["function"], line["attempt"]) == (third, name, "loud", 1)
    assert (line["stream"], line["text"].strip(), line["position"]) == ("stdout", "three", place)
    listed = server.get(f"/v1/logs?pipeline={name}").json()
    assert listed["lines"] == [*seen, line]
    assert listed["next"] == place
    assert server.get(f"/v1/logs?pipeline={name}&after={place}").json() == {"lines": [], "next": place}
    assert server.get(f"/v1/logs?task={third}").json()["lines"] == [line]
    assert server.get("/v1/logs?function=loud&limit=1").json()["lines"] == seen[:1]
    assert server.get("/v1/logs?task=x").code == "not-found"
    for nobody in ("pipeline=nobody", "function=nobody", "pipeline=nobody&follow=1"):
        assert server.get(f"/v1/logs?{nobody}").code == "not-found"


def inside(server: Server) -> int:
    return server.running.lobby.inside


def test_a_reader_that_goes_away_is_let_go(server: Server) -> None:
    after = last_change(server)
    until(lambda: not inside(server))
    with follow(server, f"/v1/changes?after={after}"), follow(server, "/v1/logs?follow=true&function=echo"):
        assert inside(server) == 2
    until(lambda: not inside(server))


def test_a_server_that_stops_ends_its_streams(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        with follow(server, "/v1/changes") as stream:
            server.stop()
            assert stream.read().strip() == b""
    finally:
        server.close()
