"""Asks: what tasks that run already want of shared limits, and who stands before whom."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from enum import Enum
from math import inf
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from penstock.domain.limits import Gate
    from penstock.domain.pipeline import Start


class Why(Enum):
    """Say why an ask is refused."""

    MISUSE = "misuse"
    UNKNOWN = "unknown"
    HOLDS = "holds"
    COST = "cost"


class Refusal(NamedTuple):
    """Refuse an ask: `text` says to the handler's author what is wrong and what to do."""

    why: Why
    text: str


class Ask:
    """Hold what a running task asks of one shared limit: `cost` of its rates, or one unit of its concurrency (a `slot`).

    It waits, is granted, and is over. What was granted by rates is *charged* then and dated when the handler has gone on.
    """

    __slots__ = ("attempt", "charged", "cost", "date", "gate", "granted", "number", "slot", "start")

    def __init__(self, start: Start, attempt: int, number: int, gate: Gate, cost: float, *, slot: bool) -> None:
        self.start = start
        self.attempt = attempt
        self.number = number  # its name among the asks of one start
        self.gate = gate
        self.cost = cost
        self.slot = slot
        self.granted = False
        self.charged = False  # it took from rates
        self.date = inf  # the moment at which the handler went on, as told last

    @property
    def is_over(self) -> bool:
        """Say whether nothing is left to be told of it: the handler went on with what rates granted."""
        return self.date < inf


class Asks:
    """Hold those who ask at one gate, first come first served: for its rates, and for its concurrency.

    They stand in two lines. Otherwise one who holds a unit and wants to pass the rate could stand behind one who waits
    for that unit. Tasks that have rested and come back for their units stand in a third one.
    """

    __slots__ = ("rates", "returns", "slots")

    def __init__(self) -> None:
        self.rates: OrderedDict[Ask, None] = OrderedDict()  # its first is found at once, however many went before
        self.slots: OrderedDict[Ask, None] = OrderedDict()
        self.returns: OrderedDict[Start, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self.rates or self.slots or self.returns)

    def line(self, ask: Ask) -> OrderedDict[Ask, None]:
        """Return the line in which an ask stands."""
        return self.slots if ask.slot else self.rates


@dataclass(slots=True)
class Lent:
    """Report what those who asked are told: what is granted, and what never can be; and who comes back from a rest."""

    granted: list[Ask] = field(default_factory=list)
    refused: list[tuple[Ask, Refusal]] = field(default_factory=list)
    back: list[Start] = field(default_factory=list)
