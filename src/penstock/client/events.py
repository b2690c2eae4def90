"""Streams without I/O: pieces of one to the server-sent events, or the lines, in it."""

from penstock.client.http1 import Response


class EventReader:
    """Cut a stream of `text/event-stream` into the data of its events; comments, which keep it alive, are passed over."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[Response]:
        """Take a piece of the stream; return the events that it completes."""
        events = []
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            text = line.removesuffix(b"\r")
            if text.startswith(b"data:"):
                self._data.append(text[5:].removeprefix(b" "))
            elif not text and self._data:
                events.append(Response(200, {}, b"\n".join(self._data)))
                self._data = []
        return events


class LineReader:
    """Cut a stream of NDJSON into its lines; empty ones, which keep it alive, are passed over."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, chunk: bytes) -> list[Response]:
        """Take a piece of the stream; return the lines that it completes."""
        if b"\n" not in chunk:
            self._rest.append(chunk)
            return []
        *lines, rest = b"".join([*self._rest, chunk]).split(b"\n")
        self._rest = [rest]
        return [Response(200, {}, line) for line in lines if line]
