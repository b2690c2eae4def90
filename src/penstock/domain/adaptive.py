"""Adaptive ceilings: find out how much downstream takes, from what it accepts and what it refuses.

An estimate begins at a tenth of its ceiling and grows with every accepted call, e-fold in a second (or a round trip), until
downstream first refuses. From then on it grows like CUBIC (RFC 9438): after a fall it comes back fast to just below what was
refused, rests there long, and probes beyond it slowly at first, then ever faster, so that a limit that was raised is found
within minutes. Growth is counted in accepted calls: so refused probes stay a small share of all calls, whatever the limit.

Only what binds is learned: a pace that nobody uses proves nothing. Moments are monotonic seconds; nothing reads a clock.
"""

from __future__ import annotations

from copy import copy
from math import exp, inf
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from penstock.domain.specs import RateSpec

FIRST: Final = 0.1
"""The share of its ceiling at which an estimate begins; one start a second, and one at once, are always tried."""

LEAST: Final = 0.001
SLOWEST: Final = 0.1
"""No rate falls below this share of its ceiling, nor below one start in ten seconds: holds see to what is slower."""

FALL: Final = 0.9
"""What a refusal leaves of an estimate that has worked for long."""

DEEPEST: Final = 0.5
"""The least that a refusal leaves of it: the pause that downstream wants is long beside the time that it has worked."""

SOON: Final = 1.0
"""The shortest pause (seconds) that a refusal is taken to mean."""

PROVEN: Final = 0.7
"""No rate falls below this share of what downstream has taken lately."""

LATELY: Final = 30.0
"""Seconds that "lately" goes back."""

BELOW: Final = 0.97
"""Where growth rests, as a share of what was refused last."""

CURVE: Final = 0.1
"""How far growth is beyond its rest (as a share) after as many calls again as it took to come there."""

PROOF: Final = 200
"""Accepted calls that growth takes to its rest, for each call that the last fall has cost."""

PAUSES: Final = 30.0
"""Growth takes this many times as long as the last pause was, so that pauses cost little throughput."""

DEAR: Final = 60.0
"""Seconds that growth takes at most because many calls were refused at once."""

LONGEST: Final = 600.0
"""Seconds that growth takes at most, but for the proof of one call."""

LATENESS: Final = 0.020
"""How late (seconds) a start may be and still not delay the ones after it."""


class Learned(NamedTuple):
    """Say what holds now instead of the ceilings: starts (or cost) a second, and tasks at once. None: nothing is learned."""

    rate: float | None
    concurrency: int | None

    @property
    def pace(self) -> str | None:
        """Return the rate as text, as it is shown."""
        if self.rate is None:
            return None
        return f"{self.rate:.0f}/s" if self.rate >= 100 else f"{self.rate:.3g}/s"


class Flow:
    """Count what downstream has taken lately, in calls a second; old calls count for less."""

    __slots__ = ("_at", "_calls", "_weight")

    def __init__(self) -> None:
        self._at = -inf
        self._calls = 0.0
        self._weight = 0.0  # seconds that have been counted, the old ones for less

    def count(self, now: float, calls: float) -> None:
        """Add calls; those that turn out to be refused are taken off again."""
        if self._at == -inf:
            self._at, self._weight = now, SOON
        left = exp((self._at - now) / LATELY)
        self._calls = max(0.0, self._calls * left + calls)
        self._weight = self._weight * left + LATELY * (1 - left)
        self._at = now

    @property
    def pace(self) -> float:
        """Return the calls a second."""
        return self._calls / self._weight if self._weight else 0.0


class Estimate:
    """Estimate one ceiling; `value` is what holds now, between `least` and `most`."""

    __slots__ = ("_answers", "_base", "_cost", "_pause", "_since", "_top", "least", "most", "value")

    def __init__(self, most: float, least: float) -> None:
        self.most = most
        self.least = min(least, most)
        self.value = min(most, max(1.0, FIRST * most))
        self._top = inf  # where growth rests; inf while nothing was ever refused
        self._base = self.value  # what it grows from
        self._answers = 0  # accepted calls since the last fall
        self._since = inf  # since when it works: the end of the last pause, or of its first growth
        self._cost = 1  # how many calls were refused at the last fall
        self._pause = SOON  # the pause after it, in seconds

    def bound(self, most: float, least: float) -> None:
        """Change what bounds it; what was learned stays."""
        self.most, self.least = most, min(least, most)
        self.value = self._bounded(self.value)

    def take_over(self, value: float) -> None:
        """Go on from what was learned earlier."""
        self._base = self.value = self._bounded(value)
        self._top = self.value if self.value < self.most else inf

    def grow(self, now: float, pace: float, proven: float) -> None:
        """Take note of an accepted call that this estimate held back. `pace` is calls a second lately."""
        if self._top == inf:
            if self.value < self.most or self._since == inf:
                self.value, self._since = self._bounded(self.value + 1.0), now
            return
        self._answers += 1
        way = self._answers / self._proof(pace)
        reach = self._top - self._base if way < 1 else CURVE * self._top
        value = self._top + reach * (way - 1) ** 3
        self.value = self._bounded(max(value, min(proven, self._top)))

    def fall(self, now: float, pause: float, proven: float) -> None:
        """Take note of a refusal after which downstream wants a pause (seconds)."""
        worked = max(0.0, now - self._since)
        self._pause = max(pause, SOON)
        left = max(DEEPEST, min(FALL, worked / (worked + self._pause)))
        if self._answers or self._top == inf:  # else nothing was taken since the last fall: it may be an outage
            self._top = max(self.least, BELOW * self.value)
        self._base = self.value = self._bounded(max(left * self.value, min(proven, FALL * self.value)))
        self._answers, self._since, self._cost = 0, now + pause, 1

    def pay(self) -> None:
        """Take note of another refusal that belongs to the last fall."""
        self._cost += 1

    def _proof(self, pace: float) -> float:
        """Return how many accepted calls growth takes to its rest."""
        calls = max(min(PROOF * self._cost, DEAR * pace), PAUSES * self._pause * pace)
        return max(PROOF, min(calls, LONGEST * pace))

    def _bounded(self, value: float) -> float:
        return max(self.least, min(value, self.most))


