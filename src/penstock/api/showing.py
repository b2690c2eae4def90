"""`GET /v1/tasks/{id}`: a task as it stands, or when it has ended."""

from typing import Final

from penstock.api.exchange import JSON, Receive, Scope, Send, answer, query_of, seconds_of, unless_gone
from penstock.api.lobby import Lobby
from penstock.api.names import task_id_of
from penstock.api.views import encode, task_view
from penstock.engine.engine import Engine

MOST_WAIT: Final = 60.0
"""How long (seconds) one request may wait for a task; whoever wants to wait longer asks again."""


async def show_task(engine: Engine, lobby: Lobby, name: str, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a task, waiting for its end as long as the request says."""
    task_id = task_id_of(name)
    wait = seconds_of("wait", query_of(scope).get("wait"))
    stored = None
    if wait:
        stored = await unless_gone(receive, lobby.wait(engine.task(task_id, min(wait, MOST_WAIT))))
    if stored is None:
        stored = await engine.task(task_id)
    await answer(send, 200, encode(task_view(engine, stored)), JSON)
