"""Lending: no limit is exceeded by what tasks take within, who asks first goes first, and everything ends."""

import random
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.domain.test_admission import START, Bench, Chance, a_rate, chances

from penstock.domain.admission import Admission
from penstock.domain.asks import Ask, Lent, Why
from penstock.domain.explain import reason
from penstock.domain.limits import Gate
from penstock.domain.pipeline import Admitted, Start
from penstock.domain.rates import LONG, Rate
from penstock.domain.specs import PipelineSpec, RateSpec
from penstock.domain.task import Task
from penstock.sim.laws import concurrency_breaches, rate_breaches
from penstock.sim.ledger import Execution, Use


@dataclass
class Borrowing(Bench):
    """Let tasks take from shared limits while they run, one thing after the other, and tell what they spent."""

    spends: bool = True
    uses: list[Use] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refused: Counter[Why] = Counter()
        self.asking: dict[Ask, tuple[Execution, list[Any], float]] = {}
        self.order: dict[tuple[Gate, bool], list[Ask]] = {}
        admit = self.admission.admit

        def admit_and_lend(*arguments: Any) -> Admitted:
            admitted = admit(*arguments)
            self._hear(admitted.lent)
            for start in admitted.starts:
                assert not any(gate.asks for gate in start.gates), "who runs goes before what has not started"
            return admitted

        self.admission.admit = admit_and_lend  # type: ignore[method-assign, assignment]

    def _begin(self, start: Start, *, cut: bool) -> None:
        task = start.task
        self.waiting[task.pipeline].remove(task)
        execution = Execution(task.id, task.id, 1, task.pipeline, "f", 1, 0, 1, self.now, 30.0)
        self.executions.append(execution)
        for user in (task.pipeline, *self.specs[task.pipeline].limits):
            self.users[user].append(execution)
        self.running += 1
        self.admission_slots[start.slots.name] -= 1
        execution.started = self.now + self.rng.uniform(*self.chance.delivery)
        self.at(execution.started + self.rng.uniform(*self.chance.report), self._dated, start, execution.started)
        self.at(execution.started, self._go_on, start, execution, self._program())

    def _program(self) -> list[Any]:
        rng, names = self.rng, list(self.admission.gates)
        steps: list[Any] = [
            (rng.choice(names), rng.random() < 0.5, rng.choice([1.0, 1.0, 3.0, 1e6]))
            for _ in range(rng.choice([0, 1, 2, 4]) if names else 0)
        ]
        if self.spends and rng.random() < 0.3:
            steps.insert(rng.randint(0, len(steps)), rng.choice([0.0, 0.5, 2.0, 40.0]))
        return steps

    def _go_on(self, start: Start, execution: Execution, steps: list[Any]) -> None:
        if not steps:
            self.at(self.now + self.rng.uniform(*self.chance.work), self._over, start, execution)
            return
        step = steps.pop(0)
        if isinstance(step, float):
            if execution.spent is None:
                execution.spent, execution.corrected = step, self.now
                self.admission.lending.spent(start, step)
            self._go_on(start, execution, steps)
            return
        name, slot, cost = step
        gate = self.admission.gates[name]
        ask = Ask(start, start.task.id, next(self.numbers), gate, cost, slot=slot)
        refusal = self.admission.lending.ask(ask)
        if refusal is not None:
            self.refused[refusal.why] += 1
            self._go_on(start, execution, steps)
            return
        self.asking[ask] = execution, steps, self.now
        self.order.setdefault((gate, slot), []).append(ask)
        if self.rng.random() < 0.05:
            self.at(self.now + self.rng.uniform(0, 1), self._withdraw, ask)

    def _withdraw(self, ask: Ask) -> None:
        if ask in self.asking:
            execution, steps, _ = self.asking.pop(ask)
            self.order[ask.gate, ask.slot].remove(ask)
            self.admission.lending.give(ask)
            self._go_on(ask.start, execution, steps)

    def _hear(self, lent: Lent) -> None:
        for ask, refusal in lent.refused:
            execution, steps, _ = self.asking.pop(ask)
            self.order[ask.gate, ask.slot].remove(ask)
            self.refused[refusal.why] += 1
            self.at(self.now, self._go_on, ask.start, execution, steps)
        for ask in lent.granted:
            assert self.order[ask.gate, ask.slot].pop(0) is ask, "first come, first served"
            self.at(self.now + self.rng.uniform(*self.chance.delivery), self._granted, ask, *self.asking.pop(ask))

    def _granted(self, ask: Ask, execution: Execution, steps: list[Any], asked: float) -> None:
        use = Use(execution, ask.gate.name, ask.slot, ask.cost, asked, self.now)
        self.uses.append(use)
        if ask.slot:
            self.at(self.now + self.rng.uniform(*self.chance.work), self._let_go, ask, use, steps)
            return
        if steps or self.rng.random() < 0.5:  # else the end dates it
            self.at(self.now + self.rng.uniform(*self.chance.report), self._told, ask, self.now)
        self._go_on(ask.start, execution, steps)

    def _told(self, ask: Ask, at: float) -> None:
        if ask.start.asks and ask.number in ask.start.asks:
            self.admission.lending.went_on(ask, at)

    def _let_go(self, ask: Ask, use: Use, steps: list[Any]) -> None:
        use.ended = self.now
        self.admission.lending.give(ask)
        self._go_on(ask.start, use.execution, steps)

    def _dated(self, start: Start, begin: float) -> None:
        if start.undated:
            super()._dated(start, begin)

    def _over(self, start: Start, execution: Execution) -> None:
        execution.ended = self.now
        self.admission.lending.end(start, self.now)
        self._end(start, execution.started)

    def is_kept(self, gate: Gate, pipeline: Any) -> bool:
        return bool(gate.asks) or super().is_kept(gate, pipeline)

    def check_asks(self) -> None:
        """Check that whoever is first in a line is stopped by something real."""
        for gate in self.admission.gates.values():
            for line, slot in ((gate.asks.rates, False), (gate.asks.slots, True)) if gate.asks else ():
                if line:
                    first = next(iter(line))
                    ready = (
                        (inf if gate.is_full else gate.held_until)
                        if slot
                        else gate.rates_ready_at(self.now, first.cost)
                    )
                    assert ready > self.now, f"{gate.name} could grant at {self.now}"

    def check_work_conserving(self) -> None:
        self.check_asks()
        if len(set(self.costs.values())) == 1:  # else a dear task may have others wait behind it
            super().check_work_conserving()

    def check_limits(self) -> None:
        cost = self.costs.__getitem__
        for name, allowances in self.allowances.items():
            mine = [use for use in self.uses if use.limit == name]
            taken = [use.as_start() for use in mine if not use.slot]
            held = [use.as_start() for use in mine if use.slot]
            assert rate_breaches(name, [*self.users[name], *taken], allowances, cost) == []
            assert concurrency_breaches(name, [*self.users[name], *held], allowances) == []
        for gate in self.admission.gates.values():
            assert (gate.in_use, gate.undated_tasks, gate.undated_cost, gate.stalled) == (0, 0, 0.0, 0)
            assert not gate.asks


