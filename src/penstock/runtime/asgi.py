"""Serve an ASGI app: one event loop, up to `slots` requests and WebSockets in it at once.

Lifespan: startup is over before the first request is asked for, shutdown runs when the last one has ended. Whose client
leaves gets `http.disconnect` or `websocket.disconnect`, an OSError from its next send, and is cancelled by the server if it
goes on (https://asgi.readthedocs.io, HTTP and WebSocket 2.4).
"""

from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import unquote

from penstock.runtime.channel import Channel
from penstock.runtime.context import Place
from penstock.runtime.coroutines import Coroutines
from penstock.runtime.frames import Close, Credit, Piece, Word
from penstock.runtime.heads import RequestHead, unpack_request
from penstock.runtime.lifespan import Lifespan
from penstock.runtime.results import Result
from penstock.runtime.serving import Execution, WebApp, now
from penstock.runtime.sockets import WebSocketVisit
from penstock.runtime.visits import HttpVisit, Visiting

_VERSIONS: Final = {"version": "3.0", "spec_version": "2.4"}


class Asgi(Coroutines):
    """Run web requests as tasks of one event loop."""

    def __init__(self, channel: Channel, handler: Callable[..., Any], place: Place, slots: int) -> None:
        super().__init__(channel, handler, place, slots)
        self._open: dict[int, Visiting] = {}
        self._lifespan = Lifespan(handler)

    def prepare(self) -> None:
        """Make the loop, and let the app start up. Raises `StartupFailed`."""
        super().prepare()
        self._loop.run_until_complete(self._lifespan.start())

    def serve(self) -> None:
        """Serve until there is nothing left to do after a stop; then let the app shut down."""
        super().serve()
        self._loop.run_until_complete(self._lifespan.stop())

    def told(self, word: Word) -> None:
        """Take what comes for a request."""
        visit = self._open.get(word.attempt)
        if visit is None:
            return
        if isinstance(word, Piece):
            visit.feed(word)
        elif isinstance(word, Credit):
            visit.credit(word.granted)
        elif isinstance(word, Close):
            visit.leave(word.code, word.reason)

    def call(self, execution: Execution) -> Coroutine[Any, Any, Any]:
        """Call the app with a request."""
        if execution.visit is None:
            raise WebApp("the handler is an ASGI app: it answers web requests and takes no events")
        attempt, head = execution.opened.attempt, unpack_request(execution.visit.head)
        visit: Visiting
        if head.websocket:
            visit = WebSocketVisit(attempt, self)
        else:
            visit = HttpVisit(attempt, self, execution.payload, execution.visit.more)
        self._open[attempt] = visit
        scope = _scope_of(head)
        if self._lifespan.state is not None:
            scope["state"] = self._lifespan.state.copy()
        execution.started = now()
        work: Coroutine[Any, Any, Any] = self.handler(scope, visit.receive, visit.send)
        return work

    def conclude(self, execution: Execution, value: Any) -> Result:  # noqa: ARG002 - an app returns nothing
        """Return what the request came to."""
        visit = self._open[execution.opened.attempt]
        return visit.finish()

    def encode_end(self, execution: Execution, result: Result) -> bytes:
        """Forget the request, and return the frames that tell of its end."""
        visit = self._open.pop(execution.opened.attempt, None)
        if visit is not None:
            visit.end()
        return super().encode_end(execution, result)


def _scope_of(head: RequestHead) -> dict[str, Any]:
    path = head.path.decode("latin-1")
    scope: dict[str, Any] = {
        "type": "websocket" if head.websocket else "http",
        "asgi": _VERSIONS,
        "http_version": head.version,
        "server": head.server,
        "client": head.client,
        "scheme": head.scheme,
        "root_path": head.root,
        "path": unquote(path) if "%" in path else path,
        "raw_path": head.path,
        "query_string": head.query,
        "headers": head.headers,
    }
    if head.websocket:
        scope["subprotocols"] = head.subprotocols
        scope["extensions"] = {"websocket.http.response": {}}
    else:
        scope["method"] = head.method
    return scope
