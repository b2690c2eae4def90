"""Errands: requests that running tasks make over HTTP, with a token that their user gave them.

A task rests while it waits for an answer, as it does while it waits for its own calls. Which task it is, the client says;
so it has to run here, and nothing but its own rest depends on it.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from penstock.engine.loops import Loops
    from penstock.engine.model import Plant, Running
    from penstock.engine.orders import Nest, Orders

    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Errand:
    """Be one request. `number` names it among what its task waits for."""

    def __init__(self, orders: Orders, running: Running, nest: Nest, number: int) -> None:
        self._orders, self._running, self._nest, self._number = orders, running, nest, number

    def rest(self) -> None:
        """Let the task rest, unless its time is over."""
        if self._running.nest is self._nest and self._running.tasks:
            self._orders.rest(self._running, self._nest, self._number)

    async def go_on(self) -> None:
        """Return when the task may go on, or is no more."""
        if self._running.nest is self._nest:
            await self._orders.go_on(self._running, self._nest, self._number)

    def leave(self) -> None:
        """Let the task go on: nobody waits for the answer any more."""
        if self._running.nest is self._nest:
            self._orders.stop_waiting(self._running, self._nest, self._number)

    def around(self, send: Send) -> Send:
        """Return what sends an answer when the task may go on. Between the pieces of a stream it rests."""

        async def send_in_turn(message: MutableMapping[str, Any]) -> None:
            await self.go_on()
            await send(message)
            if message.get("more_body"):
                self.rest()

        return send_in_turn


class Errands:
    """Know from which tasks requests come."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._numbers = count(-1, -1)  # those of orders are above 0

    def join(self, loops: Loops) -> None:
        """Get to know who lets tasks rest."""
        self._orders = loops.orders

    def enter(self, told: bytes) -> Errand | None:
        """Let the task rest of which a request tells that it comes from there; None if there is no such task."""
        instance, _, attempt = told.partition(b".")
        member = self._plant.members.get(int(instance)) if instance.isdigit() else None
        if member is None or not attempt.isdigit():
            return None
        running = member.busy.get(int(attempt))
        if running is None and len(member.busy) == 1:  # a thread that its handler has started
            attempt, running = next((b"%d" % number, one) for number, one in member.busy.items())
        if running is None or not running.tasks or not self._orders.may_rest(running):
            return None
        errand = Errand(self._orders, running, self._orders.nest_of(running, int(attempt)), next(self._numbers))
        errand.rest()
        return errand