def make(seed: int) -> Borrowing:
    rng = random.Random(seed)
    bench = Borrowing(chances(rng), rng)
    shared = [f"limit-{n}" for n in range(rng.randint(1, 3))]
    for name in shared:
        rates = tuple(a_rate(rng, cost=True) for _ in range(rng.choice([0, 1, 2])))
        rates = tuple({rate.period + rate.margin: rate for rate in rates}.values())
        bench.limit(name, rates, rng.choice([None, 1, 2, 5]))
    for n in range(rng.randint(1, 4)):
        limits = tuple(rng.sample(shared, rng.randint(0, len(shared))))
        bench.pipeline(f"p{n}", limits=limits, concurrency=rng.choice([None, 3]))
    bench.provide(rng.choice([2, 10, 50]))
    return bench


@given(st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=150)
def test_nothing_exceeds_a_limit_nothing_overtakes_and_all_ends(seed: int) -> None:
    bench = make(seed)
    costs = bench.rng.choice([[1.0], [1.0, 1.0, 3.0]])
    for _ in range(bench.rng.randint(1, 4)):
        for name in bench.specs:
            bench.send(name, bench.rng.randint(0, 15), cost=bench.rng.choice(costs))
        if bench.rng.random() < 0.3:
            bench.admission.hold_limit(
                bench.rng.choice(list(bench.admission.gates)), bench.now + bench.rng.uniform(0, 2)
            )
        bench.run(bench.rng.uniform(0, 3))
    bench.run()
    assert not bench.asking
    assert not bench.running
    assert not any(bench.waiting.values())
    bench.check_limits()


def test_the_worlds_have_everything() -> None:
    refused: Counter[Why] = Counter()
    slots = rates = 0
    for seed in range(60):
        bench = make(seed)
        for name in bench.specs:
            bench.send(name, 20)
        bench.run()
        refused += bench.refused
        slots += sum(use.slot for use in bench.uses)
        rates += sum(not use.slot for use in bench.uses)
    assert refused.keys() >= {Why.MISUSE, Why.HOLDS, Why.COST}
    assert min(slots, rates) > 100


