"""Server-sent events without I/O: pieces of a stream to the events in it."""

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
