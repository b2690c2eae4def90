"""What the OpenAPI schema says of the hot routes, which FastAPI does not know."""

from typing import Any, Final

from penstock.api.problems import MEDIA_TYPE
from penstock.api.routes.common import problems

_ID: Final = "000001000000002a"

_TASK: Final = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "payload": {"description": "Any JSON; it reaches the handler byte for byte.", "default": None},
        "delay": {"description": "How long to wait, such as 10s, or seconds.", "type": ["string", "number"]},
        "at": {"description": "The moment it is due.", "type": "string", "format": "date-time"},
        "key": {"description": "Sending the same key again makes no second task.", "type": "string", "maxLength": 256},
        "cost": {"description": "What it takes from limits that meter cost.", "type": "number", "default": 1},
        "priority": {"description": "Higher goes first.", "type": "integer", "default": 0},
        "expires_after": {
            "description": "How long it may wait for its start, such as 30s, or seconds; then it ends as expired.",
            "type": ["string", "number"],
        },
    },
    "example": {"payload": {"customer": 42}, "delay": "10s", "key": "order-4711"},
}

_SENT: Final = {
    "type": "object",
    "properties": {
        "ids": {"type": "array", "items": {"type": "string"}, "description": "In the order of the tasks."},
        "duplicates": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "Positions of keys known already.",
        },
        "replaced": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "Positions of tasks that took the place of one with their key (debounce).",
        },
    },
    "example": {"ids": [_ID]},
}


def _path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query(name: str, description: str, example: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string"}, "example": example}


def _answers(good: dict[str, Any], *codes: str) -> dict[str, Any]:
    return {**good, **{str(status): answer for status, answer in problems(*codes).items()}}


def _json(description: str, schema: dict[str, Any], example: Any = None) -> dict[str, Any]:
    content = {"schema": schema} if example is None else {"schema": schema, "example": example}
    return {"description": description, "content": {"application/json": content}}


_SEND: Final = {
    "tags": ["tasks"],
    "operationId": "send_tasks",
    "summary": "Put tasks into a pipeline; they are on disk when the answer comes",
    "description": "One task, a list of them, or one a line (NDJSON). Those of one request become durable together.",
    "parameters": [
        _path("name"),
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "Sending again with the same key makes nothing twice: the key of a single task, or of all together.",
            "schema": {"type": "string", "maxLength": 256},
        },
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"oneOf": [_TASK, {"type": "array", "items": _TASK}]}},
            "application/x-ndjson": {"schema": {"type": "string"}, "example": '{"payload": 1}\n{"payload": 2}\n'},
        },
    },
    "responses": _answers(
        {"202": _json("The ids", _SENT)},
        "bad-request", "not-found", "conflict", "too-large", "queue-full", "unavailable", "disk-full",
    ),
}  # fmt: skip


def _invoke(kind: str) -> dict[str, Any]:
    under = ", under the pipeline's limits" if kind == "pipeline" else ""
    header = {"Penstock-Task": {"description": "The task's id.", "schema": {"type": "string"}}}
    return {
        "tags": ["tasks"],
        "operationId": f"invoke_{kind}",
        "summary": f"Call a {kind} and wait for the result{under}",
        "description": "A task that ends without a result answers with a problem of type /problems/task-failed: 502 if it "
        "failed, 504 if it took too long, 429 if downstream wants it later, 409 if it was cancelled, 503 if it was "
        "interrupted; `outcome`, `task` and `error` say more.",
        "parameters": [_path("name"), _query("timeout", "Bounds waiting and running together.", "30s")],
        "requestBody": {"content": {"application/json": {"schema": {}, "example": {"customer": 42}}}},
        "responses": _answers(
            {
                "200": {**_json("The handler's result", {}, {"total": 12.5}), "headers": header},
                "502": {"description": "The task failed"},
                "504": {"description": "The task took too long"},
            },
            "bad-request", "not-found", "conflict", "too-large", "queue-full", "saturated", "unavailable",
        ),
    }  # fmt: skip


_SHOW: Final = {
    "tags": ["tasks"],
    "operationId": "show_task",
    "summary": "Show a task, or wait for its end",
    "parameters": [_path("task"), _query("wait", "Answer when it has ended, after at most so long.", "20s")],
    "responses": _answers(
        {"200": _json("The task", {"type": "object"}, {"id": _ID, "state": "done", "outcome": "ok", "result": 12.5})},
        "bad-request", "not-found",
    ),
}  # fmt: skip

_HOT: Final = {
    "/v1/pipelines/{name}/tasks": {"post": _SEND},
    "/v1/pipelines/{name}/invoke": {"post": _invoke("pipeline")},
    "/v1/functions/{name}/invoke": {"post": _invoke("function")},
    "/v1/tasks/{task}": {"get": _SHOW},
}


def describe_hot_routes(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the hot routes to a schema, and say of all how to show the token and what problems look like."""
    paths = schema["paths"]
    for path, methods in _HOT.items():
        paths.setdefault(path, {}).update(methods)
    components = schema.setdefault("components", {})
    components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    schema["security"] = [{"token": []}]
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    for methods in paths.values():
        for operation in methods.values():
            _tidy(operation)
    for path in ("/healthz", "/readyz"):
        paths[path]["get"]["security"] = []
    return schema


def _tidy(operation: dict[str, Any]) -> None:
    """Say of an operation what is so here: wrong parameters are bad requests, and what goes wrong is a problem."""
    if operation.get("description", "").rstrip(".") == operation["summary"]:
        del operation["description"]
    responses = operation["responses"]
    if responses.get("422", {}).get("description") == "Validation Error":
        del responses["422"]
        responses.update({str(status): answer for status, answer in problems("bad-request").items()})
    for status, response in responses.items():
        if int(status) >= 400:
            response["content"] = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


_PROBLEM: Final = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "/problems/ and a code that does not change"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    "example": {
        "type": "/problems/not-found",
        "title": "There is nothing of that name",
        "status": 404,
        "detail": "There is no pipeline 'customer'. Did you mean 'customer-a'?",
        "nearest": "customer-a",
    },
}
