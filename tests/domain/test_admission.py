"""Admission: nothing exceeds a limit, nothing that may start waits, nothing starves, and turns are fair."""

import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.domain.admission import Admission
from penstock.domain.limits import Gate
from penstock.domain.pipeline import EARLY, ROUNDING, Pipeline, Start
from penstock.domain.specs import BatchSpec, PipelineSpec, RateSpec
from penstock.domain.task import Task
from penstock.domain.turns import Turns
from penstock.sim.laws import Allowance, Window, amend, concurrency_breaches, rate_breaches
from penstock.sim.ledger import Execution

START = 50_000.0
WALL = 1.7e9


class Counting(Turns):
    """Count the turns that are given, so that the cost of a wake-up can be seen."""

    given = 0

    def _turn(self, *arguments: Any) -> Any:
        self.given += 1
        return super()._turn(*arguments)


class Counted(Admission):
    """Tell how many turns were given, in `counting`."""

    def __init__(self) -> None:
        super().__init__()
        self._turns = self.counting = Counting(self._places, self.backlog, self.lending, self.unreserved)


@dataclass(frozen=True)
class Chance:
    """Draw how long things take: the way to the handler, its work, the reports of its start and of its end."""

    delivery: tuple[float, float] = (0.0, 0.0)
    work: tuple[float, float] = (0.1, 0.1)
    report: tuple[float, float] = (0.0, 0.0)
    never_starts: float = 0.0


