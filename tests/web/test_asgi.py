"""ASGI apps as their visitors see them."""

import contextlib
import hashlib
import os
import signal
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from tests.api.serving import until
from tests.web.hosting import Host, get

from penstock.api import http
from penstock.engine import visits


@pytest.fixture(scope="module")
def fast(host: Host) -> str:
    return host.deploy("fast", "fast")


@pytest.fixture(scope="module")
def bare(host: Host) -> str:
    return host.deploy("bare", "bare", timeout="1s")


def test_an_app_is_told_where_it_is_and_who_asks(fast: str) -> None:
    seen = get(f"{fast}/?a=1", headers={"connection": "x-mine, close", "x-mine": "1", "x-other": "2"}).json()
    headers = dict(map(tuple, seen["headers"]))
    assert seen["url"] == f"{fast}/?a=1"
    assert (seen["path"], seen["root"], seen["client"], seen["scheme"]) == (
        "/web/fast/",
        "/web/fast",
        "127.0.0.1",
        "http",
    )
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "http"
    assert headers["x-forwarded-host"] == headers["host"]
    assert headers["x-other"] == "2"
    assert not {"connection", "x-mine", "transfer-encoding"} & headers.keys()
    assert seen["here"], "the startup ran in another process"


def test_a_proxy_on_this_machine_is_believed(fast: str) -> None:
    said = {"x-forwarded-for": "6.6.6.6, 9.9.9.9", "x-forwarded-proto": "https", "x-forwarded-host": "shop.example"}
    seen = get(f"{fast}/", headers=said).json()
    headers = dict(map(tuple, seen["headers"]))
    assert (seen["client"], seen["scheme"]) == ("9.9.9.9", "https")
    assert headers["x-forwarded-for"] == "6.6.6.6, 9.9.9.9, 127.0.0.1"
    assert headers["x-forwarded-host"] == "shop.example"


def test_a_path_is_kept_as_it_came(fast: str) -> None:
    seen = get(f"{fast}/items/a%2Fb%20%C3%BC?q=%26").json()
    assert seen == {"name": "a/b ü", "q": "&", "raw_path": "/web/fast/items/a%2Fb%20%C3%BC"}


def test_the_root_leads_to_the_first_page(fast: str) -> None:
    answer = get(f"{fast}?a=1")
    assert (answer.status_code, answer.headers["location"]) == (308, "/web/fast/?a=1")


def test_a_body_is_streamed_both_ways(fast: str) -> None:
    body = bytes(range(256)) * 12_000

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 70_001):
            yield body[at : at + 70_001]

    for sent in (body, pieces()):
        answer = httpx.post(f"{fast}/digest", content=sent, timeout=30)
        assert answer.json() == {"size": len(body), "digest": hashlib.sha256(body).hexdigest()}
    assert get(f"{fast}/counting?pieces=30&size=50000").text == "".join(f"{n % 10}" * 50_000 for n in range(30))


def test_a_stream_arrives_as_it_is_sent(fast: str) -> None:
    with httpx.stream("GET", f"{fast}/counting?pieces=1000&pause=0.05", timeout=30) as answer:
        assert next(answer.iter_raw()) == b"0"
    with httpx.stream("GET", f"{fast}/counting?pieces=1&pause=0.05", timeout=30) as answer:
        assert answer.status_code == 200


def test_many_requests_pass_one_connection(fast: str) -> None:
    with httpx.Client(timeout=30) as client:
        for number in range(50):
            assert client.get(f"{fast}/items/{number}").json()["name"] == str(number)
        assert client.head(f"{fast}/").status_code == 405
        assert client.options(f"{fast}/").status_code == 405


def test_an_app_that_fails_is_answered_and_logged(host: Host, fast: str) -> None:
    assert get(f"{fast}/fails").status_code == 500
    host.says("fast", "ValueError: on purpose")
    assert get(f"{fast}/").status_code == 200


def test_requests_are_counted_and_leave_no_tasks(host: Host, name: str) -> None:
    app = host.deploy(name, "fast")
    for path, status in (("/", 200), ("/prints", 200), ("/fails", 500)):
        assert get(app + path).status_code == status
    host.idle(name)
    web = host.function(name)["web"]
    assert (web["path"], web["answered"], web["failed"]) == (f"/web/{name}/", 2, 1)
    assert web["seconds"] > 0
    assert host.function(name)["pool"]["p90"] is None, "requests may be open for as long as somebody likes: no tasks"
    assert host.server.get("/v1/tasks?state=done").json()["tasks"] == []
    host.says(name, "printed in a request")


