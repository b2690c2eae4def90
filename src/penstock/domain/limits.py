"""Limits: strict sliding rates with pacing, and concurrency, joined in gates that pipelines pass through.

The law of a rate `n per period`: in any half-open window of `period`, at most n starts. A unit is *charged* when a
task is admitted and *dated* when its handler has started; it can be used again one period after that date. So the law
is stated at handler start, and delays on the way cannot break it.

Moments are monotonic seconds. Nothing here reads a clock.
"""

from __future__ import annotations

from collections import deque
from copy import copy, deepcopy
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from penstock.domain.adaptive import SOON, Adaptive
from penstock.domain.retry import hold_for

if TYPE_CHECKING:
    from penstock.domain.adaptive import Learned
    from penstock.domain.fairness import WaitQueue
    from penstock.domain.pipeline import Pipeline
    from penstock.domain.settings import RateSpec

CATCH_UP: Final = 0.050
"""How late (seconds) a paced start may be and still not delay the ones after it: lateness is not lost throughput."""

ROUNDING: Final = 1e-7
"""Seconds added to every period: sums of moments are rounded, and not even the last digit of a float may break the law."""

LONG: Final = 60.0
"""From this period on (seconds), what a rate has used outlives a crash: units are reserved on disk before they are used."""

WALL_ROUNDING: Final = 1e-6
"""What a difference of two wall-clock moments may be wrong by, as floats of this century (seconds)."""

EXACT: Final = 128
"""Up to this many units per period every date is kept; above, dates are merged into runs of `period / 256`."""