@dataclass
class Bench:
    """Drive admission as the engine does, on a clock of its own, and keep the truth beside it."""

    chance: Chance = Chance()
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    now: float = START

    def __post_init__(self) -> None:
        self.admission = Counted()
        self.specs: dict[str, PipelineSpec] = {}
        self.allowances: dict[str, list[Allowance]] = defaultdict(list)
        self.users: dict[str, list[Execution]] = defaultdict(list)  # what passed each gate, by its name
        self.waiting: dict[str, list[Task]] = defaultdict(list)
        self.executions: list[Execution] = []
        self.finished: list[Task] = []
        self.expired: list[Task] = []
        self.impossible: list[Task] = []
        self.costs: dict[int, float] = {}
        self.events: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self.numbers = count(1)
        self.slots = "f"
        self.running = 0

    # configuration ------------------------------------------------------------------------------------------------
    def limit(self, name: str, rates: tuple[RateSpec, ...] = (), concurrency: int | None = None) -> None:
        gate = self.admission.gates.get(name) or Gate(name)
        gate.configure(rates, concurrency)
        self._allow(name, rates, concurrency)
        self.admission.limit(gate)

    def pipeline(self, name: str, *, slots: str = "f", **options: Any) -> None:
        spec = PipelineSpec(name, "f", **options)
        self.specs[name] = spec
        self._allow(name, spec.rates, spec.concurrency)
        self.admission.configure(spec, slots, spec.limits)

    def _allow(self, name: str, rates: tuple[RateSpec, ...], concurrency: int | None) -> None:
        windows = tuple(Window(rate.n, rate.period + rate.margin, rate.meter == "cost") for rate in rates)
        self.allowances[name] = amend(self.allowances[name], self.now, self.now, windows, concurrency)

    # tasks --------------------------------------------------------------------------------------------------------
    def send(self, name: str, tasks: int = 1, *, cost: float = 1.0, priority: int = 0, age: float = 1e6) -> None:
        made = [
            Task(
                next(self.numbers), name, b"", created=self.wall, expires=self.wall + age, cost=cost, priority=priority
            )
            for _ in range(tasks)
        ]
        for task in made:
            self.costs[task.id] = cost
        self.waiting[name] += made
        self.waiting[name].sort(key=lambda task: (-task.priority, task.id))
        self.admission.offer(name, made)

    @property
    def wall(self) -> float:
        return WALL + self.now - START

    def admit(self) -> list[Start]:
        """Admit until nothing more can start, as the pump does; check what was decided."""
        begun: list[Start] = []
        while True:
            admitted = self.admission.admit(self.now, self.wall, 7)
            reserved = self.reserve()
            for task in admitted.expired:
                assert task.expires <= self.wall
                self.waiting[task.pipeline].remove(task)
            for task, _ in admitted.impossible:
                self.waiting[task.pipeline].remove(task)
                self.impossible.append(task)
            self.expired += admitted.expired
            for start in admitted.starts:
                self._begin(start, cut=any(task.pipeline == start.pipeline.name for task in admitted.expired))
            begun += admitted.starts
            moment = self.admission.next_wakeup()
            if not reserved and (moment is None or moment > self.now):
                return begun
            assert admitted.full or admitted.passed >= 7 or reserved, (
                "nothing was left over, and yet it wants to be called"
            )

    def _begin(self, start: Start, *, cut: bool) -> None:
        task, name, chance = start.task, start.task.pipeline, self.chance
        waiting, tasks = self.waiting[name], list(start.tasks)
        assert waiting[: len(tasks)] == tasks, "within a pipeline: priority, then first in first out"
        del waiting[: len(tasks)]
        assert start.cost == sum(one.cost for one in tasks)
        self.check_batch(name, tasks, cut=cut)
        ids = tuple(one.id for one in tasks)
        execution = Execution(task.id, task.id, 1, name, "f", 1, 0, 1, self.now, 30.0, tasks=ids)
        self.executions.append(execution)
        for user in (name, *self.specs[name].limits):
            self.users[user].append(execution)
        self.running += 1
        self.admission_slots[start.slots.name] -= 1
        if self.rng.random() < chance.never_starts:
            self.at(self.rng.uniform(0, 1), self._vanish, start, execution)
            return
        begin = self.now + self.rng.uniform(*chance.delivery)
        end = begin + self.rng.uniform(*chance.work)
        execution.started, execution.ended = begin, end
        told = begin + self.rng.uniform(*chance.report)
        if start.dated and told < end:
            self.at(told, self._dated, start, begin)
        self.at(end + self.rng.uniform(*chance.report), self._end, start, begin)

    def _dated(self, start: Start, begin: float) -> None:
        self.admission.started(start, begin)

    def _end(self, start: Start, begin: float | None) -> None:
        self.running -= 1
        self.finished += start.tasks
        self.admission.finish(start, begin)
        self.provide(1, start.slots.name)

    def _vanish(self, start: Start, execution: Execution) -> None:
        self.waiting[start.task.pipeline] += start.tasks
        self.waiting[start.task.pipeline].sort(key=lambda task: (-task.priority, task.id))
        self._end(start, None)
        del self.finished[-len(start.tasks) :]
        self.admission.put_back(start.tasks)

    # time ---------------------------------------------------------------------------------------------------------
    def at(self, moment: float, call: Any, *arguments: Any) -> None:
        heappush(self.events, (moment, next(self.numbers), call, arguments))

    def provide(self, slots: int, name: str = "f") -> None:
        self.admission_slots[name] += slots
        self.admission.provide(name, slots)

    @property
    def admission_slots(self) -> Counter[str]:
        if not hasattr(self, "_slots"):
            self._slots: Counter[str] = Counter()
        return self._slots

    def run(self, seconds: float = inf, check: bool = True) -> None:
        """Let time pass; admit when something happened and when admission asked for it."""
        until = self.now + seconds
        for _ in range(200_000):
            self.admit()
            if check:
                self.check_work_conserving()
            moment = min(self.admission.next_wakeup() or inf, self.events[0][0] if self.events else inf)
            if moment > until or moment == inf:
                if until < inf:
                    self.now = until
                return
            self.now = max(self.now, moment)
            while self.events and self.events[0][0] <= self.now:
                _, _, call, arguments = heappop(self.events)
                call(*arguments)
        raise AssertionError("time does not pass: admission asks to be woken again and again")

    def reserve(self) -> bool:
        """Let limits with long periods use the blocks that they ask for, as if these were on disk at once."""
        gates = list(self.admission.unreserved)
        self.admission.unreserved.clear()
        for gate in gates:
            gate.used(self.now, ahead=True)  # what the engine writes down
            self.admission.reserved(gate)
        return bool(gates)

    # laws ---------------------------------------------------------------------------------------------------------
    def check_work_conserving(self) -> None:
        """Check that every waiting head is stopped by something real: no slot, a gate without room, or one that keeps it."""
        for name, pipeline in self.admission.pipelines.items():
            assert pipeline.queue.tasks() == self.waiting[name]
            head = pipeline.queue.head()
            if head is None or self.specs[name].paused:
                continue
            free = self.admission_slots[pipeline.slots.name]
            assert free >= 0
            if free == 0 or not self.is_ripe(name, self.waiting[name], -ROUNDING):
                continue
            blocked = any(
                gate.ready_at(self.now, head.cost) > self.now or self.is_kept(gate, pipeline) for gate in pipeline.gates
            )
            assert blocked, f"{name} could start {head!r} at {self.now}, but waits in {pipeline.place}"

    def is_ripe(self, name: str, tasks: list[Task], slack: float) -> bool:
        """Say whether tasks of a pipeline wait for no others: they are a whole batch, or the oldest has waited long enough."""
        batch = self.specs[name].batch
        if batch is None or len(tasks) >= batch.size:
            return True
        return min(min(task.since + batch.wait, task.expires - EARLY) for task in tasks) <= self.wall + slack

    def check_batch(self, name: str, tasks: list[Task], *, cut: bool) -> None:
        """Check that no start has too many tasks, and that none went early for which there was still room.

        `cut`: what stood behind them had expired.
        """
        batch = self.specs[name].batch
        assert len(tasks) <= (1 if batch is None else batch.size)
        rest = self.waiting[name]
        most = self.admission.pipelines[name].most_cost()
        if rest:
            cut = cut or rest[0].expires <= self.wall or sum(task.cost for task in tasks) + rest[0].cost > most
        assert cut or self.is_ripe(name, tasks, 2 * ROUNDING), (
            f"{len(tasks)} tasks of {name} started before their batch was ripe"
        )

    def is_kept(self, gate: Gate, pipeline: Pipeline) -> bool:
        """Say whether a gate keeps a unit for an elder, whose time is not over."""
        elder = self.admission._places.elder
        assert gate.mark is None or (gate.mark is elder.pipeline and elder.until > self.now)
        return gate.mark not in {None, pipeline}

    def check_limits(self) -> None:
        cost = self.costs.__getitem__
        for name, allowances in self.allowances.items():
            assert rate_breaches(name, self.users[name], allowances, cost) == []
            assert concurrency_breaches(name, self.users[name], allowances) == []
        for gate in {g for p in self.admission.pipelines.values() for g in p.gates}:
            if not self.running:
                assert (gate.in_use, gate.undated_tasks, gate.undated_cost) == (0, 0, 0.0)

    def starts_of(self) -> Counter[str]:
        return Counter(execution.pipeline for execution in self.executions)


