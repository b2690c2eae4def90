"""Pools as they should be: what is counted, and how many instances start, judged by the instances that there are."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from penstock.domain.specs import DEFAULT_POOL
from penstock.engine.model import PRESENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.engine.engine import Engine
    from penstock.engine.model import Member, Plant
    from penstock.sim.ledger import Ledger


def watch(engine: Engine, ledger: Ledger, now: Callable[[], float]) -> None:
    """Note a breach whenever an instance is started in a pool that has as many as it may."""
    launch = engine.lives.launch

    def watched(*arguments: Any, **named: Any) -> Any:
        member = launch(*arguments, **named)
        most = member.pool.spec.max_instances
        mine = [one for one in engine.plant.members.values() if one.pool is member.pool and _counts(one)]
        there, apart = len(mine), sum(one.apart for one in mine)
        if most is not None and there > most and not (member.apart and apart == 1):
            ledger.breach(now(), f"{there} instances are in the pool {member.pool.name}, {most} may be")
        return member

    setattr(engine.lives, "launch", watched)  # noqa: B010 - a method, for once


def at_rest(plant: Plant) -> Iterator[str]:
    """Check that pools count what there is, and that nobody waits, in an engine that has no work."""
    for pool in plant.pools.values():
        there = Counter(one.fleet.name for one in plant.members.values() if one.pool is pool and _counts(one))
        if pool.held != there or pool.present != there.total():
            yield f"the pool {pool.name} counts {pool.present}, {pool.held}, and there are {there}"
        if pool.crowded:
            yield f"somebody waits for the pool {pool.name}: {pool.first()}"
    for fleet in plant.fleets.values():
        named = fleet.chosen or plant.functions[fleet.function].spec.pool
        belongs = named or fleet.routed or DEFAULT_POOL
        if fleet.pool is not plant.pools.get(belongs):
            yield f"{fleet.name} is in the pool {fleet.pool.name}, and belongs in {belongs}"
        if fleet.routed is not None and (named or plant.pools[fleet.routed].spec.route is None):
            yield f"{fleet.name} was moved to {fleet.routed}, which does not take it"


def _counts(member: Member) -> bool:
    """Say whether an instance takes a place: not one that only finishes, nor one whose tasks all wait for others."""
    return (member.state in PRESENT or member.yields) and not member.asleep
