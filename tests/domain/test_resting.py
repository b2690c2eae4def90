"""Resting: trees of tasks that wait for each other all end, whatever limits they pass, and no limit is ever exceeded."""

import random
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.admission import Admission
from penstock.domain.asks import Ask
from penstock.domain.limits import Gate
from penstock.domain.pipeline import Start
from penstock.domain.specs import PipelineSpec
from penstock.domain.task import Task

DEPTH = 3


@dataclass(eq=False)
class Work:
    """One task: what it does next, who waits for it, and for how many it waits."""

    depth: int
    steps: list[Any]
    parent: "Work | None" = None
    children: int = 0
    start: Start | None = None
    slot: Ask | None = None
    place: bool = False  # it has its place in an instance, and may have its units


@dataclass
class Forest:
    """Let trees of tasks run through one admission, in an order that chance draws."""

    rng: random.Random
    functions: int
    most: int
    ended: int = 0
    admission: Admission = field(default_factory=Admission)

    def __post_init__(self) -> None:
        rng, admission = self.rng, self.admission
        self.works: dict[int, Work] = {}
        self.running: dict[Start, Work] = {}
        self.asking: dict[Ask, Work] = {}
        self.wakes: list[Work] = []
        self.free = {f"f{number}": self.most for number in range(self.functions)}
        for name in ("a", "b"):
            admission.limit(Gate(name, (), rng.choice([1, 1, 2])))
        if rng.random() < 0.5:
            admission.ceiling("all", rng.choice([2, 3]))
            if rng.random() < 0.5:
                admission.reserve("f0", 1)
        self.pipelines = []
        for number in range(3):
            function = f"f{number % self.functions}"
            shared = rng.sample(["a", "b"], rng.choice([0, 1, 2]))
            spec = PipelineSpec(f"p{number}", function, concurrency=rng.choice([None, 1, 2]), limits=tuple(shared))
            admission.configure(spec, function, shared)
            self.pipelines.append(spec.name)
        for function, most in self.free.items():
            admission.provide(function, most)

    # what tasks do ----------------------------------------------------------------------------------------------------
    def make(self, depth: int, parent: Work | None = None) -> None:
        rng = self.rng
        steps: list[Any] = rng.choices([1, 1, 2, 3], k=rng.choice([0, 1, 2]) if depth < DEPTH else 0)
        if rng.random() < 0.3:
            steps.insert(rng.randint(0, len(steps)), rng.choice(["a", "b"]))
        work = Work(depth, steps, parent)
        task = Task(len(self.works), rng.choice(self.pipelines), b"", created=0.0, expires=inf, durable=not depth)
        task.depth = depth
        self.works[task.id] = work
        self.admission.offer(task.pipeline, (task,))

    def step(self, work: Work) -> None:
        """Let a task that runs do the next thing."""
        start = work.start
        assert start is not None
        assert not start.rests
        if work.slot is not None:
            self.admission.lending.give(work.slot)
            work.slot = None
        elif not work.steps:
            self.end(work, start)
        elif isinstance(step := work.steps.pop(0), str):
            ask = Ask(start, start.task.id, len(work.steps) + 1, self.admission.gates[step], 1.0, slot=True)
            if self.admission.lending.ask(ask) is None:
                self.asking[ask] = work
        else:
            self.rest(work, start, step)

    def rest(self, work: Work, start: Start, children: int) -> None:
        work.children = children
        work.place = False
        self.admission.lending.resting.rest(start)
        self.vacate(start.slots.name)
        for _ in range(children):
            self.make(work.depth + 1, work)

    def end(self, work: Work, start: Start) -> None:
        self.ended += 1
        del self.running[start]
        if start.rests:
            self.wakes = [one for one in self.wakes if one is not work]
        self.admission.lending.end(start, 0.0)
        self.admission.finish(start, None)
        if work.place:
            self.vacate(start.slots.name)
        parent = work.parent
        if parent is not None and parent.start in self.running:
            parent.children -= 1
            if not parent.children:
                self.wakes.append(parent)

    def vacate(self, function: str) -> None:
        """Give a place to one that sleeps and wants to go on, else to admission."""
        self.free[function] += 1
        self.admission.provide(function, 1)

    def wake(self) -> None:
        """Let those go on for whom there is a place; then they stand in line for their units."""
        for work in list(self.wakes):
            assert work.start is not None
            place = work.start.slots
            if place.free > 0:
                self.wakes.remove(work)
                self.admission.provide(place.name, -1)
                self.free[place.name] -= 1
                work.place = True
                if self.admission.lending.resting.come_back(work.start):
                    assert not work.start.rests

    # the world --------------------------------------------------------------------------------------------------------
    def admit(self) -> None:
        self.wake()
        while True:
            admitted = self.admission.admit(0.0, 0.0)
            for start in admitted.starts:
                work = self.works[start.task.id]
                work.start, work.place = start, True
                self.free[start.slots.name] -= 1
                self.running[start] = work
                assert not any(gate.asks for gate in start.gates), "who runs goes before what has not started"
            for ask in admitted.lent.granted:
                self.asking.pop(ask).slot = ask
            for ask, _ in admitted.lent.refused:
                del self.asking[ask]
            if self.admission.next_wakeup() is None:
                return

    def check(self) -> None:
        """Check that what runs is what the gates count, and no more than they let."""
        use: Counter[Gate] = Counter()
        for start, work in self.running.items():
            if not start.rests:
                use.update(set(start.gates))
                if work.slot is not None:
                    use[work.slot.gate] += 1
        for gate, count in use.items():
            assert gate.in_use == count
            assert gate.free() >= 0 or gate.concurrency is None
        for function, free in self.free.items():
            assert 0 <= free <= self.most, function

    def run(self, trees: int, kill: bool) -> None:
        rng = self.rng
        for _ in range(trees):
            self.make(0)
        for _ in range(100_000):
            self.admit()
            self.check()
            asking = set(map(id, self.asking.values()))
            able = [work for start, work in self.running.items() if not start.rests and id(work) not in asking]
            if not able:
                break
            work = rng.choice(able)
            if kill and rng.random() < 0.05:
                self.kill(rng.choice(list(self.running.values())))
            else:
                self.step(work)
        assert not self.running, "a deadlock"
        assert not self.admission.lending.lined
        assert all(gate.in_use == 0 for pipeline in self.admission.pipelines.values() for gate in pipeline.gates)
        if not kill:
            assert self.ended == len(self.works)

    def kill(self, work: Work) -> None:
        """End a task wherever it is, with all that it waits for."""
        for start, one in list(self.running.items()):
            if one.parent is work:
                self.kill(one)
                self.running.pop(start, None)
        for number, one in self.works.items():
            if one.parent is work and one.start is None:
                for pipeline in self.pipelines:
                    self.admission.withdraw(pipeline, (number,))
        self.asking = {ask: one for ask, one in self.asking.items() if one is not work}
        assert work.start is not None
        self.end(work, work.start)


@given(st.randoms(use_true_random=False), st.integers(1, 2), st.integers(1, 3), st.integers(1, 6), st.booleans())
@settings(max_examples=300, deadline=None)
def test_trees_of_tasks_end_and_exceed_no_limit(
    rng: random.Random, functions: int, most: int, trees: int, kill: bool
) -> None:
    Forest(rng, functions, most).run(trees, kill)
