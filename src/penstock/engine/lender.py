"""The lender: what running tasks take from shared limits, from the handler's request to its answer.

Admission's lending decides; here requests find their task, and answers their instance. What a task holds ends with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from penstock.domain.asks import Ask, Lent, Refusal, Why
from penstock.domain.mistakes import did_you_mean
from penstock.runtime import wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.compute.protocol import Instance
    from penstock.domain.limits import Gate
    from penstock.engine.loops import Loops
    from penstock.engine.model import Plant, Running

MOST: Final = 1000
"""How many requests of one task may wait, or be remembered."""

_CODES: Final = {Why.MISUSE: wire.MISUSED, Why.UNKNOWN: wire.UNKNOWN, Why.HOLDS: wire.HOLDS, Why.COST: wire.TOO_COSTLY}
_OVER: Final = Refusal(Why.MISUSE, "The task's time is over, and it takes from no limit any more.")
_TOO_MANY: Final = Refusal(Why.MISUSE, f"The task waits for limits {MOST} times at once; that is as often as it may.")


class Lender:
    """Pass requests on to admission, and its answers back."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant

    def join(self, loops: Loops) -> None:
        """Get to know the loop that grants."""
        self._orders, self._pump = loops.orders, loops.pump

    def asked(self, instance: Instance, requests: Sequence[wire.Request]) -> None:
        """Act on what handlers ask and tell. Requests of executions that have ended are refused."""
        lending = self._plant.admission.lending
        refused = []
        for request in requests:
            running = self._plant.running.get(request.attempt)
            if running is not None and running.member.instance is not instance:
                running = None
            if isinstance(request, wire.Order | wire.Wait):
                self._orders.hear(instance, running, request)
            elif isinstance(request, wire.Take):
                refusal = _OVER if running is None or not running.tasks else self._take(running, request)
                if refusal is not None:
                    refused.append(_answer(request.attempt, request.number, refusal))
            elif running is None:
                continue
            elif isinstance(request, wire.Spent):
                lending.spent(running.start, request.cost)
            elif (ask := (running.start.asks or {}).get(request.number)) is None:
                if isinstance(request, wire.Give):
                    self._orders.give(running, request.number)
            elif isinstance(request, wire.Took):
                lending.went_on(ask, request.at)
            else:
                lending.give(ask)
        if refused:
            instance.answer(refused)
        self._pump.wake()

    def _take(self, running: Running, request: wire.Take) -> Refusal | None:
        plant, start = self._plant, running.start
        gate = plant.shared_limit(request.limit)
        if gate is None:
            return self._unknown(request.limit)
        if start.asks is not None and len(start.asks) >= MOST and not _forget_one(start.asks):
            return _TOO_MANY
        return plant.admission.lending.ask(
            Ask(start, request.attempt, request.number, gate, request.cost, slot=request.slot)
        )

    def _unknown(self, limit: str) -> Refusal:
        known = [name for name in self._plant.admission.gates if self._plant.shared_limit(name) is not None]
        hint = did_you_mean(limit, known, "add it to the configuration's limits first.")
        return Refusal(Why.UNKNOWN, f"There is no limit named '{limit}' in this project: {hint}")

    def answer(self, lent: Lent) -> None:
        """Tell instances what was granted and what was refused, and let go on who comes back."""
        for start in lent.back:
            self._orders.back(start)
        answers: dict[Instance, list[wire.Answer]] = {}
        for ask in lent.granted:
            running = self._plant.running[ask.attempt]
            granted = wire.Answer(ask.attempt, ask.number, wire.GRANTED, "")
            answers.setdefault(running.member.instance, []).append(granted)
        for ask, refusal in lent.refused:
            instance = self._plant.running[ask.attempt].member.instance
            answers.setdefault(instance, []).append(_answer(ask.attempt, ask.number, refusal))
        for instance, batch in answers.items():
            instance.answer(batch)

    def forget(self, gate: Gate) -> None:
        """Refuse those who ask at a limit that is removed."""
        lent = Lent()
        self._plant.admission.lending.forget(gate, lent)
        self.answer(lent)

    def withdraw(self, running: Running) -> None:
        """Let a task wait for nothing any more: its time is over, though its work goes on."""
        self._orders.withdraw(running)
        if not running.start.asks:
            return
        lending = self._plant.admission.lending
        waiting = lending.waiting(running.start)
        for ask in waiting:
            lending.give(ask)
        if waiting:
            running.member.instance.answer([_answer(ask.attempt, ask.number, _OVER) for ask in waiting])
            self._pump.wake()

    def end(self, running: Running, at: float) -> None:
        """Take back what a task has that ended at a moment; threads that it left behind are told."""
        self._orders.end(running)
        if running.start.asks:
            self.withdraw(running)
            self._plant.admission.lending.end(running.start, at)


def _answer(attempt: int, number: int, refusal: Refusal) -> wire.Answer:
    return wire.Answer(attempt, number, _CODES[refusal.why], refusal.text)


def _forget_one(asks: dict[int, Ask]) -> bool:
    """Forget the oldest request whose moment was told: it will hardly be told again."""
    for number, ask in asks.items():
        if ask.is_over:
            del asks[number]
            return True
    return False
