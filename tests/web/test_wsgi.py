"""WSGI apps as their visitors see them: a bare one, Flask and Django."""

import hashlib

import httpx
import pytest
from tests.web.hosting import Host, get


@pytest.fixture(scope="module")
def bare(host: Host) -> str:
    return host.deploy("wsgi", "wsgi")


def test_an_app_is_told_where_it_is_and_who_asks(bare: str) -> None:
    assert get(f"{bare}/a%20b?q=1").text == "/web/wsgi|/a b|q=1|127.0.0.1"


@pytest.mark.parametrize("slots", [0, 4])
def test_a_body_is_read_as_it_comes(host: Host, name: str, slots: int) -> None:
    app, body = host.deploy(name, "wsgi", max_parallel_requests=slots), bytes(range(256)) * 12_000
    answer = httpx.post(f"{app}/digest", content=iter([body[:1_000_000], body[1_000_000:]]), timeout=30)
    assert answer.text == hashlib.sha256(body).hexdigest()


def test_an_app_that_fails_is_answered_for_and_logged(host: Host, bare: str) -> None:
    answer = get(f"{bare}/fails")
    assert answer.status_code == 500
    assert "on purpose" not in answer.text
    host.says("wsgi", "ValueError: on purpose")


@pytest.mark.parametrize("slots", [0, 4])
def test_a_client_that_leaves_closes_the_iterable(host: Host, name: str, slots: int) -> None:
    host.deploy(name, "wsgi", max_parallel_requests=slots)
    with host.dial(name, "/closes") as line:
        assert line.recv(100).startswith(b"HTTP/1.1 200 ")
    host.says(name, "closed")
    host.idle(name)


def test_one_that_overstays_is_ended(host: Host, name: str) -> None:
    app = host.deploy(name, "wsgi", timeout="300ms", max_parallel_requests=4)
    assert get(f"{app}/sleeps").status_code == 504
    assert get(f"{app}/").status_code == 200


def test_flask(host: Host, name: str) -> None:
    app = host.deploy(name, "flask")
    answer = httpx.post(f"{app}/form", data={"a": "1"}, files={"f": b"x" * 300_000}, timeout=30)
    assert answer.json() == {"form": {"a": "1"}, "files": {"f": 300_000}}
    assert get(f"{app}/url?x=1").json() == {
        "url": f"{app}/url?x=1", "root": f"/web/{name}", "path": "/url", "client": "127.0.0.1",
    }  # fmt: skip
    assert get(f"{app}/lines").text.count("\n") == 1000
    assert httpx.head(f"{app}/url", timeout=30).status_code == 200


def test_django(host: Host, name: str) -> None:
    app = host.deploy(name, "django")
    answer = httpx.post(f"{app}/posted/you?x=1", content=b"hello", timeout=30)
    assert answer.json() == {"name": "you", "body": "hello", "url": f"{app}/posted/you?x=1"}
    assert get(f"{app}/none").status_code == 404
