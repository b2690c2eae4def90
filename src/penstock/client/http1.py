"""HTTP/1.1 without I/O: requests to bytes, bytes to responses. Both senders stand on it.

Measured on two cores against a server that does nothing: one POST costs the caller 11 µs of CPU this way (httptools),
76 µs with http.client, 163 µs with urllib3, 407 µs with httpx; asynchronously 13 µs, 91 µs with aiohttp.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

import httptools


class Unsent(Exception):
    """Say that a request never left: nothing was heard and nothing can have been done."""


class Broken(Exception):
    """Say that the connection ended or went silent before the answer was complete."""


class Silent(Broken):
    """Say that no answer came in the time that the call had."""


@dataclass(frozen=True, slots=True)
class Address:
    """Say where a server is: `prefix` is the path before every route, without a slash at its end."""

    host: str
    port: int
    secure: bool
    prefix: str

    @property
    def authority(self) -> str:
        """Return host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(url: str) -> Address:
    """Return the address that a URL names. Raises ValueError for what is not http(s)."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"'{url}' is not the URL of a server; one looks like http://127.0.0.1:7711")
    secure = parts.scheme == "https"
    return Address(parts.hostname, parts.port or (443 if secure else 80), secure, parts.path.rstrip("/"))


@dataclass(slots=True)
class Response:
    """Hold one answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Encoder:
    """Turn requests to one server into bytes; what every request repeats is put together once."""

    def __init__(self, address: Address, token: str | None, agent: str) -> None:
        common = {"Host": address.authority, "User-Agent": agent}
        if token:
            common["Authorization"] = f"Bearer {token}"
        self._prefix = address.prefix
        self._common = "".join(f"{name}: {_checked(value)}\r\n" for name, value in common.items())

    def head(self, method: str, path: str, headers: Iterable[tuple[str, str]], length: int | None) -> bytes:
        """Return a request's head; `length` is the body's in bytes, None if it has no body."""
        own = _within() + "".join([f"{name}: {_checked(value)}\r\n" for name, value in headers])
        if length is not None:
            own = f"{own}Content-Length: {length}\r\n"
        return f"{method} {self._prefix}{path} HTTP/1.1\r\n{self._common}{own}\r\n".encode("latin-1")


def _within() -> str:
    """Return the header that tells from which task a request comes, if this is an instance; else nothing."""
    inside = sys.modules.get("penstock.runtime.within")
    instance = os.environ.get("PENSTOCK_INSTANCE", "")
    return (
        f"Penstock-Within: {instance}.{inside.attempt.get()}\r\n" if inside is not None and instance.isdigit() else ""
    )


def _checked(value: str) -> str:
    if not value.isprintable() or not value.isascii():
        raise ValueError(f"{value!r} cannot stand in a header: it may hold printable ASCII only")
    return value


class ResponseReader:
    """Read the responses of one connection, one at a time."""

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._chunks: list[bytes] = []
        self._keep_alive = False
        self.begun = False
        self.status = 0
        self.complete = False

    def feed(self, data: bytes) -> bool:
        """Take what came in; return whether the response is complete. Raises Broken for what is not HTTP."""
        self.begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise Broken(f"what answered does not speak HTTP/1.1 ({error})") from error
        return self.complete

    def end(self) -> bool:
        """Take the end of the stream; return whether the response is complete (its body may end with the stream)."""
        delimited = "content-length" in self._headers or "transfer-encoding" in self._headers
        self.complete = self.complete or (self.status >= 200 and not delimited)
        return self.complete

    def take(self) -> Response:
        """Return the response, and be ready for the next."""
        response = Response(self.status, self._headers, b"".join(self._chunks))
        self._headers, self._chunks = {}, []
        self.status, self.begun, self.complete = 0, False, False
        return response

    def take_chunk(self) -> bytes:
        """Return what has come of the body since the last call."""
        chunk = b"".join(self._chunks)
        self._chunks.clear()
        return chunk

    @property
    def reusable(self) -> bool:
        """Return whether the connection may carry another request after this response."""
        return self._keep_alive

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header (called by the parser)."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note the status (called by the parser); interim answers (1xx) are not the answer."""
        status = self._parser.get_status_code()
        if status < 200:
            self._headers.clear()
        else:
            self.status = status

    def on_body(self, chunk: bytes) -> None:
        """Keep a piece of the body (called by the parser)."""
        self._chunks.append(chunk)

    def on_message_complete(self) -> None:
        """Note the end of a message (called by the parser)."""
        if self.status:
            self.complete = True
            self._keep_alive = self._parser.should_keep_alive()
