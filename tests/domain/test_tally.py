"""The tally of a map: each item ends once, and says which task's result is its own."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.tally import ENDINGS, GONE, Tally
from penstock.domain.task import Outcome

FIRST, ITEMS = 100, 8
ends = st.lists(st.tuples(st.integers(0, ITEMS - 1), st.booleans(), st.sampled_from(ENDINGS)), max_size=60)
pairs = st.dictionaries(st.integers(0, ITEMS - 1), st.none()).map(lambda found: {FIRST + n: 900 + n for n in found})


@given(pairs, ends)
def test_an_item_ends_once_and_well_if_any_of_its_tasks_does(
    twins: dict[int, int], told: list[tuple[int, bool, str]]
) -> None:
    tally = Tally(FIRST, ITEMS, twins)
    heard: dict[int, dict[int, str]] = {}
    order: list[int] = []
    for item, second, ending in told:
        task = twins.get(FIRST + item) if second else FIRST + item
        if task is None or task in heard.get(item, {}):  # a task ends once
            continue
        counted = tally.has(item)
        heard.setdefault(item, {})[task] = ending
        whole = ending == Outcome.OK or len(heard[item]) == (2 if FIRST + item in twins else 1)
        assert tally.hear(item, task, ending) == (whole and not counted)
        if whole and not counted:
            order.append(item)
    assert list(tally.as_they_came(0, 99)) == order
    assert tally.ended == len(order) == sum(tally.by_ending.values())
    assert tally.open(99) == [item for item in range(ITEMS) if item not in order]
    assert tally.whole == (len(order) == ITEMS)
    for item in order:
        result = heard[item][tally.task_of(item)]
        assert (result == Outcome.OK) == (Outcome.OK in heard[item].values())
    well = sum(Outcome.OK in heard[item].values() for item in order)
    assert tally.by_ending[Outcome.OK] == well


@given(st.permutations(range(ITEMS)), st.integers(0, ITEMS), st.integers(0, ITEMS), st.integers(1, ITEMS))
def test_the_order_of_items_stops_at_the_first_that_has_not_ended(
    order: list[int], ended: int, at: int, most: int
) -> None:
    tally = Tally(FIRST, ITEMS, {})
    for item in order[:ended]:
        assert tally.hear(item, FIRST + item, "ok")
    expected: list[int] = []
    for item in range(at, ITEMS):
        if item not in order[:ended] or len(expected) == most:
            break
        expected.append(item)
    assert list(tally.in_order(at, most)) == expected


def test_it_can_be_counted_anew() -> None:
    tally = Tally(FIRST, 2, {})
    tally.hear(0, FIRST, "error")
    tally.forget({FIRST: 900})
    assert (tally.generation, tally.ended, tally.open(9)) == (1, 0, [0, 1])
    assert not tally.hear(0, FIRST, GONE)
    assert tally.tasks_of(0) == (FIRST, 900)
    assert tally.hear(0, 900, "ok")
    assert (tally.task_of(0), tally.task_of(1)) == (900, FIRST + 1)
    assert tally.by_ending == Counter(ok=1)
