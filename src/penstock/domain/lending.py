"""Lending: what tasks take from shared limits while they run, beside what their start took.

The laws. Who runs goes before what has not started, in order of asking: nothing starts at a gate where somebody asks, so a
large ask is not overtaken by small starts. What rates grant is charged at once and dated when the handler has gone on, as
starts are. A task holds one lent unit of concurrency at a time, and waits for none that it has already; so whoever was
lent one waits for nobody. Those who hold units by their start and wait for others could still wait for each other: whoever
closes such a circle is refused.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final

from penstock.domain.asks import Ask, Asks, Lent, Refusal, Why
from penstock.domain.resting import Resting

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.domain.limits import Gate
    from penstock.domain.pipeline import Start
    from penstock.domain.places import Places


MOST: Final = 512
"""Grants of one call, about: it takes a few milliseconds at most."""


class Lending:
    """Lend. `unreserved` collects gates that want another block of a long period on disk."""

    def __init__(self, places: Places, unreserved: dict[Gate, None]) -> None:
        self._places = places
        self._unreserved = unreserved
        self.lined: dict[Gate, None] = {}  # gates at which somebody asks
        self.resting = Resting(places, self.lined)

    # asks ---------------------------------------------------------------------------------------------------------
    def ask(self, ask: Ask) -> Refusal | None:
        """Let a task stand in line; return why not, if it may not."""
        refusal = _refusal(ask)
        if refusal is not None:
            return refusal
        start, gate = ask.start, ask.gate
        if start.asks is None:
            start.asks = {}
        start.asks[ask.number] = ask
        if gate.asks is None:
            gate.asks = Asks()
        gate.asks.line(ask)[ask] = None
        if ask.slot:
            _stall(ask, 1)
        self.lined[gate] = None
        self._places.asked[gate] = None
        return None

    def went_on(self, ask: Ask, at: float) -> None:
        """Date what rates granted at the moment the handler went on; a later moment takes the place of the first."""
        gate = ask.gate
        if not ask.charged or not ask.granted:
            return
        if ask.date < inf:
            gate.redate(ask.date, at, ask.cost)
        else:
            gate.date(at, ask.cost)
            if gate.wakes_at == inf:
                self._places.opened(gate)
        ask.date = at

    def give(self, ask: Ask) -> None:
        """Take an ask back: it waits no more, returns its unit, or was granted what the handler did not go on with."""
        gate = ask.gate
        if ask.start.asks is not None:
            ask.start.asks.pop(ask.number, None)
        if not ask.granted:
            self._leave(ask)
        elif ask.slot:
            gate.release()
        elif ask.charged and ask.date == inf:
            gate.undate(ask.cost)
        self._places.opened(gate)

    def end(self, start: Start, at: float) -> None:
        """Take back what a task has that is over since a moment; whether it had gone on by then is unknown."""
        for ask in list((start.asks or {}).values()):
            if ask.granted and ask.date == inf:
                self.went_on(ask, at)
            self.give(ask)

    def waiting(self, start: Start) -> list[Ask]:
        """Return what a task waits for."""
        return [ask for ask in (start.asks or {}).values() if not ask.granted]

    def spent(self, start: Start, cost: float) -> None:
        """Let a task have cost that much, all in, whatever it was admitted with."""
        more, start.cost = cost - start.cost, cost
        for gate in start.rated:
            gate.correct(None if start.undated else start.date, more)
            if gate.runs_out():
                self._unreserved[gate] = None
            if more < 0:
                self._places.opened(gate, sooner=True)

    # grants -------------------------------------------------------------------------------------------------------
    def serve(self, now: float, lent: Lent) -> None:
        """Grant what gates that may have room can; what is left over is there at the next call."""
        asked = self._places.asked
        while asked and len(lent.granted) < MOST:
            gate = next(iter(asked))
            del asked[gate]
            self._serve(gate, now, lent)

    def serve_all(self, now: float, lent: Lent) -> float:
        """Grant what any gate can, where nothing may start; return the moment at which there may be more to grant."""
        self._places.asked.clear()
        at = min([self._serve(gate, now, lent) for gate in list(self.lined)], default=inf)
        return now if self._places.asked else at

    def forget(self, gate: Gate, lent: Lent) -> None:
        """Refuse all who ask at a limit that is no more."""
        refusal = Refusal(Why.UNKNOWN, f"The limit '{gate.name}' was removed while the task waited for it.")
        for line in (gate.asks.rates, gate.asks.slots) if gate.asks else ():
            for ask in list(line):
                self._refuse(ask, refusal, lent)

    def _serve(self, gate: Gate, now: float, lent: Lent) -> float:
        """Grant what a gate can; return when there may be more to grant (inf: it depends on others)."""
        at = self._grant_in_order(gate, now, lent)
        if at < gate.wakes_at:
            gate.wakes_at = at
            self._places.moments.push(at, gate)
        return at

    def _grant_in_order(self, gate: Gate, now: float, lent: Lent) -> float:
        """Grant first come, first served; return when the first of those who are left may go on."""
        asks = gate.asks
        assert asks is not None
        wakes_at = inf
        while asks.returns and self.resting.may(start := next(iter(asks.returns))):
            self.resting.enter(start)
            lent.back.append(start)
        while asks.rates and len(lent.granted) < MOST:
            ask = next(iter(asks.rates))
            if ask.cost > gate.most_cost():
                self._refuse(ask, _too_much(ask), lent)
                continue
            at = gate.rates_ready_at(now, ask.cost)
            if gate.runs_out():
                self._unreserved[gate] = None
            if at > now:
                wakes_at = at
                break
            self._grant(ask, now, lent)
        while asks.slots and len(lent.granted) < MOST:
            if gate.held_until > now:
                wakes_at = min(wakes_at, gate.held_until)
                break
            if gate.is_full:
                if not self._is_stuck(gate):
                    break
                self._refuse(next(reversed(asks.slots)), _circle(gate), lent)
                continue
            self._grant(next(iter(asks.slots)), now, lent)
        if not asks or len(lent.granted) >= MOST:
            self._places.opened(gate)
        return wakes_at

    def _grant(self, ask: Ask, now: float, lent: Lent) -> None:
        gate = ask.gate
        self._leave(ask)
        ask.granted = True
        if gate not in ask.start.acquired:
            ask.start.acquired += (gate,)
        if ask.slot:
            gate.lend(now)
        elif gate.rates:
            ask.charged = True
            gate.charge(now, ask.cost)
            if gate.runs_out():
                self._unreserved[gate] = None
        lent.granted.append(ask)

    def _refuse(self, ask: Ask, refusal: Refusal, lent: Lent) -> None:
        self.give(ask)
        lent.refused.append((ask, refusal))

    def _leave(self, ask: Ask) -> None:
        """Let an ask stand in line no more."""
        gate = ask.gate
        assert gate.asks is not None
        del gate.asks.line(ask)[ask]
        if ask.slot:
            _stall(ask, -1)
        if not gate.asks:
            self.lined.pop(gate, None)
            self._places.asked.pop(gate, None)

    def _is_stuck(self, gate: Gate) -> bool:
        """Say whether all who hold a full gate's units wait for units of others, and they for each other's.

        It looks at those who wait only where everybody does: counting tells the rest.
        """
        if not _all_wait(gate):
            return False
        waiting = [ask for lined in self.lined if lined.asks for ask in lined.asks.slots]
        stuck = {ask.gate for ask in waiting if _all_wait(ask.gate)}
        while moving := stuck.intersection(_held(ask for ask in waiting if ask.gate not in stuck)):
            stuck -= moving
        return gate in stuck


def _all_wait(gate: Gate) -> bool:
    return gate.is_full and gate.stalled >= gate.in_use


def _held(asks: Iterable[Ask]) -> set[Gate]:
    """Return the gates whose units are held by tasks that ask."""
    return {gate for ask in asks for gate in ask.start.gates}


def _stall(ask: Ask, change: int) -> None:
    for gate in ask.start.gates:
        gate.stalled += change


def _refusal(ask: Ask) -> Refusal | None:
    """Return why a task may not even stand in line."""
    return _slot_refusal(ask) if ask.slot else _rate_refusal(ask)


def _rate_refusal(ask: Ask) -> Refusal | None:
    gate = ask.gate
    if not gate.rates:
        return Refusal(
            Why.MISUSE,
            f"The limit '{gate.name}' has no rate to acquire from. Use context.slot('{gate.name}') for its concurrency.",
        )
    return _too_much(ask) if ask.cost > gate.most_cost() else None


def _slot_refusal(ask: Ask) -> Refusal | None:
    gate = ask.gate
    if ask.start.rests:
        return Refusal(
            Why.HOLDS,
            f"The task waits for others that it has called, and holds nothing meanwhile. Take a slot of '{gate.name}' when "
            "they have ended.",
        )
    passed = (one for one in ask.start.gates if one is not ask.start.own)
    if any(
        one.name == gate.name and one.limits_concurrency for one in passed
    ):  # by its name: a ceiling has several gates
        return Refusal(
            Why.HOLDS,
            f"The task holds a unit of '{gate.name}' since it started: its pipeline or function lists that limit, "
            "or everything passes it.",
        )
    if gate.concurrency is None:
        return Refusal(
            Why.MISUSE,
            f"The limit '{gate.name}' has no concurrency to take a slot of. "
            f"Use context.acquire('{gate.name}') for its rate.",
        )
    held = next((one for one in (ask.start.asks or {}).values() if one.slot), None)
    if held is not None:
        how = "holds" if held.granted else "waits for"
        return Refusal(
            Why.HOLDS,
            f"The task {how} a slot of '{held.gate.name}' already, and may have one at a time: "
            "leave that block before you enter the next one.",
        )
    return None


def _too_much(ask: Ask) -> Refusal:
    most = ask.gate.most_cost()
    return Refusal(
        Why.COST, f"A cost of {ask.cost:g} is more than the limit '{ask.gate.name}' ever lets pass at once, {most:g}."
    )


def _circle(gate: Gate) -> Refusal:
    return Refusal(
        Why.HOLDS,
        f"Everybody who holds a unit of '{gate.name}' waits, through other limits, for one that this task holds since it "
        "started: to wait would be a deadlock. Take the slots of all these limits inside the handlers, or list them all in "
        "the pipelines.",
    )
