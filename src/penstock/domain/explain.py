"""Why a task waits: which constraint binds its pipeline now, and until when. It reads, and never writes."""

from dataclasses import dataclass
from math import inf

from penstock.domain.admission import Admission
from penstock.domain.ceilings import Reserve
from penstock.domain.limits import Gate
from penstock.domain.pipeline import IDLE, PAUSED, Pipeline


@dataclass(frozen=True, slots=True)
class Reason:
    """Say what binds: `kind` is paused, held, batch, rate, concurrency, limit, instances, ramp, memory, turn or nothing.

    `name` is that of the shared limit or the function, `until` a monotonic moment or None where it depends on other tasks.
    """

    kind: str
    text: str
    name: str | None = None
    until: float | None = None


def reason(admission: Admission, name: str, now: float) -> Reason:
    """Return what the head of a pipeline's queue waits for."""
    pipeline = admission.pipelines[name]
    if pipeline.place is PAUSED:
        return Reason("paused", "the pipeline is paused")
    if pipeline.place is IDLE or pipeline.ripens:
        return _at_rest(pipeline)
    head = pipeline.queue.head()
    cost = 1.0 if head is None else head.cost if pipeline.batch is None else pipeline.next_load(-inf).cost
    blocking = [found for gate in pipeline.gates if (found := _at_gate(pipeline, gate, now, cost)) is not None]
    if blocking:
        return max(blocking, key=_weight)
    for gate in pipeline.gates:
        if gate.waiters is not None and gate.waiters.count:
            return Reason("limit", f"others that wait at the limit '{gate.name}'", gate.name)
    if pipeline.slots.free <= 0:
        function = pipeline.slots.name.split("@")[0].split("%")[0].split("#")[0]
        return Reason("instances", f"all instances of '{function}' are busy or starting", function)
    return Reason("turn", "its turn comes next")


def _at_rest(pipeline: Pipeline) -> Reason:
    if pipeline.ripens:
        return Reason("batch", "its batch fills up", until=pipeline.wakes_at)
    if pipeline.queue.more:
        return Reason("turn", "its tasks are being read from the store")
    return Reason("nothing", "nothing waits")


def _weight(blocking: Reason) -> tuple[bool, float]:
    """Return by what the one of several that binds is found: it lasts longest, or nobody knows how long."""
    return blocking.kind == "held", inf if blocking.until is None else blocking.until


def _at_gate(pipeline: Pipeline, gate: Gate, now: float, cost: float) -> Reason | None:
    own = gate is pipeline.own
    name, its = (None, "its own ") if own else (gate.name, "the ")
    of = "" if own else f" of the limit '{gate.name}'"
    if gate.held_until > now:
        what = "the pipeline" if own else f"the limit '{gate.name}'"
        return Reason("held", f"downstream asked {what} to wait", name, gate.held_until)
    learned = "" if gate.adaptive is None else "learned "
    if gate.free() <= 0:
        most = gate.parent.concurrency if isinstance(gate, Reserve) else gate.concurrency
        return Reason("concurrency" if own else "limit", f"{its}{learned}concurrency of {most}{of}", name)
    if gate.asks and own:
        return Reason("concurrency", "running tasks of it that go on after a wait for others go first")
    if gate.asks:
        return Reason("limit", f"running tasks that ask for the limit '{gate.name}' go first", gate.name)
    at = gate.copy().ready_at(now, cost)
    if at > now:
        pace = "" if gate.adaptive is None else f", {gate.adaptive.learned.pace} now"
        return Reason("rate" if own else "limit", f"{its}{learned}rate{of}{pace}", name, None if at == inf else at)
    return None
