"""What the scripted world does: how long things take, and what handlers do when they are called.

A `Script` names handlers ("module:callable", as in a blueprint). A handler's behaviour is a function of the call that
returns an `Act`: what this execution will do. All chance comes from the world's seeded generator.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from penstock.compute.protocol import Blueprint, Ending


@dataclass(frozen=True, slots=True)
class Spread:
    """Draw a duration between `low` and `high` seconds, and with the chance `odds` (0 to 1) add `spike` seconds."""

    low: float
    high: float
    spike: float = 0.0
    odds: float = 0.0

    def draw(self, rng: random.Random) -> float:
        """Return one duration, in seconds."""
        drawn = self.low if self.low == self.high else rng.uniform(self.low, self.high)
        return drawn + self.spike if self.odds and rng.random() < self.odds else drawn


AT_ONCE: Final = Spread(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Delays:
    """Say how long the ways to and from instances are, and their beginnings and ends. All in seconds.

    `down` is the way to an instance, `up` the way back; `start` passes between an execution's arrival and its handler's
    start; `flush` is how long an instance keeps what it has to tell so that frames fill up. What it kept is lost if it
    dies.
    """

    down: Spread = AT_ONCE
    start: Spread = AT_ONCE
    up: Spread = AT_ONCE
    flush: Spread = AT_ONCE
    fork: Spread = AT_ONCE
    kill: Spread = AT_ONCE
    reap: Spread = AT_ONCE


@dataclass(frozen=True, slots=True)
class Call:
    """Tell a behaviour about one execution."""

    task: int
    number: int
    pipeline: str
    params: bytes
    payload: bytes
    timeout: float
    blueprint: Blueprint
    now: float
    rng: random.Random


@dataclass(frozen=True, slots=True)
class Take:
    """Ask for a shared limit: for `cost` of its rates, or for a unit of its concurrency that is held for `hold` seconds."""

    limit: str
    cost: float = 1.0
    hold: float | None = None


@dataclass(frozen=True, slots=True)
class Make:
    """Call another pipeline or function, and wait for its end."""

    target: str
    payload: bytes = b"null"


@dataclass(frozen=True, slots=True)
class Act:
    """Say what one execution does.

    First it `takes` from limits, one after the other, then it `makes` others run, all at once, and waits for their ends; it
    tells what it `spends`, if it does. It ends `after` seconds
    (inf: never) with `ending` and `body`. If `crash` is given, the instance dies then instead, by that exit code, or by
    that signal if negative; if it `needs` more bytes than the instance may use, that dies then. A
    cancelled one ends `grace` seconds later, unless it is deaf to it (`grace` None); if `stays` is given, it answers its
    cancellation with that result. While a `hogs` execution runs, its instance answers nothing: it
    holds the GIL. `output` is (stream, text) pairs, written as it starts.
    """

    after: float
    ending: Ending = Ending.OK
    body: bytes = b"null"
    retry_after: float | None = None
    limit: str | None = None
    crash: int | None = None
    needs: int = 0
    grace: float | None = 0.0
    stays: bytes | None = None
    hogs: bool = False
    output: tuple[tuple[str, str], ...] = ()
    takes: tuple[Take, ...] = ()
    makes: tuple[Make, ...] = ()
    spends: float | None = None


Behaviour = Callable[[Call], Act]

IDLE: Final = 40 * 10**6
"""Bytes of memory that an instance uses in any case."""


@dataclass(frozen=True, slots=True)
class Handler:
    """Be one handler's code: what importing it takes, what its instances are like, what a call does.

    `import_error` makes the import fail with that message. `boot` is the time from fork to ready. `lifetime` draws how
    many seconds an instance lives before it dies by itself (None: for ever).
    """

    behaviour: Behaviour
    import_time: Spread = AT_ONCE
    import_error: str = ""
    boot: Spread = AT_ONCE
    lifetime: Callable[[random.Random], float] | None = None


@dataclass(slots=True)
class Script:
    """Hold the handlers of a world by name, and how many instances its memory has room for (None: nobody knows)."""

    handlers: dict[str, Handler] = field(default_factory=dict)
    delays: Delays = Delays()
    fitting: int | None = None

    def add(self, name: str, behaviour: Behaviour, **options: object) -> None:
        """Name a handler; `options` are the fields of `Handler`."""
        self.handlers[name] = Handler(behaviour, **options)  # type: ignore[arg-type]


def error(kind: str, message: str) -> bytes:
    """Return a JSON error as an instance reports it."""
    return json.dumps({"type": kind, "message": message, "traceback": ""}, separators=(",", ":")).encode()


# behaviours -----------------------------------------------------------------------------------------------------------
def answers(duration: Spread | float, body: bytes = b"null") -> Behaviour:
    """Answer well, after a duration."""
    spread = _spread(duration)
    return lambda call: Act(spread.draw(call.rng), body=body)


def echoes(duration: Spread | float) -> Behaviour:
    """Answer with the payload, after a duration."""
    spread = _spread(duration)
    return lambda call: Act(spread.draw(call.rng), body=call.payload)


def fails(duration: Spread | float, message: str = "scripted") -> Behaviour:
    """Raise an error, after a duration."""
    spread = _spread(duration)
    return lambda call: Act(spread.draw(call.rng), Ending.ERROR, error("ValueError", message))


def throttles(duration: Spread | float, retry_after: Spread | None, limit: str | None = None) -> Behaviour:
    """Say that downstream wants it later, after a duration."""
    spread = _spread(duration)

    def act(call: Call) -> Act:
        wait = None if retry_after is None else retry_after.draw(call.rng)
        body = error("Throttled", "downstream asks to wait")
        return Act(spread.draw(call.rng), Ending.THROTTLED, body, retry_after=wait, limit=limit)

    return act


def stalls(grace: float | None = 0.0, hogs: bool = False) -> Behaviour:
    """Never end; a cancellation is obeyed after `grace` seconds, or ignored (None)."""
    return lambda _call: Act(inf, grace=grace, hogs=hogs)


def crashes(duration: Spread | float, code: int = -11) -> Behaviour:
    """Take the whole instance along, after a duration; `code` is its exit code, or minus the signal."""
    spread = _spread(duration)
    return lambda call: Act(spread.draw(call.rng), crash=code)


def overruns(duration: Spread | float, needs: int = 2 * 10**9) -> Behaviour:
    """Use so many bytes of memory, after a duration; where the instance may, it answers well."""
    spread = _spread(duration)
    return lambda call: Act(spread.draw(call.rng), body=call.payload, needs=needs)


def sometimes(choices: Mapping[Behaviour, float]) -> Behaviour:
    """Choose a behaviour for every call, by weight."""
    behaviours, weights = list(choices), list(choices.values())
    return lambda call: call.rng.choices(behaviours, weights)[0](call)


def taking(behaviour: Behaviour, limits: Sequence[str]) -> Behaviour:
    """Take from limits first, and tell another cost than was sent, by chance; then behave."""

    def act(call: Call) -> Act:
        rng = call.rng
        takes = tuple(
            Take(rng.choice(limits), rng.choice([1.0, 1.0, 5.0]), rng.choice([None, None, 0.0, rng.uniform(0.0, 0.5)]))
            for _ in range(rng.choice([0, 1, 1, 3]))
        )
        spends = rng.choice([0.0, 0.5, 3.0, 30.0]) if rng.random() < 0.2 else None
        return replace(behaviour(call), takes=takes, spends=spends)

    return act


def making(behaviour: Behaviour, targets: Sequence[str]) -> Behaviour:
    """Make others run, by chance; then behave. Fewer than one on average, so that it comes to an end."""

    def act(call: Call) -> Act:
        rng = call.rng
        makes = tuple(Make(rng.choice(targets), b'"made"') for _ in range(rng.choice([0, 0, 0, 1, 2])))
        return replace(behaviour(call), makes=makes)

    return act


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Behave differently at every attempt of a task; the last one stays."""
    seen: dict[int, int] = {}

    def act(call: Call) -> Act:
        turn = seen.get(call.task, 0)
        seen[call.task] = turn + 1
        return behaviours[min(turn, len(behaviours) - 1)](call)

    return act


def _spread(duration: Spread | float) -> Spread:
    return duration if isinstance(duration, Spread) else Spread(duration, duration)
