"""The prefix of a queue and its store, under every interleaving of sending, paging and starting: nothing is lost or doubled."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.domain.queue import OVERHEAD, Key, Queue, key_of
from penstock.domain.task import Task

MOST = 4
PAGE = 3


@dataclass
class Page:
    """Be a page that the store has read and that is on its way; `known` were elsewhere when it was asked for."""

    tasks: list[Task]
    upto: Key | None
    known: set[int] = field(default_factory=set)


class Paging(RuleBasedStateMachine):
    """Do with a queue what the engine does, one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue()
        self.stored: dict[int, Task] = {}  # what the store has as queued
        self.sending: dict[int, Task] = {}  # on disk, and not offered yet
        self.running: dict[int, Task] = {}
        self.done: list[int] = []
        self.waiting: set[int] = set()
        self.page: Page | None = None
        self.number = 0
        self.unusual = False

    def make(self, priority: int, durable: bool = True) -> Task:
        self.number += 1
        return Task(self.number, "p", b"x" * self.number, created=0, expires=1e9, priority=priority, durable=durable)

    @rule(count=st.integers(1, 5), priority=st.sampled_from([0, 0, 0, 1, -1]))
    def send(self, count: int, priority: int) -> None:
        for _ in range(count):
            task = self.make(priority)
            self.stored[task.id] = self.sending[task.id] = task
            self.waiting.add(task.id)

    @precondition(lambda self: self.sending)
    @rule(count=st.integers(1, 8))
    def acknowledge(self, count: int) -> None:
        for task in list(self.sending.values())[:count]:
            del self.sending[task.id]
            self.queue.offer(task, MOST)

    @rule()
    def call(self) -> None:
        self.unusual = True  # one at the end of the prefix keeps what is before it from being put out
        task = self.make(0, durable=False)
        self.waiting.add(task.id)
        self.queue.offer(task, MOST)

    @precondition(lambda self: self.queue.head() is not None)
    @rule()
    def start(self) -> None:
        head = self.queue.head()
        task = self.queue.pop()
        assert task is head
        assert task.id in self.waiting, "no task is started twice"
        self.waiting.remove(task.id)
        self.running[task.id] = task

    @precondition(lambda self: self.running)
    @rule(again=st.booleans())
    def finish(self, again: bool) -> None:
        """End the oldest run; its outcome is on disk at once, or the task waits again."""
        task = self.running.pop(next(iter(self.running)))
        if again:
            self.unusual = True
            self.waiting.add(task.id)
            self.queue.put_back(task)
        else:
            self.stored.pop(task.id, None)
            self.done.append(task.id)

    def elsewhere(self) -> set[int]:
        return {task.id for task in self.queue.tasks()} | set(self.running)

    @precondition(lambda self: self.page is None and self.queue.more and len(self.queue) * 2 < MOST)
    @rule()
    def ask(self) -> None:
        after = self.queue.ask_page()
        found = sorted(self.stored.values(), key=key_of)
        tasks = [task for task in found if after is None or key_of(task) > after][:PAGE]
        copies = [Task(t.id, "p", t.payload, created=0, expires=1e9, priority=t.priority) for t in tasks]
        self.page = Page(copies, key_of(tasks[-1]) if len(tasks) == PAGE else None, self.elsewhere())

    @precondition(lambda self: self.page is not None)
    @rule()
    def turn(self) -> None:
        page, self.page = self.page, None
        assert page is not None
        known = page.known | self.elsewhere() | set(self.sending)
        self.queue.page_in([task for task in page.tasks if task.id not in known], page.upto)

    @precondition(lambda self: self.queue.head() is not None)
    @rule(place=st.integers(0, 10))
    def cancel(self, place: int) -> None:
        tasks = self.queue.tasks()
        task = tasks[place % len(tasks)]
        taken = self.queue.remove({task.id, 1 << 40})
        assert taken == [task]
        assert self.queue.remove({task.id}) == []
        self.stored.pop(task.id, None)
        self.waiting.remove(task.id)

    @invariant()
    def is_sorted_and_counts_its_bytes(self) -> None:
        tasks = self.queue.tasks()
        assert tasks == sorted(tasks, key=key_of)
        assert len({task.id for task in tasks}) == len(tasks) == len(self.queue)
        assert self.queue.bytes == sum(OVERHEAD + len(task.payload or b"") for task in tasks)
        assert {task.id for task in tasks} <= self.waiting

    @invariant()
    def what_is_durable_and_pushed_out_is_bounded(self) -> None:
        tasks = self.queue.tasks()
        if all(task.durable and not task.pinned for task in tasks):
            assert len(tasks) <= MOST + PAGE or self.unusual

    def teardown(self) -> None:
        """Let everything run: whatever was acknowledged does, once."""
        while True:
            if self.page is not None:
                self.turn()
            elif self.sending:
                self.acknowledge(8)
            elif self.queue.head() is not None:
                self.start()
            elif self.running:
                self.finish(again=False)
            elif self.queue.more:
                self.ask()
            else:
                break
        assert not self.waiting, "everything that was sent has been started"
        assert len(set(self.done)) == len(self.done)


TestPaging = Paging.TestCase
TestPaging.settings = settings(max_examples=100, stateful_step_count=40)


@given(st.lists(st.tuples(st.integers(-2, 2), st.booleans()), max_size=30))
def test_without_paging_tasks_come_by_priority_then_as_they_came(wanted: list[tuple[int, bool]]) -> None:
    queue = Queue()
    tasks = [
        Task(number, "p", b"", created=0, expires=1e9, priority=priority, durable=durable)
        for number, (priority, durable) in enumerate(wanted)
    ]
    for task in tasks:
        assert queue.offer(task, 1000)
    assert [queue.pop() for _ in tasks] == sorted(tasks, key=lambda task: (-task.priority, task.id))
    assert queue.head() is None
    assert queue.bytes == 0


def test_a_full_prefix_leaves_what_sorts_behind_it_to_the_store() -> None:
    queue = Queue()
    tasks = [Task(number, "p", b"", created=0, expires=1e9) for number in range(4)]
    assert [queue.offer(task, 2) for task in tasks] == [True, True, False, False]
    assert queue.more
    urgent = Task(9, "p", b"", created=0, expires=1e9, priority=1)
    assert queue.offer(urgent, 2)
    assert queue.tasks() == [urgent, tasks[0]]


def test_what_the_store_has_too_is_forgotten_to_be_read_again() -> None:
    queue = Queue()
    kept, stored = (Task(number, "p", b"abc", created=0, expires=1e9) for number in (1, 2))
    call = Task(3, "p", b"", created=0, expires=1e9, durable=False)
    queue.offer(stored, 9)
    queue.offer(call, 9)
    queue.put_back(kept)
    assert queue.forget_stored() == OVERHEAD + 3
    assert queue.tasks() == [kept, call]
    assert queue.more
    assert queue.ask_page() is None
    assert queue.clear() == [kept, call]


def test_what_is_taken_out_of_the_store_while_a_page_is_read_does_not_come_in_with_it() -> None:
    queue = Queue()
    queue.more = True
    page = [Task(number, "p", b"", created=0, expires=1e9) for number in (1, 2, 3)]
    queue.ask_page()
    assert queue.remove([2]) == []
    queue.page_in(page, None)
    assert [task.id for task in queue.tasks()] == [1, 3]
