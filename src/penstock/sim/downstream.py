"""A scripted service that pushes back: a quota per key, outages and slow periods, and a log of who came when."""

import random
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from penstock.compute.protocol import Ending
from penstock.sim.script import Act, Behaviour, Call, Spread, error


@dataclass(frozen=True, slots=True)
class Quota:
    """Accept `n` calls of one key in any window of `period` seconds."""

    n: int
    period: float


@dataclass(frozen=True, slots=True)
class Period:
    """Name a stretch of time, from `begin` up to `end` (not included), in virtual seconds; `factor` slows it down."""

    begin: float
    end: float
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer one call: an HTTP status, how long it took, and when to come back (429, and 503 if it knows)."""

    status: int
    duration: float
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """Be one line of the service's own log."""

    at: float
    key: str
    status: int


@dataclass(slots=True)
class Downstream:
    """Serve calls of many keys. What it refuses does not count against the quota."""

    quotas: Mapping[str, Quota]
    duration: Spread
    outages: Sequence[Period] = ()
    slow: Sequence[Period] = ()
    log: list[Arrival] = field(default_factory=list)
    _accepted: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(deque))

    def call(self, key: str, now: float, rng: random.Random) -> Answer:
        """Answer a call that arrives now; calls must come in the order of time."""
        answer = self._answer(key, now, rng)
        self.log.append(Arrival(now, key, answer.status))
        return answer

    def refused(self, key: str) -> int:
        """Return how many calls of a key were answered with 429."""
        return sum(arrival.key == key and arrival.status == 429 for arrival in self.log)

    def _answer(self, key: str, now: float, rng: random.Random) -> Answer:
        outage = _covering(self.outages, now)
        if outage is not None:
            return Answer(503, 0.001, outage.end - now if rng.random() < 0.5 else None)
        quota, accepted = self.quotas.get(key), self._accepted[key]
        if quota is not None:
            while accepted and now - accepted[0] >= quota.period:
                accepted.popleft()
            if len(accepted) >= quota.n:
                return Answer(429, 0.001, accepted[len(accepted) - quota.n] + quota.period - now)
        accepted.append(now)
        slow = _covering(self.slow, now)
        return Answer(200, self.duration.draw(rng) * (slow.factor if slow is not None else 1.0))


def calls(service: Downstream, key: str | None = None) -> Behaviour:
    """Call a service, with the pipeline's name as the key if none is given, and pass its "try later" on."""

    def act(call: Call) -> Act:
        answer = service.call(call.pipeline if key is None else key, call.now, call.rng)
        if answer.status == 200:
            return Act(answer.duration)
        if answer.retry_after is None:
            return Act(answer.duration, Ending.ERROR, error("HTTPError", f"status {answer.status}"))
        body = error("Throttled", f"status {answer.status}")
        return Act(answer.duration, Ending.THROTTLED, body, retry_after=answer.retry_after)

    return act


def _covering(periods: Sequence[Period], now: float) -> Period | None:
    index = bisect_right([period.begin for period in periods], now) - 1
    return periods[index] if index >= 0 and now < periods[index].end else None