# random worlds --------------------------------------------------------------------------------------------------------
def a_rate(rng: random.Random, cost: bool = False) -> RateSpec:
    n, period = rng.choice([(1, 0.5), (2, 1.0), (3, 0.2), (5, 1.0), (20, 3.0), (130, 5.0)])
    style = rng.choice(["smooth", "window"])
    burst = float(n) if style == "window" else rng.choice([1.0, float(n)])
    meter = "cost" if cost and rng.random() < 0.5 else "tasks"
    return RateSpec(n * (4 if meter == "cost" else 1), period, style, burst, rng.choice([0.0, 0.01]), meter)  # type: ignore[arg-type]


def some_limits(rng: random.Random, cost: bool = False) -> dict[str, Any]:
    rates = tuple(a_rate(rng, cost) for _ in range(rng.choice([0, 1, 1, 2])))
    return {
        "rates": tuple({rate.period + rate.margin: rate for rate in rates}.values()),
        "concurrency": rng.choice([None, None, 1, 2, 5]),
    }


def chances(rng: random.Random) -> Chance:
    return rng.choice(
        [
            Chance(),
            Chance(work=(0.0, 0.0)),
            Chance(delivery=(0.0, 0.02), work=(0.0, 0.5), report=(0.0, 0.02)),
            Chance(delivery=(0.0, 1.0), work=(0.0, 2.0), report=(0.0, 2.0), never_starts=0.1),
        ]
    )


def some_batch(rng: random.Random) -> BatchSpec | None:
    return rng.choice([None, None, BatchSpec(3, 0.0), BatchSpec(4, 0.3), BatchSpec(10, 2.0)])


def make(seed: int, cost: bool = False) -> Bench:
    rng = random.Random(seed)
    bench = Bench(chances(rng), rng)
    shared = [f"limit-{n}" for n in range(rng.randint(0, 3))]
    for name in shared:
        bench.limit(name, **some_limits(rng, cost))
    for n in range(rng.randint(1, 6)):
        limits = tuple(rng.sample(shared, rng.randint(0, len(shared))))
        options = {"batch": some_batch(rng), **some_limits(rng, cost)}
        bench.pipeline(f"p{n}", limits=limits, slots=rng.choice("fg"), **options)
    bench.provide(rng.choice([1, 3, 50]), "f")
    bench.provide(rng.choice([1, 3, 50]), "g")
    return bench


