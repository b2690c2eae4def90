"""What follows an attempt: the end, another attempt at once, or one after a wait."""

from dataclasses import dataclass
from typing import Final

from penstock.domain.task import FREE_OF_CHARGE, RETRIED, Outcome, State, Task

MOST_INTERRUPTIONS: Final = 5
"""How often a task may be interrupted before it is taken for what ends its instances, and goes dead."""

MOST_HOLD: Final = 3600.0
"""The longest that "try later" from downstream is believed, in seconds."""

YIELDS: Final = 3
"""A task that was throttled this many times in a row lets those behind it go first, for twice as long each time."""

_ENDS: Final = {
    Outcome.OK: State.DONE,
    Outcome.CANCELLED: State.CANCELLED,
    Outcome.EXPIRED: State.EXPIRED,
}


@dataclass(frozen=True, slots=True)
class Sequel:
    """Say where a task stands after an attempt, and how long (seconds) a delayed one waits."""

    state: State
    delay: float = 0.0


def backoff(attempt: int, first: float, longest: float, draw: float) -> float:
    """Return the wait before the next attempt, in seconds: exponential with full jitter (Brooker, AWS, 2015).

    `attempt` is the number of the one that failed, from 1; `draw` is a random number in [0, 1).
    """
    return draw * min(longest, first * 2.0 ** min(attempt - 1, 64))


def follow(
    task: Task,
    outcome: Outcome,
    attempts: int,
    wait: tuple[float, float],
    draw: float,
    held: float | None = None,
    *,
    larger: bool = False,
) -> Sequel:
    """Charge an attempt to a task and return what follows it.

    `attempts` is how many the pipeline allows, `wait` its (first, longest) backoff. `held` is for how long downstream holds
    the pipeline, None if no other task waits there that could go instead. A synchronous call (not durable) is not tried
    again after a failure: its caller hears of it at once and decides. What ran out of memory where there are `larger` instances
    now runs again in one of them, and is charged nothing: that only its size was not known yet is no fault of its own.
    """
    if outcome is not Outcome.THROTTLED:
        task.throttles = 0
    if outcome is Outcome.INTERRUPTED:
        task.interruptions += 1
        return Sequel(State.DEAD if task.interruptions > MOST_INTERRUPTIONS else State.QUEUED)
    if outcome is Outcome.OUT_OF_MEMORY and larger:
        return Sequel(State.QUEUED)
    if outcome not in FREE_OF_CHARGE:
        task.attempts += 1
    if outcome in _ENDS or not task.durable:
        return Sequel(_ENDS.get(outcome, State.DONE))
    if outcome is Outcome.THROTTLED:
        return _throttled(task, held)
    if outcome in RETRIED and task.attempts < attempts:
        return Sequel(State.DELAYED, backoff(task.attempts, *wait, draw))
    return Sequel(State.DEAD)


def _throttled(task: Task, held: float | None) -> Sequel:
    task.throttles += 1
    if held is None or task.throttles < YIELDS:
        return Sequel(State.QUEUED)
    return Sequel(State.DELAYED, held + min(MOST_HOLD, 2.0 ** min(task.throttles, 16)))


def hold_for(retry_after: float | None, refusals: int) -> float:
    """Return for how long downstream's "try later" holds what it names, in seconds.

    Without a stated time it doubles from one second with each of the `refusals` in a row.
    """
    if retry_after is None:
        return min(60.0, 2.0 ** min(refusals - 1, 6))
    return min(MOST_HOLD, max(0.0, retry_after))
