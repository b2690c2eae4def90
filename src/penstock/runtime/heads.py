"""Heads of web requests and of their answers, packed: lines, because neither names nor values may have a line break.

Of a request: method, path and query as they came, version of HTTP, scheme, who asks (host, port), where (host, port), where
the app is mounted, how many subprotocols, these, and then names and values of headers. Of an answer: names and values.
"""

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

_ANSWER = Struct("<HI")


class BadHead(ValueError):
    """Report a header that cannot be sent: it would end where it should not."""


class RequestHead(NamedTuple):
    """Hold the head of a request. `scheme` is http, https, ws or wss; `root` is where the app is mounted ("" at a host).

    `path` is still percent-encoded and begins with `root`; `client` and `server` are (host, port).
    """

    method: str
    path: bytes
    query: bytes
    version: str
    scheme: str
    client: tuple[str, int]
    server: tuple[str, int]
    root: str
    subprotocols: list[str]
    headers: Headers

    @property
    def websocket(self) -> bool:
        """Say whether it asks for a WebSocket."""
        return self.scheme.startswith("ws")


def pack_request(head: RequestHead) -> bytes:
    """Return the head of a request as bytes."""
    fields = (
        f"{head.method}\n{head.version}\n{head.scheme}\n{head.client[0]}\n{head.client[1]}\n{head.server[0]}\n"
        f"{head.server[1]}\n{head.root}\n{len(head.subprotocols)}"
    )
    lines = [head.path, head.query, fields.encode("latin-1", "replace")]
    lines += [one.encode("latin-1", "replace") for one in head.subprotocols]
    for header in head.headers:
        lines += header
    return b"\n".join(lines)


def unpack_request(packed: bytes) -> RequestHead:
    """Return what `pack_request` was given."""
    path, query, *lines = packed.split(b"\n")
    (method, version, scheme, client, client_port, server, server_port, root, count) = [
        line.decode("latin-1") for line in lines[:9]
    ]
    start = 9 + int(count)
    return RequestHead(
        method, path, query, version, scheme, (client, int(client_port)), (server, int(server_port)), root,
        [line.decode("latin-1") for line in lines[9:start]],
        list(zip(lines[start::2], lines[start + 1 :: 2], strict=True)),
    )  # fmt: skip


def pack_headers(headers: "Iterable[tuple[bytes, bytes]]") -> bytes:
    """Return headers as bytes. Raises `BadHead` for one with a line break in it, and for one without a name."""
    lines: list[bytes] = []
    for name, value in headers:
        if not name:
            raise BadHead("a header of the answer has no name")
        lines += (name, value)
    packed = b"\n".join(lines)
    if lines and (packed.count(b"\n") != len(lines) - 1 or b"\r" in packed or b"\0" in packed):
        raise BadHead("a header of the answer has a line break in it")
    return packed


def unpack_headers(packed: bytes) -> Headers:
    """Return the headers that were packed. Raises `BadHead` if they were not."""
    lines = packed.split(b"\n") if packed else []
    if len(lines) % 2:
        raise BadHead("a header of the answer has no value")
    return list(zip(lines[::2], lines[1::2], strict=True))


def pack_answer(status: int, headers: "Iterable[tuple[bytes, bytes]]", body: bytes) -> bytes:
    """Return a whole answer, as the body of an `End`. Raises `BadHead`."""
    packed = pack_headers(headers)
    return b"".join((_ANSWER.pack(status, len(packed)), packed, body))


def unpack_answer(answer: bytes) -> tuple[int, Headers, bytes]:
    """Return status, headers and body of a whole answer. Raises `BadHead` if it is none."""
    if len(answer) < _ANSWER.size:
        raise BadHead("what the instance answered has no head")
    status, length = _ANSWER.unpack_from(answer)
    start = _ANSWER.size + length
    return status, unpack_headers(answer[_ANSWER.size : start]), answer[start:]
