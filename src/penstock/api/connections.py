"""What a relay can do to the connection that a request came through, beside sending."""

from collections.abc import Callable
from typing import Protocol


class Line(Protocol):
    """Be such a connection."""

    def watch(self, gone: Callable[[], None]) -> None:
        """Call when the client has gone."""

    def unwatch(self, gone: Callable[[], None]) -> None:
        """Call no more."""

    def streams(self) -> None:
        """Leave it to the one who reads the request's body to watch how slowly it comes."""

    def flush(self) -> None:
        """Send the head of an answer whose body takes its time."""

    def abort(self) -> None:
        """Cut the connection, so that the client does not take what it has for all."""


class NoLine:
    """Stand in where nothing but ASGI is known of the connection."""

    def watch(self, gone: Callable[[], None]) -> None:
        """Never call: the one who reads hears of it."""

    def unwatch(self, gone: Callable[[], None]) -> None:
        """Do nothing."""

    def streams(self) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing: nothing is kept."""

    def abort(self) -> None:
        """Do nothing: an answer that is not complete is cut off by the one who serves."""