class Rate:
    """Allow n units in any window of `period`, paced evenly (`smooth`) or as they come (`window`).

    The pacing is a GCRA (ITU-T I.371) whose theoretical arrival time may lag behind by `CATCH_UP`; the law is a log of
    dates, run-length merged and rounded up, so that its size is bounded whatever n is.
    """

    __slots__ = (
        "_asked", "_dated", "_grain", "_paced", "_runs", "_tat", "burst", "interval", "metered", "n", "period", "reserved",
        "smooth", "written",
    )  # fmt: skip

    def __init__(self, spec: RateSpec) -> None:
        self._runs: deque[list[float]] | None = (
            None  # [first date, last date, units]; None costs an idle pipeline nothing
        )
        self._dated = 0.0
        self._tat = -inf
        self._paced = 0.0  # the units by which the last start moved `_tat`
        self.interval = 0.0
        self.reserved = 0.0  # units of a long period that may be charged before another block of them is on disk
        self.written = 0.0  # the size of the next block, as it was written down
        self._asked = 1.0  # the most units that a task has asked for
        self.configure(spec)

    def configure(self, spec: RateSpec) -> None:
        """Change the rate in place: what was used stays used, so a lower rate holds from the next start on.

        The next start is paced by the new rate: a raise is felt at once."""
        self.n = spec.n
        self.period = _period(spec)
        before, self.interval = self.interval, self.period / spec.n
        self._tat += self._paced * (self.interval - before)
        self.smooth = spec.style == "smooth"
        self.burst = (spec.burst - 1) * self.interval if spec.burst > 1 else 0.0
        self.metered = spec.meter == "cost"
        self._grain = 0.0 if spec.n <= EXACT else self.period / 256

    def copy(self) -> Rate:
        """Return one that goes its own way from here on."""
        twin = copy(self)
        twin.inherit(self)
        return twin

    def inherit(self, other: Rate) -> None:
        """Take over the dates of a rate that this one replaces."""
        self._runs = None if other._runs is None else deque([list(run) for run in other._runs])
        self._dated = other._dated

    def keep_dates(self) -> None:
        """Merge dates no more from here on, whatever n is."""
        self._grain = 0.0

    def ready_at(self, now: float, units: float, charged: float) -> float:
        """Return when `units` can be taken, `now` at the earliest; inf while that depends on something else."""
        self._asked = max(self._asked, units)
        if units > self.reserved and self.period >= LONG:
            return inf
        missing = units - self._free(now, charged)
        at = max(now, self._tat - self.burst) if self.smooth else now
        if missing <= 0:
            return at
        for _first, last, count in self._runs or ():
            missing -= count
            if missing <= 0:
                return max(at, last + self.period)
        return inf

    def room(self, now: float, charged: float) -> float:
        """Return how many units can be taken now, one after the other."""
        free = self._free(now, charged)
        if self.period >= LONG:
            free = min(free, self.reserved)
        if not self.smooth:
            return free
        if self._tat == -inf:
            paced = 1 + self.burst / self.interval
        else:
            paced = (max(now - self._tat, -inf) + self.burst) / self.interval + 1
        return min(free, max(0.0, paced))

    def take(self, now: float, units: float) -> None:
        """Pace what follows; the units themselves are counted by the gate until they are dated."""
        self.reserved -= units
        if self.smooth:
            self._tat = max(self._tat, now - CATCH_UP) + units * self.interval
            self._paced = units

    def paced(self, units: float) -> float:
        """Return the moment before which pacing lets nothing start once `units` more were taken; -inf if it never does."""
        return self._tat + units * self.interval - self.burst if self.smooth else -inf

    def date(self, at: float, units: float) -> None:
        """Note that `units` were used by a handler that started at a moment."""
        runs = self._runs
        if runs is None:
            runs = self._runs = deque()
        self._dated += units
        if runs:
            run = runs[-1]
            # Dates may arrive out of order; taking the later one is on the safe side of the law.
            if at <= run[1] or at - run[0] <= self._grain:
                run[1] = max(run[1], at)
                run[2] += units
                return
        runs.append([at, at, units])

    def redate(self, before: float, at: float, units: float) -> None:
        """Move the date of `units` to a later moment. What has run out by now stays so, and is used anew."""
        found = None
        for run in reversed(self._runs or ()):
            if run[1] < before:
                break
            found = run
        if found is not None:
            found[2] -= units
            self._dated -= units
        self.date(at, units)

    @property
    def block(self) -> float:
        """Return how many units of a long period are reserved at once: 2 % of them, a task's worth at least."""
        return max(self.n / 50, self._asked)

    def runs_out(self) -> bool:
        """Say whether another block of a long period should be reserved."""
        return self.period >= LONG and self.reserved < max(self.block / 2, self._asked)

    def use_up(self, now: float) -> None:
        """Behave as if all units had just been used: what a crash forgot cannot be exceeded then."""
        self._runs = deque([[now, now, float(self.n)]])
        self._dated = float(self.n)
        self._tat, self._paced = now + self.interval, 1.0

    def dates(self, now: float) -> list[list[float]]:
        """Return what still counts, as [seconds ago, units] pairs, to be kept over a clean stop."""
        self._free(now, 0.0)
        return [[now - last, units] for _first, last, units in self._runs or ()]

    def restore(self, now: float, dates: list[list[float]], away: float) -> None:
        """Take back what `dates` returned, `away` seconds later."""
        for ago, units in dates:
            self.date(now - ago - away + WALL_ROUNDING, units)

    def _free(self, now: float, charged: float) -> float:
        runs = self._runs
        if runs:
            oldest = now - self.period
            while runs and runs[0][1] <= oldest:
                self._dated -= runs.popleft()[2]
            if not runs:
                self._dated = 0.0
        return self.n - self._dated - charged


class Used(NamedTuple):
    """Hold what a rate has used: `dates` are [seconds ago, units] pairs, `open_units` may have been used since."""

    period: float
    metered: bool
    dates: list[list[float]]
    open_units: float


