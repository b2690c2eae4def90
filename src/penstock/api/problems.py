"""What went wrong, as RFC 9457 problem documents. The one table of codes, statuses and titles."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Final

import msgspec

from penstock.domain.errors import DeployFailed, InvalidSettings, NotFound, PenstockError, TryLater
from penstock.domain.task import Attempt, Outcome, name_of
from penstock.engine.visits import Over

MEDIA_TYPE: Final = "application/problem+json"

TABLE: Final[Mapping[str, tuple[int, str]]] = {
    "bad-request": (400, "The request was not understood"),
    "unauthorized": (401, "The token is missing or wrong"),
    "forbidden": (403, "Requests from there are not taken"),
    "not-found": (404, "There is nothing of that name"),
    "method-not-allowed": (405, "The route does not take this method"),
    "too-slow": (408, "The client is too slow"),
    "conflict": (409, "The present state does not allow it"),
    "too-large": (413, "It is too large"),
    "invalid-settings": (422, "The settings are not valid"),
    "deploy-failed": (422, "The code cannot be deployed"),
    "queue-full": (429, "The pipeline is full"),
    "error": (500, "The server failed"),
    "internal": (500, "The server failed"),
    "try-later": (503, "There is no room now"),
    "saturated": (503, "The call could not start in time"),
    "unavailable": (503, "The server takes no work now"),
    "fenced": (503, "Another server has taken over"),
    "locked": (503, "Another server has the data directory"),
    "disk-full": (507, "The disk is full"),
}

FAILED: Final[Mapping[Outcome, tuple[int, str]]] = {
    Outcome.ERROR: (502, "The task failed"),
    Outcome.CRASHED: (502, "The task's instance ended while it ran"),
    Outcome.OUT_OF_MEMORY: (502, "The task ran out of memory"),
    Outcome.TIMEOUT: (504, "The task took too long"),
    Outcome.EXPIRED: (504, "The task waited too long"),
    Outcome.THROTTLED: (429, "Downstream asks to try later"),
    Outcome.CANCELLED: (409, "The task was cancelled"),
    Outcome.INTERRUPTED: (503, "The task was interrupted"),
}


VISITS: Final[Mapping[Outcome, tuple[int, str]]] = {
    Outcome.OK: (502, "The app gave no answer"),
    Outcome.ERROR: (500, "The app failed"),
    Outcome.CRASHED: (502, "The app's instance ended"),
    Outcome.OUT_OF_MEMORY: (502, "The app ran out of memory"),
    Outcome.TIMEOUT: (504, "The app took too long"),
    Outcome.EXPIRED: (504, "The request waited too long"),
    Outcome.THROTTLED: (429, "The app asks to try later"),
    Outcome.CANCELLED: (503, "The request was cancelled"),
    Outcome.INTERRUPTED: (503, "The app's instance ended"),
}


class Unauthorized(PenstockError):
    """Report a token that is missing or not the server's."""

    code = "unauthorized"


class Forbidden(PenstockError):
    """Report a request that comes from, or was addressed to, a place that it must not."""

    code = "forbidden"


class MethodNotAllowed(PenstockError):
    """Report a method that a route does not take; `allowed` are those it does."""

    code = "method-not-allowed"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Problem:
    """Hold a problem document and the headers that go with it."""

    code: str
    status: int
    title: str
    detail: str
    extras: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the document as JSON."""
        head = {"type": f"/problems/{self.code}", "title": self.title, "status": self.status, "detail": self.detail}
        return msgspec.json.encode({**head, **self.extras})


INTERNAL: Final = Problem(
    "internal",
    *TABLE["internal"],
    "Something is wrong with the server itself; its log says what. Nothing is known to be lost.",
)


def problem_of(error: PenstockError) -> Problem:
    """Return what a client gets to see of an error."""
    status, title = TABLE.get(error.code, TABLE["error"])
    extras: dict[str, Any] = {}
    headers: dict[str, str] = {}
    if isinstance(error, InvalidSettings):
        extras["errors"] = [
            {"path": one.path, "message": one.message, "suggestion": one.suggestion} for one in error.mistakes
        ]
    elif isinstance(error, NotFound):
        extras["nearest"] = error.nearest
    elif isinstance(error, DeployFailed):
        extras["traceback"] = error.traceback
    elif isinstance(error, TryLater):
        headers["Retry-After"] = _whole_seconds(error.retry_after)
    elif isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, MethodNotAllowed):
        headers["Allow"] = error.allowed
    return Problem(error.code, status, title, error.message, extras, headers)


def problem_of_attempt(attempt: Attempt, retry_after: float) -> Problem:
    """Return what the caller of a task gets that ended without a result; `retry_after` (seconds) is for one throttled."""
    status, title = FAILED[attempt.outcome]
    task = name_of(attempt.task.id)
    error = msgspec.json.decode(attempt.body) if attempt.body else None
    words = [str(error[name]) for name in ("type", "message") if error.get(name)] if isinstance(error, dict) else []
    said = ": ".join(["", *words]) if words else "."
    headers = {"Penstock-Task": task}
    if status in {429, 503}:
        headers["Retry-After"] = _whole_seconds(retry_after)
    extras = {"outcome": attempt.outcome.value, "task": task, "error": error}
    return Problem("task-failed", status, title, f"{title}{said}", extras, headers)


def problem_of_visit(function: str, over: Over | None) -> Problem:
    """Return what a visitor gets of a web app that did not answer; None: what it answered is no HTTP. Its log says more."""
    outcome = Outcome.ERROR if over is None else over.outcome
    status, title = VISITS[outcome]
    error = msgspec.json.decode(over.body) if over is not None and outcome is Outcome.ERROR else {}
    if error.get("type") == "NoWebApp":
        return Problem("not-found", 404, TABLE["not-found"][1], f"The function '{function}' is no web app.")
    headers = {"Retry-After": "1"} if status in {429, 503} else {}
    return Problem(
        "app-failed", status, title, f"{title}; its log says more: penstock logs --function {function}", {}, headers
    )


def _whole_seconds(seconds: float) -> str:
    return str(max(1, ceil(seconds)))