def test_startup_is_before_the_first_request_and_shutdown_after_the_last(host: Host, name: str) -> None:
    app = host.deploy(name, "fast", idle_timeout="50ms")
    assert get(f"{app}/").json()["here"]
    host.says(name, "starts up")
    host.says(name, "shuts down")
    assert get(f"{app}/").status_code == 200


def test_an_instance_that_is_replaced_finishes_its_streams(host: Host, name: str) -> None:
    app = host.deploy(name, "fast")
    with httpx.stream("GET", f"{app}/counting?pieces=40&pause=0.02", timeout=30) as old:
        pieces = old.iter_raw()
        assert next(pieces) == b"0"
        host.deploy(name, "fast")
        assert get(f"{app}/").status_code == 200
        assert b"".join(pieces).endswith(b"9")
    host.says(name, "shuts down")


# bad luck -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "status"),
    [("no-start", 500), ("nothing", 500), ("huge-head", 500), ("split", 500), ("odd-length", 500), ("swallows", 504)],
)
def test_an_app_that_does_not_answer_is_answered_for(bare: str, path: str, status: int) -> None:
    answer = get(f"{bare}/{path}")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["half", "longer"])
def test_an_answer_that_ends_early_is_cut_off(bare: str, path: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        get(f"{bare}/{path}")


def test_one_that_overstays_is_ended_and_its_neighbour_finishes(host: Host, name: str) -> None:
    app = host.deploy(name, "bare", timeout="1s")
    host.deploy(f"{name}n", "fast", timeout="5s")
    assert get(f"{app}/swallows").status_code == 504
    assert get(f"{app}/swallows").status_code == 504
    until(lambda: host.function(name)["instances"]["ready"] == 0)


def test_a_client_that_leaves_ends_the_work(host: Host, name: str) -> None:
    host.deploy(name, "bare", timeout="60s", max_parallel_requests=0)
    with host.dial(name, "/floods"):
        until(lambda: host.function(name)["web"]["open"] == 1)
    host.says(name, "flooded")
    host.idle(name)


def test_a_client_that_does_not_read_makes_the_app_wait(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "PATIENCE", 1.0)
    host.deploy(name, "bare", timeout="30s", max_parallel_requests=0)
    with host.dial(name, "/floods") as line:
        assert line.recv(100)
        host.says(name, "flooded")
    flooded = int(host.said(name).partition("flooded ")[2].split()[0])
    assert flooded < 40 << 20, "the app was not held back"


def test_a_client_that_leaves_in_the_middle_of_its_body_ends_the_work(host: Host, name: str) -> None:
    host.deploy(name, "fast", max_parallel_requests=0)
    with host.dial(name, "/digest", "content-length: 1000000", method="POST") as line:
        line.sendall(b"x" * 200_000)
        until(lambda: host.function(name)["web"]["open"] == 1)
    host.idle(name)
    assert host.function(name)["web"]["answered"] + host.function(name)["web"]["failed"] == 1


def test_a_body_that_hardly_comes_is_given_up(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "PATIENCE", 0.5)
    host.deploy(name, "fast", timeout="30s")
    with host.dial(name, "/digest", "content-length: 1000000", method="POST") as line:
        line.sendall(b"x")
        assert line.recv(100).startswith(b"HTTP/1.1 408 ")
    host.idle(name)


def test_an_instance_that_dies_is_answered_for(host: Host, name: str) -> None:
    app = host.deploy(name, "fast", max_parallel_requests=0)
    assert get(f"{app}/exits").status_code == 502
    assert get(f"{app}/").status_code == 200


def test_an_instance_that_is_killed_cuts_its_answers_off(host: Host, name: str) -> None:
    app = host.deploy(name, "fast", max_instances=1)
    instance = get(f"{app}/pid").json()
    with httpx.stream("GET", f"{app}/counting?pieces=100000&pause=0.01", timeout=30) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == b"0"
        os.kill(instance, signal.SIGKILL)
        with pytest.raises(httpx.RemoteProtocolError):
            for _ in pieces:
                pass
    assert get(f"{app}/pid").json() != instance


def test_requests_wait_for_room_and_not_for_ever(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "START_WAIT", 0.2)
    app = host.deploy(name, "fast", concurrency=1)
    with httpx.stream("GET", f"{app}/counting?pieces=1000&pause=0.05", timeout=30):
        answer = get(f"{app}/")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    host.idle(name)
    assert get(f"{app}/").status_code == 200


def test_one_who_leaves_while_waiting_is_forgotten(host: Host, name: str) -> None:
    app = host.deploy(name, "fast", concurrency=1)
    with httpx.stream("GET", f"{app}/counting?pieces=1000&pause=0.05", timeout=30):
        inside = host.server.running.lobby.inside
        with host.dial(name, "/"):
            until(lambda: host.server.running.lobby.inside == inside + 1)
        until(lambda: host.server.running.lobby.inside == inside)
    host.idle(name)


def test_what_is_no_web_app_says_so(host: Host, name: str) -> None:
    app = host.deploy(name, "event")
    assert get(f"{app}/").status_code == 404


def test_a_web_app_takes_no_tasks(host: Host, fast: str) -> None:
    answer = host.server.post("/v1/functions/fast/invoke", {})
    assert answer.status == 502
    assert "ASGI" in answer.json()["detail"]


def test_a_handler_that_is_neither_is_refused(host: Host, name: str) -> None:
    with pytest.raises(AssertionError, match=r"scope, receive, send"):
        host.deploy(name, "three")


def test_headers_that_are_too_many_are_refused(host: Host, fast: str) -> None:
    head = [f"x-{n}: {'y' * 1000}" for n in range(200)]
    with host.dial("fast", "/", *head) as line, contextlib.suppress(ConnectionResetError):
        assert line.recv(100).startswith(b"HTTP/1.1 400 ")
    assert get(f"{fast}/").status_code == 200


def test_a_hundred_megabytes_pass_without_being_held(host: Host, name: str) -> None:
    app = host.deploy(name, "fast", memory="160MB")

    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * (1 << 20)

    answer = httpx.post(f"{app}/digest", content=pieces(), timeout=60)
    assert answer.json()["size"] == 100 << 20


def test_it_is_private_unless_it_is_public(host: Host, name: str) -> None:
    app = host.deploy(name, "fast", public=False)
    assert get(f"{app}/").status_code == 401
    token = {"authorization": f"Bearer {host.server.running.token}"}
    seen = get(f"{app}/", headers=token).json()
    assert "authorization" not in dict(map(tuple, seen["headers"]))
    host.server.ask("PATCH", f"/v1/functions/{name}", {"public": True})
    seen = get(f"{app}/", headers={"authorization": "Basic mine", "origin": "http://elsewhere.example"}).json()
    assert dict(map(tuple, seen["headers"]))["authorization"] == "Basic mine"


def test_a_host_name_leads_to_its_app_and_to_nothing_else(host: Host, name: str) -> None:
    host.deploy(name, "fast", hosts=[f"{name}.example"])
    url = f"http://127.0.0.1:{host.server.port}"
    seen = get(f"{url}/", headers={"host": f"{name}.example:80"}).json()
    assert (seen["root"], seen["path"]) == ("", "/")
    assert get(f"{url}/v1/functions", headers={"host": f"{name}.example"}).json() == {"detail": "Not Found"}
    assert get(f"{url}/", headers={"host": "other.example"}).status_code == 403
    assert get(host.url(name, "/"), headers={"host": "other.example"}).status_code == 403
    with pytest.raises(AssertionError, match="leads to"):
        host.deploy(f"{name}o", "fast", hosts=[f"{name}.example"])
    host.server.ask("PATCH", f"/v1/functions/{name}", {"hosts": []})
    assert get(f"{url}/", headers={"host": f"{name}.example"}).status_code == 403


def test_a_stranger_hears_of_no_names(host: Host, name: str) -> None:
    host.deploy(name, "fast", public=False)
    answer = get(host.url(f"{name}x", "/"))
    assert answer.status_code == 401
    assert name not in answer.text.replace(f"{name}x", "")
    token = {"authorization": f"Bearer {host.server.running.token}"}
    assert get(host.url(f"{name}x", "/"), headers=token).status_code == 404


def send_on(line: socket.socket) -> None:
    while True:
        line.sendall(b"x")
        time.sleep(0.01)


def test_one_who_sends_on_after_the_answer_is_let_go(host: Host, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.2)
    monkeypatch.setattr(http, "SLOWEST", 1 << 40)
    host.deploy(name, "bare")
    with host.dial(name, "/at-once", "content-length: 1000000", method="POST") as line:
        line.sendall(b"x")
        assert line.recv(1000).startswith(b"HTTP/1.1 200 ")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            send_on(line)


def test_a_connection_that_is_only_opened_harms_nobody(host: Host, fast: str) -> None:
    with socket.create_connection(("127.0.0.1", host.server.port)) as line:
        line.sendall(b"GET /web/fast/ HT")
        assert get(f"{fast}/").status_code == 200
