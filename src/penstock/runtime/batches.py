"""Batches: one call of the handler with a list of events, and a result or an error for each of them."""

from typing import Any

from penstock.runtime.results import NotJSON, Result, decode_event, encode_error, encode_exception, encode_result
from penstock.runtime.wire import MAX_BODY, PARTS, THROTTLED, Entry, encode_parts

_FAILURES = "batchItemFailures"


class Tasks:
    """Hold the tasks of one batch on their way through the handler. `entries` are those whose events it is given."""

    __slots__ = ("_all", "_unread", "entries")

    def __init__(self, entries: "tuple[Entry, ...]") -> None:
        self._all = entries
        self._unread: dict[int, Result] = {}  # by task: the handler does not see these
        self.entries = entries

    def decode(self, payload: bytes) -> "list[Any]":
        """Return the events. A task whose payload is not JSON fails alone; raises `NotJSON` if there is no other."""
        events, at = [], 0
        for entry in self._all:
            piece = payload[at : at + entry.size]
            at += entry.size
            try:
                events.append(decode_event(piece))
            except NotJSON as error:
                if len(self._all) == len(self._unread) + 1:
                    raise
                self._unread[entry.task] = encode_exception(error)
        self.entries = tuple(entry for entry in self._all if entry.task not in self._unread)
        return events

    def encode(self, value: Any) -> Result:
        """Return what a handler's return value comes to for each task; an error for all if it does not say that."""
        each = _each(value, self.entries)
        if each is None:
            return encode_error(
                "BadBatchResult",
                f"The handler of a batch returns None or a list with a result for each of its {len(self.entries)} events "
                f"(an exception for one that failed), and it returned {_shown(value)}.",
            )
        results = {entry.task: one for entry, one in zip(self.entries, each, strict=True)}
        results.update(self._unread)
        parts = [(results[entry.task].ending, results[entry.task].body) for entry in self._all]
        body = encode_parts(parts)
        if len(body) > MAX_BODY:
            return encode_error(
                "ResultTooLarge",
                f"The results of the batch are {len(body)} bytes of JSON together; at most {MAX_BODY} are allowed.",
            )
        later = [one for one in results.values() if one.ending == THROTTLED]
        wait = max(later, key=lambda one: one.retry_after or 0.0, default=None)
        return Result(PARTS, body) if wait is None else Result(PARTS, body, wait.retry_after, wait.limit)


def _each(value: Any, entries: "tuple[Entry, ...]") -> "list[Result] | None":
    """Return a result for each entry, or None if a return value says nothing of each."""
    if value is None:
        return [encode_result(None)] * len(entries)
    if isinstance(value, dict):
        return _reported(value, entries)
    if isinstance(value, (list, tuple)) and len(value) == len(entries):
        return [encode_exception(one) if isinstance(one, BaseException) else encode_result(one) for one in value]
    return None


def _reported(value: "dict[Any, Any]", entries: "tuple[Entry, ...]") -> "list[Result] | None":
    """Read the failures that a handler reports in the way of AWS Lambda, by the names of its tasks."""
    names = [f"{entry.task:016x}" for entry in entries]
    try:
        failed = {item["itemIdentifier"] for item in value[_FAILURES] or ()}
    except (KeyError, TypeError):
        return None
    if not failed <= set(names):
        return None
    failure = encode_error("BatchItemFailure", f"The handler named this task in its {_FAILURES}.")
    return [failure if name in failed else encode_result(None) for name in names]


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"
