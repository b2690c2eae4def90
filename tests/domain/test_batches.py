"""Batches: what one start takes, and when; the laws in random worlds are in `test_admission`."""

from collections import Counter
from typing import Any

import pytest
from tests.domain.test_admission import Bench as Shared
from tests.domain.test_admission import Chance

from penstock.domain.admission import Admission
from penstock.domain.explain import reason
from penstock.domain.forecast import BATCHED, forecast
from penstock.domain.pipeline import EARLY, MOST_BYTES
from penstock.domain.specs import BatchSpec, PipelineSpec, RateSpec
from penstock.domain.task import Task

WALL = 1.7e9


class Bench:
    """Drive the admission of one pipeline, on a clock that begins at 0."""

    def __init__(self, size: int = 3, wait: float = 2.0, **options: Any) -> None:
        self.admission = Admission()
        self.options = {"batch": BatchSpec(size, wait), **options}
        self.change()
        self.admission.provide("f", 1000)
        self.sent = 0

    def change(self, **options: Any) -> None:
        self.options |= options
        self.admission.configure(PipelineSpec("p", "f", **self.options), "f")

    def send(self, tasks: int, at: float = 0.0, payload: bytes | None = b"1", **options: Any) -> list[Task]:
        made = []
        for _ in range(tasks):
            self.sent += 1
            made.append(Task(self.sent, "p", payload, **{"created": WALL + at, "expires": WALL + 1e6, **options}))
        self.admission.offer("p", made)
        return made

    def starts(self, at: float = 0.0) -> list[list[int]]:
        """Return the tasks of each start at a moment."""
        return [[task.id for task in start.tasks] for start in self.admission.admit(at, WALL + at).starts]


def test_a_whole_batch_starts_at_once_and_the_rest_when_its_oldest_has_waited() -> None:
    bench = Bench(size=3, wait=2.0)
    bench.send(7)
    assert bench.starts() == [[1, 2, 3], [4, 5, 6]]
    assert bench.starts(1.9) == []
    assert bench.admission.next_wakeup() == pytest.approx(2.0)
    bench.send(1, at=1.9)
    assert bench.starts(1.9) == []
    assert bench.starts(2.0) == [[7, 8]]
    assert bench.admission.next_wakeup() is None


def test_what_completes_a_batch_starts_it() -> None:
    bench = Bench(size=3, wait=100.0)
    bench.send(2)
    assert bench.starts() == []
    bench.send(1, at=1.0)
    assert bench.starts(1.0) == [[1, 2, 3]]


def test_without_a_wait_what_is_there_goes() -> None:
    bench = Bench(size=3, wait=0.0)
    bench.send(2)
    assert bench.starts() == [[1, 2]]


def test_a_task_that_was_put_off_waits_from_when_it_was_due() -> None:
    bench = Bench(size=3, wait=2.0)
    (task,) = bench.send(1)
    assert bench.starts(2.0) == [[1]]
    task.since = WALL + 50.0
    bench.admission.put_back([task])
    assert bench.starts(51.0) == []
    assert bench.starts(52.0) == [[1]]


def test_one_that_comes_back_has_waited_and_takes_the_others_along() -> None:
    bench = Bench(size=3, wait=2.0)
    (task,) = bench.send(1)
    assert bench.starts(2.0) == [[1]]
    bench.send(1, at=3.0)
    assert bench.starts(3.0) == []
    bench.admission.put_back([task])
    assert bench.starts(3.0) == [[1, 2]]


def test_a_clock_that_is_set_back_adds_one_wait_at_most() -> None:
    bench = Bench(size=3, wait=2.0)
    bench.send(1, at=3600.0)
    assert bench.starts() == []
    assert bench.admission.next_wakeup() == pytest.approx(2.0)


def test_a_batch_is_one_start_of_a_rate_and_one_of_concurrency() -> None:
    bench = Bench(size=10, rates=(RateSpec(2, 10.0, "window"),))
    bench.send(50)
    assert list(map(len, bench.starts())) == [10, 10]
    bench = Bench(size=10, concurrency=3)
    bench.send(50)
    assert list(map(len, bench.starts())) == [10, 10, 10]


def test_a_rate_that_meters_cost_takes_the_sum_and_cuts_the_batch_to_what_can_pass() -> None:
    bench = Bench(size=10, wait=0.0, rates=(RateSpec(5, 1.0, "window", meter="cost"),))
    bench.send(3, cost=2.0)
    bench.send(1, cost=5.0)
    assert bench.starts() == [[1, 2]]
    start = bench.admission.admit(0.0, WALL)
    assert (start.starts, start.impossible) == ([], [])
    assert bench.admission.pipelines["p"].next_load(WALL).cost == 2.0