class Gate:
    """Join the rates and the concurrency that one name stands for: a pipeline's own, a shared limit's, a function's.

    A task takes from all of them or from none. `in_use` counts running tasks, `undated` those among them whose start has
    not been reported (as tasks and as cost). The wait queue of a gate belongs to admission.
    """

    __slots__ = (
        "adaptive", "concurrency", "held_until", "in_use", "long", "mark", "name", "owner", "rates", "refusals", "refused_at",
        "undated_cost", "undated_tasks", "users", "waiters", "wakes_at",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        rates: tuple[RateSpec, ...] = (),
        concurrency: int | None = None,
        owner: Pipeline | None = None,
        *,
        adaptive: bool = False,
    ) -> None:
        self.name = name
        self.owner = owner  # the pipeline whose own gate this is: nobody else can wait here
        self.rates: tuple[Rate, ...] = ()
        self.mark: Pipeline | None = None  # whom a unit is kept for, that waits for another gate's too
        self.long = False  # some rate's use has to outlive a crash
        self.concurrency = concurrency
        self.adaptive: Adaptive | None = None  # what learns how much of all that downstream takes
        self.held_until = -inf
        self.refused_at = -inf  # when downstream was last heard to refuse what had started after the time before
        self.refusals = 0  # such times in a row
        self.in_use = 0
        self.undated_tasks = 0
        self.undated_cost = 0.0
        self.waiters: WaitQueue[Pipeline] | None = None  # made when something first waits here
        self.wakes_at = inf
        self.users: dict[Pipeline, None] = {}  # the pipelines that pass a shared limit
        if rates or adaptive:
            self.configure(rates, concurrency, adaptive=adaptive)

    def configure(self, rates: tuple[RateSpec, ...], concurrency: int | None, *, adaptive: bool = False) -> None:
        """Change the limits in place. A rate keeps the dates of the one with its period, else of the longest one.

        Dates are in units of tasks or of cost, so only a rate of the same meter has them to give."""
        old = {(rate.period, rate.metered): rate for rate in self.rates}
        longest = {rate.metered: rate for rate in sorted(self.rates, key=lambda rate: rate.period)}
        fresh = []
        for spec in rates:
            metered = spec.meter == "cost"
            rate = old.pop((_period(spec), metered), None)
            if rate is not None:
                rate.configure(spec)
            else:
                rate = Rate(spec)
                if metered in longest:
                    rate.inherit(longest[metered])
            fresh.append(rate)
        self.rates = tuple(fresh)
        self.long = any(rate.period >= LONG for rate in self.rates)
        self.concurrency = concurrency
        if not adaptive:
            self.adaptive = None
            return
        if self.adaptive is None:
            self.adaptive = Adaptive(rates, concurrency)
        else:
            self.adaptive.configure(rates, concurrency)
        self.concurrency = self.adaptive.concurrency

    def copy(self) -> Gate:
        """Return one to ask and to play with: nothing waits there, and what it is told changes nothing here."""
        twin = copy(self)
        twin.rates = tuple(rate.copy() for rate in self.rates)
        twin.adaptive = deepcopy(self.adaptive)
        twin.waiters = None
        return twin

    def most_cost(self) -> float:
        """Return the largest cost that can ever pass."""
        return min((rate.n for rate in self.rates if rate.metered), default=inf)

    def ready_at(self, now: float, cost: float) -> float:
        """Return when a task of this cost may pass, `now` at the earliest; inf while that depends on another task."""
        if self.concurrency is not None and self.in_use >= self.concurrency:
            return inf
        at = max(now, self.held_until)
        if self.adaptive is not None:
            at = max(at, self.adaptive.ready_at(now))
        for rate in self.rates:
            units, charged = (cost, self.undated_cost) if rate.metered else (1.0, self.undated_tasks)
            at = max(at, rate.ready_at(now, units, charged))
        return at

    def room(self, now: float) -> float:
        """Return how many tasks of cost 1 could pass now."""
        if self.held_until > now:
            return 0.0
        room = inf if self.concurrency is None else max(0, self.concurrency - self.in_use)
        if self.adaptive is not None:
            room = min(room, self.adaptive.room(now))
        for rate in self.rates:
            room = min(room, rate.room(now, self.undated_cost if rate.metered else self.undated_tasks))
        return room

    def use_up(self, now: float) -> None:
        """Behave as if all rates of short periods had just been used up; long ones have their reserved blocks."""
        for rate in self.rates:
            if rate.period < LONG:
                rate.use_up(now)

    def runs_out(self) -> bool:
        """Say whether another block of some long period should be reserved."""
        return self.long and any(rate.runs_out() for rate in self.rates)

    def used(self, now: float, *, ahead: bool) -> list[Used]:
        """Return what each rate has used that still counts, to be kept on disk.

        `ahead` counts what runs undated and what is reserved, the next block included, as used at the moment of the
        restart: so a crash is never an excess, and costs two blocks at most.
        """
        kept = []
        for rate in self.rates:
            open_units = 0.0
            if ahead:
                rate.written = rate.block
                open_units = (self.undated_cost if rate.metered else self.undated_tasks) + rate.reserved + rate.block
            kept.append(Used(rate.period, rate.metered, rate.dates(now), open_units))
        return kept

    def reserve(self) -> None:
        """Let another block be used of each rate that runs out: it is on disk now."""
        for rate in self.rates:
            if rate.runs_out():
                rate.reserved += rate.written

    def restore(self, now: float, kept: list[Used], away: float) -> None:
        """Take back what `used` returned, `away` seconds later; rates find theirs by period and meter."""
        known = {(used.period, used.metered): used for used in kept}
        for rate in self.rates:
            used = known.get((rate.period, rate.metered))
            if used is not None:
                rate.restore(now, used.dates, away)
                if used.open_units and rate.period >= LONG:
                    rate.date(now, min(used.open_units, rate.n))

    def take(self, now: float, cost: float) -> None:
        """Let one task pass: charge it."""
        self.in_use += 1
        if self.adaptive is not None:
            self.adaptive.take(now, cost, self.in_use)
        if self.rates:
            self.undated_tasks += 1
            self.undated_cost += cost
        for rate in self.rates:
            rate.take(now, cost if rate.metered else 1.0)

    def date(self, at: float, cost: float) -> None:
        """Date the units of a task whose handler started at a moment."""
        for rate in self.rates:
            rate.date(at, cost if rate.metered else 1.0)
        self.undate(cost)

    def redate(self, before: float, at: float, cost: float) -> None:
        """Date the units of a task anew: its handler started later than was told."""
        for rate in self.rates:
            rate.redate(before, at, cost if rate.metered else 1.0)

    def undate(self, cost: float) -> None:
        """Give back units whose handler never started."""
        self.undated_tasks -= 1
        self.undated_cost = self.undated_cost - cost if self.undated_tasks else 0.0

    def accepted(self, sent: float, now: float) -> None:
        """Hear that downstream has taken a task that was started at `sent`."""
        self.refusals = 0
        if self.adaptive is not None and sent > self.refused_at:
            self.adaptive.accepted(now)
            self.concurrency = self.adaptive.concurrency

    def learn(self, learned: Learned) -> None:
        """Go on from what an adaptive gate learned before a restart."""
        if self.adaptive is not None:
            self.adaptive.take_over(learned)
            self.concurrency = self.adaptive.concurrency

    def refused(self, sent: float, now: float, wait: float | None) -> float:
        """Hear that downstream wants a task later that was started at `sent`, and return until when nothing may pass.

        `wait` is the seconds that it asks for, None if it does not say. What ran at the same time is refused together: that
        counts once.
        """
        anew = sent > self.refused_at
        if anew:
            self.refusals, self.refused_at = self.refusals + 1, now
        hold = hold_for(wait, self.refusals)
        if self.adaptive is not None:
            self.adaptive.refused(now, SOON if wait is None else hold, anew=anew)
            self.concurrency = self.adaptive.concurrency
        return now + hold if anew or wait is not None else self.held_until

    def release(self) -> None:
        """Free the concurrency of a task whose work has really ended."""
        self.in_use -= 1


class Slots:
    """Count the free places in the instances of one (function, environment); admission starts no task without one.

    It is a gate that the engine fills: instances bring slots when they are ready and get them back when a task ends.
    """

    __slots__ = ("free", "name", "waiters")
    owner = None

    def __init__(self, name: str) -> None:
        self.name = name
        self.free = 0
        self.waiters: WaitQueue[Pipeline] | None = None

    def most_cost(self) -> float:
        """Return the largest cost that can ever pass: any."""
        return inf


Door = Gate | Slots
"""What a pipeline passes: limits, and the slots of its function."""


def _period(spec: RateSpec) -> float:
    return spec.period + spec.margin + ROUNDING
