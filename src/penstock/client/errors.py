"""What a call may end in other than its answer, made from the server's problem documents (RFC 9457).

Every message is the server's own. `except ApiError` catches all of them; the subclasses are what callers tell apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.client.http1 import Response


class ApiError(Exception):
    """Be the base of all that a client raises; `code` is the problem's stable name, `extras` its other members."""

    def __init__(self, message: str, *, code: str = "error", status: int = 0, extras: Mapping[str, Any] | None = None):
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.extras = dict(extras or {})


class ServerUnreachable(ApiError):
    """Report that no server answered. What was being sent may or may not have arrived, unless the message says so."""


class Unauthorized(ApiError):
    """Report a token that is missing or not the server's."""


class Forbidden(ApiError):
    """Report a request that the server does not take from here."""


class BadRequest(ApiError):
    """Report a request that the server could not understand."""


class NotFound(ApiError):
    """Report a name that nothing has; `nearest` is one that something does, or empty."""

    @property
    def nearest(self) -> str:
        """Return the nearest name that exists, or an empty string."""
        return str(self.extras.get("nearest") or "")


class Conflict(ApiError):
    """Report a change that the present state does not allow."""


class TooLarge(ApiError):
    """Report a payload or bundle over its bound."""


class DiskFull(ApiError):
    """Report that the server's disk has no room; nothing of what was sent was kept."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """Name one thing that is wrong in what a user wrote: where, what, and what was probably meant."""

    path: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" + (f" ({self.suggestion})" if self.suggestion else "")


class InvalidSettings(ApiError):
    """Report every mistake of a configuration at once; nothing of it was applied."""

    @property
    def mistakes(self) -> tuple[Mistake, ...]:
        """Return what is wrong, in the order of the configuration."""
        return tuple(
            Mistake(str(each.get("path") or ""), str(each.get("message") or ""), str(each.get("suggestion") or ""))
            for each in self.extras.get("errors", ())
        )


class DeployFailed(ApiError):
    """Report code that does not import, or whose packages cannot be installed; the version that was live stays live."""

    @property
    def traceback(self) -> str:
        """Return where the import failed."""
        return str(self.extras.get("traceback") or "")


class TryLater(ApiError):
    """Report that there is no room now; `retry_after` is in seconds, or None if the server did not say."""

    retry_after: float | None = None


class QueueFull(TryLater):
    """Report that a pipeline holds as many tasks as it may; none of what was sent was kept."""


class Saturated(TryLater):
    """Report that a synchronous call waited for its start as long as it may."""


class Unavailable(TryLater):
    """Report that the server cannot take work now."""


class TaskFailed(ApiError):
    """Report a task that ended without a result.

    `outcome` is one of error, timeout, out_of_memory, crashed, interrupted, throttled, cancelled and expired; `error_type`,
    `error_message` and `traceback` are the handler's, empty where there are none; `task` is the task's id.
    `retry_after` is in seconds, for a task that was throttled.
    """

    retry_after: float | None = None

    @property
    def outcome(self) -> str:
        """Return how the task's last attempt ended."""
        return str(self.extras.get("outcome") or "error")

    @property
    def task(self) -> str:
        """Return the task's id."""
        return str(self.extras.get("task") or "")

    @property
    def error_type(self) -> str:
        """Return the name of the handler's exception, such as `ValueError`."""
        return self._of_error("type")

    @property
    def error_message(self) -> str:
        """Return the message of the handler's exception."""
        return self._of_error("message")

    @property
    def traceback(self) -> str:
        """Return the traceback of the handler's exception."""
        return self._of_error("traceback")

    def _of_error(self, member: str) -> str:
        error = self.extras.get("error")
        return str(error.get(member) or "") if isinstance(error, dict) else ""


class TaskNotEnded(ApiError, TimeoutError):
    """Report that a task had not ended when the caller's patience had; the task goes on."""


_BY_CODE: dict[str, type[ApiError]] = {
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "bad-request": BadRequest,
    "not-found": NotFound,
    "conflict": Conflict,
    "too-large": TooLarge,
    "disk-full": DiskFull,
    "invalid-settings": InvalidSettings,
    "deploy-failed": DeployFailed,
    "try-later": TryLater,
    "queue-full": QueueFull,
    "saturated": Saturated,
    "unavailable": Unavailable,
    "task-failed": TaskFailed,
}


def error_of(response: Response) -> ApiError:
    """Return the error that a response of status 400 or more stands for."""
    try:
        problem = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = None
    if not isinstance(problem, dict) or "type" not in problem:
        start = response.body[:200].decode("utf-8", "replace").strip()
        return ApiError(
            f"The server answered {response.status}, and not in Penstock's words: {start or '(nothing)'}",
            status=response.status,
        )
    code = str(problem["type"]).rsplit("/", 1)[-1]
    message = str(problem.get("detail") or problem.get("title") or f"The server answered {response.status}.")
    extras = {name: value for name, value in problem.items() if name not in {"type", "title", "status", "detail"}}
    error = _BY_CODE.get(code, ApiError)(message, code=code, status=response.status, extras=extras)
    if isinstance(error, TryLater | TaskFailed):
        error.retry_after = _seconds(response.headers.get("retry-after"))
    return error


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None