def test_a_first_limit_counts_what_runs_already() -> None:
    limits: list[dict[str, Any]] = [{"concurrency": 2}, {"rates": (RateSpec(2, 100.0),), "concurrency": 2}]
    for options in limits:
        bench = Bench(Chance(work=(1.0, 5.0)))
        bench.provide(10)
        bench.pipeline("p")
        bench.send("p", 10)
        bench.run(0.5)
        bench.pipeline("p", **options)
        bench.run()
        bench.check_limits()
        assert not bench.waiting["p"]


@pytest.mark.parametrize("before", [{}, {"concurrency": 5}])
def test_a_first_rate_does_not_wait_for_what_runs_already(before: dict[str, Any]) -> None:
    bench = Bench(Chance(work=(3600.0, 3600.0)))
    bench.provide(10)
    bench.pipeline("p", **before)
    bench.send("p", 1)
    bench.run(0.5)
    bench.pipeline("p", rates=(RateSpec(1, 3.0),))
    bench.send("p", 2)
    bench.run(4)
    assert len(bench.executions) == 3


@pytest.mark.parametrize("where", ["own", "shared"])
@pytest.mark.parametrize("how", ["sent", "withdrawn", "expired"])
def test_a_cheaper_task_that_is_next_now_does_not_wait_for_the_dearer_one(where: str, how: str) -> None:
    bench = Bench()
    rates = (RateSpec(10, 10.0, "window", 10.0, meter="cost"),)
    bench.limit("shared", rates if where == "shared" else ())
    bench.pipeline("p", rates=rates if where == "own" else (), limits=("shared",))
    bench.provide(10)
    bench.send("p", cost=5)
    bench.run(1.0)
    bench.send("p", cost=9, age=1.0 if how == "expired" else 1e6)
    dear = bench.waiting["p"][0]
    bench.run(0.5)
    bench.send("p", cost=2, priority=int(how == "sent"))
    bench.run(0.25)
    if how == "withdrawn":
        bench.admission.withdraw("p", (dear.id,))
        bench.waiting["p"].remove(dear)
    bench.run(0.5)
    assert [execution.admitted - START for execution in bench.executions[1:]] == [
        pytest.approx({"sent": 1.5, "withdrawn": 1.75, "expired": 2.0}[how])
    ]


def test_an_urgent_task_expires_in_time_also_when_another_was_next_before() -> None:
    bench = Bench()
    bench.limit("shared", (RateSpec(1, 60.0, "window"),))
    for name in "abc":
        bench.pipeline(name, limits=("shared",))
    bench.provide(10)
    bench.send("a", 3)
    bench.send("b")
    bench.send("c")
    bench.run(1.0)
    bench.send("b", priority=1, age=2.0)
    bench.send("c", priority=1, age=2.0)
    bench.run(2.0)
    assert len(bench.expired) == 2


def test_a_pipeline_whose_waiting_task_was_withdrawn_is_there_for_the_next() -> None:
    bench = Bench(Chance(delivery=(0.5, 0.5), work=(1.0, 1.0)))
    bench.provide(10)
    bench.pipeline("p", rates=(RateSpec(1, 0.5, "window"),))
    bench.send("p", 2)
    bench.run(0.1)
    (waiting,) = bench.waiting["p"]
    assert bench.admission.withdraw("p", [waiting.id]) == [waiting]
    bench.waiting["p"].clear()
    bench.run(5)
    bench.send("p", 1)
    bench.run()
    assert len(bench.finished) == 2


def disturb(bench: Bench, cost: bool = False) -> None:
    """Do something at random that a user or the engine may do."""
    rng, admission = bench.rng, bench.admission
    name = rng.choice(list(bench.specs))
    action = rng.randrange(9)
    if action < 4:
        costs = rng.choice([1.0, 2.0, 4.0]) if cost else 1.0
        bench.send(
            name,
            rng.choice([1, 1, 5, 30]),
            cost=costs,
            priority=rng.choice([0, 0, 0, 5]),
            age=rng.choice([1e6, 1e6, 2.0]),
        )
    elif action == 4:
        bench.run(0.001, check=not cost)  # so that no start is at the very moment of the change
        change = {"batch": some_batch(rng), **some_limits(rng, cost)}
        bench.pipeline(name, slots=admission.pipelines[name].slots.name, limits=bench.specs[name].limits, **change)
    elif action == 5 and admission.gates:
        bench.run(0.001, check=not cost)
        bench.limit(rng.choice(list(admission.gates)), **some_limits(rng, cost))
    elif action == 6:
        paused = not bench.specs[name].paused
        bench.specs[name] = replace(bench.specs[name], paused=paused)
        (admission.pause if paused else admission.resume)(name)
    elif action == 7:
        if rng.random() < 0.5 or not admission.gates:
            admission.hold(name, bench.now + rng.uniform(0, 2))
        else:
            admission.hold_limit(rng.choice(list(admission.gates)), bench.now + rng.uniform(0, 2))
    elif bench.waiting[name]:
        task = rng.choice(bench.waiting[name])
        assert admission.withdraw(name, [task.id]) == [task]
        bench.waiting[name].remove(task)


