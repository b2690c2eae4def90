"""Rates: at most n in any window of a period, strictly, and paced.

The law of a rate `n per period`: in any half-open window of `period`, at most n starts. A unit is *charged* when a
task is admitted and *dated* when its handler has started; it can be used again one period after that date. So the law
is stated at handler start, and delays on the way cannot break it.

Moments are monotonic seconds. Nothing here reads a clock.
"""

from __future__ import annotations

from collections import deque
from copy import copy
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
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
        "_asked", "_dated", "_gone", "_grain", "_paced", "_runs", "_tat", "burst", "interval", "metered", "n", "period",
        "reserved", "smooth", "written",
    )  # fmt: skip

    def __init__(self, spec: RateSpec) -> None:
        self._runs: deque[list[float]] | None = (
            None  # [first date, last date, units]; None costs an idle pipeline nothing
        )
        self._dated = 0.0
        self._gone = -inf  # the latest date that has run out
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
        self.period = period_of(spec)
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
        self._dated, self._gone = other._dated, other._gone

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
        self._add(before, -units)
        self.date(at, units)

    def correct(self, date: float | None, units: float) -> None:
        """Add to what was charged, and used at a date if it has one (or take away, if negative).

        What has run out by now stays so. More than n makes a debt: nothing is free until enough of it has run out.
        """
        self.reserved -= units
        if self.smooth:
            self._tat += units * self.interval
        if date is not None:
            self._add(date, units)

    def _add(self, date: float, units: float) -> None:
        """Add units to a date that is in the log (negative: take away); runs after it have what it does not."""
        if date <= self._gone:
            return
        runs = self._runs or ()
        first = len(runs)
        for run in reversed(runs):
            if run[1] < date:
                break
            first -= 1
        for run in islice(runs, first, None):
            part = max(units, -run[2])
            run[2] += part
            self._dated += part
            units -= part
            if not units:
                return

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
                _first, self._gone, units = runs.popleft()
                self._dated -= units
            if not runs:
                self._dated = 0.0
        return self.n - self._dated - charged


def period_of(spec: RateSpec) -> float:
    """Return the period that is kept: with the margin, and what sums of moments are rounded by."""
    return spec.period + spec.margin + ROUNDING
