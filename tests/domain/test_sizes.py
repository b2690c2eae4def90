"""Learning how much memory an instance is to have."""

from math import log2

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.retry import Sequel, follow
from penstock.domain.sizes import FIRST, PATIENCE, SMALLEST, Need, size_for
from penstock.domain.task import Outcome, State, Task

MB = 10**6
PEAKS = st.integers(1 * MB, 16_000 * MB)


def run(need: Need, peak: int) -> int:
    """Run once, in larger instances after each that was too small; return how many changes of the size that took."""
    changes = 0
    while peak > need.size:
        before = need.size
        assert need.overran(before)
        assert need.size > before
        changes += 1
    return changes + need.used(peak, 1)


@given(PEAKS)
def test_a_size_is_the_smallest_that_fits(used: int) -> None:
    size = size_for(used)
    assert size >= used
    assert size == SMALLEST or size // 2 < used
    assert log2(size / SMALLEST) % 1 == 0


@given(PEAKS, st.integers(0, 5))
def test_it_comes_to_the_smallest_size_that_leaves_a_quarter_and_stays(peak: int, raises: int) -> None:
    need = Need()
    for _ in range(raises):
        need.overran(need.size)
    for _ in range(PATIENCE * 2 ** (raises + 8)):
        run(need, peak)
    assert need.size in {size_for(peak), size_for(peak + peak // 4)}  # the former if it was raised to it
    assert peak <= need.size
    assert sum(run(need, peak) for _ in range(1000)) == 0


@given(st.lists(st.tuples(PEAKS, st.integers(1, 400)), max_size=30))
def test_it_changes_about_as_often_as_the_logarithm_of_the_runs(history: list[tuple[int, int]]) -> None:
    need = Need()
    runs = changes = 0
    for peak, times in history:
        for _ in range(times):
            changes += run(need, peak)
            runs += 1
    sizes = log2(size_for(16_000 * MB) / SMALLEST)
    # Between two falls there is a raise, or the size only falls; and each raise doubles the runs before the next fall.
    assert changes <= 2 * sizes * (2 + log2(1 + runs / PATIENCE))


@given(st.lists(st.one_of(st.tuples(PEAKS, st.integers(1, 50)), st.none())))
def test_only_running_out_of_memory_raises_it_and_only_patience_lowers_it(events: list[tuple[int, int] | None]) -> None:
    need = Need()
    for event in events:
        before, patience, highest = need.size, need.patience, need.peak
        if event is None:
            assert need.overran(before)
            assert (need.size, need.patience, need.seen) == (2 * before, 2 * patience, 0)
            continue
        seen = need.seen + event[1]
        changed = need.used(*event)
        assert changed == (need.size < before)
        assert need.size <= before
        assert not changed or seen >= patience
        assert not changed or max(highest, event[0]) * 5 // 4 <= need.size


@given(st.booleans(), st.integers(0, 9), st.integers(1, 10))
def test_what_ran_out_of_memory_is_charged_only_where_nothing_is_larger(
    durable: bool, spent: int, attempts: int
) -> None:
    task = Task(1, "p", b"", created=0.0, expires=1.0, durable=durable, attempts=spent)
    assert follow(task, Outcome.OUT_OF_MEMORY, attempts, (0.0, 0.0), 0.5, larger=True) == Sequel(State.QUEUED)
    assert task.attempts == spent
    again = follow(task, Outcome.OUT_OF_MEMORY, attempts, (0.0, 0.0), 0.5)
    assert task.attempts == spent + 1
    assert (again.state is State.DELAYED) == (durable and spent + 1 < attempts)


def test_what_began_before_a_raise_raises_nothing_more() -> None:
    need = Need()
    assert need.overran(FIRST)
    assert not need.overran(FIRST)
    assert need.size == 2 * FIRST


def test_a_size_that_a_pool_had_cut_is_raised_to_one_above_it() -> None:
    need = Need(size=SMALLEST)
    assert need.overran(200 * MB)
    assert need.size == 256 * MB
