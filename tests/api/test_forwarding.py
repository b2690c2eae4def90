"""What an app is told of who asks: nobody but a trusted proxy can say that another does."""

from ipaddress import ip_network
from typing import Any

import pytest

from penstock.api.forwarding import PROXIES, Forwarding, passing, trusted_proxies
from penstock.domain.errors import PenstockError
from penstock.runtime.heads import RequestHead

FORWARDING = Forwarding([ip_network("10.0.0.0/8")])


def head(peer: str, *headers: tuple[bytes, bytes], private: bool = False, **scope: Any) -> RequestHead:
    whole = {
        "type": "http", "method": "GET", "http_version": "1.1", "scheme": "http", "client": (peer, 5), "server": ("s", 80),
        "raw_path": b"/web/f/", "query_string": b"", "headers": [(b"host", b"here"), *headers], **scope,
    }  # fmt: skip
    return FORWARDING.head_of(whole, "/web/f", private=private)


FORGED = ((b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-host", b"else"))


def test_a_stranger_cannot_pose_as_another() -> None:
    told = head("9.9.9.9", *FORGED)
    assert (told.client, told.scheme) == (("9.9.9.9", 5), "http")
    assert told.headers == [
        (b"host", b"here"), (b"x-forwarded-for", b"9.9.9.9"), (b"x-forwarded-proto", b"http"), (b"x-forwarded-host", b"here"),
    ]  # fmt: skip


def test_what_else_only_proxies_say_is_believed_of_them_alone() -> None:
    said = [(b"forwarded", b"for=1.1.1.1"), (b"x-real-ip", b"1.1.1.1"), (b"x-forwarded-prefix", b"/a")]
    assert not {name for name, _ in said} & {name for name, _ in head("9.9.9.9", *said).headers}
    assert [one for one in head("10.0.0.1", *said).headers if one in said] == said


def test_a_trusted_proxy_is_believed_and_what_came_before_it_is_not() -> None:
    told = head("10.0.0.1", (b"x-forwarded-for", b"6.6.6.6, 1.1.1.1"), (b"x-forwarded-for", b"10.0.0.2"), *FORGED[1:])
    assert (told.client, told.scheme) == (("1.1.1.1", 0), "https")
    assert (b"x-forwarded-for", b"6.6.6.6, 1.1.1.1, 10.0.0.2, 10.0.0.1") in told.headers
    assert (b"x-forwarded-host", b"else") in told.headers


def test_nonsense_is_not_believed() -> None:
    told = head("10.0.0.1", (b"x-forwarded-proto", b"gopher"), (b"x-forwarded-for", b"10.0.0.2"))
    assert (told.client[0], told.scheme) == ("10.0.0.1", "http")


def test_no_header_takes_the_host_away_and_each_names_its_own() -> None:
    told = head(
        "9.9.9.9", (b"connection", b"host, x-one"), (b"connection", b"x-two"), (b"x-one", b"1"), (b"x-two", b"2")
    )
    assert [name for name, _ in told.headers if name in {b"host", b"x-one", b"x-two"}] == [b"host"]


def test_what_is_about_one_connection_does_not_pass() -> None:
    told = head("9.9.9.9", (b"connection", b"close, X-Mine"), (b"x-mine", b"1"), (b"te", b"x"), (b"upgrade", b"h2c"))
    assert {name for name, _ in told.headers} == {
        b"host",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
    }
    assert passing([(b"Connection", b"close"), (b"transfer-encoding", b"chunked"), (b"a", b"b")]) == [(b"a", b"b")]


@pytest.mark.parametrize("private", [True, False])
def test_the_token_of_a_private_app_stays_here(private: bool) -> None:
    told = head("9.9.9.9", (b"authorization", b"Bearer token"), private=private)
    assert any(name == b"authorization" for name, _ in told.headers) is not private


def test_a_websocket_keeps_its_scheme() -> None:
    told = head("9.9.9.9", type="websocket", scheme="wss", subprotocols=["a"])
    assert (told.scheme, told.websocket, told.subprotocols) == ("wss", True, ["a"])
    assert (b"x-forwarded-proto", b"https") in told.headers


def test_trusted_proxies_are_named_or_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PROXIES, raising=False)
    assert [str(one) for one in trusted_proxies()] == ["127.0.0.0/8", "::1/128"]
    monkeypatch.setenv(PROXIES, "10.0.0.7, fd00::/8")
    assert [str(one) for one in trusted_proxies()] == ["10.0.0.7/32", "fd00::/8"]
    monkeypatch.setenv(PROXIES, "here")
    with pytest.raises(PenstockError, match=PROXIES):
        trusted_proxies()