# single laws ----------------------------------------------------------------------------------------------------------
def plant(
    limits: dict[str, tuple[tuple[RateSpec, ...], int | None]], pipelines: dict[str, tuple[str, ...]]
) -> Admission:
    admission = Admission()
    for name, (rates, concurrency) in limits.items():
        admission.limit(Gate(name, rates, concurrency))
    for name, shared in pipelines.items():
        admission.configure(PipelineSpec(name, "f", limits=shared), "f", shared)
    admission.provide("f", 100)
    return admission


def offer(admission: Admission, name: str, tasks: int = 1, cost: float = 1.0) -> None:
    numbers = range(len(admission.pipelines) * 1000, len(admission.pipelines) * 1000 + tasks)
    admission.offer(name, [Task(n, name, b"", created=0.0, expires=inf, cost=cost) for n in numbers])


def start_one(admission: Admission, name: str, now: float = START, cost: float = 1.0) -> Start:
    offer(admission, name, cost=cost)
    (start,) = admission.admit(now, 0.0).starts
    return start


def ask(
    admission: Admission, start: Start, limit: str, cost: float = 1.0, number: int = 1, *, slot: bool = False
) -> Ask:
    made = Ask(start, start.task.id, number, admission.gates[limit], cost, slot=slot)
    assert admission.lending.ask(made) is None
    return made


def test_a_large_ask_is_not_overtaken_by_small_starts() -> None:
    admission = plant({"l": ((RateSpec(10, 1.0, "window", meter="cost"),), None)}, {"in": (), "p": ("l",)})
    handler = start_one(admission, "in")
    small = start_one(admission, "p")
    admission.started(small, START)
    large = ask(admission, handler, "l", 10.0)
    offer(admission, "p", 5)
    admitted = admission.admit(START + 0.1, 0.0)
    assert not admitted.starts
    assert not admitted.lent.granted
    assert "ask for the limit 'l' go first" in reason(admission, "p", START + 0.1).text
    moment = admission.next_wakeup()
    assert moment is not None
    admitted = admission.admit(moment, 0.0)
    assert admitted.lent.granted == [large]
    assert not admitted.starts, "the window is used up"
    admission.lending.went_on(large, moment + 0.2)
    assert not admission.admit(moment + 0.3, 0.0).starts
    moment = admission.next_wakeup()
    assert moment is not None
    assert moment >= START + 2.2, "a unit is free one period after the handler has gone on"
    assert len(admission.admit(moment, 0.0).starts) == 5


def test_who_asks_first_is_granted_first() -> None:
    admission = plant({"l": ((RateSpec(4, 1.0, "window", meter="cost"),), None)}, {"in": ()})
    handlers = [start_one(admission, "in") for _ in range(3)]
    asks = [ask(admission, handler, "l", cost) for handler, cost in zip(handlers, (3.0, 4.0, 1.0), strict=True)]
    assert admission.admit(START, 0.0).lent.granted == asks[:1]
    admission.lending.went_on(asks[0], START)
    assert admission.admit(START + 0.5, 0.0).lent.granted == [], "the third would fit, and does not overtake"
    admission.lending.give(asks[1])
    assert admission.admit(START + 0.5, 0.0).lent.granted == asks[2:]


def test_a_hold_holds_those_who_ask() -> None:
    admission = plant({"l": ((RateSpec(10, 1.0),), 3)}, {"in": ()})
    handler = start_one(admission, "in")
    admission.hold_limit("l", START + 5)
    asks = [ask(admission, handler, "l"), ask(admission, handler, "l", number=2, slot=True)]
    assert admission.admit(START + 1, 0.0).lent.granted == []
    assert admission.next_wakeup() == START + 5
    assert admission.admit(START + 5, 0.0).lent.granted == asks


def test_what_was_granted_in_vain_is_free_again() -> None:
    admission = plant({"l": ((RateSpec(1, 60.0 - 1, "window"),), None)}, {"in": ()})
    first, second = start_one(admission, "in"), start_one(admission, "in")
    granted = ask(admission, first, "l")
    admission.admit(START, 0.0)
    waits = ask(admission, second, "l")
    assert admission.admit(START, 0.0).lent.granted == []
    admission.lending.give(granted)
    assert admission.admit(START, 0.0).lent.granted == [waits]


