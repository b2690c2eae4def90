"""One pipeline's waiting tasks: a sorted prefix in memory, the rest in the store.

Tasks are sorted by (depth, larger first; priority, larger first; id): what running tasks wait for goes before what nobody
waits for, so that few wait at once. What sorts before the end of the prefix comes in and may push the end
out; what sorts behind it stays in the store once the prefix is full. `more` says that the store has tasks behind it.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Collection, Iterator
from itertools import islice
from typing import Final

from penstock.domain.task import Task

OVERHEAD: Final = 300
"""Bytes that a task takes in memory beside its payload."""

HUNGRY: Final = 1000
"""With fewer tasks than this in memory, a pipeline that has more in the store wants its next page."""

FRUGAL: Final = 64
"""How many tasks of a pipeline are kept when all together take as much memory as they may."""

DEEPER: Final = 33
"""The bit above all that a priority can be."""

Key = tuple[int, int]


def key_of(task: Task) -> Key:
    """Return what sorts a task within its pipeline."""
    return (-task.priority - (task.depth << DEEPER), task.id)


class Queue:
    """Hold the prefix. A task that is not durable is nowhere else, so it always stays in it.

    A page shows the store as it was a while ago. So what came in since it was asked for is left out of it, and the page as
    a whole is worth nothing if the prefix was cut meanwhile: what was cut off would never be read again. And it is read up
    to the first task only that was left to the store meanwhile.
    """

    __slots__ = ("_arrived", "_asked", "_cuts", "_met", "_tasks", "bytes", "horizon", "more")

    def __init__(self) -> None:
        self._tasks: deque[Task] | None = None  # None costs an idle pipeline nothing
        self.bytes = 0
        self.more = False
        self._arrived: Key | None = None  # the first that was left to the store since the last page was asked for
        self._cuts = 0  # how often tasks that were in the prefix were left to the store
        self._asked = 0  # the same when the last page was asked for
        self._met: set[int] | None = None  # what came in or was taken out since; None while no page is awaited
        self.horizon: Key | None = None  # with `more`, durable tasks behind this are in the store only

    def __len__(self) -> int:
        return len(self._tasks) if self._tasks else 0

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks or ())

    def head(self) -> Task | None:
        """Return the task that is next, or None."""
        return self._tasks[0] if self._tasks else None

    def pop(self) -> Task:
        """Take the next task out."""
        tasks = self._tasks
        assert tasks, "pop from an empty queue"
        task = tasks.popleft()
        self.bytes -= size_of(task)
        if not tasks:
            self._tasks = None
        return task

    def offer(self, task: Task, most: int) -> bool:
        """Take a new task in, keeping at most `most` tasks; say False if it stays in the store only."""
        tasks = self._tasks
        key = key_of(task)
        if task.durable:
            behind = self.more and (self.horizon is None or key > self.horizon)
            if not behind and tasks is not None and len(tasks) >= most and key > key_of(tasks[-1]):
                self.more, self.horizon, behind = True, key_of(tasks[-1]), True
                self._cuts += 1
            if behind:
                self._arrived = key if self._arrived is None else min(key, self._arrived)
                return False
        self._meet(task, key)
        while len(self) > most and self._evict():
            pass
        return True

    def put_back(self, task: Task) -> None:
        """Take in a task that has been out. It stays here: the store may still hold it as running or delayed."""
        task.pinned = True
        self._meet(task, key_of(task))

    def ask_page(self) -> Key | None:
        """Return what the next page of the store begins behind (None: at its start)."""
        self._arrived = None
        self._asked, self._met = self._cuts, set()
        return self.horizon

    def page_in(self, tasks: list[Task], upto: Key | None) -> None:
        """Take in a page of the store. `upto` is the last key that was read, None if the store has nothing behind the page."""
        met, self._met = self._met, None
        if self._asked != self._cuts:
            self.more = True
            return
        arrived = self._arrived
        if arrived is not None and (upto is None or arrived < upto):
            tasks, upto = [task for task in tasks if key_of(task) < arrived], None
        for task in tasks:
            if met is None or task.id not in met:
                self._insert(task, key_of(task))
        self.more = upto is not None or arrived is not None
        if upto is not None:
            self.horizon = upto
        elif tasks:
            self.horizon = key_of(tasks[-1])

    def remove(self, ids: Collection[int]) -> list[Task]:
        """Take tasks out wherever they stand; return those that were here. It looks through it, unless they stand first."""
        if self._met is not None:  # the page that is awaited may still show them
            self._met.update(ids)
        tasks, removed = self._tasks or deque(), []
        while tasks and tasks[0].id in ids:
            removed.append(tasks.popleft())
        if len(removed) < len(ids) and (others := [task for task in tasks if task.id in ids]):
            removed += others
            tasks = deque(task for task in tasks if task.id not in ids)
        self._tasks = tasks or None
        self.bytes -= sum(map(size_of, removed))
        return removed

    def clear(self) -> list[Task]:
        """Take all tasks out; the store may still have more."""
        tasks = list(self._tasks or ())
        self._tasks, self.bytes = None, 0
        return tasks

    def forget_stored(self) -> int:
        """Drop what the store has too, so that the next page begins at its start; return how many bytes went."""
        before = self.bytes
        kept = [task for task in self._tasks or () if task.pinned or not task.durable]
        self._tasks = deque(kept) if kept else None
        self.bytes = sum(map(size_of, kept))
        self.more, self.horizon = True, None
        self._cuts += 1
        return before - self.bytes

    def tasks(self) -> list[Task]:
        """Return the prefix in order."""
        return list(self._tasks or ())

    def first(self, count: int) -> list[Task]:
        """Return the tasks that are next, at most `count`."""
        return list(islice(self._tasks or (), count))

    def place_of(self, key: Key) -> tuple[int, bool]:
        """Return how many tasks here are before one with this key, and whether that one is here too."""
        tasks = self._tasks or ()
        place = bisect_left(tasks, key, key=key_of)
        return place, place < len(tasks) and key_of(tasks[place]) == key

    def between(self, after: Key | None, before: Key) -> list[Task]:
        """Return the tasks here that sort between two keys."""
        tasks = self._tasks or ()
        first = 0 if after is None else bisect_right(tasks, after, key=key_of)
        return list(islice(tasks, first, self.place_of(before)[0]))

    def _meet(self, task: Task, key: Key) -> None:
        if self._met is not None:
            self._met.add(task.id)
        self._insert(task, key)

    def _insert(self, task: Task, key: Key) -> None:
        tasks = self._tasks
        self.bytes += size_of(task)
        if tasks is None:
            self._tasks = deque((task,))
        elif key > key_of(tasks[-1]):
            tasks.append(task)
        elif key < key_of(tasks[0]):
            tasks.appendleft(task)
        else:
            tasks.insert(bisect_right(tasks, key, key=key_of), task)

    def _evict(self) -> bool:
        assert self._tasks is not None
        if not self._tasks[-1].durable or self._tasks[-1].pinned:
            return False
        self.bytes -= size_of(self._tasks.pop())
        self._cuts += 1
        self.more, self.horizon = True, key_of(self._tasks[-1])
        return True


def size_of(task: Task) -> int:
    """Return about how many bytes a waiting task takes in memory."""
    return OVERHEAD + (len(task.payload) if task.payload else 0)
