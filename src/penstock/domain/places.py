"""Where pipelines are, and how they get from one place to another.

A pipeline with waiting tasks is in exactly one place: the ready ring, the heap of moments, its own gate, or the wait queue
of one shared gate (the slots of its function are one). So one that is blocked costs nothing, and what frees calls only
those that wait for it.
"""

from math import inf

from penstock.domain.elder import Elder
from penstock.domain.fairness import WaitQueue
from penstock.domain.limits import Door, Gate, Slots
from penstock.domain.moments import ALARM, ELDER, Moments
from penstock.domain.pipeline import IDLE, MOMENT, OWN, READY, WAITING, Pipeline
from penstock.domain.task import Task


class Places:
    """Hold the ready ring, the gates that may have room, the heap of moments, and the elder.

    `short` are slots that a task was refused since the caller last cleared it, `asked` gates that may have room for those
    who ask there.
    """

    def __init__(self) -> None:
        self.ready: WaitQueue[Pipeline] = WaitQueue()
        self.open: dict[Door, None] = {}  # gates that may have room for those who wait there
        self.elder = Elder()
        self.moments = Moments(self.elder)
        self.short: dict[str, None] = {}
        self.asked: dict[Gate, None] = {}

    def next_wakeup(self) -> float | None:
        """Return the moment at which something should be looked at if nothing else happens; None for never."""
        if self.open or self.ready.count or self.asked:
            return -inf
        return self.moments.next()

    def opened(self, gate: Door, *, sooner: bool = False) -> None:
        """Let those who wait at a gate try again, as many as it can serve.

        `sooner`: also a pipeline that waits for a moment of its own gate, which may now come earlier.
        """
        if isinstance(gate, Gate):
            self._let_ask(gate)
        owner = gate.owner
        if owner is not None:
            if owner.place is OWN or (sooner and owner.place is MOMENT):
                self.make_ready(owner)
            return
        self._call(gate)

    def _let_ask(self, gate: Gate) -> None:
        """Let those who ask at a gate try again, and those at others that may have room when this one has."""
        for one in (gate, *gate.kin):
            if one.asks:
                self.asked[one] = None

    def _call(self, gate: Door) -> None:
        """Let pipelines that wait at a shared gate try again."""
        if gate.waiters is not None and gate.waiters.count:
            self.open[gate] = None
        self.call_kin(gate)

    def call_kin(self, gate: Door) -> None:
        """Let pipelines try again that wait at other gates, which may have room when this one has."""
        for other in gate.kin:
            if other.waiters is not None and other.waiters.count and other.free() > 0:
                self.open[other] = None

    def make_ready(self, pipeline: Pipeline) -> None:
        """Let a pipeline have a turn."""
        pipeline.ticket += 1
        pipeline.place, pipeline.waits_at = READY, None
        self.ready.push(pipeline)

    def reconsider(self, pipeline: Pipeline) -> None:
        """Let a blocked pipeline try again: it has another head now, which may cost less."""
        if pipeline.place is MOMENT or pipeline.place is OWN:
            self.make_ready(pipeline)
        elif pipeline.waits_at is not None:
            self.opened(pipeline.waits_at)
            pipeline.alarm = -inf  # others may go first there, and this head may expire sooner than the one before
            self.moments.push(-inf, pipeline, ALARM)

    def changed(self, pipeline: Pipeline, head: Task | None) -> None:
        """Let a pipeline try again whose `head` so far is no longer the next one, or whose next batch may be ripe now."""
        if head is not None and pipeline.queue.head() is not head:
            self.reconsider(pipeline)
        elif pipeline.ripens:
            self.make_ready(pipeline)

    def leave(self, pipeline: Pipeline) -> None:
        """Take a pipeline out of wherever it is."""
        self.retire_elder(pipeline)
        if pipeline.place is WAITING and pipeline.waits_at is not None and pipeline.waits_at.waiters is not None:
            pipeline.waits_at.waiters.leave(pipeline)
            self.opened(pipeline.waits_at)  # it may have been what the others waited behind
        elif pipeline.place is READY:
            self.ready.leave(pipeline)
        else:
            pipeline.ticket += 1
        pipeline.place, pipeline.waits_at = IDLE, None

    def block(self, pipeline: Pipeline, gate: Door, at: float, now: float, wall: float, *, called: bool) -> None:
        """Put a pipeline where it waits; one that was called and could not go keeps its turn."""
        pipeline.waits_at = gate
        pipeline.since = min(pipeline.since, now)
        if gate is pipeline.own:
            if at < inf:
                pipeline.place = MOMENT
                pipeline.wakes_at = at
                self.moments.push(min(at, _expiry(pipeline, now, wall)), pipeline, pipeline.ticket)
                return
            pipeline.place = OWN
        else:
            pipeline.place = WAITING
            if gate.waiters is None:
                gate.waiters = WaitQueue()
            if called:
                gate.waiters.push_front(pipeline)
            else:
                gate.waiters.push(pipeline)
            if isinstance(gate, Slots):
                self.short[gate.name] = None
            elif now < at < gate.wakes_at:
                gate.wakes_at = at
                self.moments.push(at, gate)
        self.set_alarm(pipeline, now, wall)

    def ripen(self, pipeline: Pipeline, at: float, now: float, wall: float) -> None:
        """Let a pipeline wait until its next batch is ripe or its head expires; it wants nothing before."""
        self.rest(pipeline)
        pipeline.place, pipeline.wakes_at = MOMENT, at
        self.moments.push(min(at, _expiry(pipeline, now, wall)), pipeline, pipeline.ticket)

    def rest(self, pipeline: Pipeline) -> None:
        """Let a pipeline want nothing: it saves nothing up meanwhile."""
        self.retire_elder(pipeline)
        pipeline.credit, pipeline.resumes, pipeline.since = 0.0, False, inf
        pipeline.place, pipeline.waits_at = IDLE, None

    def await_moment(self, pipeline: Pipeline, gate: Gate, now: float) -> None:
        """Let a pipeline that waited for the date of a start at its own gate wait for the moment that is known now."""
        task = pipeline.queue.head()
        if task is None:  # it was withdrawn
            self.make_ready(pipeline)
        elif (at := gate.ready_at(now, task.cost)) < inf:
            pipeline.ticket += 1
            pipeline.place, pipeline.wakes_at = MOMENT, at
            self.moments.push(at, pipeline, pipeline.ticket)

    def keep(self, pipeline: Pipeline, gate: Door, via: Door | None, at: float, now: float) -> bool:
        """Keep the unit that a pipeline was called for, if it has waited for long and another gate blocks it now."""
        if gate is not pipeline.own and isinstance(via, Gate):
            opens_at = at if at > now or isinstance(gate, Slots) else gate.wakes_at
            known = self.elder.pipeline is pipeline
            if self.elder.keeps(pipeline, opens_at, now):
                via.mark = pipeline
                if not known:
                    self.moments.push(self.elder.until, pipeline, ELDER)
                return True
        self.retire_elder(pipeline)
        return False

    def retire_elder(self, pipeline: Pipeline) -> None:
        """Keep nothing for a pipeline any more."""
        if self.elder.pipeline is pipeline:
            self.elder.retire()
            for gate in pipeline.gates:
                if gate.mark is pipeline:
                    gate.mark = None
                    self._call(gate)

    def set_alarm(self, pipeline: Pipeline, now: float, wall: float) -> None:
        """See to it that a blocked pipeline's head expires in time."""
        at = _expiry(pipeline, now, wall)
        if at < pipeline.alarm:
            pipeline.alarm = at
            self.moments.push(at, pipeline, ALARM)


def _expiry(pipeline: Pipeline, now: float, wall: float) -> float:
    task = pipeline.queue.head()
    return inf if task is None else now + max(0.0, task.expires - wall)
