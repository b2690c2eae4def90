"""Pools: how many instances may start in one, and whose turn it is."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.pools import UNKNOWN, Pool
from penstock.domain.specs import PoolSpec

MB = 10**6


def pool(most: int | None = None, memory: int | None = None) -> Pool:
    made = Pool("long")
    made.spec = PoolSpec("long", most, memory)
    return made


def grow(into: Pool, fleet: str, wants: int) -> int:
    """Do what the engine does for a fleet that lacks instances; return how many it got."""
    into.ask(fleet)
    got = int(min(wants, into.share(fleet, None)))
    for _ in range(got):
        into.count(fleet, 1)
    if got == wants:
        into.satisfied(fleet)
    return got


def test_a_pool_has_room_for_so_many_and_no_more() -> None:
    full = pool(3)
    assert grow(full, "a", 5) == 3
    assert grow(full, "b", 1) == 0
    assert full.text(None) == "the pool 'long' is full: all its 3 instances are busy or starting"
    small = pool(1)
    assert grow(small, "a", 1) == 1
    assert small.text(None) == "the pool 'long' is full: its one instance is busy or starting"
    full.count("a", -1)  # it drains now, and no longer counts
    assert full.first() == "b"
    assert grow(full, "a", 3) == 0
    assert grow(full, "b", 1) == 1


def test_one_without_limits_lets_all_start() -> None:
    assert not pool().limited
    assert grow(pool(), "a", 5000) == 5000


def test_a_busy_fleet_gives_a_place_back_to_one_that_has_none() -> None:
    full = pool(4)
    grow(full, "a", 9)
    assert not full.gives_way("a")
    full.ask("b")
    assert full.gives_way("a")
    full.give_up("a", 1)
    assert not full.gives_way("a"), "one place for one that waits"
    full.give_up("a", -1)
    full.count("a", -1)
    assert grow(full, "b", 9) == 1
    assert full.gives_way("a")  # 3 and 1: one more may change hands
    full.count("a", -1)
    assert grow(full, "b", 8) == 1
    assert not full.gives_way("a")
    assert not full.gives_way("b")


def test_a_smaller_cap_is_reached_at_the_ends_of_tasks() -> None:
    shrinks = pool(4)
    grow(shrinks, "a", 4)
    shrinks.spec = PoolSpec("long", 2)
    for _ in range(2):
        assert shrinks.gives_way("a")
        shrinks.count("a", -1)
    assert not shrinks.gives_way("a")


def test_measured_memory_is_what_counts() -> None:
    small = pool(memory=1000 * MB)
    assert small.free(None) == 1
    assert small.free(100 * MB) == 10
    for _ in range(4):
        small.count("a", 1)
    assert small.free(None) == UNKNOWN - 4
    assert small.free(100 * MB) == 6  # those that nobody has weighed yet are taken for usual ones
    small.weighed(200 * MB, 4, 0.0)
    assert small.free(100 * MB) == 8
    small.weighed(1200 * MB, 0, 1.0)
    assert small.free(100 * MB) == 0
    assert small.text(None) == "the pool 'long' is full: its instances use 1,200 MB of 1GB"


def test_an_empty_pool_takes_one_that_is_too_large_for_it() -> None:
    assert pool(memory=100 * MB).free(5000 * MB) == 1


def test_one_suspected_task_at_a_time_runs_beside_a_full_pool() -> None:
    full = pool(1)
    grow(full, "a", 1)
    assert full.takes_apart(None)
    full.count("b", 1, apart=True)
    assert not full.takes_apart(None)
    assert grow(full, "a", 1) == 0
    full.count("a", -1)
    assert grow(full, "a", 1) == 0, "it counts"
    full.count("b", -1, apart=True)
    assert grow(full, "a", 1) == 1


moves = st.lists(
    st.tuples(st.sampled_from(["start", "end", "rest", "cap"]), st.integers(0, 4), st.integers(1, 9)), max_size=80
)


@given(st.integers(1, 6), moves)
def test_no_more_than_the_cap_start_and_nobody_starves(most: int, steps: Sequence[tuple[str, int, int]]) -> None:
    shared, held = pool(most), Counter[str]()
    for what, fleet, number in steps:
        name = f"f{fleet}"
        if what == "start":
            held[name] += grow(shared, name, number)
        elif what == "end" and held[name]:
            shared.count(name, -1)
            held[name] -= 1
        elif what == "rest":
            shared.satisfied(name)
        elif what == "cap" and number >= held.total():
            shared.spec = PoolSpec("long", number)
        assert shared.present == held.total() <= (shared.spec.max_instances or 0)
        assert shared.held == +held
    waiting = [name for name in map("f{}".format, range(5)) if not held[name]]
    for name in waiting:
        shared.ask(name)
    for _ in range(200):  # tasks end, and whoever is next gets what is free
        first = shared.first()
        if first is None or held[first]:
            break
        if shared.share(first, None):
            held[first] += grow(shared, first, 1)
            continue
        giver = next((name for name in held if held[name] and shared.gives_way(name)), None)
        assert giver is not None, "somebody waits, and nobody gives way"
        shared.count(giver, -1)
        held[giver] -= 1
        if len(+held) >= (shared.spec.max_instances or 0):
            break
    assert len(+held) >= min(len(waiting), shared.spec.max_instances or 0)


@given(st.integers(2, 12), st.integers(2, 5))
def test_a_full_pool_is_shared_evenly(most: int, fleets: int) -> None:
    shared, held = pool(most), Counter[str]()
    names = [f"f{number}" for number in range(fleets)]
    for name in names:  # the first one takes all there is
        held[name] += grow(shared, name, 1000)
    for _ in range(10 * most):
        giver = next((name for name in names if shared.gives_way(name)), None)
        if giver is None:
            break
        shared.count(giver, -1)
        held[giver] -= 1
        first = shared.first()
        assert first is not None
        held[first] += grow(shared, first, 1000)
        if min(held[name] for name in names) == 0 and most < fleets:
            break  # more fleets than places: they take turns for ever
    if most >= fleets:
        assert max(held.values()) - min(held.values()) <= 1
    assert held.total() == most
