"""What a web app is told of a request: who asked, by which name and scheme, and where the app is mounted.

Only a proxy that is trusted may say that it asks for another; what anybody else says of that is replaced. Headers that are
about one connection (RFC 9110, 7.6.1) do not pass, in either direction.
"""

import os
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

from penstock.api.exchange import Scope
from penstock.domain.errors import PenstockError
from penstock.runtime.heads import Headers, RequestHead

PROXIES: Final = "PENSTOCK_PROXIES"
"""The environment variable with the addresses and networks of proxies that are trusted, separated by commas."""

LOOPBACK: Final = "127.0.0.0/8, ::1"

_HOP_BY_HOP: Final = frozenset({
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"trailers", b"transfer-encoding", b"upgrade",
})  # fmt: skip
_FORWARDED: Final = frozenset({b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"})
_OF_PROXIES: Final = frozenset({b"forwarded", b"x-real-ip"})
"""What only proxies say, too, beside all that begins with `x-forwarded-`; of a trusted one it passes as it came."""

_SCHEMES: Final = frozenset({"http", "https"})
_MOST_PEERS: Final = 1000


class Forwarding:
    """Write heads of requests for apps."""

    def __init__(self, trusted: Sequence[IPv4Network | IPv6Network]) -> None:
        self._trusted = trusted
        self._known: dict[str, bool] = {}

    def head_of(self, scope: Scope, root: str, *, private: bool) -> RequestHead:
        """Return the head of a request as the app at `root` sees it; of a private one without the token."""
        peer, port = scope.get("client") or ("", 0)
        dropped = _HOP_BY_HOP | _named(scope["headers"])
        if private:
            dropped |= {b"authorization"}
        believed = self._trusts(peer)
        said: dict[bytes, bytes] = {}
        headers: Headers = []
        host = b""
        for header in scope["headers"]:
            name = header[0]
            if name in _FORWARDED:
                said[name] = said[name] + b", " + header[1] if name in said else header[1]
            elif name not in dropped and (believed or not _is_of_proxies(name)):
                headers.append(header)
                if name == b"host":
                    host = header[1]
        trusted = believed and bool(said)
        client, via = self._client(peer, said) if trusted else (peer, peer.encode())
        scheme: str = said.get(b"x-forwarded-proto", b"").decode("latin-1").strip().lower() if trusted else ""
        if scheme not in _SCHEMES:
            scheme = "https" if scope["scheme"] in {"https", "wss"} else "http"
        headers += (
            (b"x-forwarded-for", via),
            (b"x-forwarded-proto", scheme.encode()),
            (b"x-forwarded-host", said.get(b"x-forwarded-host", host) if trusted else host),
        )
        websocket = scope["type"] == "websocket"
        return RequestHead(
            "GET" if websocket else scope["method"], scope["raw_path"], scope["query_string"], scope["http_version"],
            scheme.replace("http", "ws") if websocket else scheme, (client, port if client == peer else 0),
            tuple(scope.get("server") or ("", 0)), root, list(scope.get("subprotocols", ())), headers,
        )  # fmt: skip

    def _client(self, peer: str, said: dict[bytes, bytes]) -> tuple[str, bytes]:
        """Return the last address before the trusted ones, and what the app is told of all."""
        before = said.get(b"x-forwarded-for", b"")
        via = before + b", " + peer.encode() if before else peer.encode()
        for address in reversed(before.decode("latin-1").split(",")):
            if (named := address.strip()) and not self._trusts(named):
                return named, via
        return peer, via

    def _trusts(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            known = self._find(address)
            if len(self._known) < _MOST_PEERS:
                self._known[address] = known
        return known

    def _find(self, address: str) -> bool:
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._trusted)


def passing(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the headers of an answer that are for the client."""
    return [header for header in headers if header[0].lower() not in _HOP_BY_HOP]


def trusted_proxies() -> list[IPv4Network | IPv6Network]:
    """Return the networks of proxies that are trusted: those named in the environment, or else this machine's own.

    Raises `PenstockError` for what is no network.
    """
    written = os.environ.get(PROXIES, LOOPBACK)
    try:
        return [ip_network(one.strip(), strict=False) for one in written.split(",") if one.strip()]
    except ValueError as error:
        raise PenstockError(
            f"{PROXIES} names what is no address or network: {error}. Write them as 10.0.0.7, 10.0.0.0/8."
        ) from error


def _named(headers: Headers) -> frozenset[bytes]:
    """Return the headers that `Connection` names: they are about this connection, too."""
    named: set[bytes] = set()
    for name, value in headers:
        if name == b"connection" and value.lower() not in {b"keep-alive", b"close", b"upgrade"}:
            named.update(one.strip().lower() for one in value.split(b","))
    return frozenset(named - {b"host"})  # whose request it is, is never about a connection


def _is_of_proxies(name: bytes) -> bool:
    return name in _OF_PROXIES or name.startswith(b"x-forwarded-")
