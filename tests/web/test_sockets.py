"""WebSockets as their clients see them."""

import contextlib
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.api.serving import Server, until
from tests.web.hosting import Host, get
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from penstock.engine import visits


@pytest.fixture(scope="module")
def fast(host: Host) -> str:
    return host.deploy("sockets", "fast").replace("http:", "ws:")


HANDSHAKE = (
    "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip


def close_code(socket: ClientConnection) -> int:
    """Return the code with which a WebSocket is closed, which it is soon."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            socket.recv(timeout=30)
    assert socket.protocol.close_code is not None
    return socket.protocol.close_code


def test_messages_pass_both_ways(fast: str) -> None:
    with connect(f"{fast}/echo", subprotocols=[Subprotocol("one"), Subprotocol("two")], max_size=None) as socket:
        assert socket.subprotocol == "one"
        assert socket.response is not None
        assert socket.response.headers["x-hello"] == "you"
        for message in ("text ü", b"bytes", "", b"x" * 3_000_000, "y" * 500_000):
            socket.send(message)
            assert socket.recv(timeout=30) == message
        socket.send("close")
        assert close_code(socket) == 4001


def test_a_client_that_leaves_is_told_of(host: Host, name: str) -> None:
    url = host.deploy(name, "fast").replace("http:", "ws:")
    with connect(f"{url}/echo") as socket:
        socket.send("x")
        assert socket.recv(timeout=30) == "x"
        assert host.function(name)["web"]["open"] == 1
    host.says(name, "left with 1000")
    host.idle(name)


def test_a_client_that_vanishes_is_found(host: Host, name: str) -> None:
    host.deploy(name, "fast")
    with host.dial(name, "/echo", *HANDSHAKE) as line:
        assert line.recv(100).startswith(b"HTTP/1.1 101 ")
    host.says(name, "left with")
    host.idle(name)


@pytest.mark.parametrize(("path", "status"), [("refuses", 403), ("answers", 418), ("nowhere", 403)])
def test_an_app_may_refuse(fast: str, path: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{fast}/{path}")
    assert refused.value.response.status_code == status


def test_an_app_that_fails_closes(host: Host, fast: str) -> None:
    for message, code in (("fail", 1011), ("exit", 1011)):
        with connect(f"{fast}/echo") as socket:
            socket.send(message)
            assert close_code(socket) == code
    host.says("sockets", "ValueError: on purpose")


def test_one_that_never_accepts_is_ended(host: Host, name: str) -> None:
    url = host.deploy(name, "fast", timeout="300ms").replace("http:", "ws:")
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{url}/never")
    assert refused.value.response.status_code == 504


def test_one_that_was_accepted_may_be_silent_for_longer_than_the_timeout(host: Host, name: str) -> None:
    url = host.deploy(name, "fast", timeout="200ms").replace("http:", "ws:")
    with connect(f"{url}/echo") as socket:
        began = time.monotonic()
        until(lambda: time.monotonic() > began + 0.6)
        socket.send("x")
        assert socket.recv(timeout=30) == "x"


def test_a_client_that_does_not_read_makes_the_app_wait(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.api.sockets.PATIENCE", 1.0)
    host.deploy(name, "fast")
    with host.dial(name, "/counts", *HANDSHAKE):
        host.says(name, "counted")
    assert int(host.said(name).partition("counted ")[2].split()[0]) < 60 << 20


def test_max_runtime_closes_with_service_restart(host: Host, name: str) -> None:
    url = host.deploy(name, "fast", timeout="200ms", max_runtime="4s").replace("http:", "ws:")
    with connect(f"{url}/echo") as socket:
        assert close_code(socket) == visits.RESTART
    host.idle(name)


def test_an_instance_that_is_replaced_keeps_its_sockets(host: Host, name: str) -> None:
    app = host.deploy(name, "fast")
    with connect(f"{app.replace('http:', 'ws:')}/echo") as socket:
        host.deploy(name, "fast")
        assert get(f"{app}/").status_code == 200
        socket.send("still here")
        assert socket.recv(timeout=30) == "still here"


def test_a_server_that_stops_closes_them(tmp_path: Path) -> None:
    host = Host(Server(tmp_path))
    url = host.deploy("stops", "fast").replace("http:", "ws:")
    with connect(f"{url}/echo") as socket:
        host.server.stop()
        assert close_code(socket) == visits.RESTART
    host.server.close()


def test_only_apps_have_them(host: Host, fast: str) -> None:
    token = {"authorization": f"Bearer {host.server.running.token}"}
    for path in ("/v1/functions", "/web/nobody/echo"):
        for headers, status in ((token, 404), ({}, 401)):
            with pytest.raises(InvalidStatus) as refused:
                connect(f"ws://127.0.0.1:{host.server.port}{path}", additional_headers=headers)
            assert refused.value.response.status_code == status


@pytest.mark.parametrize(
    ("code", "reason", "told"),
    [(3000, "ü" * 200, 3000), (1008, "\U0001f6b0" * 60, 1008), (1005, "", 1011), (1015, "", 1011), (77, "x", 1011)],
)
def test_what_an_app_closes_with_is_always_a_close(fast: str, code: int, reason: str, told: int) -> None:
    with connect(f"{fast}/closes?code={code}&reason={quote(reason)}") as socket:
        assert close_code(socket) == told
        assert socket.protocol.close_reason is not None
        assert reason.startswith(socket.protocol.close_reason)


def test_a_private_one_wants_the_token(host: Host, name: str) -> None:
    url = host.deploy(name, "fast", public=False).replace("http:", "ws:")
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{url}/echo")
    assert refused.value.response.status_code == 401
    token = {"authorization": f"Bearer {host.server.running.token}"}
    with connect(f"{url}/echo", additional_headers=token) as socket:
        socket.send("x")
        assert socket.recv(timeout=30) == "x"
