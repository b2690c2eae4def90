"""The tally of a map: which items have ended, how, in which order, and which task's result is an item's.

The laws. An item ends once, however often it is told of. One that runs twice ends with the first of the two that ends
well, or, if none does, when both have ended, and then as its own task did. Five bytes an item.
"""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from penstock.domain.task import Outcome

GONE: Final = "gone"
"""How an item ended that was deleted: with its pipeline, or because it was kept long enough."""

ENDINGS: Final = (*(outcome.value for outcome in Outcome), GONE)
_CODES: Final = {ending: code for code, ending in enumerate(ENDINGS, 1)}


class Tally:
    """Count the ends of a map's items. Items are named by their places, from 0; tasks by their ids.

    `first` is the id of the task of item 0, those of the others follow it. `twins` are second tasks, by the ids of the
    first. `generation` grows when all is counted anew.
    """

    __slots__ = ("_codes", "_order", "_single", "_twins", "by_ending", "first", "generation", "items")

    def __init__(self, first: int, items: int, twins: Mapping[int, int]) -> None:
        self.first = first
        self.items = items
        self.generation = 0
        self._begin(twins)

    def _begin(self, twins: Mapping[int, int]) -> None:
        self._twins = {task - self.first: twin for task, twin in twins.items()}
        self._codes = bytearray(self.items)
        self._order = array("I")
        self._single: dict[int, dict[int, str]] = {}  # ends of tasks whose item may still end well by its other task
        self.by_ending: Counter[str] = Counter()

    def forget(self, twins: Mapping[int, int]) -> None:
        """Forget all ends: they are counted anew. `twins` are second tasks, by the ids of the first."""
        self.generation += 1
        self._begin(twins)

    # what is told -----------------------------------------------------------------------------------------------------
    def pair(self, item: int, twin: int) -> None:
        """Let an item have a second task."""
        self._twins[item] = twin

    def hear(self, item: int, task: int, ending: str) -> bool:
        """Take note that a task of an item has ended; say whether the item has, by this."""
        if self._codes[item]:
            return False
        twin = self._twins.get(item)
        if twin is not None and ending != Outcome.OK:
            ends = self._single.setdefault(item, {})
            ends[task] = ending
            if len(ends) < 2:
                return False
            ending = ends[self.first + item]
        self._single.pop(item, None)
        self._codes[item] = _CODES[ending]
        self._order.append(item)
        self.by_ending[ending] += 1
        if twin is not None and (task != twin or ending != Outcome.OK):
            del self._twins[item]  # the result is that of its own task
        return True

    # what is asked ----------------------------------------------------------------------------------------------------
    @property
    def ended(self) -> int:
        """Return how many items have ended."""
        return len(self._order)

    @property
    def whole(self) -> bool:
        """Say whether all items have ended."""
        return len(self._order) == self.items

    def has(self, item: int) -> bool:
        """Say whether an item has ended."""
        return bool(self._codes[item])

    def twin(self, item: int) -> int | None:
        """Return the second task of an item, if that may be the one that counts, or is."""
        return self._twins.get(item)

    def task_of(self, item: int) -> int:
        """Return the task whose result is that of an item which has ended."""
        return self._twins.get(item, self.first + item)

    def tasks_of(self, item: int) -> tuple[int, ...]:
        """Return the tasks that may bring an item's end."""
        twin = self._twins.get(item)
        return (self.first + item,) if twin is None else (self.first + item, twin)

    def as_they_came(self, place: int, most: int) -> Sequence[int]:
        """Return items in the order in which they ended, from a place in that order on."""
        return self._order[place : place + most]

    def in_order(self, item: int, most: int) -> Sequence[int]:
        """Return the items from one on that have ended, up to the first that has not."""
        end = min(self.items, item + most)
        stop = self._codes.find(0, item, end)
        return range(item, end if stop < 0 else stop)

    def open(self, most: int) -> list[int]:
        """Return items that have not ended, in order."""
        found: list[int] = []
        item = self._codes.find(0)
        while item >= 0 and len(found) < most:
            found.append(item)
            item = self._codes.find(0, item + 1)
        return found
