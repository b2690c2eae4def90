"""Resting: tasks that wait for others of their own making hold no unit of concurrency meanwhile.

The laws. A task that rests gives back all that its start took of concurrencies, and nothing of rates: these were spent. It
goes on when all of that is free for it at once, so it holds none of it while it waits for the rest. Who runs goes first:
those who come back stand in line at each of their gates in one order, and nothing starts there meanwhile. So whoever has
stood longest is the first everywhere; units that become free are kept for him, and all come back in the end. Those who ask
for a slot there hold units themselves, and may go on in between: nobody who comes back keeps them from ending.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.domain.asks import Asks

if TYPE_CHECKING:
    from penstock.domain.limits import Gate
    from penstock.domain.pipeline import Start
    from penstock.domain.places import Places


class Resting:
    """Let tasks rest and come back. `lined` collects gates at which somebody stands."""

    def __init__(self, places: Places, lined: dict[Gate, None]) -> None:
        self._places = places
        self._lined = lined

    def rest(self, start: Start) -> None:
        """Give back the concurrency of a task that waits for others."""
        start.rests = True
        self.release(start)

    def come_back(self, start: Start) -> bool:
        """Let a task take its units again; return whether it has them now. Else it stands in line for them."""
        start.stands_at = tuple(gate for gate in _gates(start) if gate.limits_concurrency)
        for gate in start.stands_at:
            if gate.asks is None:
                gate.asks = Asks()
            gate.asks.returns[start] = None
            self._lined[gate] = None
        if not self.may(start):
            return False
        self.enter(start)
        return True

    def may(self, start: Start) -> bool:
        """Say whether all units of one who stands in line are free for it."""
        return all(
            gate.asks is not None and next(iter(gate.asks.returns)) is start and not gate.is_full
            for gate in start.stands_at
        )

    def enter(self, start: Start) -> None:
        """Let one who stands in line have its units."""
        self.leave(start)
        start.rests = False
        for gate in start.gates:
            gate.enter()
        if start.own is None:
            start.pipeline.ungated += 1
            if start.pipeline.own is not None:
                start.pipeline.own.enter()

    def leave(self, start: Start) -> None:
        """Let a task stand in line no more: those behind it may go."""
        gates, start.stands_at = start.stands_at, ()
        for gate in gates:
            assert gate.asks is not None
            del gate.asks.returns[start]
            if not gate.asks:
                self._lined.pop(gate, None)
                self._places.asked.pop(gate, None)
            self._places.opened(gate)

    def release(self, start: Start) -> None:
        """Free the concurrency of a task that rests, or whose work has really ended."""
        for gate in start.gates:
            self._free(gate)
        if start.own is None:
            start.pipeline.ungated -= 1
            if start.pipeline.own is not None:
                self._free(start.pipeline.own)

    def _free(self, gate: Gate) -> None:
        gate.release()
        if gate.limits_concurrency:
            self._places.opened(gate)


def _gates(start: Start) -> tuple[Gate, ...]:
    """Return the gates that a start has units of; its pipeline may have got one of its own since."""
    own = start.pipeline.own
    return start.gates if start.own is not None or own is None else (own, *start.gates)