def test_a_task_that_can_never_pass_is_told_alone() -> None:
    bench = Bench(size=10, wait=0.0)
    bench.send(1, cost=9.0)
    bench.send(1, cost=1.0)
    bench.change(rates=(RateSpec(5, 1.0, "window", meter="cost"),))
    admitted = bench.admission.admit(0.0, WALL)
    assert [task.id for task, _ in admitted.impossible] == [1]
    assert [task.id for start in admitted.starts for task in start.tasks] == [2]


def test_payloads_have_a_bound_together_and_a_single_one_always_passes() -> None:
    bench = Bench(size=10, wait=0.0)
    bench.send(1, payload=bytes(MOST_BYTES + 1))
    bench.send(2, payload=bytes(MOST_BYTES // 2))
    bench.send(1, payload=None, size=MOST_BYTES)
    assert bench.starts() == [[1], [2, 3], [4]]


def test_a_suspect_goes_alone_and_at_once() -> None:
    bench = Bench(size=3, wait=100.0)
    tasks = bench.send(3)
    assert bench.starts() == [[1, 2, 3]]
    tasks[0].apart = tasks[1].apart = True
    bench.admission.put_back(tasks)
    assert bench.starts(1.0) == [[1], [2]]
    assert bench.starts(100.0) == [[3]]


@pytest.mark.parametrize("deadline", ["expires", "start_by"])
def test_nothing_expires_for_want_of_company(deadline: str) -> None:
    bench = Bench(size=3, wait=100.0)
    options: dict[str, Any] = {deadline: WALL + 50.0}
    bench.send(1, **options)
    assert bench.starts() == []
    assert bench.admission.next_wakeup() == pytest.approx(50.0 - EARLY)
    bench.send(1, start_by=WALL + 5.0)
    assert bench.starts(1.0) == []
    assert bench.admission.next_wakeup() == pytest.approx(5.0 - EARLY)
    assert bench.starts(4.99) == [[1, 2]]


def test_what_has_expired_is_not_taken_along() -> None:
    bench = Bench(size=4, wait=100.0, concurrency=1)
    bench.send(4)
    (start,) = bench.admission.admit(0.0, WALL).starts
    bench.send(1)
    bench.send(1, expires=WALL + 5.0)
    bench.send(2)
    bench.admission.finish(start, 0.0)
    assert bench.starts(6.0) == [[5]]
    assert bench.admission.admit(6.0, WALL + 6.0).expired == []


def test_priority_decides_who_goes_first_not_when() -> None:
    bench = Bench(size=3, wait=2.0)
    bench.send(2)
    bench.send(2, at=1.0, priority=5)
    assert bench.starts(1.0) == [[3, 4, 1]]
    assert bench.starts(2.0) == [[2]]


def test_a_pause_and_a_hold_stop_batches_too() -> None:
    bench = Bench(size=3, wait=2.0)
    bench.send(2)
    assert bench.starts() == []
    bench.admission.pause("p")
    assert bench.starts(3.0) == []
    bench.admission.resume("p")
    bench.admission.hold("p", 10.0)
    assert bench.starts(4.0) == []
    assert bench.starts(10.0) == [[1, 2]]


def test_a_change_of_the_batch_holds_from_the_next_start_on() -> None:
    bench = Bench(size=5, wait=100.0)
    bench.send(4)
    assert bench.starts() == []
    bench.change(batch=BatchSpec(3, 100.0))
    assert bench.starts() == [[1, 2, 3]]
    bench.change(batch=None)
    admitted = bench.admission.admit(0.0, WALL)
    assert [(len(start.tasks), start.batched) for start in admitted.starts] == [(1, False)]


def test_slots_are_wanted_for_calls_and_not_for_tasks() -> None:
    bench = Bench(size=10, wait=100.0)
    bench.admission.provide("f", -1000)
    bench.send(35)
    assert bench.starts() == []
    assert bench.admission.demand("f", 0.0, 1000) == 4


def test_the_reason_to_wait_is_the_company() -> None:
    bench = Bench(size=3, wait=2.0)
    bench.send(1)
    bench.starts()
    found = reason(bench.admission, "p", 0.0)
    assert found.kind == "batch"
    assert found.until == pytest.approx(2.0)


def test_a_forecast_promises_nothing_but_a_lower_bound() -> None:
    bench = Bench(size=3, wait=2.0, rates=(RateSpec(1, 60.0),))
    bench.send(9)
    bench.starts()
    told = forecast(bench.admission, "p", 5, 1.0, WALL + 1.0)
    assert told.because == BATCHED
    assert told.at == pytest.approx(61.0), "two starts at least, were the first one now"


def test_batches_and_single_tasks_behind_few_slots_get_as_much_done() -> None:
    bench = Shared(Chance(work=(0.01, 0.01)))
    bench.provide(1)
    bench.pipeline("single")
    bench.pipeline("batched", batch=BatchSpec(10, 1.0))
    for name in ("single", "batched"):
        bench.send(name, 3000)
    bench.run(10.0, check=False)
    done = Counter(task.pipeline for task in bench.finished)
    assert 0.8 < done["batched"] / done["single"] < 1.25