@settings(max_examples=120)
@given(st.integers(0, 2**32))
def test_whatever_happens_limits_hold_and_nothing_that_may_start_waits(seed: int) -> None:
    bench = make(seed)
    for _ in range(30):
        disturb(bench)
        bench.run(bench.rng.choice([0.0, 0.05, 0.5, 3.0]))
    for name, spec in bench.specs.items():
        bench.specs[name] = replace(spec, paused=False)
        bench.admission.resume(name)
    bench.run()
    bench.check_limits()
    assert not any(bench.waiting.values()), "everything that was sent has been started"


@settings(max_examples=60)
@given(st.integers(0, 2**32))
def test_tasks_of_different_cost_keep_the_limits_and_all_start(seed: int) -> None:
    bench = make(seed, cost=True)
    for _ in range(30):
        disturb(bench, cost=True)
        bench.run(bench.rng.choice([0.0, 0.05, 0.5, 3.0]), check=False)
    for name, spec in bench.specs.items():
        bench.specs[name] = replace(spec, paused=False)
        bench.admission.resume(name)
    bench.run(check=False)
    bench.check_limits()
    assert not any(bench.waiting.values()), "everything that was sent has been started"
    assert bench.impossible == []


# fair turns -----------------------------------------------------------------------------------------------------------
@given(
    st.integers(2, 7),
    st.sampled_from(
        [{"rates": (RateSpec(3, 1.0),)}, {"rates": (RateSpec(5, 1.0, "window", 5.0),)}, {"concurrency": 3}]
    ),
    st.integers(0, 100),
)
def test_pipelines_behind_one_shared_limit_take_turns(pipelines: int, limit: dict[str, Any], seed: int) -> None:
    bench = Bench(Chance(work=(0.1, 0.3), delivery=(0.0, 0.01)), random.Random(seed))
    bench.limit("shared", **limit)
    for n in range(pipelines):
        bench.pipeline(f"p{n}", limits=("shared",))
        bench.send(f"p{n}", 100)
    bench.provide(1000)
    for _ in range(10):
        bench.run(1.7)
        counts = bench.starts_of()
        assert max(counts.values()) - min(counts[f"p{n}"] for n in range(pipelines)) <= 1
    bench.check_limits()


@given(st.integers(2, 7), st.integers(1, 4), st.integers(0, 100))
def test_pipelines_behind_few_slots_take_turns(pipelines: int, slots: int, seed: int) -> None:
    bench = Bench(Chance(work=(0.1, 0.3)), random.Random(seed))
    for n in range(pipelines):
        bench.pipeline(f"p{n}")
        bench.send(f"p{n}", 100)
    bench.provide(slots)
    for _ in range(10):
        bench.run(1.7)
        counts = bench.starts_of()
        assert max(counts.values()) - min(counts[f"p{n}"] for n in range(pipelines)) <= 1


def test_a_newcomer_gets_its_turn_among_long_queues() -> None:
    bench = Bench()
    bench.limit("shared", (RateSpec(10, 1.0),))
    for n in range(5):
        bench.pipeline(f"old{n}", limits=("shared",))
        bench.send(f"old{n}", 1000)
    bench.provide(1000)
    bench.run(20)
    bench.pipeline("new", limits=("shared",))
    bench.send("new", 10)
    bench.run(0.75)
    assert bench.starts_of()["new"] >= 1
    bench.run(12)
    assert bench.starts_of()["new"] == 10


