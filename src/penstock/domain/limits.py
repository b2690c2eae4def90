"""Limits: rates and concurrency, joined in gates that pipelines pass through.

Moments are monotonic seconds. Nothing here reads a clock.
"""

from __future__ import annotations

from copy import copy
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from penstock.domain.adaptive import SOON, Adaptive
from penstock.domain.rates import LONG, Rate, period_of
from penstock.domain.retry import hold_for

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.domain.adaptive import Learned
    from penstock.domain.asks import Asks
    from penstock.domain.fairness import WaitQueue
    from penstock.domain.pipeline import Pipeline
    from penstock.domain.settings import RateSpec


class Used(NamedTuple):
    """Hold what a rate has used: `dates` are [seconds ago, units] pairs, `open_units` may have been used since."""

    period: float
    metered: bool
    dates: list[list[float]]
    open_units: float


class Gate:
    """Join the rates and the concurrency that one name stands for: a pipeline's own, a shared limit's, a function's.

    A task takes from all of them or from none. `in_use` counts running tasks, and the units that are lent to others;
    `undated` what was let pass by the rates and whose moment has not been reported (as tasks and as cost). The wait queue
    of a gate belongs to admission, those who ask there while they run belong to lending.
    """

    __slots__ = (
        "adaptive", "asks", "concurrency", "held_until", "in_use", "long", "mark", "name", "owner", "rates", "refusals",
        "refused_at", "stalled", "undated_cost", "undated_tasks", "users", "waiters", "wakes_at",
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
        self.asks: Asks | None = None  # running tasks that ask here, made likewise
        self.stalled = 0  # tasks among those in use that wait for a unit of another gate
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
            rate = old.pop((period_of(spec), metered), None)
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
        twin.adaptive = None if self.adaptive is None else self.adaptive.copy()
        twin.waiters = twin.asks = None
        return twin

    @property
    def limits_concurrency(self) -> bool:
        """Say whether it bounds how many run."""
        return self.concurrency is not None

    @property
    def kin(self) -> Iterable[Gate]:
        """Return other gates that may have room when this one has."""
        return ()

    def free(self) -> float:
        """Return how many more may run, whatever the rates say."""
        return inf if self.concurrency is None else self.concurrency - self.in_use

    def most_cost(self) -> float:
        """Return the largest cost that can ever pass."""
        return min((rate.n for rate in self.rates if rate.metered), default=inf)

    def ready_at(self, now: float, cost: float) -> float:
        """Return when a task of this cost may pass, `now` at the earliest; inf while that depends on another task."""
        if self.is_full:
            return inf
        return self.rates_ready_at(now, cost)

    @property
    def is_full(self) -> bool:
        """Say whether as many use it as may."""
        return self.free() <= 0

    def rates_ready_at(self, now: float, cost: float) -> float:
        """Return when the rates let something of this cost pass, however many run."""
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
        room = max(0.0, self.free())
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
        self.enter()
        self.charge(now, cost)

    def enter(self) -> None:
        """Take one unit of the concurrency, whatever the rates say."""
        self.in_use += 1

    def charge(self, now: float, cost: float) -> None:
        """Take from the rates alone."""
        if self.adaptive is not None:
            self.adaptive.take(now, cost, self.in_use)
        if self.rates:
            self.undated_tasks += 1
            self.undated_cost += cost
        for rate in self.rates:
            rate.take(now, cost if rate.metered else 1.0)

    def lend(self, now: float) -> None:
        """Take one unit of the concurrency alone."""
        self.in_use += 1
        if self.adaptive is not None and not self.rates:
            self.adaptive.take(now, 0.0, self.in_use)

    def date(self, at: float, cost: float) -> None:
        """Date the units of a task whose handler started at a moment."""
        for rate in self.rates:
            rate.date(at, cost if rate.metered else 1.0)
        self.undate(cost)

    def redate(self, before: float, at: float, cost: float) -> None:
        """Date the units of a task anew: its handler started later than was told."""
        for rate in self.rates:
            rate.redate(before, at, cost if rate.metered else 1.0)

    def correct(self, date: float | None, cost: float) -> None:
        """Add to the cost of a task (negative: take away), dated at a moment or not yet."""
        if date is None:
            self.undated_cost += cost
        for rate in self.rates:
            if rate.metered:
                rate.correct(date, cost)

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

        `wait` is the seconds that it asks for, None if it does not say; 0 says no more than that (services round down, and
        dates are past where clocks differ). What ran at the same time is refused together: that counts once.
        """
        wait = wait or None
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
    kin: Iterable[Gate] = ()

    def __init__(self, name: str) -> None:
        self.name = name
        self.free = 0
        self.waiters: WaitQueue[Pipeline] | None = None

    def most_cost(self) -> float:
        """Return the largest cost that can ever pass: any."""
        return inf


Door = Gate | Slots
"""What a pipeline passes: limits, and the slots of its function."""
