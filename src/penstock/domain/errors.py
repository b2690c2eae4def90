"""The one hierarchy of errors. Each message says what happened, what it means and what to do.

Surfaces translate them at the border (`api` to RFC 9457 problems); nothing below the border knows of HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass


class PenstockError(Exception):
    """Be the base of all that Penstock raises on purpose; `code` is its stable name in the API."""

    code = "error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Mistake:
    """Name one thing that is wrong in what a user wrote: where, what, and what was probably meant."""

    path: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" + (f" ({self.suggestion})" if self.suggestion else "")


class InvalidSettings(PenstockError):
    """Report every mistake of a configuration at once; nothing of it was applied."""

    code = "invalid-settings"

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(map(str, mistakes)))
        self.mistakes = tuple(mistakes)


class BadRequest(PenstockError):
    """Report a request that cannot be understood."""

    code = "bad-request"


class NotFound(PenstockError):
    """Report a name that nothing has, with the nearest one that something does, or what has it that is no `kind`."""

    code = "not-found"

    def __init__(self, kind: str, name: str, nearest: str = "", other: str = "") -> None:
        hint = f" '{name}' is a {other}." if other else f" Did you mean '{nearest}'?" if nearest else ""
        super().__init__(f"There is no {kind} '{name}'.{hint}")
        self.kind, self.name, self.nearest = kind, name, nearest


class Conflict(PenstockError):
    """Report a change that the present state does not allow."""

    code = "conflict"


class TooLarge(PenstockError):
    """Report a payload or bundle over its bound."""

    code = "too-large"


class TryLater(PenstockError):
    """Report that there is no room now; `retry_after` is in seconds."""

    code = "try-later"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueFull(TryLater):
    """Report that a pipeline holds as many tasks as it may."""

    code = "queue-full"


class Saturated(TryLater):
    """Report that a synchronous call waited for its start as long as it may."""

    code = "saturated"


class Unavailable(TryLater):
    """Report that the server cannot take work now: it starts, stops, or its store does not answer."""

    code = "unavailable"


class DiskFull(PenstockError):
    """Report that the disk has no room for what was sent; nothing of it was kept."""

    code = "disk-full"


class DeployFailed(PenstockError):
    """Report code that does not import, or whose packages cannot be installed; the version that was live stays live."""

    code = "deploy-failed"

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback


class Locked(PenstockError):
    """Report a data directory that another server owns."""

    code = "locked"


class Fenced(PenstockError):
    """Report a write by a server that no longer owns the project: a newer epoch has taken over."""

    code = "fenced"
