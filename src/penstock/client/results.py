"""What a line of a map's stream says."""

from dataclasses import dataclass
from typing import Any

import msgspec

from penstock.client.errors import TaskFailed
from penstock.client.http1 import Response
from penstock.client.models import MapCounts


@dataclass(frozen=True, slots=True)
class ItemResult:
    """Tell how one item of a map ended; `task` is the id of the task whose end counts."""

    index: int
    outcome: str
    task: str = ""
    result: Any = None
    error: dict[str, Any] | None = None

    @property
    def ok(self) -> bool:
        """Return whether the item ended with a result."""
        return self.outcome == "ok"

    def failure(self) -> TaskFailed | None:
        """Return the error of an item that ended without a result."""
        if self.ok:
            return None
        error = self.error or {}
        what = f"{error.get('type')}: {error.get('message')}" if error.get("type") else self.outcome
        return TaskFailed(
            f"Item {self.index} ended as {self.outcome}: {what}",
            code="task-failed",
            extras={"outcome": self.outcome, "task": self.task, "error": self.error, "index": self.index},
        )

    def value(self) -> Any:
        """Return the item's result. Raises TaskFailed if it ended without one."""
        if failure := self.failure():
            raise failure
        return self.result


class _Line(msgspec.Struct):
    index: int = -1
    task: str = ""
    outcome: str = ""
    result: Any = None
    error: dict[str, Any] | None = None
    items: int = -1
    ended: int = 0
    ok: int = 0
    failed: dict[str, int] = {}
    rate: float | None = None


_decode = msgspec.json.Decoder(_Line).decode


def read_line(response: Response) -> ItemResult | MapCounts:
    """Return what a line of the stream says: a result, or how far the map is."""
    line = _decode(response.body)
    if line.items >= 0:
        return MapCounts(items=line.items, ended=line.ended, ok=line.ok, failed=line.failed, rate=line.rate)
    return ItemResult(line.index, line.outcome, line.task, line.result, line.error)
