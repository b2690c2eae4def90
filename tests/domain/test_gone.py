"""Removing and making again is no way around a limit."""

import pytest

from penstock.domain.admission import Admission
from penstock.domain.gone import Gone
from penstock.domain.limits import Gate
from penstock.domain.specs import PipelineSpec, RateSpec
from penstock.domain.task import Task

RATE = (RateSpec(3, 10.0, "window", 3.0),)


def starts(admission: Admission, now: float, first: int) -> int:
    admission.offer("p", [Task(first + n, "p", b"", created=0.0, expires=1e12) for n in range(9)])
    begun = admission.admit(now, now).starts
    for start in begun:
        admission.started(start, now)
        admission.finish(start, now)
    return len(begun)


@pytest.mark.parametrize(("after", "allowed"), [(0.5, 0), (9.9, 0), (10.1, 3)])
def test_a_pipeline_that_is_made_again_goes_on_with_its_limit(after: float, allowed: int) -> None:
    admission = Admission()
    admission.provide("f", 100)
    admission.configure(PipelineSpec("p", "f", RATE), "f")
    assert starts(admission, 100.0, 1) == 3
    assert len(admission.remove("p", 100.2)) == 6
    admission.configure(PipelineSpec("p", "f", RATE), "f")
    assert starts(admission, 100.0 + after, 20) == allowed


def test_what_is_gone_is_forgotten_when_its_time_is_over() -> None:
    gone = Gone()
    short, long = Gate("short", (RateSpec(1, 1.0),)), Gate("long", (RateSpec(1, 60.0),))
    gone.keep("short", short, 0.0)
    gone.keep("long", long, 0.0)
    gone.keep("none", Gate("none", concurrency=3), 2.0)
    assert gone.take("none") is None, "it has used nothing that counts"
    assert gone.take("short") is None, "its time is over"
    assert gone.take("long") is long
    assert gone.take("long") is None, "it is in use again"
    gone.keep("long", long, 3.0)
    gone.keep("other", short, 62.0)
    assert gone.take("long") is long, "its time counts from when it went the last time"


def test_what_still_runs_counts_for_a_pipeline_that_is_made_again() -> None:
    admission = Admission()
    admission.provide("f", 9)
    spec = PipelineSpec("p", "f", concurrency=1)
    admission.configure(spec, "f")
    admission.offer("p", [Task(1, "p", b"", created=0.0, expires=1e12)])
    (start,) = admission.admit(0.0, 0.0).starts
    admission.remove("p", 0.0)
    admission.gone.keep("other", Gate("other", RATE), 500.0)
    admission.configure(spec, "f")
    admission.offer("p", [Task(2, "p", b"", created=0.0, expires=1e12)])
    assert admission.admit(500.0, 500.0).starts == []
    admission.finish(start, 501.0)
    assert len(admission.admit(501.0, 501.0).starts) == 1
