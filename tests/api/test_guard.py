"""Who is let in, and what a client may make the server hold."""

import contextlib
import socket
from http.client import HTTPConnection

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.api.serving import Server

from penstock.api.doorman import Doorman
from penstock.api.http import MOST_HEAD
from penstock.api.problems import Forbidden, Unauthorized


def ask(server: Server, path: str = "/v1/status", **headers: str) -> tuple[int, bytes, str | None]:
    with contextlib.closing(HTTPConnection("127.0.0.1", server.port, timeout=30)) as connection:
        connection.putrequest("GET", path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read(), response.getheader("www-authenticate")


def talk(server: Server, request: bytes) -> bytes:
    """Send raw bytes and return all that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            raw.sendall(request)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := raw.recv(65536):
                answer += data
        return answer


def test_only_the_token_opens(server: Server) -> None:
    token = server.running.token
    for wrong in ({}, {"Authorization": "Bearer"}, {"Authorization": f"Bearer {token}x"}, {"Authorization": token}):
        status, body, challenge = ask(server, **wrong)
        assert (status, challenge) == (401, "Bearer")
        assert b"/problems/unauthorized" in body
    for path in ("/v1/pipelines/p/tasks", "/v1/functions/f/invoke", "/v1/tasks/x", "/v1/openapi.json", "/nothing"):
        assert ask(server, path)[0] == 401
    assert ask(server, Authorization=f"bearer  {token} ")[0] == 200
    assert ask(server, "/healthz")[:2] == (200, b'{"status":"ok"}')
    assert ask(server, "/readyz")[:2] == (200, b'{"status":"ready"}')


def test_the_token_is_private(server: Server) -> None:
    assert (server.data / "token").stat().st_mode & 0o777 == 0o600
    assert (server.data / "server.json").stat().st_mode & 0o777 == 0o600
    assert server.data.stat().st_mode & 0o777 == 0o700
    assert len(server.running.token) >= 40


def test_other_hosts_and_origins_are_turned_away(server: Server) -> None:
    good = server.headers()
    for host in (f"localhost:{server.port}", "127.0.0.1", "LOCALHOST", "[::1]:80", "localhost.", "127.1.2.3:9"):
        assert ask(server, **good, Host=host)[0] == 200
    for host in (
        "evil.example",
        "evil.example:7711",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "",
        "[::1",
        "localhost@evil",
    ):
        status, body, _ = ask(server, **good, Host=host)
        assert status == 403, host
        assert b"/problems/forbidden" in body
        assert ask(server, "/healthz", Host=host)[0] == 403
    here = f"localhost:{server.port}"
    assert ask(server, **good, Host=here, Origin=f"http://{here}")[0] == 200
    for origin in ("http://evil.example", "null", f"http://localhost:{server.port + 1}", "http://localhost", ""):
        assert ask(server, **good, Host=here, Origin=origin)[0] == 403


names = st.text(alphabet="abcxyz0123456789.-:[]@%_", max_size=20)


@given(names, st.sampled_from(["127.0.0.1", "localhost", "::1", "0.0.0.0", "192.168.3.4"]))
def test_no_name_but_ours_and_addresses_pass(host: str, bound: str) -> None:
    doorman = Doorman("t", bound, ["penstock.internal"])
    headers = {b"authorization": b"Bearer t"}
    try:
        doorman.check("/v1/status", headers | {b"host": host.encode()})
    except Forbidden:
        return
    letters = {one for one in host.rpartition(":")[0] or host if one.isalpha()}
    assert letters <= set("abcdef") or host.startswith("localhost")


def test_further_names_and_all_addresses() -> None:
    everywhere = Doorman("t", "0.0.0.0", ["Penstock.internal"])
    only_here = Doorman("t", "127.0.0.1")
    good = {b"authorization": b"Bearer t"}
    for host in (b"penstock.internal:80", b"10.1.2.3:7711", b"[fe80::1]:7711", b"127.0.0.1"):
        everywhere.check("/", good | {b"host": host})
    for host in (b"penstock.internal", b"10.1.2.3:7711"):
        with pytest.raises(Forbidden):
            only_here.check("/", good | {b"host": host})
    with pytest.raises(Unauthorized):
        only_here.check("/", {b"host": b"localhost"})


def test_headers_have_a_bound(server: Server) -> None:
    answer = talk(
        server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X-A: %b\r\n" % (b"a" * 1000) * 2000 + b"\r\n"
    )
    assert not answer or (answer.startswith(b"HTTP/1.1 400") and b"headers are larger" in answer)
    answer = talk(server, b"GET /" + b"a" * (8 * MOST_HEAD) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert not answer or answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    "garbage", [b"\x00\x01\x02\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00"]
)
def test_what_is_not_http(server: Server, garbage: bytes) -> None:
    answer = talk(server, garbage)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b"application/problem+json" in answer


@pytest.mark.parametrize(
    "part",
    [
        b"",
        b"GET /healthz HT",
        b"GET /healthz HTTP/1.1\r\nHost: loc",
        b"POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\nContent-Length: 9\r\n\r\n1",
    ],
)
def test_a_client_that_takes_too_long_is_let_go(server: Server, part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("penstock.api.http.PATIENCE", 0.02)
        patched.setattr("penstock.api.http.SLOWEST", 1 << 40)
        assert talk(server, part.replace(b"%b", server.running.token.encode())) == b""
    assert server.get("/healthz").status == 200


def test_requests_on_one_connection_are_answered_in_order(server: Server) -> None:
    token = server.running.token.encode()
    head = b"Host: localhost\r\nAuthorization: Bearer %b\r\n" % token
    invoke = b"POST /v1/functions/echo/invoke HTTP/1.1\r\n%bContent-Length: 1\r\n\r\n%d"
    last = b"HEAD /healthz HTTP/1.1\r\n%bConnection: close\r\n\r\n" % head
    answer = talk(server, b"".join(invoke % (head, number) for number in range(5)) + last)
    bodies = [part.split(b"\r\n\r\n")[1] for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert bodies[:5] == [b"0", b"1", b"2", b"3", b"4"]


def test_a_client_that_expects_to_be_told_to_go_on(server: Server) -> None:
    token = server.running.token.encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
        raw.sendall(
            b"POST /v1/functions/echo/invoke HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
            b"Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n" % token
        )
        assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(b"42")
        answer = b""
        while data := raw.recv(1000):
            answer += data
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"42")


def test_a_client_that_goes_away_in_the_middle_of_its_body(server: Server, blocked: str) -> None:
    token = server.running.token.encode()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
            raw.sendall(
                b"POST /v1/pipelines/%b/tasks HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
                b"Content-Length: 1000\r\n\r\n{" % (blocked.encode(), token)
            )
    assert server.get(f"/v1/tasks?pipeline={blocked}").json()["tasks"] == []
