"""The ASGI application: checks who asks, answers the hot routes itself, and hands the rest to FastAPI.

A hot route is one that every task passes: it costs no model, no routing table and no copy of the payload.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from penstock.api.calling import invoke
from penstock.api.doorman import OPEN, Doorman
from penstock.api.exchange import ClientGone, Headers, Receive, Scope, Send, answer_problem
from penstock.api.hosting import Hosting
from penstock.api.lobby import Lobby
from penstock.api.names import pipeline_of
from penstock.api.problems import INTERNAL, MethodNotAllowed, problem_of
from penstock.api.sending import send_tasks
from penstock.api.showing import show_task
from penstock.domain.errors import PenstockError
from penstock.engine.engine import Engine

Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HOT: Final = frozenset({("pipelines", "tasks"), ("pipelines", "invoke"), ("functions", "invoke")})

WITHIN: Final = b"penstock-within"
"""The header by which a client in a handler tells the task."""

log: Final = logging.getLogger(__name__)


class Front:
    """Answer requests. `rest` is the application behind the hot routes."""

    def __init__(self, engine: Engine, doorman: Doorman, lobby: Lobby, hosting: Hosting, rest: Application) -> None:
        self._engine = engine
        self._doorman = doorman
        self._lobby = lobby
        self._hosting = hosting
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path: str = scope["path"]
        headers = dict(scope["headers"])
        if scope["type"] == "websocket" or self._hosting.owns(path, headers):
            await self._hosting(scope, headers, receive, send)
            return
        try:
            self._doorman.check(path, headers)
            if path in OPEN:
                await self._rest(scope, receive, send)
                return
            self._lobby.enter()
        except PenstockError as error:
            await answer_problem(send, problem_of(error))
            return
        errand = self._engine.errands.enter(headers[WITHIN]) if WITHIN in headers else None
        if errand is not None:
            send = errand.around(send)
        try:
            work = self._hot(path, headers, scope, receive, send)
            await (self._pass_on(scope, receive, send) if work is None else work)
        except PenstockError as error:
            await answer_problem(send, problem_of(error))
        except ClientGone:
            pass
        except Exception:
            log.exception("%s %s failed", scope["method"], path)
            await answer_problem(send, INTERNAL)
        finally:
            self._lobby.leave()
            if errand is not None:
                errand.leave()

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let FastAPI answer, problems included; what it could not answer well is logged here."""
        try:
            await self._rest(scope, receive, send)
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"])

    def _hot(self, path: str, headers: Headers, scope: Scope, receive: Receive, send: Send) -> Awaitable[None] | None:
        """Return the work of a hot route; None for a path that is none. Raises `NotFound` and `MethodNotAllowed`."""
        parts = path.split("/")
        if len(parts) == 5 and parts[1] == "v1" and (parts[2], parts[4]) in HOT:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{path} takes POST, not {scope['method']}.", "POST")
            pipeline = pipeline_of(parts[2], parts[3])
            if parts[4] == "tasks":
                return send_tasks(self._engine, pipeline, headers, receive, send)
            return invoke(self._engine, self._lobby, pipeline, scope, headers, receive, send)
        if len(parts) == 4 and parts[1] == "v1" and parts[2] == "tasks" and scope["method"] == "GET":
            return show_task(self._engine, self._lobby, parts[3], scope, receive, send)
        return None
