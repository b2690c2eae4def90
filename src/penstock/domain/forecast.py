"""When waiting tasks will start: a copy of a pipeline's limits is played forward. It reads, and never writes.

The law. What is *exact* comes true if nothing else happens: nothing is sent ahead, withdrawn, held or changed, there are
instances, and handlers start when their tasks are admitted. The rest is a *lower bound*: whatever others do, no start is
earlier, as long as nothing ahead is withdrawn and no limit is raised. Among more tasks than can be looked at, none is
taken to expire.

The first tasks are played one by one. What is behind them is reckoned from these starts: in any half-open window of a
rate's period there are at most n, and a rate that is alone repeats itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf
from sys import maxsize
from typing import TYPE_CHECKING, Final

from penstock.domain.limits import Gate
from penstock.domain.pipeline import IDLE, PAUSED
from penstock.domain.rates import EXACT
from penstock.domain.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from penstock.domain.admission import Admission
    from penstock.domain.pipeline import Pipeline
    from penstock.domain.rates import Rate

PLAYED: Final = 3 * EXACT
"""Starts that are played one by one: three rounds of the largest rate whose dates are all kept."""

FEW: Final = 16
"""The same where many pipelines are looked at."""

LOOKED: Final = 16
"""How many times as many tasks are looked at for their costs, and for when they expire."""

CROWD: Final = 1000
"""With more users than this, a shared limit is taken to be in use without looking at each."""

CLOSE: Final = 1e-6
"""Seconds by which sums of moments may differ, being rounded."""

EXPIRES: Final = "it expires before it could start"
IMPOSSIBLE: Final = "it costs more than a limit ever lets pass"
DEPENDS: Final = "it depends on how long tasks run"
COUNTED: Final = "there are too many ahead of it to look at each"
RECKONED: Final = "it is far ahead, and was not played start by start"
INSTANCES: Final = "instances are busy or starting"
LEARNS: Final = "how much downstream takes is being learned"
BATCHED: Final = "it goes in a batch with others"
EXPIRY: Final = "tasks ahead of it expire before that"


FREE: Final = Task(0, "", None, created=0.0, expires=inf, cost=0.0)
"""What stands for a batch whose size and cost are not known before it starts."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Say when a task starts: a monotonic moment, None for not at all as things are.

    `because` says why the moment is a lower bound only, or why there is none; it is empty for one that is exact.
    """

    at: float | None
    because: str = ""

    @property
    def exact(self) -> bool:
        """Say whether the task starts at that very moment."""
        return not self.because


@dataclass(frozen=True, slots=True)
class Room:
    """Say how many more tasks can run at once, and how long (seconds) a task may run."""

    tasks: float = inf
    longest: float = inf


def forecast(
    admission: Admission, name: str, place: int, now: float, wall: float, room: Room | None = None, most: int = PLAYED
) -> Forecast:
    """Return when the task at a place of a pipeline's queue starts; 0 is next. At most `most` starts are played."""
    pipeline = admission.pipelines[name]
    if pipeline.place is PAUSED:
        return Forecast(None, "the pipeline is paused")
    tasks = pipeline.queue.first(min(place + 1, most * LOOKED))
    play = _Play(pipeline, now, wall, room or Room())
    if pipeline.batch is not None:
        return play.batched(place, tasks, pipeline.batch.size, most)
    return play.told(place, tasks, most)