def test_weights_and_costs_share_what_is_scarce() -> None:
    bench = Bench(Chance(work=(0.0, 0.0)))
    bench.limit("tokens", (RateSpec(100, 1.0, meter="cost"),))
    bench.pipeline("small", limits=("tokens",))
    bench.pipeline("large", limits=("tokens",))
    bench.pipeline("heavy", limits=("tokens",), weight=2.0)
    bench.send("small", 4000, cost=1.0)
    bench.send("large", 400, cost=10.0)
    bench.send("heavy", 400, cost=10.0)
    bench.provide(1000)
    bench.run(40, check=False)
    used = Counter[str]()
    for execution in bench.executions:
        used[execution.pipeline] += int(bench.costs[execution.task])
    assert used["small"] == pytest.approx(used["large"], rel=0.05)
    assert used["heavy"] == pytest.approx(2 * used["large"], rel=0.05)
    bench.check_limits()


@pytest.mark.parametrize("style", ["smooth", "window"])
@pytest.mark.parametrize("weights", [(1, 1, 1), (1, 3, 1000), (0.1, 1, 20)])
def test_tiers_get_their_shares_and_pass_on_what_they_leave(weights: tuple[float, ...], style: Any) -> None:
    bench = Bench(Chance(work=(0.0, 0.0)))
    bench.limit("shared", (RateSpec(100, 1.0, style),))
    for tier, weight in zip(("realtime", "background", "batch"), weights, strict=True):
        bench.pipeline(tier, limits=("shared",), tier=tier, weight=weight)
        bench.send(tier, 2000)
    bench.provide(1000)
    bench.run(10, check=False)
    counts = bench.starts_of()
    total = sum(counts.values())
    assert counts["realtime"] / total == pytest.approx(0.90, abs=0.02)
    assert counts["background"] / total == pytest.approx(0.08, abs=0.01)
    assert counts["batch"] / total == pytest.approx(0.02, abs=0.01)
    bench.run(100, check=False)
    assert bench.starts_of() == {"realtime": 2000, "background": 2000, "batch": 2000}


def test_a_pipeline_that_needs_two_busy_limits_does_not_starve() -> None:
    bench = Bench(Chance(work=(0.0, 0.0)))
    for name in "ab":
        bench.limit(name, (RateSpec(10, 1.0),))
        for n in range(3):
            bench.pipeline(f"{name}{n}", limits=(name,))
            bench.send(f"{name}{n}", 2000)
    bench.pipeline("both", limits=("a", "b"))
    bench.send("both", 20)
    bench.provide(1000)
    bench.run(20)
    assert bench.starts_of()["both"] == 20
    bench.check_limits()


@pytest.mark.parametrize("tiers", [("background", "background"), ("realtime", "batch"), ("batch", "realtime")])
@pytest.mark.parametrize("limit", [{"rates": (RateSpec(10, 1.0),)}, {"concurrency": 2}])
def test_pipelines_of_any_tier_that_need_two_busy_limits_all_end(tiers: tuple[str, str], limit: dict[str, Any]) -> None:
    bench = Bench(Chance(work=(0.0, 0.4)))
    for name in "ab":
        bench.limit(name, **limit)
        for tier in ("realtime", "background", "batch"):
            bench.pipeline(f"{name}-{tier}", limits=(name,), tier=tier)
            bench.send(f"{name}-{tier}", 100)
    for n, tier in enumerate(tiers):
        bench.pipeline(f"both-{n}", limits=("a", "b") if n else ("b", "a"), tier=tier)
        bench.send(f"both-{n}", 20)
    bench.provide(1000)
    bench.run()
    assert not any(bench.waiting.values())
    bench.check_limits()


def test_a_pipeline_that_needs_a_busy_limit_and_a_busy_instance_does_not_starve() -> None:
    bench = Bench(Chance(work=(0.2, 0.2)))
    bench.limit("a", (RateSpec(10, 1.0),))
    bench.pipeline("limited", limits=("a",), slots="g")
    bench.pipeline("unlimited")
    bench.pipeline("both", limits=("a",))
    for name in bench.specs:
        bench.send(name, 1000)
    bench.provide(1, "f")
    bench.provide(100, "g")
    bench.run(20)
    assert bench.starts_of()["both"] >= 5


