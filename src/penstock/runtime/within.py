"""Which execution this code runs for: a client of the server tells it, so that the server knows who waits."""

from contextvars import ContextVar

attempt: "ContextVar[int]" = ContextVar("attempt", default=0)