class _Play:
    """Hold a copy of the limits, and what was played with it.

    `starts` has the moment of each place, also of tasks that are gone by then: `gone` says when they expire.
    """

    def __init__(self, pipeline: Pipeline, now: float, wall: float, room: Room) -> None:
        gates = pipeline.gates
        if pipeline.own is None:  # none of its tasks has been in memory yet
            gates = (Gate(pipeline.name, pipeline.rates, pipeline.concurrency, pipeline), *gates)
        self.starts: list[float] = []
        self.gone: list[float] = []
        self._taken: list[tuple[float, float]] = []  # the moment of each start, and what was spent before it
        self._spent = 0.0
        self._costs: set[float] = set()
        self._now, self._wall = now, wall
        self._opens = max((gate.held_until for gate in gates), default=now)
        self._rates = [rate for gate in gates for rate in gate.copy().rates]
        for rate in self._rates:
            rate.reserved = inf  # another block of a long period is on disk soon after it is asked for
        free = (gate.free() for gate in gates)
        most = min(room.tasks, *free, inf)
        self._room = inf if most >= _most_at_once(self._rates, room.longest) else most
        self._free = pipeline.slots.free
        self._because = ""
        self._exact = maxsize  # how many places are known for certain
        if because := _doubt(pipeline):
            self._doubt(because, 0)

    def told(self, place: int, tasks: Sequence[Task], most: int) -> Forecast:
        """Return when the task at a place starts, given the first tasks, of which at most `most` are played."""
        most = min(
            most, 2 * PLAYED // max(1, len(self._rates))
        )  # a few milliseconds of work, however many rates there are
        self.run(tasks[:most])
        return self.played(place) if place < len(self.starts) else self.reckoned(place, tasks[len(self.starts) :])

    def batched(self, place: int, tasks: Sequence[Task], size: int, most: int) -> Forecast:
        """Return when a task starts that goes in a batch: as if all before it were full, ripe, and free of cost."""
        self._doubt(BATCHED, 0)
        batches = place // size
        at = self.told(batches, [FREE] * min(batches + 1, most), most).at
        assert at is not None, "what costs nothing and never expires starts"
        at = min(at, *map(self._expiry, tasks[:place]), inf)
        if len(tasks) > place and self._expiry(tasks[place]) <= at:
            return Forecast(None, EXPIRES)
        return Forecast(at, self._because)

    def run(self, tasks: Iterable[Task]) -> None:
        """Start tasks as admission does."""
        at = self._now
        for place, task in enumerate(tasks):
            if place >= self._room:
                self._doubt(DEPENDS, place)
            gone = max(at, self._expiry(task))
            start = self._ready(max(at, self._opens), task.cost, gone)
            if start <= self._now and place >= self._free:
                self._doubt(INSTANCES, place)
            self.starts.append(start)
            self.gone.append(gone)
            if start == inf:
                self._doubt(f"a task ahead of it: {IMPOSSIBLE}", place + 1)
            elif gone <= start:
                at = gone
            else:
                at = start
                self._take(at, task.cost)

    def played(self, place: int) -> Forecast:
        """Return when a task starts that was played."""
        at, because = self.starts[place], self._because if place >= self._exact else ""
        if at == inf:
            return Forecast(None, IMPOSSIBLE)
        if because:
            at = min(at, *self.gone[:place], inf)  # others may delay what is ahead until it is gone
        return Forecast(at, because) if at < self.gone[place] else Forecast(None, EXPIRES)

    def reckoned(self, place: int, behind: Sequence[Task]) -> Forecast:
        """Return when a task starts that is behind those that were played; `behind` begins with the first of these."""
        count = place - len(self.starts)
        known, expiries = len(behind) > count, [self._expiry(task) for task in behind]
        at, because = None, self._because or (DEPENDS if place >= self._room else "")
        if known and not because:
            at = self._repeated(count, behind)
        if at is None:
            at, because = self._bound(count, behind[:count]), because or (RECKONED if known else COUNTED)
        elif min(expiries[:count], default=inf) <= at:
            because = EXPIRY
        if because:
            at = min(at, *self.gone, *expiries[:count], inf)
        return Forecast(None, EXPIRES) if known and expiries[count] <= at else Forecast(at, because)

    def _repeated(self, count: int, behind: Sequence[Task]) -> float | None:
        """Return the start of the task `count` behind the first if one rate alone repeats itself, None if it does not."""
        if not self._rates:
            return self._last()
        rate, starts = self._rates[0], [start for start, _ in self._taken]
        units = behind[0].cost if rate.metered else 1.0
        size = int(rate.n // units)
        if (
            len(self._rates) > 1
            or rate.n > EXACT
            or size * units != rate.n
            or not len(self.starts) == len(starts) >= 3 * size
        ):
            return None
        if rate.metered and self._costs.union(task.cost for task in behind) != {units}:
            return None
        rounds = zip(starts[-3 * size :], starts[-2 * size :], strict=False)
        if any(abs(later - earlier - rate.period) > CLOSE for earlier, later in rounds):
            return None
        more, step = divmod(count, size)
        return starts[step - size] + (more + 1) * rate.period

    def _bound(self, count: int, ahead: Sequence[Task]) -> float:
        """Return a moment before which the task `count` behind the first cannot start, by law and by pacing."""
        costs = sum(task.cost for task in ahead)
        at = self._last()
        for rate in self._rates:
            at = max(at, rate.paced(costs if rate.metered else count))
            for place, (start, spent) in enumerate([*self._taken, (self._last(), self._spent)]):
                units = self._spent - spent + costs if rate.metered else len(self._taken) - place + count + 1
                at = max(at, start + (ceil(units / rate.n - CLOSE) - 1) * rate.period)
        return at

    def _last(self) -> float:
        return self._taken[-1][0] if self._taken else max(self._now, self._opens)

    def _ready(self, at: float, cost: float, until: float) -> float:
        """Return when all limits let a task pass, inf if one never does. Past `until` it is of no use, and not looked at."""
        later = -inf
        while later < at < until:
            ready = (rate.ready_at(at, cost if rate.metered else 1.0, 0.0) for rate in self._rates)
            later, at = at, max(ready, default=at)
        return at

    def _take(self, at: float, cost: float) -> None:
        for rate in self._rates:
            units = cost if rate.metered else 1.0
            rate.take(at, units)
            rate.date(at, units)
        self._taken.append((at, self._spent))
        self._spent += cost
        self._costs.add(cost)

    def _expiry(self, task: Task) -> float:
        return self._now + max(0.0, task.expires - self._wall)

    def _doubt(self, because: str, place: int) -> None:
        """Let no place from this one on be called exact. Merged dates are late ones, so none are merged any more."""
        if place < self._exact:
            self._exact, self._because = place, because
            for rate in self._rates:
                rate.keep_dates()


def _most_at_once(rates: Iterable[Rate], longest: float) -> float:
    """Return how many tasks can run at once at most, given how long one may run: what no window exceeds."""
    if longest == inf:
        return inf
    return min((rate.n * ceil(longest / rate.period) for rate in rates if not rate.metered), default=inf)


def _doubt(pipeline: Pipeline) -> str:
    """Return why nothing can be foretold exactly; nothing if it can."""
    if pipeline.adaptive or any(gate.adaptive is not None for gate in pipeline.gates):
        return LEARNS
    for gate in pipeline.gates:
        if len(gate.users) > CROWD or any(other is not pipeline and _waits(other) for other in gate.users):
            return f"other pipelines use the limit '{gate.name}'"
        if gate.asks:
            return f"running tasks take from the limit '{gate.name}' first"
        if gate.undated_tasks and gate.rates:
            return "the starts of tasks that were just admitted are not known yet"
    waiters = pipeline.slots.waiters
    if waiters is not None and waiters.count:
        return INSTANCES
    return ""


def _waits(pipeline: Pipeline) -> bool:
    return pipeline.place is not PAUSED and (pipeline.place is not IDLE or pipeline.queue.more)
