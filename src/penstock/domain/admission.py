"""Admission: which tasks may start now, and who is woken when a unit frees. The heart of Penstock.

One deterministic, single-threaded object without awaits: it is told what happens, and asked what may start. Where each
pipeline waits meanwhile is kept in `places`.

Moments are monotonic seconds; `wall` is the wall clock at the same moment and serves for the expiry of tasks only.
"""

from collections.abc import Collection, Iterable, Sequence
from itertools import islice
from math import inf

from penstock.domain.ceilings import Ceilings
from penstock.domain.fairness import ALONE, TIERS, WaitQueue
from penstock.domain.gone import Gone
from penstock.domain.lending import Lending
from penstock.domain.limits import Door, Gate, Slots
from penstock.domain.moments import ALARM, ELDER
from penstock.domain.pipeline import IDLE, OWN, PAUSED, READY, WAITING, Admitted, Pipeline, Start
from penstock.domain.places import Places
from penstock.domain.queue import FRUGAL, HUNGRY, size_of
from penstock.domain.settings import PipelineSpec
from penstock.domain.task import Task


class Admission:
    """Decide. `most` bounds the tasks of a pipeline that are kept in memory, `memory` (bytes) those of all together."""

    def __init__(self, *, most: int = 100_000, memory: int = 256 << 20) -> None:
        self.pipelines: dict[str, Pipeline] = {}
        self.gates: dict[str, Gate] = {}
        self.slots: dict[str, Slots] = {}
        self._used_up_at: float | None = None
        self.shortest_period = inf  # of all rates that there have been
        self.hungry: dict[str, None] = {}  # pipelines whose next page should come from the store
        self.unreserved: dict[Gate, None] = {}  # gates that want another block of a long period on disk
        self._most = most
        self._memory = memory
        self._bytes = 0
        self.gone = Gone()
        self._places = Places()
        self._ceilings = Ceilings()
        self.short = self._places.short
        self.lending = Lending(self._places, self.unreserved)
        self._typical = 1.0  # the cost of a usual task, to size turns with

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
        self.hungry.pop(name, None)
        self._bytes -= pipeline.queue.bytes
        return pipeline.queue.clear()

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
        queue = pipeline.queue
        before, head = queue.bytes, queue.head()
        most = self._most if self._bytes < self._memory else FRUGAL
        for task in tasks:
            queue.offer(task, most)
        self._bytes += queue.bytes - before
        if pipeline.ripens and not pipeline.is_full and not any(task.start_by for task in tasks):
            self._look_hungry(pipeline)  # the moment of the oldest is known, and these are younger
        else:
            self._fed(pipeline, head)

    def left_behind(self, name: str) -> None:
        """Take note that the store has tasks of a pipeline of which none are in memory."""
        pipeline = self.pipelines[name]
        pipeline.queue.more = True
        self._look_hungry(pipeline)

    def reread(self, name: str) -> None:
        """Take note that the store has got waiting tasks that may sort anywhere (dead ones that wait again)."""
        queue = self.pipelines[name].queue
        self._bytes -= queue.forget_stored()
        self.left_behind(name)

    def put_back(self, tasks: Iterable[Task]) -> None:
        """Let tasks that have been out wait again, each at its old place in its queue."""
        for task in tasks:
            pipeline = self.pipelines[task.pipeline]
            before, head = pipeline.queue.bytes, pipeline.queue.head()
            pipeline.queue.put_back(task)
            self._bytes += pipeline.queue.bytes - before
            self._fed(pipeline, head)

    def page_in(self, name: str, tasks: list[Task], upto: tuple[int, int] | None) -> None:
        """Take in the page of the store that a hungry pipeline waited for."""
        pipeline = self.pipelines[name]
        before, head = pipeline.queue.bytes, pipeline.queue.head()
        pipeline.queue.page_in(tasks, upto)
        self._bytes += pipeline.queue.bytes - before
        self._fed(pipeline, head)

    def withdraw(self, name: str, ids: Collection[int]) -> list[Task]:
        """Take waiting tasks out (they are cancelled, or late); return those that were in memory."""
        pipeline = self.pipelines[name]
        before, head = pipeline.queue.bytes, pipeline.queue.head()
        tasks = pipeline.queue.remove(ids)
        self._bytes += pipeline.queue.bytes - before
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
        for gate in start.gates:
            gate.release()
            if gate.limits_concurrency:
                self._places.opened(gate)
        for gate in start.rated if start.undated else ():
            if started_at is None:
                gate.undate(start.cost)
            else:
                gate.date(started_at, start.cost)
            self._places.opened(gate, sooner=started_at is None)
        start.undated = False
        if start.own is None:
            pipeline = start.pipeline
            pipeline.ungated -= 1
            if pipeline.own is not None:
                pipeline.own.release()
                self._places.opened(pipeline.own)

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
        result = Admitted(most)
        self._pass_moments(now, wall, result)
        self.lending.serve(now, result.lent)
        while not result.full:
            if self._places.open:
                gate = next(iter(self._places.open))
                del self._places.open[gate]
                self._serve(gate, now, wall, result)
            else:
                pipeline = self._places.ready.pop()
                if pipeline is None:
                    break
                self._turn(pipeline, None, self._places.ready, now, wall, result)
        return result

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

    # places -------------------------------------------------------------------------------------------------------
    def _pass_moments(self, now: float, wall: float, result: Admitted) -> None:
        for thing, ticket in islice(self._places.moments.pass_by(now), result.most):
            result.passed += 1
            if isinstance(thing, Gate):
                thing.wakes_at = inf
                self._places.opened(thing)
            elif ticket == ELDER:
                self._places.retire_elder(thing)
            elif ticket != ALARM:
                self._places.make_ready(thing)
            else:
                thing.alarm, head = inf, thing.queue.head()
                self._expire(thing, wall, result)
                self._places.set_alarm(thing, now, wall)
                self._fed(thing, head)

    def _serve(self, gate: Door, now: float, wall: float, result: Admitted) -> None:
        ring = gate.waiters
        if ring is None:
            return
        while not result.full:
            pipeline = self._places.elder.pipeline
            if pipeline is not None and pipeline.place is WAITING and pipeline.waits_at is gate:
                ring.leave(pipeline)
            else:
                pipeline = ring.pop()
            if pipeline is None:
                self._places.call_kin(gate)  # they take what nobody waits for here
                return
            if self._turn(pipeline, gate, ring, now, wall, result) is gate:
                return
        self._places.open[gate] = None

    def _turn(
        self,
        pipeline: Pipeline,
        via: Door | None,
        ring: WaitQueue[Pipeline],
        now: float,
        wall: float,
        result: Admitted,
    ) -> Door | None:
        """Start tasks of a pipeline whose turn it is, and find its next place; return the gate that blocks it, if one does.

        Turns are sized by cost (deficit round robin, Shreedhar and Varghese 1995): whoever is alone takes many at once.
        """
        pipeline.ticket += 1
        queue = pipeline.queue
        gratis, before = 0 if ring.count else ALONE, len(result.starts)
        if pipeline.resumes:
            pipeline.resumes = False
        else:
            pipeline.credit += self._typical * pipeline.weight
        self._expire(pipeline, wall, result)
        while (task := queue.head()) is not None:
            if result.full or (not gratis and pipeline.credit < task.cost):
                result.moves += len(result.starts) == before  # a small weight saves up for many turns
                pipeline.place, pipeline.waits_at = (READY, None) if via is None else (WAITING, via)
                ring.push(pipeline)
                return None
            count, cost = 1, task.cost
            if pipeline.batch is not None:
                count, cost, wait = pipeline.next_load(wall)
                if wait:
                    result.moves += 1
                    self._places.ripen(pipeline, now + wait, now, wall)
                    self._look_hungry(pipeline)
                    return None
            gate, at = self._blocked(pipeline, cost, now, via)
            if gate is not None:
                if at == inf and cost > gate.most_cost():
                    result.impossible.append((self._pop(pipeline), gate.name))
                    continue
                if gratis or gate is not via:
                    pipeline.credit = min(pipeline.credit, task.cost)
                pipeline.resumes = pipeline.credit >= task.cost
                called = gate is via or self._places.keep(pipeline, gate, via, at, now)
                self._look_hungry(pipeline)
                result.moves += 1
                self._places.block(pipeline, gate, at, now, wall, called=called)
                return gate
            result.starts.append(self._start(pipeline, count, cost, now))
            ring.charge(pipeline.tier)
            result.tasks += count
            if gratis:
                gratis = max(0, gratis - count)
            else:
                pipeline.credit -= cost  # a batch may leave a debt, which the next turns pay
            self._typical += 0.01 * (cost - self._typical)
            self._expire(pipeline, wall, result)
        self._places.rest(pipeline)
        self._look_hungry(pipeline)
        return None

    def _blocked(self, pipeline: Pipeline, cost: float, now: float, via: Door | None) -> tuple[Door | None, float]:
        """Return the first gate that a start cannot pass now, and until when; those who wait there already go first.

        The gate that called it is asked before the others: if there is no more room, it keeps its turn there."""
        slots = pipeline.slots
        if via is slots and slots.free <= 0:
            return slots, inf
        for gate in (via, *pipeline.gates) if isinstance(via, Gate) else pipeline.gates:
            kept_for = gate.mark
            waited_for = (
                gate is not via and kept_for is not pipeline and gate.waiters is not None and gate.waiters.count
            )
            if gate.asks or waited_for:
                return gate, now
            at = gate.ready_at(now, cost)
            if at > now:
                if at == inf and gate.runs_out():
                    self.unreserved[gate] = None
                return gate, at
            if kept_for is not None and kept_for is not pipeline and gate.room(now) < cost + 1:
                return gate, now
        if slots.free <= 0 or (slots is not via and slots.waiters is not None and slots.waiters.count):
            return slots, inf
        return None, now

    def _start(self, pipeline: Pipeline, count: int, cost: float, now: float) -> Start:
        tasks = (self._pop(pipeline),) if count == 1 else tuple([self._pop(pipeline) for _ in range(count)])
        pipeline.since, pipeline.again = inf, -inf
        self._places.retire_elder(pipeline)
        for gate in pipeline.gates:
            gate.take(now, cost)
            if gate.long and gate.runs_out():
                self.unreserved[gate] = None
        pipeline.slots.free -= 1
        if pipeline.own is None:
            pipeline.ungated += 1
        return Start(tasks, cost, pipeline)

    def _pop(self, pipeline: Pipeline) -> Task:
        task = pipeline.queue.pop()
        self._bytes -= size_of(task)
        return task

    def _expire(self, pipeline: Pipeline, wall: float, result: Admitted) -> None:
        while (
            (task := pipeline.queue.head()) is not None and (task.start_by or task.expires) <= wall and not result.full
        ):
            result.expired.append(self._pop(pipeline))

    def _fed(self, pipeline: Pipeline, head: Task | None = None) -> None:
        """Find a place for a pipeline that has tasks; one whose `head` so far is no longer the next one tries again."""
        if head is not None and pipeline.queue.head() is not head:
            self._places.reconsider(pipeline)
        elif pipeline.place is IDLE and len(pipeline.queue):
            if pipeline.rates or pipeline.concurrency is not None:
                self.own_gate(pipeline)
            self._places.make_ready(pipeline)
        elif pipeline.ripens:
            self._places.make_ready(pipeline)
        self._look_hungry(pipeline)

    def _look_hungry(self, pipeline: Pipeline) -> None:
        if pipeline.queue.more and len(pipeline.queue) < min(HUNGRY, self._most / 2):
            self.hungry[pipeline.name] = None


def _use(pipeline: Pipeline, shared: Iterable[Gate]) -> None:
    """Let shared limits know who passes them."""
    for gate in pipeline.gates:
        gate.users.pop(pipeline, None)
    for gate in shared:
        gate.users[pipeline] = None
