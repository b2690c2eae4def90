"""What a handler may raise to tell Penstock more than "it failed"."""


class Throttled(Exception):
    """Say that downstream wants this task later: it costs no attempt, and holds the pipeline until then.

    `retry_after` is in seconds (None lets Penstock choose); `limit` names the shared limit to hold instead of the pipeline.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, limit: str | None = None) -> None:
        super().__init__(message or f"downstream asks to wait {retry_after} s")
        self.retry_after = retry_after
        self.limit = limit
