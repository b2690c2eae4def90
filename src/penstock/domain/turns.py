"""Turns: whose it is, what it starts, and where the pipeline is then.

The hot half of admission: a turn takes from all gates of its pipeline or from none, and ends when the pipeline has had its
share, when a gate blocks it, or when nothing waits there any more.
"""

from __future__ import annotations

from itertools import islice
from math import inf
from typing import TYPE_CHECKING

from penstock.domain.fairness import ALONE
from penstock.domain.limits import Gate
from penstock.domain.moments import ALARM, ELDER
from penstock.domain.pipeline import READY, WAITING, Start

if TYPE_CHECKING:
    from penstock.domain.backlog import Backlog
    from penstock.domain.fairness import WaitQueue
    from penstock.domain.lending import Lending
    from penstock.domain.limits import Door
    from penstock.domain.pipeline import Admitted, Pipeline
    from penstock.domain.places import Places


class Turns:
    """Give turns. `unreserved` collects gates that want another block of a long period on disk."""

    def __init__(self, places: Places, backlog: Backlog, lending: Lending, unreserved: dict[Gate, None]) -> None:
        self._places = places
        self._backlog = backlog
        self._lending = lending
        self._unreserved = unreserved
        self._typical = 1.0  # the cost of a usual task, to size turns with

    def admit(self, now: float, wall: float, result: Admitted) -> Admitted:
        """Decide which tasks start now, until the result is full."""
        self._pass_moments(now, wall, result)
        self._lending.serve(now, result.lent)
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
                self._places.changed(thing, head)
                self._backlog.look_hungry(thing)

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
                    self._backlog.look_hungry(pipeline)
                    return None
            gate, at = self._blocked(pipeline, cost, now, via)
            if gate is not None:
                if at == inf and cost > gate.most_cost():
                    result.impossible.append((self._backlog.pop(pipeline), gate.name))
                    continue
                if gratis or gate is not via:
                    pipeline.credit = min(pipeline.credit, task.cost)
                pipeline.resumes = pipeline.credit >= task.cost
                called = gate is via or self._places.keep(pipeline, gate, via, at, now)
                self._backlog.look_hungry(pipeline)
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
        self._backlog.look_hungry(pipeline)
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
                return gate, inf if gate is pipeline.own else now
            at = gate.ready_at(now, cost)
            if at > now:
                if at == inf and gate.runs_out():
                    self._unreserved[gate] = None
                return gate, at
            if kept_for is not None and kept_for is not pipeline and gate.room(now) < cost + 1:
                return gate, now
        if slots.free <= 0 or (slots is not via and slots.waiters is not None and slots.waiters.count):
            return slots, inf
        return None, now

    def _start(self, pipeline: Pipeline, count: int, cost: float, now: float) -> Start:
        pop = self._backlog.pop
        tasks = (pop(pipeline),) if count == 1 else tuple([pop(pipeline) for _ in range(count)])
        pipeline.since, pipeline.again = inf, -inf
        self._places.retire_elder(pipeline)
        for gate in pipeline.gates:
            gate.take(now, cost)
            if gate.long and gate.runs_out():
                self._unreserved[gate] = None
        pipeline.slots.free -= 1
        if pipeline.own is None:
            pipeline.ungated += 1
        return Start(tasks, cost, pipeline)

    def _expire(self, pipeline: Pipeline, wall: float, result: Admitted) -> None:
        while (
            (task := pipeline.queue.head()) is not None and (task.start_by or task.expires) <= wall and not result.full
        ):
            result.expired.append(self._backlog.pop(pipeline))
