"""Reasons to wait: of several constraints, the one that binds is named."""

from penstock.domain.admission import Admission
from penstock.domain.explain import Reason, reason
from penstock.domain.limits import Gate
from penstock.domain.specs import PipelineSpec, RateSpec
from penstock.domain.task import Task

NOW, WALL = 100.0, 1.7e9


def waiting(
    own: tuple[RateSpec, ...] = (), concurrency: int | None = None, provider: tuple[RateSpec, ...] = ()
) -> Admission:
    """Return an admission whose pipeline has one task that runs, started now, and one that waits."""
    admission = Admission()
    admission.limit(Gate("provider", provider))
    admission.configure(PipelineSpec("p", "f", rates=own, concurrency=concurrency), "f", ("provider",))
    admission.provide("f", 5)
    admission.offer("p", [Task(number, "p", b"", created=WALL, expires=WALL + 1e6) for number in (1, 2)])
    for start in admission.admit(NOW, WALL).starts:
        admission.started(start, NOW)
    for gate in list(admission.unreserved):
        gate.used(NOW, ahead=True)
        admission.reserved(gate)
    admission.admit(NOW, WALL)
    return admission


def binding(admission: Admission) -> Reason:
    return reason(admission, "p", NOW)


def test_of_several_rates_the_slowest_binds() -> None:
    fast, slow = (RateSpec(10, 1.0, "window"),), (RateSpec(1, 7.0, "window"),)
    found = binding(waiting(own=(RateSpec(1, 1.0, "window"),), provider=slow))
    assert (found.kind, found.name, found.text) == ("limit", "provider", "the rate of the limit 'provider'")
    assert found.until is not None
    assert round(found.until - NOW, 3) == 7
    found = binding(waiting(own=slow, provider=fast))
    assert (found.kind, found.name, found.text) == ("rate", None, "its own rate")


def test_a_concurrency_binds_longer_than_a_rate_and_a_hold_above_all() -> None:
    admission = waiting(concurrency=1, provider=(RateSpec(1, 7.0, "window"),))
    found = binding(admission)
    assert (found.kind, found.until, found.text) == ("concurrency", None, "its own concurrency of 1")
    admission.hold_limit("provider", NOW + 3)
    found = binding(admission)
    assert (found.kind, found.name, found.until) == ("held", "provider", NOW + 3)
    admission.pause("p")
    assert binding(admission).kind == "paused"


def test_without_limits_instances_bind_and_nothing_does_once_nothing_waits() -> None:
    admission = waiting()
    assert binding(admission).kind == "nothing"
    admission.provide("f", -3)
    admission.offer("p", [Task(3, "p", b"", created=WALL, expires=WALL + 1e6)])
    assert binding(admission).kind == "instances"
    admission.admit(NOW, WALL)
    assert (binding(admission).kind, binding(admission).name) == ("instances", "f")
