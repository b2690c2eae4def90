"""Downstream says "try later": real handlers call a real service over HTTP."""

from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from tests.api.serving import Server

TEN_YEARS = 10 * 365 * 86_400


class Service(BaseHTTPRequestHandler):
    """Refuse what begins with /no, for as long as the rest of the path says."""

    def do_GET(self) -> None:
        _, answer, *wait = self.path.split("/")
        self.send_response(429 if answer == "no" else 200)
        if wait:
            self.send_header("Retry-After", wait[0])
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as service:
        thread = Thread(target=service.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{service.server_port}"
        service.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    running.deploy("calls", max_parallel_requests=10)
    yield running
    running.close()


def test_who_always_answers_429_is_waited_for_and_nobody_else(server: Server, url: str, name: str) -> None:
    waits = {"at-once": "/0", "soon": "/1", "unknown": "", "never": f"/{TEN_YEARS}"}
    refused, taken = {}, {}
    for adaptive in (False, True):
        for said, wait in waits.items():
            one = f"{name}-{said}-{adaptive}"
            server.make(one, "calls", max_age="2s", rate="20/s", adaptive=adaptive)
            server.make(f"{one}-neighbour", "calls", rate="50/s", adaptive=adaptive)
            refused[one] = server.send(one, *[f"{url}/no{wait}"] * 10)
            taken[one] = server.send(f"{one}-neighbour", *[f"{url}/yes"] * 10)
    for one, tasks in refused.items():
        assert [server.wait(task)["outcome"] for task in taken[one]] == ["ok"] * 10
        ended = [server.wait(task) for task in tasks]
        assert [(task["state"], task["attempts"]) for task in ended] == [("expired", 0)] * 10
        assert server.get(f"/v1/pipelines/{one}").json()["counts"]["dead"] == 0


def test_a_wait_of_ten_years_is_an_hour(server: Server, url: str, name: str) -> None:
    server.make(name, "calls", concurrency=1)
    (task,) = server.send(name, f"{url}/no/{TEN_YEARS}")
    while not (held := server.get(f"/v1/pipelines/{name}").json()["held_until"]):
        server.get(f"/v1/tasks/{task}?wait=50ms")
    left = datetime.fromisoformat(held) - datetime.now(UTC)
    assert 3000 < left.total_seconds() <= 3600


def test_an_adaptive_limit_is_held_for_all_that_pass_it(server: Server, url: str, name: str) -> None:
    assert server.put(f"/v1/limits/{name}", {"rate": "100/s", "adaptive": True}).status == 201
    for one in ("a", "b"):
        server.make(f"{name}-{one}", "calls", limits=[name])
    (refused,) = server.send(f"{name}-a", f"{url}/no/600")
    while "downstream" not in (server.get(f"/v1/pipelines/{name}-a").json()["waits_for"] or ""):
        server.get(f"/v1/tasks/{refused}?wait=50ms")
    (other,) = server.send(f"{name}-b", f"{url}/yes")
    assert server.get(f"/v1/tasks/{other}/why").json()["limit"] == name
    shown = server.get(f"/v1/limits/{name}").json()
    assert shown["learned"] == {"rate": "5/s", "concurrency": None}
    assert (shown["held_until"] is None, shown["waiting"]) == (False, 2)
    assert server.ask("DELETE", f"/v1/tasks/{refused}").status == 200
    shown = server.post(f"/v1/limits/{name}/resume").json()
    assert shown["held_until"] is None
    assert server.wait(other)["outcome"] == "ok"
    assert server.post(f"/v1/limits/{name}-none/resume").code == "not-found"


def test_what_was_learned_outlives_a_clean_stop(tmp_path: Path, url: str) -> None:
    server = Server(tmp_path)
    server.deploy("calls")
    server.make("p", "calls", rate="100/s", concurrency=50, adaptive=True)
    assert server.get("/v1/pipelines/p").json()["learned"] is None
    (refused,) = server.send("p", f"{url}/no/0")
    while server.get("/v1/pipelines/p").json()["learned"] in (None, {"rate": "10/s", "concurrency": 5}):
        server.get(f"/v1/tasks/{refused}?wait=50ms")
    server.ask("DELETE", f"/v1/tasks/{refused}")
    server.close()
    server = Server(tmp_path)
    learned = server.get("/v1/pipelines/p").json()["learned"]
    server.close()
    assert float(learned["rate"].removesuffix("/s")) < 10
    assert learned["concurrency"] == 5
