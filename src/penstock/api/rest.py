"""The FastAPI application behind the hot routes: its routers, and its errors as problem documents."""

import inspect
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from penstock import __version__
from penstock.api.exchange import ClientGone
from penstock.api.lobby import Lobby
from penstock.api.problems import INTERNAL, MEDIA_TYPE, MethodNotAllowed, Problem, problem_of
from penstock.api.routes import functions, limits, maps, pipelines, pools, tasks, whole
from penstock.api.schema import describe_hot_routes
from penstock.domain.errors import BadRequest, PenstockError
from penstock.engine.engine import Engine

CLIENT_GONE: Final = 499
"""What is answered to nobody."""


def make_rest(engine: Engine, lobby: Lobby) -> FastAPI:
    """Return the application for all routes that are not hot, and the schema of all that are there."""
    rest = FastAPI(
        title="Penstock",
        version=__version__,
        description="Functions, pipelines with limits of their own, and the tasks that flow through them.",
        openapi_url="/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    rest.state.engine, rest.state.lobby, rest.state.since = engine, lobby, engine.plant.clock()
    for room in (functions, pipelines, tasks, maps, limits, pools, whole):
        _take_summaries(room.router)
        rest.include_router(room.router)
    rest.add_exception_handler(PenstockError, _penstock_error)
    rest.add_exception_handler(RequestValidationError, _invalid_request)
    rest.add_exception_handler(HTTPException, _http_error)
    rest.add_exception_handler(ClientGone, _client_gone)
    rest.add_exception_handler(Exception, _failure)
    generate = rest.openapi

    def openapi() -> dict[str, Any]:
        if rest.openapi_schema is None:
            rest.openapi_schema = describe_hot_routes(generate())
        return rest.openapi_schema

    rest.openapi = openapi  # type: ignore[method-assign] # as FastAPI's documentation has it
    return rest


def _take_summaries(router: APIRouter) -> None:
    """Let the first line of each function's docstring be what the schema calls its route."""
    for route in router.routes:
        if isinstance(route, APIRoute):
            summary, _, route.description = inspect.cleandoc(route.endpoint.__doc__ or "").partition("\n\n")
            route.summary = summary.rstrip(".")


def respond(problem: Problem) -> Response:
    """Return a problem as an answer."""
    return Response(problem.encode(), problem.status, dict(problem.headers), MEDIA_TYPE)


async def _penstock_error(_request: Request, error: Exception) -> Response:
    return respond(problem_of(error) if isinstance(error, PenstockError) else INTERNAL)


async def _invalid_request(_request: Request, error: Exception) -> Response:
    """Tell every mistake in path, query and headers at once."""
    mistakes = [
        {"path": str(one["loc"][-1]), "message": one["msg"], "suggestion": ""}
        for one in (error.errors() if isinstance(error, RequestValidationError) else ())
    ]
    detail = "; ".join(f"{one['path']}: {one['message']}" for one in mistakes)
    problem = problem_of(BadRequest(f"The request's parameters are wrong: {detail}."))
    return respond(Problem(problem.code, problem.status, problem.title, problem.detail, {"errors": mistakes}))


async def _http_error(request: Request, error: Exception) -> Response:
    """Answer a path that no route has, and a method that a route does not take."""
    headers = error.headers if isinstance(error, HTTPException) and error.headers else {}
    what = f"{request.method} {request.url.path}"
    if isinstance(error, HTTPException) and error.status_code == 405:
        return respond(problem_of(MethodNotAllowed(f"There is no {what}.", headers.get("Allow", ""))))
    if isinstance(error, HTTPException) and error.status_code != 404:
        return respond(problem_of(BadRequest(f"{what} cannot be answered: {error.detail}.")))
    detail = f"There is no route {what}. GET /v1/openapi.json describes those that there are."
    return respond(Problem("not-found", 404, "There is nothing of that name", detail, {"nearest": ""}))


async def _client_gone(_request: Request, _error: Exception) -> Response:
    return Response(status_code=CLIENT_GONE)


async def _failure(_request: Request, _error: Exception) -> Response:
    return respond(INTERNAL)
