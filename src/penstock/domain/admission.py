"""Admission: which tasks may start now, and who is woken when a unit frees. The heart of Penstock.

One deterministic, single-threaded object without awaits: it is told what happens, and asked what may start. Who has a turn
then is decided in `turns`; where each pipeline waits meanwhile is kept in `places`, and what waits there in `backlog`.

Moments are monotonic seconds; `wall` is the wall clock at the same moment and serves for the expiry of tasks only.
"""

from collections.abc import Collection, Iterable, Sequence
from math import inf

from penstock.domain.backlog import Backlog
from penstock.domain.ceilings import Ceilings
from penstock.domain.fairness import TIERS
from penstock.domain.gone import Gone
from penstock.domain.lending import Lending
from penstock.domain.limits import Gate, Slots
from penstock.domain.pipeline import IDLE, OWN, PAUSED, WAITING, Admitted, Pipeline, Start
from penstock.domain.places import Places
from penstock.domain.settings import PipelineSpec
from penstock.domain.task import Task
from penstock.domain.turns import Turns


class Admission:
    """Decide. `most` bounds the tasks of a pipeline that are kept in memory, `memory` (bytes) those of all together."""

    def __init__(self, *, most: int = 100_000, memory: int = 256 << 20) -> None:
        self.pipelines: dict[str, Pipeline] = {}
        self.gates: dict[str, Gate] = {}
        self.slots: dict[str, Slots] = {}
        self._used_up_at: float | None = None
        self.shortest_period = inf  # of all rates that there have been
        self.unreserved: dict[Gate, None] = {}  # gates that want another block of a long period on disk
        self.backlog = Backlog(most, memory)
        self.hungry = self.backlog.hungry
        self.gone = Gone()
        self._places = Places()
        self._ceilings = Ceilings()
        self.short = self._places.short
        self.lending = Lending(self._places, self.unreserved)
        self._turns = Turns(self._places, self.backlog, self.lending, self.unreserved)

    # configuration ------------------------------------------------------------------------------------------------
    def configure(self, spec: PipelineSpec, slots: str, shared: Sequence[str] = ()) -> Pipeline:
        """Make a pipeline or change it; the change holds from the next start on.

        `slots` names where its tasks run, `shared` the limits that they pass beside the pipeline's own.
        """
        place = self.slots.setdefault(slots, Slots(slots))
        pipeline = self.pipelines.get(spec.name)
        if pipeline is None:
            pipeline = self.pipelines[spec.name] = Pipeline(spec.name, place)
        self._places.leave(pipeline)
        pipeline.slots = place
        pipeline.tier = TIERS.index(spec.tier)
        pipeline.weight = spec.weight
        pipeline.rates, pipeline.concurrency, pipeline.adaptive = spec.rates, spec.concurrency, spec.adaptive
        pipeline.batch = spec.batch
        gates = (*(self.gates[name] for name in shared), *self._ceilings.doors(spec.function))
        _use(pipeline, gates)
        if pipeline.own is not None:
            pipeline.own.configure(spec.rates, spec.concurrency, adaptive=spec.adaptive)
            self._look_at_periods(pipeline.own)
            self._places.opened(pipeline.own)
            gates = (pipeline.own, *gates)
        pipeline.gates = gates
        if spec.paused:
            pipeline.place = PAUSED
        else:
            self._fed(pipeline)
        return pipeline

    def limit(self, gate: Gate) -> None:
        """Make a shared limit known, or let those who wait at a changed one try again."""
        self.gates[gate.name] = gate
        self._look_at_periods(gate)
        self._places.opened(gate)

    def ceiling(self, name: str, concurrency: int | None) -> None:
        """Make a project-wide limit of concurrency or change it. Pipelines pass a new one when they are configured anew."""
        self._places.opened(self._ceilings.put(name, concurrency))

    def remove_ceiling(self, name: str) -> None:
        """Let a project-wide limit go, for all pipelines that are configured anew."""
        self._ceilings.remove(name)

    def reserve(self, function: str, n: int) -> None:
        """Reserve units of all ceilings for a function, whose pipelines have to be configured anew; 0 reserves nothing."""
        for ceiling in self._ceilings.reserve(function, n):
            self._places.opened(ceiling)

    def _look_at_periods(self, gate: Gate) -> None:
        self.shortest_period = min(self.shortest_period, *(rate.period for rate in gate.rates), inf)

    def remove(self, name: str, now: float) -> list[Task]:
        """Forget a pipeline; return the tasks it had in memory."""
        pipeline = self.pipelines.pop(name)
        if pipeline.own is not None:
            self.gone.keep(f"pipeline {name}", pipeline.own, now)
        self._places.leave(pipeline)
        _use(pipeline, ())
        pipeline.place = PAUSED
        return self.backlog.clear(pipeline)

    def pause(self, name: str) -> None:
        """Start no more of a pipeline's tasks."""
        self._places.leave(self.pipelines[name])
        self.pipelines[name].place = PAUSED

    def resume(self, name: str) -> None:
        """Undo `pause`, and any hold."""
        pipeline = self.pipelines[name]
        if pipeline.own is not None:
            pipeline.own.held_until = -inf
        self._places.leave(pipeline)
        self._fed(pipeline)

    def hold(self, name: str, until: float) -> None:
        """Start no more of a pipeline's tasks before a moment."""
        pipeline = self.pipelines[name]
        own = self.own_gate(pipeline)
        own.held_until = max(own.held_until, until)
        if pipeline.place is WAITING:  # it no longer wants what it waits for there
            self._places.leave(pipeline)
            self._places.make_ready(pipeline)

    def hold_limit(self, name: str, until: float) -> None:
        """Let nothing pass a shared limit before a moment."""
        gate = self.gates[name]
        gate.held_until = max(gate.held_until, until)

    def accepted(self, start: Start, sent: float, now: float) -> None:
        """Hear that downstream has taken a task that was sent at a moment: gates learn from it."""
        for gate in dict.fromkeys((*start.gates, *start.acquired)) if start.acquired else start.gates:
            if gate.refusals or gate.adaptive is not None:
                gate.accepted(sent, now)

    def refused(self, start: Start, sent: float, now: float, wait: float | None, limit: str | None) -> float:
        """Let downstream's "try later" hold, and teach, what it is about; return for how many seconds.

        That is the limit it names; else the pipeline's own if that is adaptive; else the first adaptive limit that the
        pipeline passes; else the pipeline. `wait` is the seconds that it asks for, None if it does not say. A pipeline that
        does not pass the limit is held as well: nothing else would keep the task from starting again at once.
        """
        pipeline = start.pipeline
        shared = self.gates.get(limit) if limit is not None else None
        shared = shared or self.gates.get(pipeline.adapts_by() or "")
        if shared is not None:
            until = shared.refused(sent, now, wait)
            self.hold_limit(shared.name, until)
        known = self.pipelines.get(pipeline.name) is pipeline  # or it was removed while the task ran
        if shared is None:
            until = self.own_gate(pipeline).refused(sent, now, wait) if known else now
        if known and shared not in pipeline.gates:
            self.hold(pipeline.name, until)
        return until - now

    def own_gate(self, pipeline: Pipeline) -> Gate:
        """Return a pipeline's own gate. It is made when the first task comes, so that one without tasks needs none."""
        if pipeline.own is None:
            before = self.gone.take(f"pipeline {pipeline.name}")
            own = pipeline.own = before or Gate(pipeline.name)
            own.owner = pipeline
            own.configure(pipeline.rates, pipeline.concurrency, adaptive=pipeline.adaptive)
            own.in_use += pipeline.ungated
            if before is None and self._used_up_at is not None:
                own.use_up(self._used_up_at)
            pipeline.gates = (own, *pipeline.gates)
            self._look_at_periods(own)
        return pipeline.own

    def use_up(self, now: float) -> None:
        """Let all rates of short periods begin as if just used up: what a crash forgot cannot be exceeded then."""
        self._used_up_at = now
        for gate in self.gates.values():
            gate.use_up(now)
        for pipeline in self.pipelines.values():
            if pipeline.own is not None:
                pipeline.own.use_up(now)

    # tasks --------------------------------------------------------------------------------------------------------
    def offer(self, name: str, tasks: Sequence[Task]) -> None:
        """Let new tasks of one pipeline wait; those for which memory has no room stay in the store only."""
        pipeline = self.pipelines[name]
        head = pipeline.queue.head()
        self.backlog.offer(pipeline, tasks)
        if pipeline.ripens and not pipeline.is_full and not any(task.start_by for task in tasks):
            self.backlog.look_hungry(pipeline)  # the moment of the oldest is known, and these are younger
        else:
            self._fed(pipeline, head)

    def left_behind(self, name: str) -> None:
        """Take note that the store has tasks of a pipeline of which none are in memory."""
        pipeline = self.pipelines[name]
        pipeline.queue.more = True
        self.backlog.look_hungry(pipeline)

    def reread(self, name: str) -> None:
        """Take note that the store has got waiting tasks that may sort anywhere (dead ones that wait again)."""
        self.backlog.forget_stored(self.pipelines[name])
        self.left_behind(name)

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Let tasks that have been out wait again, each at its old place in its queue."""
        for task in tasks:
            pipeline = self.pipelines[task.pipeline]
            head = pipeline.queue.head()
            self.backlog.put_back(pipeline, task)
            self._fed(pipeline, head)

    def page_in(self, name: str, tasks: list[Task], upto: tuple[int, int] | None) -> None:
        """Take in the page of the store that a hungry pipeline waited for."""
        pipeline = self.pipelines[name]
        head = pipeline.queue.head()
        self.backlog.page_in(pipeline, tasks, upto)
        self._fed(pipeline, head)

    def withdraw(self, name: str, ids: Collection[int]) -> list[Task]:
        """Take waiting tasks out (they are cancelled, or late); return those that were in memory."""
        pipeline = self.pipelines[name]
        head = pipeline.queue.head()
        tasks = self.backlog.remove(pipeline, ids)
        if pipeline.batch is not None:  # another batch now, wherever the tasks stood
            self._places.reconsider(pipeline)
        else:
            self._fed(pipeline, head)
        return tasks

    def started(self, start: Start, at: float) -> None:
        """Date what a start took at the moment its handler started.

        A second, later date of the same start takes the place of the first.
        """
        before, start.date = start.date, at
        for gate in start.rated:
            if not start.undated:
                gate.redate(before, at, start.cost)
                continue
            gate.date(at, start.cost)
            if gate.owner is not None and gate.owner.place is OWN:
                self._places.await_moment(gate.owner, gate, at)
            elif gate.wakes_at == inf:  # else the moment is known, and this date brings no earlier one
                self._places.opened(gate)
        start.undated = False

    def finish(self, start: Start, started_at: float | None) -> None:
        """Free what a start took (its slot comes back by `provide`); None if its handler never started."""
        if start.rests:
            self.lending.resting.leave(start)
        else:
            self.lending.resting.release(start)
        for gate in start.rated if start.undated else ():
            if started_at is None:
                gate.undate(start.cost)
            else:
                gate.date(started_at, start.cost)
            self._places.opened(gate, sooner=started_at is None)
        start.undated = False

    def reserved(self, gate: Gate) -> None:
        """Let another block of a gate's long periods be used: it is on disk."""
        gate.reserve()
        self._places.opened(gate, sooner=True)

    def provide(self, slots: str, count: int) -> None:
        """Add free slots (negative: take away such as were free)."""
        place = self.slots.setdefault(slots, Slots(slots))
        place.free += count
        self._places.opened(place)

    # decisions ----------------------------------------------------------------------------------------------------
    def admit(self, now: float, wall: float, most: int = 512) -> Admitted:
        """Decide which tasks start now, in at most about `most` turns: a call takes a few milliseconds at most.

        What is left over is there at the next call, which `next_wakeup` asks for at once."""
        return self._turns.admit(now, wall, Admitted(most))

    def next_wakeup(self) -> float | None:
        """Return the moment at which `admit` should be called again if nothing else happens; None for never."""
        return self._places.next_wakeup()

    def demand(self, slots: str, now: float, most: int) -> int:
        """Return how many more slots could be used at once, counted up to `most`."""
        place = self.slots.get(slots)
        if place is None or place.waiters is None:
            return 0
        wanted = 0.0
        for pipeline in place.waiters:
            wanted += pipeline.wants(now)
            if wanted >= most:
                return most
        return int(wanted)

    def _fed(self, pipeline: Pipeline, head: Task | None = None) -> None:
        """Find a place for a pipeline that has tasks; one whose `head` so far is no longer the next one tries again."""
        if pipeline.place is not IDLE:
            self._places.changed(pipeline, head)
        elif len(pipeline.queue):
            if pipeline.rates or pipeline.concurrency is not None:
                self.own_gate(pipeline)
            self._places.make_ready(pipeline)
        self.backlog.look_hungry(pipeline)


def _use(pipeline: Pipeline, shared: Iterable[Gate]) -> None:
    """Let shared limits know who passes them."""
    for gate in pipeline.gates:
        gate.users.pop(pipeline, None)
    for gate in shared:
        gate.users[pipeline] = None
