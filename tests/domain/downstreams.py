"""Services with limits that they do not tell, and gates that call them with a backlog that never ends, on a virtual clock."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import ceil, inf
from typing import Any, Protocol

from penstock.domain.limits import Gate


class Service(Protocol):
    """Answer calls: None if one is taken, else in how many seconds the next one could be."""

    def call(self, now: float) -> float | None: ...

    def end(self) -> None: ...


@dataclass
class Bucket:
    """A token bucket: `rate` a second, `burst` at once."""

    rate: float
    burst: float
    level: float = inf
    at: float = 0.0

    def call(self, now: float) -> float | None:
        self.level = min(self.burst, self.level + (now - self.at) * self.rate)
        self.at = now
        if self.level < 1:
            return (1 - self.level) / self.rate
        self.level -= 1
        return None

    def end(self) -> None:
        pass


@dataclass
class Window:
    """A quota of `n` in each window that begins at a multiple of `period`, or with `sliding` in any window."""

    n: int
    period: float
    sliding: bool = False
    taken: deque[float] = field(default_factory=deque)

    def call(self, now: float) -> float | None:
        begin = now - self.period if self.sliding else now - now % self.period - 1e-9
        while self.taken and self.taken[0] <= begin:
            self.taken.popleft()
        if len(self.taken) >= self.n:
            return (self.taken[0] if self.sliding else now - now % self.period) + self.period - now
        self.taken.append(now)
        return None

    def end(self) -> None:
        pass


@dataclass
class Crowd:
    """At most `n` calls at once."""

    n: int
    inside: int = 0

    def call(self, now: float) -> float | None:
        if self.inside >= self.n:
            return 1.0
        self.inside += 1
        return None

    def end(self) -> None:
        self.inside -= 1


@dataclass
class World:
    """Let gates call a service. `wait` makes a Retry-After of the true wait; None: the service does not say."""

    service: Service
    gates: Sequence[Gate]
    latency: float = 0.1
    wait: Callable[[float], float | None] = ceil
    most_at_once: int = 1000
    seed: int = 1

    def __post_init__(self) -> None:
        self.now = 0.0
        self.calls: list[tuple[float, bool]] = []  # (moment of arrival, was it taken)
        self.starts: list[float] = []
        self._rng = random.Random(self.seed)
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._count = count()
        self._wakes = [inf] * len(self.gates)
        for index in range(len(self.gates)):
            self._later(0.0, self._wake, index)

    def run(self, until: float) -> "World":
        """Let time pass."""
        while self._events and self._events[0][0] <= until:
            self.now, _, act, arguments = heappop(self._events)
            act(*arguments)
        self.now = until
        return self

    def refused(self, since: float, until: float = inf) -> float:
        """Return the share of calls that were refused."""
        taken = [ok for at, ok in self.calls if since <= at < until]
        return taken.count(False) / max(1, len(taken))

    def flow(self, since: float, until: float) -> float:
        """Return how many calls a second were taken."""
        return sum(ok for at, ok in self.calls if since <= at < until) / (until - since)

    def _later(self, delay: float, act: Callable[..., None], *arguments: Any) -> None:
        heappush(self._events, (self.now + delay, next(self._count), act, arguments))

    def _wake(self, index: int) -> None:
        self._wakes[index] = inf
        self._go(index)

    def _go(self, index: int) -> None:
        gate = self.gates[index]
        while gate.in_use < self.most_at_once and (at := gate.ready_at(self.now, 1.0)) < inf:
            if at > self.now:
                if at < self._wakes[index]:
                    self._wakes[index] = at
                    self._later(at - self.now + self._rng.expovariate(500.0), self._wake, index)
                return
            gate.take(self.now, 1.0)
            self._later(self._rng.uniform(0.0, 0.005), self._arrive, index, self.now)

    def _arrive(self, index: int, sent: float) -> None:
        self.gates[index].date(self.now, 1.0)
        self.starts.append(self.now)
        wait = self.service.call(self.now)
        self.calls.append((self.now, wait is None))
        if wait is None:
            self._later(self.latency * self._rng.uniform(0.7, 1.3), self._taken, index, sent)
        else:
            self._later(self._rng.uniform(0.002, 0.007), self._refused, index, sent, self.wait(wait))

    def _taken(self, index: int, sent: float) -> None:
        self.service.end()
        self.gates[index].release()
        self.gates[index].accepted(sent, self.now)
        self._go(index)

    def _refused(self, index: int, sent: float, wait: float | None) -> None:
        gate = self.gates[index]
        gate.release()
        gate.held_until = max(gate.held_until, gate.refused(sent, self.now, wait))
        self._go(index)