def test_what_cannot_be_is_refused_with_a_reason() -> None:
    limits: Any = {"rate": ((RateSpec(5, 1.0, meter="cost"),), None), "room": ((), 2), "mine": ((), 2)}
    admission = plant(limits, {"in": ("mine",)})
    handler, gates = start_one(admission, "in"), admission.gates

    def refusal(limit: str, cost: float = 1.0, *, slot: bool) -> Any:
        return admission.lending.ask(Ask(handler, 1, 9, gates[limit], cost, slot=slot))

    assert refusal("room", slot=False).why is Why.MISUSE
    assert "context.slot('room')" in refusal("room", slot=False).text
    assert refusal("rate", slot=True).why is Why.MISUSE
    assert refusal("rate", 6.0, slot=False).why is Why.COST
    assert refusal("mine", slot=True).why is Why.HOLDS
    held = ask(admission, handler, "room", slot=True)
    assert "waits for a slot of 'room'" in refusal("room", slot=True).text
    admission.admit(START, 0.0)
    assert "holds a slot of 'room'" in refusal("room", slot=True).text
    admission.lending.give(held)
    ask(admission, handler, "room", slot=True)


def test_whoever_closes_a_circle_of_waiting_is_refused() -> None:
    names = ("a", "b", "c")
    admission = plant(dict.fromkeys(names, ((), 1)), {name: (name,) for name in names})
    starts = {name: start_one(admission, name) for name in names}
    ask(admission, starts["a"], "b", slot=True)
    ask(admission, starts["b"], "c", slot=True)
    assert not admission.admit(START, 0.0).lent.refused
    closing = ask(admission, starts["c"], "a", slot=True)
    ((refused, refusal),) = admission.admit(START, 0.0).lent.refused
    assert refused is closing
    assert (refusal.why, "deadlock" in refusal.text) == (Why.HOLDS, True)
    admission.finish(starts["c"], START)
    (granted,) = admission.admit(START, 0.0).lent.granted
    assert granted.start is starts["b"]


def test_one_who_still_moves_breaks_the_circle() -> None:
    admission = plant({"a": ((), 2), "b": ((), 1)}, {"a": ("a",), "b": ("b",)})
    first, other, second = start_one(admission, "a"), start_one(admission, "a"), start_one(admission, "b")
    ask(admission, first, "b", slot=True)
    waits = ask(admission, second, "a", slot=True)
    admitted = admission.admit(START, 0.0)
    assert not admitted.lent.refused
    admission.finish(other, START)
    assert admission.admit(START, 0.0).lent.granted == [waits]


def test_a_removed_limit_refuses_those_who_ask() -> None:
    admission = plant({"l": ((), 1)}, {"in": ()})
    handlers = [start_one(admission, "in") for _ in range(3)]
    asks = [ask(admission, handler, "l", slot=True) for handler in handlers]
    admission.admit(START, 0.0)
    lent = Lent()
    admission.lending.forget(admission.gates.pop("l"), lent)
    assert [one for one, _ in lent.refused] == asks[1:]
    admission.lending.end(handlers[0], START)


def test_nothing_starts_and_yet_what_runs_goes_on() -> None:
    admission = plant({"l": ((RateSpec(1, 1.0, "window"),), None)}, {"in": (), "p": ("l",)})
    first, second = start_one(admission, "in"), start_one(admission, "in")
    asks = [ask(admission, first, "l"), ask(admission, second, "l")]
    offer(admission, "p")
    lent = Lent()
    assert admission.lending.serve_all(START, lent) == inf
    assert lent.granted == asks[:1]
    admission.lending.went_on(asks[0], START)
    moment = admission.lending.serve_all(START + 0.1, lent)
    assert moment < inf
    admission.lending.serve_all(moment, lent)
    assert lent.granted == asks


def test_many_who_ask_are_granted_a_few_at_a_time() -> None:
    admission = plant({"l": ((RateSpec(5000, 1.0, "window"),), None)}, {"in": (), "p": ("l",)})
    handler = start_one(admission, "in")
    for number in range(2000):
        ask(admission, handler, "l", number=number)
    offer(admission, "p")
    granted = []
    while admission.next_wakeup() == -inf:
        admitted = admission.admit(START, 0.0)
        assert len(admitted.lent.granted) <= 513
        granted += [one.number for one in admitted.lent.granted]
        assert not admitted.starts or len(granted) == 2000
    assert granted == list(range(2000))


# what was spent -------------------------------------------------------------------------------------------------------
def test_what_was_spent_takes_the_place_of_the_cost() -> None:
    limits: Any = {"l": ((RateSpec(10, 1.0, "window", meter="cost"),), None)}
    for spent, started in ((2.0, True), (2.0, False), (0.0, True)):
        admission = plant(limits, {"p": ("l",)})
        first = start_one(admission, "p", cost=8.0)
        if started:
            admission.started(first, START)
        offer(admission, "p", cost=8.0)
        assert not admission.admit(START, 0.0).starts
        admission.lending.spent(first, spent)
        assert len(admission.admit(START, 0.0).starts) == 1


