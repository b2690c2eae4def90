"""An engine at rest: one without work holds nothing, and no instances but those that are to be kept warm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.sim import pools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.engine.model import Plant


def at_rest(plant: Plant) -> Iterator[str]:
    """Yield what an engine without work still holds."""
    for name, pipe in plant.pipes.items():
        if pipe.counts.waiting or pipe.counts.running:
            yield f"{name} counts {pipe.counts} though nothing is there"
    if plant.running:
        yield f"attempts still run: {list(plant.running)}"
    gates = {gate: None for pipeline in plant.admission.pipelines.values() for gate in pipeline.gates}
    for gate in (*gates, *plant.admission.gates.values()):
        if gate.in_use or gate.undated_tasks or abs(gate.undated_cost) > 1e-9 or gate.asks or gate.stalled:
            yield f"the gate {gate.name} is still used by {gate.in_use}, {gate.undated_tasks} undated"
    yield from pools.at_rest(plant)
    for fleet in plant.fleets.values():
        free, given = sum(member.free for member in fleet.members.values()), plant.admission.slots[fleet.name].free
        least = fleet.least(plant.functions[fleet.function].spec, 0.0)  # one may wait for a call that does not come
        if free != given:
            yield f"admission has {given} slots of {fleet.name}, its instances {free}"
        if fleet.present > least or len(fleet.members) > 2 * least:  # some may be about to be replaced
            yield f"{len(fleet.members)} instances of {fleet.name} are left, {least} are wanted"
