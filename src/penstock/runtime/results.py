"""What an execution comes to: JSON bytes of the result, or of the error `{"type", "message", "traceback"}`."""

import importlib
import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from penstock.runtime.throttling import throttling
from penstock.runtime.wire import ERROR, MAX_BODY, OK, THROTTLED

if TYPE_CHECKING:
    from types import TracebackType

MAX_TRACEBACK: Final = 64 * 1024
MAX_MESSAGE: Final = 16 * 1024

_DIGITS = 100  # of a Decimal that becomes a whole number: 1e999999999 is one, too
_OURS = (os.path.dirname(os.path.abspath(__file__)) + os.sep, os.path.dirname(importlib.__file__), "<frozen importlib")
_decode = json.JSONDecoder().decode


def _encode_other(value: Any) -> Any:
    """Return what stands in JSON for a value that it has no form of: a number for a Decimal, as on AWS Lambda."""
    decimal = sys.modules.get("decimal")
    if decimal is None or not isinstance(value, decimal.Decimal):
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    whole = value.is_finite() and value.adjusted() < _DIGITS and value == value.to_integral_value()
    return int(value) if whole else float(value)


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_encode_other).encode
_encode_ascii = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=_encode_other).encode


class NotJSON(Exception):
    """Report a payload that is not JSON, or a result that cannot be."""


class Result(NamedTuple):
    """Hold how an execution ended and what it leaves."""

    ending: int
    body: bytes
    retry_after: "float | None" = None
    limit: str = ""


def decode_event(payload: bytes) -> Any:
    """Return the event that a payload stands for; nothing stands for None. Raises `NotJSON`."""
    if not payload:
        return None
    try:
        return _decode(payload.decode())
    except (ValueError, RecursionError) as error:
        raise NotJSON(f"the payload is not JSON, so the handler was not called: {error}") from None


def encode_result(value: Any) -> Result:
    """Return what a handler's return value comes to; an error that names the culprit if it is not JSON."""
    try:
        body = encode_value(value)
    except NotJSON as error:
        return encode_error("NotJSON", str(error))
    if len(body) > MAX_BODY:
        return encode_error(
            "ResultTooLarge", f"The result is {len(body)} bytes of JSON; at most {MAX_BODY} are allowed."
        )
    return Result(OK, body)


def encode_value(value: Any) -> bytes:
    """Return the JSON of what a handler returned. Raises `NotJSON`."""
    try:
        return encode_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJSON(
            f"The handler ended well, but its result is not JSON: {error}. "
            "Return dicts, lists, strings, finite numbers, booleans and None."
        ) from None


def encode_json(value: Any) -> bytes:
    """Return a value as JSON. Raises `TypeError`, `ValueError` or `RecursionError` if it is none."""
    try:
        return _encode(value).encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can say it, UTF-8 cannot
        return _encode_ascii(value).encode()


def encode_error(kind: str, message: str, trace: str = "", ending: int = ERROR) -> Result:
    """Return an error as a result."""
    error = {"type": kind, "message": message[:MAX_MESSAGE], "traceback": trace}
    return Result(ending, _encode_ascii(error).encode())


def encode_exception(error: BaseException) -> Result:
    """Return what an exception comes to: a plain error, or "throttled" if it means that."""
    kind, trace = type(error).__name__, "" if isinstance(error, NotJSON) else format_traceback(error)
    later = throttling(error)
    if later is None:
        return encode_error(kind, _message(error), trace)
    plain = encode_error(kind, _message(error), trace, THROTTLED)
    return plain._replace(retry_after=later.retry_after, limit=later.limit or "")


def format_traceback(error: BaseException) -> str:
    """Return the traceback of an exception as its author would see it: without our frames, the middle cut if it is long."""
    error.__traceback__ = _user_frames(error.__traceback__)
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception as second:  # formatting calls the user's __str__ and __repr__
        text = f"{type(error).__name__} (its traceback could not be formatted: {type(second).__name__})\n"
    if len(text) > MAX_TRACEBACK:
        text = text[: MAX_TRACEBACK // 4] + "\n    [the middle was cut]\n" + text[-MAX_TRACEBACK * 3 // 4 + 32 :]
    return text


def _user_frames(trace: "TracebackType | None") -> "TracebackType | None":
    rest = trace
    while rest is not None and rest.tb_frame.f_code.co_filename.startswith(_OURS):
        rest = rest.tb_next
    return rest


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:
        return f"(its message could not be formatted: {type(second).__name__})"