def test_what_was_spent_beyond_the_limit_is_a_debt() -> None:
    admission = plant({"l": ((RateSpec(10, 1.0, "window", meter="cost"),), None)}, {"p": ("l",)})
    first = start_one(admission, "p", cost=1.0)
    admission.started(first, START)
    admission.lending.spent(first, 25.0)
    offer(admission, "p")
    assert not admission.admit(START + 0.9, 0.0).starts
    assert len(admission.admit(START + 1.1, 0.0).starts) == 1


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 4), st.floats(0, 9)), min_size=1, max_size=30),
    st.sampled_from([20, 500]),
)
def test_corrected_dates_never_leave_more_room_than_was_spent(starts: list[tuple[float, float, float]], n: int) -> None:
    rate = Rate(RateSpec(n, 2.0, "window", meter="cost"))
    told: list[tuple[float, float]] = []
    for at, cost, spent in starts:
        rate.date(at, cost)
        rate.correct(at, spent - cost)
        told.append((at, spent))
        for now in (max(at for at, _ in told) + after for after in (0.0, 0.5, 1.9)):
            used = sum(units for at, units in told if now - at < 2.0)
            copy = Rate(RateSpec(n, 2.0, "window", meter="cost"))
            copy.inherit(rate)
            assert copy.room(now, 0.0) <= n - used + 1e-6


def test_a_smooth_rate_paces_by_what_was_spent() -> None:
    rate = Rate(RateSpec(10, 1.0, "smooth", meter="cost"))
    rate.take(START, 1.0)
    before = rate.ready_at(START, 1.0, 1.0)
    rate.date(START, 1.0)
    rate.correct(START, 4.0)
    assert rate.ready_at(START, 1.0, 0.0) == pytest.approx(before + 0.4)
    rate.correct(START, -4.0)
    assert rate.ready_at(START, 1.0, 0.0) == pytest.approx(before)


def test_what_was_spent_is_taken_from_the_reserved_block() -> None:
    admission = plant({"l": ((RateSpec(1000, LONG, "window", meter="cost"),), None)}, {"p": ("l",)})
    gate = admission.gates["l"]

    def reserve() -> None:
        admission.unreserved.clear()
        gate.used(START, ahead=True)
        admission.reserved(gate)

    offer(admission, "p")
    assert not admission.admit(START, 0.0).starts
    reserve()
    (start,) = admission.admit(START, 0.0).starts
    left = gate.rates[0].reserved
    admission.unreserved.clear()
    admission.lending.spent(start, 1.0 + left)
    assert gate.rates[0].reserved == 0
    assert gate in admission.unreserved
    offer(admission, "p")
    assert not admission.admit(START, 0.0).starts
    reserve()
    assert len(admission.admit(START, 0.0).starts) == 1


def test_nothing_is_scanned_when_one_asks_where_thousands_wait() -> None:
    bench = Borrowing(Chance(work=(0.5, 0.5)), spends=False)
    bench.limit("l", (RateSpec(10, 1.0, "window"),))
    for number in range(3000):
        bench.pipeline(f"p{number}", limits=("l",))
        bench.send(f"p{number}")
    bench.pipeline("in")
    bench.provide(100)
    bench.admit()
    bench.send("in")
    bench.admit()
    handler = bench.admission.pipelines["in"]
    assert not handler.queue
    before = bench.admission.counting.given
    start = Start((Task(99, "in", b"", created=0.0, expires=inf),), 1.0, handler)
    made = Ask(start, 99, 1, bench.admission.gates["l"], 1.0, slot=False)
    assert bench.admission.lending.ask(made) is None
    bench.admission.admit(bench.now, 0.0)
    bench.admission.lending.give(made)
    bench.admission.admit(bench.now, 0.0)
    assert bench.admission.counting.given - before <= 2


@pytest.mark.parametrize("correct", [Rate.correct, lambda rate, date, units: rate.redate(date, START + 2.5, 1.0)])
def test_a_date_that_has_run_out_is_not_taken_from_a_later_one(correct: Any) -> None:
    rate = Rate(RateSpec(4, 1.0, "window", meter="cost"))
    rate.date(START, 1.0)
    rate.date(START + 2, 3.0)
    assert rate.room(START + 2.5, 0.0) == 1.0
    correct(rate, START, -1.0)
    assert rate.room(START + 2.5, 0.0) <= 1.0
