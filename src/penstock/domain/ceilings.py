"""Ceilings: project-wide limits of concurrency, with units that are reserved for single functions.

A ceiling of C has a common part, C less all reservations. A function with a reservation of N passes by a gate of its own:
first it takes its N, beyond them what is left of the common part while nobody waits there. The laws: never more than C run
in all, and a function with a backlog and a reservation has its N as soon as so many units are free.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from penstock.domain.errors import Mistake
from penstock.domain.limits import Gate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Ceiling(Gate):
    """Be the gate of all functions without a reservation; `reserves` are those of the others.

    What passes these is counted here too, also by one that has lost its reservation and that pipelines still pass.
    """

    __slots__ = ("inside", "kept", "reserves")

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.reserves: dict[str, Reserve] = {}
        self.kept = 0  # units that reserves keep or use
        self.inside = 0  # those of them that are in use

    @property
    def kin(self) -> Iterable[Gate]:
        """Return the gates that may have room when this one has."""
        return self.reserves.values()

    def free(self) -> float:
        """Return how many units of the common part are free."""
        if self.concurrency is None:
            return inf
        return min(self.concurrency - self.kept - self.in_use, self.left())

    def left(self) -> float:
        """Return how many units are free in all: fewer than those reserved while others still run on these."""
        if self.concurrency is None:
            return inf
        return self.concurrency - self.in_use - self.inside

    def reserve_for(self, function: str, n: int) -> None:
        """Reserve units for a function; 0 takes its reservation back."""
        reserve = self.reserves.get(function)
        if n and reserve is None:
            reserve = self.reserves[function] = Reserve(self)
        if reserve is not None:
            self.kept += max(n, reserve.in_use) - max(reserve.n, reserve.in_use)
            reserve.n = n
        self.reserves = {name: one for name, one in self.reserves.items() if one.n or one.in_use}

    def door(self, function: str) -> Gate:
        """Return the gate by which the tasks of a function pass."""
        reserve = self.reserves.get(function)
        return self if reserve is None or not reserve.n else reserve


class Reserve(Gate):
    """Be the gate of one function with `n` units reserved."""

    __slots__ = ("n", "parent")

    def __init__(self, parent: Ceiling) -> None:
        super().__init__(parent.name)
        self.parent = parent
        self.users = parent.users
        self.n = 0

    @property
    def limits_concurrency(self) -> bool:
        """Say whether it bounds how many run."""
        return self.parent.concurrency is not None

    @property
    def kin(self) -> Iterable[Gate]:
        """Return the gates that may have room when this one has."""
        return (self.parent, *self.parent.reserves.values())

    def free(self) -> float:
        """Return how many units are free: its own, and those that nobody waits for."""
        parent = self.parent
        others = parent.waiters is not None and parent.waiters.count
        common = 0.0 if others else max(0.0, parent.free())
        return min(max(0, self.n - self.in_use) + common, parent.left())

    def enter(self) -> None:
        """Take one unit."""
        self.parent.inside += 1
        self.parent.kept += self.in_use >= self.n
        super().enter()

    def release(self) -> None:
        """Free the unit of a task whose work has really ended."""
        super().release()
        self.parent.inside -= 1
        self.parent.kept -= self.in_use >= self.n


class Ceilings:
    """Hold the ceilings of a project by the names of their limits, and what functions have reserved."""

    def __init__(self) -> None:
        self._ceilings: dict[str, Ceiling] = {}
        self._reserved: dict[str, int] = {}

    def put(self, name: str, concurrency: int | None) -> Ceiling:
        """Make a ceiling or change it; None bounds nothing."""
        ceiling = self._ceilings.get(name)
        if ceiling is None:
            ceiling = self._ceilings[name] = Ceiling(name)
            for function, n in self._reserved.items():
                ceiling.reserve_for(function, n)
        ceiling.concurrency = concurrency
        return ceiling

    def remove(self, name: str) -> None:
        """Let a ceiling go; those who wait there have to be told."""
        self._ceilings.pop(name, None)

    def reserve(self, function: str, n: int) -> list[Ceiling]:
        """Reserve units of every ceiling for a function; return the ceilings."""
        if n:
            self._reserved[function] = n
        else:
            self._reserved.pop(function, None)
        for ceiling in self._ceilings.values():
            ceiling.reserve_for(function, n)
        return list(self._ceilings.values())

    def doors(self, function: str) -> tuple[Gate, ...]:
        """Return the gates by which the tasks of a function pass."""
        return tuple(ceiling.door(function) for ceiling in self._ceilings.values())


def reservation_mistakes(
    functions: Mapping[str, Mapping[str, Any]], limits: Mapping[str, Mapping[str, Any]]
) -> list[Mistake]:
    """Return what is wrong with the reservations of functions beside the project-wide limits that there are."""
    wanted = {name: one["reserved_concurrency"] for name, one in functions.items() if one.get("reserved_concurrency")}
    ceilings = {
        name: one["concurrency"]
        for name, one in limits.items()
        if one.get("scope") == "project" and one.get("concurrency") is not None and not one.get("adaptive")
    }
    if not wanted:
        return []
    if not ceilings:
        message = "reserves units of a ceiling, and no limit of the project has a concurrency"
        hint = "add a limit with scope: project and a concurrency, or leave reserved_concurrency out"
        return [Mistake(f"functions.{name}.reserved_concurrency", message, hint) for name in wanted]
    total = sum(wanted.values())
    return [
        Mistake(
            f"limits.{name}.concurrency",
            f"is {concurrency}, and functions have reserved {total} of it: nothing would be left for the others",
            f"more than {total}, or smaller reservations",
        )
        for name, concurrency in ceilings.items()
        if concurrency <= total
    ]
