"""The server as a process: its data directory, its port, and how it stops and comes back."""

import errno
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
    "serve(Path(sys.argv[1]), '127.0.0.1', 0, lambda url, _: print(url, flush=True))"
)


@contextmanager
def process(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server as a process of its own; give it and its URL."""
    command = [sys.executable, "-c", PROGRAM, str(data)]
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
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use") as caught:
        Server(tmp_path, port=taken.getsockname()[1])
    assert caught.value.errno == errno.EADDRINUSE
    assert not (tmp_path / "penstock.sqlite").exists()


def test_addresses_and_directories_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "token").touch()
    for data, host, says in (
        ("file", "127.0.0.1", "cannot be used"),
        ("empty", "127.0.0.1", "token is empty"),
        ("data", "no.such.host.invalid", "no address to listen at"),
    ):
        with pytest.raises(PenstockError, match=says):
            Server(tmp_path / data, host)


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stay(*_: object) -> None:
        raise TimeoutError("3 processes do not end")

    with monkeypatch.context() as patched:
        patched.setattr("penstock.compute.local.LocalCompute.open", stay)
        with pytest.raises(PenstockError, match="3 processes do not end"):
            Server(tmp_path)
    with closing(Server(tmp_path)) as server:
        assert server.get("/v1/status").json()["epoch"] == 2


def test_the_other_loopback(tmp_path: Path) -> None:
    with closing(Server(tmp_path, "::1")) as server:
        assert server.running.url == f"http://[::1]:{server.port}"
        with closing(HTTPConnection("::1", server.port, timeout=30)) as connection:
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"ok"}'


def test_further_names_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_HOSTS", "penstock.internal, other.internal")
    with closing(Server(tmp_path)) as server:
        assert server.get("/healthz", Host="other.internal").status == 200
        assert server.get("/healthz", Host="another.internal").status == 403


def test_a_closing_server_answers_who_is_inside_and_nobody_else(tmp_path: Path) -> None:
    answers: list[Answer] = []
    with closing(Server(tmp_path / "data")) as server:
        server.deploy("waits")
        server.deploy("echo")
        server.make("blocked", "echo", paused=True)
        (task,) = server.send("blocked", 1)
        sign = tmp_path / "sign"
        asking = [
            threading.Thread(target=lambda: answers.append(server.post("/v1/functions/waits/invoke", str(sign)))),
            threading.Thread(target=lambda: answers.append(server.get(f"/v1/tasks/{task}?wait=20s"))),
        ]
        for one in asking:
            one.start()
        until(lambda: server.running.lobby.inside == 2 and server.running.engine.plant.running)
        server.stop()
        until(lambda: server.get("/readyz").status == 503)
        assert server.get("/healthz").status == 200
        refused = server.get("/v1/status")
        assert (refused.status, refused.code) == (503, "unavailable")
        assert refused.headers["retry-after"] == "1"
        sign.touch()
        for one in asking:
            one.join()
    assert {answer.status for answer in answers} == {200}
    assert {answer.body if answer.body == b"true" else answer.json()["state"] for answer in answers} == {
        b"true",
        "queued",
    }
    with pytest.raises(OSError, match=r"refused|reset"):
        server.get("/healthz")


def test_calls_that_do_not_end_are_told_that_the_server_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.app.PATIENCE", 0.1)
    answers: list[Answer] = []
    with closing(Server(tmp_path / "data")) as server:
        server.deploy("waits")
        nowhere = str(tmp_path / "nowhere")
        asking = threading.Thread(target=lambda: answers.append(server.post("/v1/functions/waits/invoke", nowhere)))
        asking.start()
        until(lambda: server.running.engine.plant.running)
    asking.join()
    assert (answers[0].status, answers[0].code) == (503, "unavailable")
