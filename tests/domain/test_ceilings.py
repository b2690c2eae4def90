"""Ceilings: never more in all, what is reserved is there at once, and nothing idles that somebody may use."""

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.admission import Admission
from penstock.domain.ceilings import reservation_mistakes
from penstock.domain.explain import reason
from penstock.domain.specs import PipelineSpec
from penstock.domain.task import Task

if TYPE_CHECKING:
    from penstock.domain.pipeline import Start

FUNCTIONS = ("a", "b", "c")
PIPELINES = {f"{function}{n}": function for function in FUNCTIONS for n in range(2)}

steps = st.lists(
    st.tuples(st.just("send"), st.sampled_from(sorted(PIPELINES)), st.integers(1, 8))
    | st.tuples(st.just("finish"), st.integers(0, 99))
    | st.tuples(st.just("ceiling"), st.integers(1, 12))
    | st.tuples(st.just("reserve"), st.sampled_from(FUNCTIONS), st.integers(0, 4))
    | st.tuples(st.just("pause"), st.sampled_from(sorted(PIPELINES)))
    | st.tuples(st.just("resume"), st.sampled_from(sorted(PIPELINES))),
    max_size=60,
)


class House:
    """Drive admission with as many slots as anybody may want."""

    def __init__(self, concurrency: int, reserved: dict[str, int]) -> None:
        self.admission = Admission()
        self.concurrency = concurrency
        self.reserved = dict(reserved)
        self.running: list[Start] = []
        self.waiting = dict.fromkeys(PIPELINES, 0)
        self.paused: set[str] = set()
        self.last = 0
        self.admission.ceiling("all", concurrency)
        for function, n in reserved.items():
            self.admission.reserve(function, n)
        for name, function in PIPELINES.items():
            self.admission.configure(PipelineSpec(name, function), function)
        for function in FUNCTIONS:
            self.admission.provide(function, 1000)

    def send(self, name: str, count: int) -> None:
        tasks = [Task(self.last + n, name, b"", created=0.0, expires=1e12) for n in range(1, count + 1)]
        self.last += count
        self.waiting[name] += count
        self.admission.offer(name, tasks)

    def finish(self, place: int) -> None:
        if self.running:
            start = self.running.pop(place % len(self.running))
            self.admission.finish(start, 0.0)
            self.admission.provide(start.slots.name, 1)

    def ceiling(self, concurrency: int) -> None:
        self.concurrency = max(concurrency, sum(self.reserved.values()) + 1)
        self.admission.ceiling("all", self.concurrency)

    def reserve(self, function: str, n: int) -> None:
        if sum(self.reserved.values()) - self.reserved.get(function, 0) + n >= self.concurrency:
            return
        self.reserved[function] = n
        self.admission.reserve(function, n)
        for name, owner in PIPELINES.items():
            if owner == function:
                self.admit()  # pipelines are configured anew a few at a time, and work goes on between
                self.admission.configure(PipelineSpec(name, owner, paused=name in self.paused), owner)

    def pause(self, name: str) -> None:
        self.paused.add(name)
        self.admission.pause(name)

    def resume(self, name: str) -> None:
        self.paused.discard(name)
        self.admission.resume(name)

    def admit(self) -> None:
        while True:
            admitted = self.admission.admit(0.0, 0.0, 3)
            for start in admitted.starts:
                assert len(self.running) < self.concurrency, "more run than the ceiling lets"
                self.running.append(start)
                self.waiting[start.pipeline.name] -= 1
            if self.admission.next_wakeup() is None or not (
                admitted.starts or self.admission.next_wakeup() == float("-inf")
            ):
                return

    def runs(self, function: str) -> int:
        return sum(PIPELINES[start.pipeline.name] == function for start in self.running)


@given(st.integers(1, 12), st.dictionaries(st.sampled_from(FUNCTIONS), st.integers(1, 3)), steps)
def test_a_ceiling_holds_and_is_used_and_keeps_what_is_reserved(
    concurrency: int, reserved: dict[str, int], story: list[tuple[Any, ...]]
) -> None:
    house = House(concurrency + sum(reserved.values()), reserved)
    moved = False  # a reservation was changed while tasks ran, which still hold what they took before
    for verb, *arguments in story:
        moved = moved or (verb == "reserve" and bool(house.running))
        getattr(house, verb)(*arguments)
        house.admit()
        for name, function in PIPELINES.items():
            if not house.waiting[name] or name in house.paused:
                continue
            free = house.concurrency - len(house.running)
            assert "concurrency" in reason(house.admission, name, 0.0).text or free <= 0 or moved
            if moved:
                continue
            n = house.reserved.get(function, 0)
            assert free <= 0 or house.runs(function) >= n, "what is reserved is free, and is not given"
            idle = sum(max(0, kept - house.runs(one)) for one, kept in house.reserved.items())
            assert free <= idle, "units idle that nobody has reserved"
    for name in sorted(house.paused):
        house.resume(name)
    while house.running or any(house.waiting.values()):
        house.admit()
        assert house.running, "tasks wait, and nothing runs"
        house.finish(0)


def test_beyond_its_own_a_function_takes_what_nobody_waits_for() -> None:
    house = House(6, {"a": 2})
    house.send("a0", 40)
    house.admit()
    assert house.runs("a") == 6
    house.send("b0", 10)
    for _ in range(10):
        house.finish(0)
        house.admit()
    assert (house.runs("a"), house.runs("b")) == (2, 4)
    house.pause("b0")
    for _ in range(8):
        house.finish(0)
        house.admit()
    assert (house.runs("a"), house.runs("b")) == (6, 0)


def test_a_ceiling_holds_while_a_reservation_is_taken_back() -> None:
    house = House(3, {"a": 2})
    house.admission.reserve("a", 0)
    house.reserved["a"] = 0
    house.reserve("b", 1)
    house.send("a0", 9)
    house.send("b0", 9)
    house.admit()
    assert (house.runs("a"), house.runs("b")) == (2, 1)
    house.admission.configure(PipelineSpec("a0", "a"), "a")
    while house.running:
        house.finish(0)
        house.admit()
    assert set(house.waiting.values()) == {0}


def test_reservations_need_a_ceiling_that_leaves_room_for_others() -> None:
    reserving = {"f": {"reserved_concurrency": 3}, "g": {"reserved_concurrency": 2}, "h": {}}
    wide = {"scope": "project", "concurrency": 5}
    assert [one.path for one in reservation_mistakes(reserving, {"all": wide})] == ["limits.all.concurrency"]
    assert reservation_mistakes(reserving, {"all": {**wide, "concurrency": 6}}) == []
    for none in ({}, {"named": {"concurrency": 9}}, {"all": {"scope": "project", "rate": "1/s"}}):
        paths = [one.path for one in reservation_mistakes(reserving, none)]
        assert paths == ["functions.f.reserved_concurrency", "functions.g.reserved_concurrency"]
    assert reservation_mistakes({"h": {}}, {}) == []


@pytest.mark.parametrize("gone", ["all", None])
def test_a_ceiling_that_goes_holds_nobody_back(gone: str | None) -> None:
    house = House(1, {})
    house.send("a0", 5)
    house.send("b0", 5)
    house.admit()
    assert len(house.running) == 1
    house.concurrency = 99
    if gone is None:
        house.admission.ceiling("all", None)
    else:
        house.admission.remove_ceiling("all")
        for name, function in PIPELINES.items():
            house.admission.configure(PipelineSpec(name, function), function)
    house.admit()
    assert len(house.running) == 10
