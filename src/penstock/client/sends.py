"""Tasks to send: what they look like, and how they become bytes in batches of bounded size."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec

BATCH_BYTES = 1 << 20
"""A batch is cut when it holds as much, however few tasks that are."""


def _refuse(value: Any) -> Any:
    raise TypeError(f"A payload must be JSON, and {type(value).__name__} is not: {value!r:.80}")


encode = msgspec.json.Encoder(enc_hook=_refuse).encode
"""Encode a payload as JSON. What JSON cannot say raises TypeError; NaN and the infinities become null."""


class Send(msgspec.Struct, omit_defaults=True, kw_only=False):
    """Describe one task to send, where its payload alone does not.

    `delay`: seconds, a timedelta or text such as "10s"; `at`: the moment it is due (one without a time zone is local time).
    `key`: sending the same key again makes no second task. `cost`: what it takes from limits that meter cost.
    `priority`: higher goes first. `expires_after`: how long it may wait for its start, written as `delay` is;
    then it ends as expired.
    """

    payload: Any = None
    delay: float | str | timedelta | None = None
    at: datetime | str | None = None
    key: str | None = None
    cost: float | None = None
    priority: int | None = None
    expires_after: float | str | timedelta | None = None

    def __post_init__(self) -> None:
        if isinstance(self.delay, timedelta):
            self.delay = self.delay.total_seconds()
        if isinstance(self.expires_after, timedelta):
            self.expires_after = self.expires_after.total_seconds()
        if isinstance(self.at, datetime) and self.at.tzinfo is None:
            self.at = self.at.astimezone()


def encode_one(item: Any) -> bytes:
    """Return the JSON of one task, from a Send or a bare payload."""
    return encode(item) if isinstance(item, Send) else b'{"payload":%b}' % encode(item)


class _Batch:
    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"A batch holds at least one task; batch={size} does not.")
        self._size = size
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, item: Any) -> bytes | None:
        """Take one item; return the batch if that made it full."""
        line = encode_one(item)
        self._lines.append(line)
        self._bytes += len(line) + 1
        return self.take() if len(self._lines) >= self._size or self._bytes >= BATCH_BYTES else None

    def take(self) -> bytes | None:
        """Return the batch as NDJSON, and start another; None if it holds nothing."""
        if not self._lines:
            return None
        body = b"\n".join(self._lines)
        self._lines, self._bytes = [], 0
        return body


def batches(items: Iterable[Any], size: int) -> Iterator[bytes]:
    """Yield items as NDJSON bodies of at most `size` tasks, reading no further ahead than one body."""
    batch = _Batch(size)
    for item in items:
        body = batch.add(item)
        if body is not None:
            yield body
    body = batch.take()
    if body is not None:
        yield body


async def batches_async(items: AsyncIterable[Any] | Iterable[Any], size: int) -> AsyncIterator[bytes]:
    """Yield items of either kind of iterable as `batches` does."""
    if isinstance(items, AsyncIterable):
        batch = _Batch(size)
        async for item in items:
            body = batch.add(item)
            if body is not None:
                yield body
        body = batch.take()
        if body is not None:
            yield body
    else:
        for body in batches(items, size):
            yield body