@pytest.mark.parametrize("slow", [{"rates": (RateSpec(1, 100.0),)}, {"concurrency": 1}])
def test_what_is_kept_for_a_pipeline_costs_others_little(slow: dict[str, Any]) -> None:
    bench = Bench(Chance(work=(0.0, 0.0)))
    bench.limit("fast", (RateSpec(10, 1.0),))
    bench.limit("slow", **slow)
    bench.pipeline("hog", limits=("slow",))
    others = [f"other-{n}" for n in range(3)]
    for name in others:
        bench.pipeline(name, limits=("fast",))
    bench.pipeline("both", limits=("fast", "slow"))
    bench.provide(1000)
    bench.send("hog", 5)
    bench.chance = Chance(work=(50.0, 50.0))
    bench.admit()
    bench.chance = Chance(work=(0.0, 0.0))
    for name in others:
        bench.send(name, 1900)
    bench.send("both", 5)
    bench.run(400, check=False)
    assert sum(bench.starts_of()[name] for name in others) >= 0.75 * 10 * 400
    assert bench.starts_of()["both"] >= 1
    bench.check_limits()


def test_a_task_of_large_cost_does_not_starve_behind_small_ones() -> None:
    bench = Bench(Chance(work=(0.0, 0.0)))
    bench.limit("tokens", (RateSpec(100, 1.0, "window", 100.0, meter="cost"),))
    bench.pipeline("small", limits=("tokens",))
    bench.pipeline("large", limits=("tokens",))
    bench.provide(1000)
    bench.send("small", 5000, cost=1.0)
    bench.run(0.5, check=False)
    bench.send("large", 3, cost=100.0)
    bench.run(20, check=False)
    assert bench.starts_of()["large"] == 3
    bench.check_limits()


def test_what_can_never_start_is_told() -> None:
    bench = Bench()
    bench.limit("tokens", (RateSpec(10, 1.0, meter="cost"),))
    bench.pipeline("p", limits=("tokens",))
    bench.provide(5)
    bench.send("p", 1, cost=11.0)
    bench.send("p", 1, cost=10.0)
    bench.run()
    assert [task.cost for task in bench.impossible] == [11.0]
    assert [task.cost for task in bench.finished] == [10.0]


# what it costs --------------------------------------------------------------------------------------------------------
def crowd(pipelines: int, **limit: Any) -> Bench:
    bench = Bench(Chance(work=(1.0, 1.0)))
    bench.limit("shared", **limit)
    bench.provide(100_000)
    for n in range(pipelines):
        bench.pipeline(f"p{n}", limits=("shared",))
        bench.send(f"p{n}", 2)
    return bench


@pytest.mark.parametrize("limit", [{"rates": (RateSpec(1, 1.0),)}, {"concurrency": 1}])
def test_a_freed_unit_wakes_only_those_it_can_serve(limit: dict[str, Any]) -> None:
    bench = crowd(2000, **limit)
    bench.run(0.5, check=False)
    assert bench.admission.counting.given <= 2 * 2000 + 10
    bench.admission.counting.given = 0
    started = len(bench.executions)
    bench.run(20, check=False)
    started = len(bench.executions) - started
    assert started >= 19
    assert bench.admission.counting.given <= 3 * started + 2


def test_a_blocked_pipeline_costs_nothing_while_others_work() -> None:
    bench = Bench(Chance(work=(0.0, 0.0)))
    bench.provide(100_000)
    for n in range(1000):
        bench.pipeline(f"slow{n}", rates=(RateSpec(1, 1000.0),))
        bench.send(f"slow{n}", 2)
    bench.run(0.1, check=False)
    bench.pipeline("fast")
    bench.admission.counting.given = 0
    for _ in range(100):
        bench.send("fast", 1)
        bench.run(0.01, check=False)
    assert bench.starts_of()["fast"] == 100
    assert bench.admission.counting.given <= 200


# places ---------------------------------------------------------------------------------------------------------------
def test_demand_says_how_many_slots_could_be_used_at_once() -> None:
    bench = Bench()
    every: dict[str, dict[str, Any]] = {
        "free": {}, "narrow": {"concurrency": 3}, "slow": {"rates": (RateSpec(2, 1.0),)}, "paused": {"paused": True},
    }  # fmt: skip
    for name, options in every.items():
        bench.pipeline(name, **options)
        bench.send(name, 100)
    bench.admit()
    demand = bench.admission.demand("f", bench.now, 10_000)
    assert 100 + 3 + 1 <= demand <= 100 + 3 + 2
    assert bench.admission.demand("f", bench.now, 50) == 50
    assert bench.admission.demand("unknown", bench.now, 50) == 0
    bench.provide(1000)
    bench.admit()
    assert bench.admission.demand("f", bench.now, 10_000) == 0


