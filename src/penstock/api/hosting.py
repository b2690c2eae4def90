"""`/web/{f}/…`, and host names of functions: which app a request is for, who may use it, and how it gets there.

A function that is not `public` wants the server's token, which its app does not see.
"""

import logging
from typing import Final

from penstock.api.doorman import Doorman, host_of
from penstock.api.exchange import Headers, Receive, Scope, Send, answer, answer_problem
from penstock.api.forwarding import Forwarding
from penstock.api.lobby import Lobby
from penstock.api.problems import INTERNAL, Problem, problem_of
from penstock.api.relaying import relay
from penstock.api.sockets import refuse, relay_socket
from penstock.domain.errors import NotFound, PenstockError
from penstock.domain.mistakes import nearest
from penstock.engine.engine import Engine
from penstock.engine.model import DIRECT, Function, direct
from penstock.runtime.heads import pack_request

PREFIX: Final = "/web/"

log: Final = logging.getLogger(__name__)


class Hosting:
    """Let requests and WebSockets reach the apps."""

    def __init__(self, engine: Engine, doorman: Doorman, lobby: Lobby, forwarding: Forwarding) -> None:
        self._engine = engine
        self._doorman = doorman
        self._lobby = lobby
        self._forwarding = forwarding

    def owns(self, path: str, headers: Headers) -> bool:
        """Say whether a request is for an app: by its path, or by a host name that is an app's."""
        return path.startswith(PREFIX) or self._hosted(headers) is not None

    def _hosted(self, headers: Headers) -> str | None:
        """Return the function whose host name a request is addressed to; the server's own names are nobody else's."""
        hosts = self._engine.plant.hosts
        if not hosts:
            return None
        host = host_of(headers.get(b"host", b""))
        return None if self._doorman.answers_to(host) else hosts.get(host)

    async def __call__(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Let the app answer one request, or serve one WebSocket."""
        try:
            self._lobby.enter()
        except PenstockError as error:
            await self._refuse(scope, send, problem_of(error))
            return
        self._lobby.calls += 1  # the engine ends them
        try:
            await self._answer(scope, headers, receive, send)
        except PenstockError as error:
            await self._refuse(scope, send, problem_of(error))
        except Exception:
            log.exception("A request to %s failed", scope["path"])
            await self._refuse(scope, send, INTERNAL)
        finally:
            self._lobby.calls -= 1
            self._lobby.leave()

    async def _answer(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        """Find the app and relay to it. Raises what says why it cannot be."""
        function, alias, root = self._find(scope, headers)
        if not function.spec.public:
            self._doorman.check(scope["path"], headers, named=not root)
        elif root:
            self._doorman.check_host(headers)
        if scope["path"] == root:
            await _redirect(scope, send)
            return
        head = pack_request(self._forwarding.head_of(scope, root, private=not function.spec.public))
        pipeline = direct(function.name, alias or None)
        if scope["type"] == "websocket":
            await relay_socket(self._engine.visits, pipeline, head, scope, receive, send)
        else:
            await relay(self._engine.visits, pipeline, head, scope, headers, receive, send)

    def _find(self, scope: Scope, headers: Headers) -> tuple[Function, str, str]:
        """Return the function that a request is for, the alias that it names, and where it is mounted.

        Raises `NotFound`, but for one without the token what the doorman has to say.
        """
        plant = self._engine.plant
        name = self._hosted(headers)
        root = ""
        if name is None:
            raw: bytes = scope["raw_path"]
            if not raw.startswith(b"/web/"):  # of WebSockets, any may come here
                self._doorman.check(scope["path"], headers)
                raise NotFound("web app", scope["path"])
            name = raw.split(b"/", 3)[2].decode("latin-1")
            root = PREFIX + name
        name, _, alias = name.partition(DIRECT)
        function = plant.functions.get(name)
        if function is None:
            self._doorman.check(scope["path"], headers)  # a stranger hears of no names
            raise NotFound("function", name, nearest(name, plant.functions))
        return function, alias, root

    @staticmethod
    async def _refuse(scope: Scope, send: Send, problem: Problem) -> None:
        if scope["type"] == "websocket":
            await refuse(send, problem)
        else:
            await answer_problem(send, problem)


async def _redirect(scope: Scope, send: Send) -> None:
    """Lead from the app's root to its first page, to which what that links to is relative."""
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    await answer(send, 308, b"", (b"location", scope["raw_path"] + b"/" + query))
