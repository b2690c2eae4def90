"""Requests and answers as ASGI has them: the body within its bound, the answer in two messages."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from penstock.api.problems import MEDIA_TYPE, Problem
from penstock.domain.errors import BadRequest, TooLarge
from penstock.domain.units import UnitError, parse_duration

T = TypeVar("T")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Mapping[bytes, bytes]

JSON: Final = (b"content-type", b"application/json")
MOST_BODY: Final = 66 << 20
"""Bytes that any body may have: a batch of tasks, or the largest payload that a pipeline can be told to take."""

MOST_KEY: Final = 256
"""Characters of an idempotency key."""

MOST_WAIT: Final = 366 * 86_400.0

_skim: Final = msgspec.json.Decoder(msgspec.Raw).decode


class ClientGone(Exception):
    """Report that nobody waits for an answer any more."""


async def read_body(receive: Receive, headers: Headers, bound: int = MOST_BODY) -> bytes:
    """Return a request's body. Raises `TooLarge` as soon as it is known to have more than `bound` bytes."""
    declared = headers.get(b"content-length", b"")
    if declared.isdigit() and int(declared) > bound:
        raise too_large(bound)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message["body"]
    if not message["more_body"]:
        if len(body) > bound:
            raise too_large(bound)
        return body
    pieces, size = [body], len(body)
    while message["more_body"]:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        pieces.append(message["body"])
        size += len(pieces[-1])
        if size > bound:
            raise too_large(bound)
    return b"".join(pieces)


def too_large(bound: int) -> TooLarge:
    """Return the refusal of a body."""
    return TooLarge(f"The body is larger than the {bound} bytes that this route takes. Nothing of it was kept.")


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """Return what work comes to that a client waits for; cancel it if the client goes. Raises `ClientGone` then."""
    waiting = asyncio.current_task()
    assert waiting is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        waiting.cancel()

    watcher = asyncio.get_running_loop().create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if gone:
            waiting.uncancel()
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()


async def answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Answer with a whole body."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def answer_problem(send: Send, problem: Problem) -> None:
    """Answer with a problem document."""
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await answer(send, problem.status, problem.encode(), (b"content-type", MEDIA_TYPE.encode()), *headers)


def check_json(body: bytes, what: str) -> None:
    """Check that bytes are one JSON text in UTF-8, without decoding it. Raises `BadRequest`."""
    check_text(body, what)
    try:
        _skim(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_understood(what, error) from error


def check_text(body: bytes, what: str) -> None:
    """Check that bytes are UTF-8. Raises `BadRequest`."""
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise BadRequest(f"{what} is not UTF-8: byte {error.start} cannot be read.") from error


def decode_json(body: bytes, what: str) -> Any:
    """Return what a JSON body says. Raises `BadRequest`."""
    check_text(body, what)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise not_understood(what, error) from error


def not_understood(what: str, error: Exception) -> BadRequest:
    """Return the refusal of a body that is not the JSON that it should be."""
    if isinstance(error, RecursionError):
        return BadRequest(f"{what} is nested too deeply to be read.")
    if isinstance(error, msgspec.ValidationError):
        return BadRequest(f"{what} is not what it should be: {_in_plain_words(str(error))}.")
    return BadRequest(f"{what} is not JSON: {error}.")


_WORDS: Final = {
    "float": "a number", "int": "a whole number", "str": "text", "bool": "true or false", "array": "a list",
    "object": "an object",
}  # fmt: skip


def _in_plain_words(mistake: str) -> str:
    """Return what msgspec says of a body ("Expected `float` > 0.0 - at `$.cost`") in the words of people."""
    said, _, place = mistake.partition(" - at `$")
    place = place.rstrip("`").removeprefix(".")
    said = said.replace("Invalid RFC3339 encoded datetime", "Expected a moment such as 2030-01-31T12:00:00Z")
    said = re.sub(
        r"`([^`]*)`", lambda types: " or ".join(_WORDS.get(each, each) for each in types[1].split(" | ")), said
    )
    return f"{said[:1].lower()}{said[1:]}" + (f", at {place}" if place else "")


def query_of(scope: Scope) -> dict[str, str]:
    """Return the parameters of a request's query."""
    query: bytes = scope["query_string"]
    if not query:
        return {}
    try:
        return dict(parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=100))
    except ValueError as error:
        raise BadRequest(f"The query of the URL cannot be read: {error}.") from error


def seconds_of(name: str, text: str | None) -> float | None:
    """Return a query parameter that is a duration, in seconds. Raises `BadRequest`."""
    if not text:
        return None
    try:
        seconds = parse_duration(text)
    except UnitError as error:
        raise BadRequest(f"The parameter {name} is wrong: {error}.") from error
    if seconds > MOST_WAIT:
        raise BadRequest(f"The parameter {name} is longer than a year.")
    return seconds


def idempotency_key(headers: Headers) -> str | None:
    """Return the key that makes a request safe to repeat, or None. Raises `BadRequest`."""
    key = headers.get(b"idempotency-key")
    if key is None:
        return None
    if not 0 < len(key) <= MOST_KEY:
        raise BadRequest(f"An Idempotency-Key has between 1 and {MOST_KEY} characters.")
    return key.decode("latin-1")
