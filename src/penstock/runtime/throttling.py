"""Find out whether an exception means "downstream wants this later", whichever library raised it.

By shape, not by class, because the libraries live in users' environments: httpx and requests carry `.response`, botocore
a dictionary there, aiohttp and urllib are responses themselves.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

from penstock.runtime.errors import Throttled
from penstock.runtime.frames import LONGEST_NAME


def throttling(error: BaseException) -> "Throttled | None":
    """Return how long, and by which limit, an exception asks to wait; None if it says nothing of the kind.

    A group of exceptions (asyncio.TaskGroup) does if every one in it does; the longest wait counts.
    """
    try:
        if isinstance(error, Throttled):
            return _checked(error)
        inner = getattr(error, "exceptions", None)
        if isinstance(inner, tuple) and inner:
            return _longest([throttling(each) for each in inner])
        return _of_response(error)
    except Exception:  # an exception object may have attributes that fail in any way
        return None


def _checked(error: Throttled) -> Throttled:
    wait = error.retry_after
    wait = float(wait) if isinstance(wait, (int, float)) and math.isfinite(wait) and wait >= 0 else None
    limit = str(error.limit or "")[: LONGEST_NAME + 1]  # what is cut is too long for any limit still
    return Throttled(str(error), retry_after=wait, limit=limit.encode("utf-8", "replace").decode() or None)


def _longest(all_of: "list[Throttled | None]") -> "Throttled | None":
    found = [each for each in all_of if each is not None]
    if len(found) < len(all_of):
        return None
    return max(found, key=lambda each: each.retry_after or 0.0)


def _of_response(error: BaseException) -> "Throttled | None":
    response: Any = getattr(error, "response", None)
    if isinstance(response, Mapping):
        details = response.get("ResponseMetadata") or {}
        status, headers = details.get("HTTPStatusCode"), details.get("HTTPHeaders")
    else:
        source = error if response is None else response
        status, headers = _status(source), getattr(source, "headers", None)
    if status not in (429, 503):
        return None
    wait = _retry_after(headers)
    if status == 503 and wait is None:
        return None
    return Throttled(str(error), retry_after=wait)


def _status(source: Any) -> "int | None":
    for name in ("status_code", "status", "code"):
        status = getattr(source, name, None)
        if isinstance(status, int):
            return int(status)
    return None


def _retry_after(headers: Any) -> "float | None":
    """Return the seconds of a Retry-After header, which may also be a date."""
    if headers is None:
        return None
    text = headers.get("Retry-After") or headers.get("retry-after")
    if not text:
        return None
    try:
        wait = float(text)
    except ValueError:
        try:
            wait = _moment(str(text)) - time.time()
        except (TypeError, ValueError):
            return None
    return max(0.0, wait) if math.isfinite(wait) else None


def _moment(date: str) -> float:
    """Return the moment of an HTTP date in wall-clock seconds."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - dozens of modules that few instances ever need

    return parsedate_to_datetime(date).timestamp()
