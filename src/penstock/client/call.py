"""One request as data, and what every request has in common: how its answer is read, and when it may be repeated."""

import itertools
import os
import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from penstock.client.errors import ApiError, QueueFull, Saturated, ServerUnreachable, TryLater, Unavailable, error_of
from penstock.client.http1 import Broken, Response, Unsent

T = TypeVar("T")

AGENT = "penstock-client"
ANSWER_WITHIN = 60.0
"""Seconds that a call waits for its answer, if it does not say otherwise."""


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """Describe one request and how to read its answer.

    `repeatable`: doing it twice is doing it once, so it is sent again when the connection broke. `within` is how many
    seconds the answer may take; None waits for as long as it takes.
    """

    method: str
    path: str
    read: Callable[[Response], T]
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    repeatable: bool = False
    within: float | None = ANSWER_WITHIN

    def answer(self, response: Response) -> T:
        """Return what the response says. Raises an ApiError for one that is a problem, or not understood."""
        if response.status >= 400:
            raise error_of(response)
        try:
            return self.read(response)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ApiError(
                f"The answer to {self.method} {self.path} is not what this client expects ({error}). "
                "Is this a Penstock server, and of the same version as the client?",
                status=response.status,
            ) from error


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Hold one page of a listing, and where the next one starts; None ends it."""

    items: list[T]
    next: Any


def reads(kind: type[T]) -> Callable[[Response], T]:
    """Return a reader of JSON bodies that hold a `kind`."""
    decoder = msgspec.json.Decoder(kind)
    return lambda response: decoder.decode(response.body)


def reads_page(member: str, kind: type[T]) -> Callable[[Response], Page[T]]:
    """Return a reader of listings, whose items stand in `member`."""
    envelope = msgspec.defstruct("Envelope", [(member, list[kind]), ("next", Any, None)])  # type: ignore[valid-type]
    decoder = msgspec.json.Decoder(envelope)

    def read(response: Response) -> Page[T]:
        found: Any = decoder.decode(response.body)
        return Page(getattr(found, member), found.next)

    return read


def reads_member(member: str, kind: type[T]) -> Callable[[Response], T]:
    """Return a reader of the one member of a JSON body that matters."""
    envelope = msgspec.defstruct("Envelope", [(member, kind)])
    decoder = msgspec.json.Decoder(envelope)

    def read(response: Response) -> T:
        found: T = getattr(decoder.decode(response.body), member)
        return found

    return read


def reads_nothing(_: Response) -> None:
    """Read an answer that has no body."""


@dataclass(frozen=True, slots=True)
class Persistence:
    """Say how long a client tries.

    `retries`: how often a call is sent again because the server could not be reached, or because the connection broke and
    the call is repeatable; the pauses between double from 50 ms, with jitter. `try_later_for`: seconds that a call may
    spend waiting where the server is full and says when to come again.
    """

    retries: int = 5
    try_later_for: float = 0.0

    def pause_after_break(self, call: Call[Any], failure: Unsent | Broken, attempt: int) -> float | None:
        """Return the seconds to wait before sending a call again that was not answered; None to give up."""
        if attempt >= self.retries or not (call.repeatable or isinstance(failure, Unsent)):
            return None
        return float(0.05 * 2**attempt * random.uniform(0.5, 1.0))

    def pause_after_refusal(self, error: ApiError, waited: float) -> float | None:
        """Return the seconds to wait before sending a call again that there was no room for; None to give up."""
        if not isinstance(error, QueueFull | Saturated | Unavailable) and type(error) is not TryLater:
            return None
        pause = max(0.05, error.retry_after if error.retry_after is not None else 1.0)
        return pause if waited + pause <= self.try_later_for else None


def unreachable(url: str, call: Call[Any], failure: Unsent | Broken) -> ServerUnreachable:
    """Return the error for a call that was not answered, saying what that means for it."""
    if isinstance(failure, Unsent):
        meaning = "Nothing was sent. Is the server running? `penstock up` starts one."
    elif call.method == "GET":
        meaning = "Nothing was changed."
    elif call.repeatable:
        meaning = "It may have been done; it is safe to repeat."
    else:
        meaning = "It may have been done all the same."
    return ServerUnreachable(f"{url} did not answer: {failure}. {meaning}", code="unreachable")


MADE_HERE = "auto-"
"""What the keys begin with that a client makes, and nobody chose."""


class Keys:
    """Make the idempotency keys of one client, so that a send can be repeated when its answer was lost.

    A forked child makes keys of its own: two processes with the same keys would lose each other's tasks.
    """

    def __init__(self) -> None:
        self._pid = 0
        self._stem = ""
        self._numbers = itertools.count()

    def next(self) -> str:
        """Return a key that no other send has."""
        if self._pid != os.getpid():
            self._pid, self._stem = os.getpid(), secrets.token_hex(8)
        return f"{MADE_HERE}{self._stem}-{next(self._numbers):x}"
