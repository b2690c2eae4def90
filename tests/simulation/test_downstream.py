"""The scripted service keeps its quotas exactly, and says when to come back."""

import random

from hypothesis import given
from hypothesis import strategies as st

from penstock.compute.protocol import Blueprint, Ending
from penstock.sim.downstream import Downstream, Period, Quota, calls
from penstock.sim.laws import exceeded
from penstock.sim.script import Act, Call, Spread

RNG = random.Random(1)
MADE_FROM = Blueprint("default", "f", 1, "bundle", "m:work")


@given(st.lists(st.floats(0, 5), max_size=40).map(sorted), st.integers(1, 4))
def test_what_it_accepts_never_exceeds_the_quota_and_what_it_refuses_may_come_back(
    moments: list[float], n: int
) -> None:
    service = Downstream({"a": Quota(n, 1.0)}, Spread(0.1, 0.1))
    accepted = []
    for moment in moments:
        answer = service.call("a", moment, RNG)
        if answer.status == 200:
            accepted.append(moment)
        else:
            assert answer.retry_after is not None
            assert 0 <= answer.retry_after <= 1 + 1e-9
            later = moment + answer.retry_after
            assert sum(later - other < 1.0 - 1e-9 for other in accepted) < n
    assert exceeded(accepted, n, 1.0 - 1e-12) is None
    assert service.refused("a") == len(moments) - len(accepted)


def test_keys_are_apart_and_unknown_ones_have_no_quota() -> None:
    service = Downstream({"a": Quota(1, 10.0), "b": Quota(1, 10.0)}, Spread(0.1, 0.1))
    statuses = [service.call(key, 0.0, RNG).status for key in ("a", "a", "b", "c", "c")]
    assert statuses == [200, 429, 200, 200, 200]
    assert [arrival.key for arrival in service.log] == ["a", "a", "b", "c", "c"]


def test_outages_and_slow_periods() -> None:
    service = Downstream({}, Spread(0.1, 0.1), outages=[Period(10.0, 20.0)], slow=[Period(30.0, 40.0, factor=50.0)])
    answers = [service.call("a", 15.0, RNG) for _ in range(50)]
    assert {answer.status for answer in answers} == {503}
    assert {answer.retry_after for answer in answers} == {None, 5.0}
    assert service.call("a", 20.0, RNG).status == 200
    assert service.call("a", 39.9, RNG).duration == 5.0
    assert service.call("a", 40.0, RNG).duration == 0.1


def test_a_behaviour_passes_its_answers_on() -> None:
    service = Downstream({"p": Quota(1, 10.0)}, Spread(0.5, 0.5), outages=[Period(100.0, 200.0)])
    behaviour = calls(service)

    def act(now: float) -> Act:
        return behaviour(Call(1, 1, "p", b"{}", b"", 30.0, MADE_FROM, now, RNG))

    assert (act(0.0).ending, act(0.0).ending) == (Ending.OK, Ending.THROTTLED)
    assert act(4.0).retry_after == 6.0
    endings = {act(150.0).ending for _ in range(50)}
    assert endings == {Ending.THROTTLED, Ending.ERROR}
    assert calls(service, "q")(Call(1, 1, "p", b"{}", b"", 30.0, MADE_FROM, 0.0, RNG)).after == 0.5
