"""Who may come in: the token, the name by which the server was addressed, and the page that asks.

A web page that a user visits can make their browser send requests here. It cannot know the token; and a name of its own
that it lets point to this machine (DNS rebinding) is not one of ours.
"""

from collections.abc import Collection, Mapping
from hmac import compare_digest
from ipaddress import ip_address
from typing import Final

from penstock.api.problems import Forbidden, Unauthorized

OPEN: Final = frozenset({"/healthz", "/readyz"})
"""Paths that need no token: they say nothing but whether the server is there."""

_MOST_NAMES: Final = 1000


class Doorman:
    """Check requests. `bound` is the address the server listens at, `names` are further ones that lead to it."""

    def __init__(self, token: str, bound: str, names: Collection[str] = ()) -> None:
        self._credentials = b"Bearer " + token.encode()
        self._names = {"localhost", bound.lower(), *(name.lower() for name in names)}
        self._only_here = bound == "localhost" or _is_loopback(bound)
        self._good: set[bytes] = set()

    def answers_to(self, name: str) -> bool:
        """Say whether a name is one of the server itself."""
        return name in self._names

    def check_host(self, headers: Mapping[bytes, bytes]) -> None:
        """Let a request pass that needs no token, if it was addressed to this server. Raises `Forbidden`."""
        host = headers.get(b"host", b"")
        if host not in self._good:
            self._check_host(host)

    def check(self, path: str, headers: Mapping[bytes, bytes], *, named: bool = False) -> None:
        """Let a request pass; `named` if its host is known to be ours. Raises `Forbidden` or `Unauthorized`."""
        host = headers.get(b"host", b"")
        if not named:
            self.check_host(headers)
        origin = headers.get(b"origin")
        if origin is not None and origin.partition(b"://")[2].lower() != host.lower():
            raise Forbidden(f"A page of {_shown(origin)} asked for this. Only pages of this server itself may.")
        given = headers.get(b"authorization", b"")
        if not compare_digest(given, self._credentials) and path not in OPEN:
            self._check_credentials(given)

    def _check_host(self, host: bytes) -> None:
        name = host_of(host)
        if name not in self._names and not self._is_address(name):
            raise Forbidden(
                f"The request was addressed to {_shown(host)}, which is not a name of this server. "
                "If it is one, start the server with PENSTOCK_HOSTS set to its names, separated by commas."
            )
        if len(self._good) < _MOST_NAMES:
            self._good.add(host)

    def _is_address(self, name: str) -> bool:
        """Tell whether a name is an IP address that the server can have: no page can get one for a name of its own."""
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._only_here

    def _check_credentials(self, given: bytes) -> None:
        scheme, _, token = given.partition(b" ")
        if not token:
            raise Unauthorized(
                "Send the server's token in a header, Authorization: Bearer …; it is in the file `token`."
            )
        if scheme.lower() != b"bearer" or not compare_digest(b"Bearer " + token.strip(), self._credentials):
            raise Unauthorized("The token is not this server's; it is in the file `token` of the data directory.")


def host_of(header: bytes) -> str:
    """Return the name in a Host header, without its port."""
    host = header.decode("latin-1")
    if host.startswith("["):
        name, closed, _ = host[1:].partition("]")
        return name if closed else host
    return host.partition(":")[0].rstrip(".").lower()


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _shown(header: bytes) -> str:
    text = header.decode("latin-1")[:100]
    return f"'{text}'" if text.isprintable() else ascii(text)
