"""What a handler may raise to tell Penstock more than "it failed", and what limits and calls raise in a handler."""


class Throttled(Exception):
    """Say that downstream wants this task later: it costs no attempt, and holds the pipeline until then.

    `retry_after` is in seconds (None lets Penstock choose); `limit` names the shared limit to hold instead of the pipeline.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, limit: str | None = None) -> None:
        wait = f"to wait {retry_after:g} s" if isinstance(retry_after, (int, float)) else "to try later"
        super().__init__(message or f"downstream asks {wait}")
        self.retry_after = retry_after
        self.limit = limit


class LimitError(Exception):
    """Report that a shared limit cannot be used in this way: `acquire` needs a rate, `slot` a concurrency."""


class UnknownLimit(LimitError):
    """Report that the project has no shared limit of that name."""


class HoldAndWait(LimitError):
    """Report that a task would wait for a unit while it holds one that others may wait for: that could last for ever."""


class CostTooHigh(LimitError):
    """Report a cost above what the limit ever lets pass at once."""


class CallError(Exception):
    """Report that what a handler called or sent came to nothing."""


class CallFailed(CallError):
    """Report that the task which a handler called ended without a result.

    `outcome` is one of error, timeout, out_of_memory, crashed, interrupted, throttled and cancelled; `error_type`,
    `error_message` and `traceback` are those of the handler that was called, empty where there are none; `task` is its id.
    """

    def __init__(
        self,
        message: str,
        *,
        outcome: str,
        task: str,
        error_type: str = "",
        error_message: str = "",
        traceback: str = "",
    ) -> None:
        super().__init__(message)
        self.outcome = outcome
        self.task = task
        self.error_type = error_type
        self.error_message = error_message
        self.traceback = traceback


class CallRefused(CallError):
    """Report what the server does not take; `code` is a stable name, the same as over HTTP: not-found, too-large, conflict."""

    def __init__(self, message: str, code: str = "bad-request") -> None:
        super().__init__(message)
        self.code = code


class TooDeep(CallRefused):
    """Report a call by a task that was called by one that was called by another, and so on, deeper than may be."""


class TooManyWait(CallRefused, Throttled):
    """Report that as many instances as may wait for others already. Uncaught, it lets the task be tried later, uncharged."""

    def __init__(self, message: str, code: str = "too-many-wait") -> None:
        Throttled.__init__(self, message, retry_after=1.0)
        self.code = code
