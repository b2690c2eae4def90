"""What a handler may raise to tell Penstock more than "it failed", and what limits raise in a handler."""


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