class Adaptive:
    """Learn the ceilings of one gate: its rate, its concurrency, or both.

    Of both, a refusal teaches the concurrency if the last start took the last unit of it, else the rate. A rate is learned
    in tasks; in cost, if all rates of the gate meter that. The configured rates hold beside it, each in its own style.
    """

    __slots__ = ("_flow", "_full", "_metered", "_next", "_paced", "rate", "slots")

    def __init__(self, rates: tuple[RateSpec, ...], concurrency: int | None) -> None:
        self.rate: Estimate | None = None
        self.slots: Estimate | None = None
        self._flow = Flow()
        self._next = -inf  # when the pace lets the next task go
        self._paced = False  # the last start came about as early as the pace let it
        self._full = False  # the last start took the last unit of the concurrency
        self._metered = False
        self.configure(rates, concurrency)

    def configure(self, rates: tuple[RateSpec, ...], concurrency: int | None) -> None:
        """Change the ceilings; what was learned stays, as far as it is within them."""
        tasks = [rate for rate in rates if rate.meter == "tasks"]
        self._metered = not tasks
        most = min((rate.n / rate.period for rate in tasks or rates), default=0.0)
        self.rate = _estimate(self.rate, most, max(LEAST * most, SLOWEST)) if rates else None
        self.slots = None if concurrency is None else _estimate(self.slots, float(concurrency), 1.0)

    def copy(self) -> Adaptive:
        """Return one that goes its own way from here on."""
        twin = copy(self)
        twin.rate, twin.slots, twin._flow = copy(self.rate), copy(self.slots), copy(self._flow)
        return twin

    @property
    def learned(self) -> Learned:
        """Return what holds now."""
        return Learned(None if self.rate is None else self.rate.value, self.concurrency)

    @property
    def concurrency(self) -> int | None:
        """Return how many tasks may run at once now."""
        return None if self.slots is None else int(self.slots.value)

    def take_over(self, learned: Learned) -> None:
        """Go on from what was learned earlier."""
        if self.rate is not None and learned.rate is not None:
            self.rate.take_over(learned.rate)
        if self.slots is not None and learned.concurrency is not None:
            self.slots.take_over(float(learned.concurrency))

    def ready_at(self, now: float) -> float:
        """Return when the pace lets a task go, `now` at the earliest."""
        return max(now, self._next) if self._paces() else now

    def room(self, now: float) -> float:
        """Return how many tasks of cost 1 the pace lets go now, one after the other."""
        if self.rate is None or not self._paces():
            return inf
        return max(0.0, min(now - self._next, LATENESS) * self.rate.value + 1.0)

    def take(self, now: float, cost: float, in_use: int) -> None:
        """Pace what follows a start; it is one of `in_use` tasks that run."""
        self._flow.count(now, 1.0)
        self._full = self.slots is not None and in_use >= int(self.slots.value)
        if self.rate is not None:
            units = cost if self._metered else 1.0
            interval = units / max(self.rate.value, min(self.rate.most, SLOWEST * units))
            self._paced = now - self._next <= 0.25 * interval + LATENESS
            self._next = max(self._next, now - LATENESS) + interval

    def accepted(self, now: float) -> None:
        """Learn from a call that downstream has taken."""
        self._flow.count(now, 0.0)
        if self._full and self.slots is not None:
            self.slots.grow(now, self._flow.pace, 0.0)
        if self._paced and self.rate is not None:
            self.rate.grow(now, self._flow.pace, PROVEN * self._flow.pace)

    def refused(self, now: float, pause: float, *, anew: bool) -> None:
        """Learn from a call that downstream has refused; `anew`, if it started after the last fall."""
        self._flow.count(now, -1.0)
        bound = self.slots if self._full or self.rate is None else self.rate
        if bound is None:
            return
        if anew:
            bound.fall(now, pause, PROVEN * self._flow.pace if bound is self.rate else 0.0)
        else:
            bound.pay()

    def _paces(self) -> bool:
        return self.rate is not None and self.rate.value < self.rate.most


def _estimate(known: Estimate | None, most: float, least: float) -> Estimate:
    if known is None:
        return Estimate(most, least)
    known.bound(most, least)
    return known
