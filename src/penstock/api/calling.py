"""`POST …/invoke`: the body in, the result out, under the pipeline's limits. A caller that goes away cancels its task.

The body has to be JSON and is refused if it is not, so that a handler never meets one that it cannot read; that costs
a microsecond for each kilobyte. An empty body is null.
"""

from penstock.api.exchange import (
    JSON,
    Headers,
    Receive,
    Scope,
    Send,
    answer,
    answer_problem,
    check_json,
    query_of,
    read_body,
    seconds_of,
    unless_gone,
)
from penstock.api.lobby import Lobby
from penstock.api.problems import problem_of_attempt
from penstock.domain.errors import BadRequest
from penstock.domain.task import Outcome
from penstock.engine.engine import Engine
from penstock.engine.model import MOST_CALL_PAYLOAD


async def invoke(
    engine: Engine, lobby: Lobby, name: str, scope: Scope, headers: Headers, receive: Receive, send: Send
) -> None:
    """Run one task through a pipeline and answer with its result."""
    timeout = seconds_of("timeout", query_of(scope).get("timeout"))
    if timeout == 0:
        raise BadRequest("A call with a timeout of 0 could never be answered. Leave it out for the function's own.")
    body = await read_body(receive, headers, MOST_CALL_PAYLOAD)
    if body:
        check_json(body, "The body")
    lobby.calls += 1
    try:
        attempt = await unless_gone(receive, engine.intake.call(name, body or b"null", timeout))
    finally:
        lobby.calls -= 1
    if attempt.outcome is Outcome.OK:
        task = (b"penstock-task", b"%016x" % attempt.task.id)
        await answer(send, 200, attempt.body or b"null", JSON, task)
    else:
        await answer_problem(send, problem_of_attempt(attempt, _held_for(engine, name)))


def _held_for(engine: Engine, name: str) -> float:
    """Return for how long (seconds) downstream holds a pipeline or one of its limits."""
    pipeline = engine.plant.admission.pipelines.get(name)
    held = max((gate.held_until for gate in pipeline.gates), default=0.0) if pipeline is not None else 0.0
    return max(1.0, held - engine.plant.clock())
