"""The server as a process: its data directory, its port, and how it stops and comes back."""

import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from tests.api.serving import Answer, Server, until

from penstock.domain.errors import Locked, PenstockError

PROGRAM = (
    "import sys; from pathlib import Path; from penstock.app import serve; "
    "serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), lambda url: print(url, flush=True))"
)


@contextmanager
def process(data: Path, host: str = "127.0.0.1", port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server as a process of its own; give it and its URL."""
    command = [sys.executable, "-c", PROGRAM, str(data), host, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child, child.stdout.readline().strip()
        finally:
            if child.poll() is None:
                child.kill()


def ask(data: Path, method: str, path: str, body: object = None) -> Answer:
    url = json.loads((data / "server.json").read_text())["url"]
    with closing(HTTPConnection(url.removeprefix("http://"), timeout=30)) as connection:
        headers = {"Authorization": f"Bearer {(data / 'token').read_text().strip()}"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly_and_comes_back_with_everything(tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "new" / "data"
    with process(data) as (child, url):
        assert json.loads((data / "server.json").read_text()) == {"url": url, "pid": child.pid}
        token = (data / "token").read_text()
        ask(data, "PUT", "/v1/functions/f", {"handler": "a:b"})
        ask(data, "PUT", "/v1/pipelines/p", {"function": "f"})
        (task,) = ask(data, "POST", "/v1/pipelines/p/tasks", {"payload": 1}).json()["ids"]
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
        assert (child.returncode, out, err) == (0, "", "")
    assert not (data / "server.json").exists()
    with process(data):
        assert (data / "token").read_text() == token
        shown = ask(data, "GET", f"/v1/tasks/{task}").json()
        assert shown["state"] == "queued"
        assert ask(data, "GET", "/v1/status").json()["epoch"] == 2


def test_a_killed_server_gives_way_to_the_next(tmp_path: Path) -> None:
    with process(tmp_path) as (child, _):
        child.kill()
        child.wait()
    assert (tmp_path / "server.json").exists()
    with process(tmp_path) as (_, url):
        assert json.loads((tmp_path / "server.json").read_text())["url"] == url
        assert ask(tmp_path, "GET", "/v1/status").json()["epoch"] == 2


def test_a_data_directory_has_one_server(tmp_path: Path) -> None:
    with process(tmp_path):
        announced = (tmp_path / "server.json").read_text()
        with pytest.raises(Locked, match="server"):
            Server(tmp_path)
        assert (tmp_path / "server.json").read_text() == announced
        assert ask(tmp_path, "GET", "/healthz").status == 200


def test_a_port_that_is_taken_is_known_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, process(tmp_path, port=taken.getsockname()[1]) as (child, _):
        _, err = child.communicate(timeout=30)
        assert child.returncode == 1
        assert "Address already in use" in err
    assert not (tmp_path / "penstock.sqlite").exists()


def test_addresses_and_directories_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "token").touch()
    for data, host, says in (
        (tmp_path / "file", "127.0.0.1", "cannot be used"),
        (tmp_path / "empty", "127.0.0.1", "token is empty"),
        (tmp_path / "data", "no.such.host.invalid", "no address to listen at"),
    ):
        with process(data, host) as (child, _):
            _, err = child.communicate(timeout=30)
            assert child.returncode == 1
            assert says in err.splitlines()[-1]
            assert PenstockError.__name__ in err.splitlines()[-1]


def test_the_other_loopback(tmp_path: Path) -> None:
    with process(tmp_path, "::1") as (_, url):
        assert url.startswith("http://[::1]:")
        port = int(url.rpartition(":")[2])
        with closing(HTTPConnection("::1", port, timeout=30)) as connection:
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"ok"}'


def test_a_closing_server_answers_who_is_inside_and_nobody_else(tmp_path: Path) -> None:
    server = Server(tmp_path)
    answers: list[Answer] = []
    try:
        server.deploy("sleeps")
        server.make("p", "sleeps")
        server.make("later", "sleeps", paused=True)
        (task,) = server.send("later", 1)
        idle, _ = server.open("GET", "/healthz")
        asking = [
            threading.Thread(target=lambda: answers.append(server.post("/v1/pipelines/p/invoke", 1.5))),
            threading.Thread(target=lambda: answers.append(server.get(f"/v1/tasks/{task}?wait=20s"))),
        ]
        for one in asking:
            one.start()
        until(lambda: server.get("/v1/pipelines/p").json()["counts"]["running"] and server.running.lobby.inside == 2)
        server.stop()
        until(lambda: server.get("/readyz").status == 503)
        assert server.get("/healthz").status == 200
        refused = server.get("/v1/status")
        assert (refused.status, refused.code) == (503, "unavailable")
        assert refused.headers["retry-after"] == "1"
        for one in asking:
            one.join()
        idle.close()
    finally:
        server.close()
    bodies = {answer.status: answer.body for answer in answers}
    assert set(bodies) == {200}
    assert b"1.5" in {answer.body for answer in answers}
    with pytest.raises(OSError, match=r"refused|reset"):
        server.get("/healthz")