def test_a_task_expires_at_its_moment_wherever_its_pipeline_waits() -> None:
    everywhere: list[dict[str, Any]] = [
        {"rates": (RateSpec(1, 1000.0),)},
        {"concurrency": 1},
        {"limits": ("shared",)},
        {},
    ]
    for options in everywhere:
        bench = Bench(Chance(work=(500.0, 500.0)))
        bench.limit("shared", (), 1)
        bench.pipeline("p", **options)
        bench.provide(1 if not options else 10)
        bench.send("p", 1)
        bench.send("p", 2, age=5.0)
        bench.run(4.9)
        assert bench.expired == []
        bench.run(0.2)
        assert len(bench.expired) == 2, options


def test_removing_a_pipeline_returns_its_tasks_and_lets_others_pass() -> None:
    bench = Bench(Chance(work=(1.0, 1.0)))
    bench.limit("shared", (), 1)
    for name in ("first", "second"):
        bench.pipeline(name, limits=("shared",))
        bench.send(name, 3)
    bench.provide(10)
    bench.run(0.5)
    assert len(bench.admission.remove("first", bench.now)) == 2
    del bench.specs["first"]
    bench.waiting.pop("first")
    bench.run(10)
    assert bench.starts_of() == {"first": 1, "second": 3}
    bench.check_limits()


def test_a_start_takes_from_all_its_limits_or_from_none() -> None:
    bench = Bench()
    bench.limit("open", (), 100)
    bench.limit("shut", (), 0)
    bench.pipeline("p", limits=("open", "shut"), concurrency=5)
    bench.send("p", 10)
    bench.provide(10)
    assert bench.admit() == []
    pipeline: Pipeline = bench.admission.pipelines["p"]
    assert [gate.in_use for gate in pipeline.gates] == [0, 0, 0]
    assert bench.admission.slots["f"].free == 10


# bounded calls --------------------------------------------------------------------------------------------------------
def test_one_call_does_a_bounded_amount_of_work() -> None:
    """However many may go at once: pipelines that move from one queue to another, tasks that expire."""
    bench = Bench()
    bench.limit("narrow", (RateSpec(1, 10.0),))
    for n in range(500):
        bench.pipeline(f"p{n}", limits=("narrow",))
        bench.send(f"p{n}")
    bench.pipeline("old")
    bench.send("old", 500, age=5.0)
    bench.admit()
    bench.provide(10)
    bench.now += 6.0
    calls = 0
    while (moment := bench.admission.next_wakeup()) is not None and moment <= bench.now:
        admitted = bench.admission.admit(bench.now, bench.wall, 20)
        work = len(admitted.starts) + len(admitted.expired) + admitted.moves
        assert work <= 20
        assert admitted.passed <= 20
        bench.expired += admitted.expired
        calls += 1
    assert calls >= 50
    assert len(bench.expired) == 500


# another head ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("change", ["a more urgent one comes", "it is cancelled"])
def test_a_pipeline_that_waits_for_a_dear_task_goes_on_with_a_cheap_one(shared: bool, change: str) -> None:
    bench = Bench()
    tokens = RateSpec(100, 10.0, "window", 100, 0.0, "cost")
    if shared:
        bench.limit("tokens", (tokens,))
        bench.pipeline("p", limits=("tokens",))
    else:
        bench.pipeline("p", rates=(tokens,))
    bench.provide(10)
    bench.send("p", cost=50)
    assert len(bench.admit()) == 1
    bench.send("p", cost=100)
    bench.send("p", cost=50)
    assert bench.admit() == []
    if change == "it is cancelled":
        dear = bench.waiting["p"].pop(0)
        assert bench.admission.withdraw("p", [dear.id]) == [dear]
    else:
        bench.send("p", cost=50, priority=1)
    assert len(bench.admit()) == 1


def test_a_small_weight_makes_no_call_longer() -> None:
    """Two in different tiers stand in one queue, where neither is alone: the light one has turns in which it only saves up."""
    bench = Bench()
    bench.limit("narrow", (RateSpec(1000, 1.0, "window", 1000.0),))
    for name, tier, weight in (("light", "realtime", 0.001), ("lighter", "batch", 0.002)):
        bench.pipeline(name, limits=("narrow",), tier=tier, weight=weight)
        bench.send(name, 50)
    bench.provide(100)
    calls = 0
    while (moment := bench.admission.next_wakeup()) is not None and moment <= bench.now:
        admitted = bench.admission.admit(bench.now, bench.wall, 20)
        assert len(admitted.starts) + admitted.moves <= 20
        calls += 1
    assert calls > 100
