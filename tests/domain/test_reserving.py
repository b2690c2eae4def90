"""Long periods outlive a crash: units are reserved on disk in blocks before they are used."""

import random

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.limits import Gate, Used
from penstock.domain.settings import RateSpec
from penstock.sim.laws import exceeded

START = 1000.0


def day(n: int = 100, style: str = "window") -> RateSpec:
    return RateSpec(n, 86_400.0, style=style, burst=float(n) if style == "window" else 1.0)  # type: ignore[arg-type]


def test_nothing_starts_before_a_block_is_on_disk() -> None:
    gate = Gate("g", (day(),))
    assert gate.ready_at(START, 1.0) > START
    assert gate.room(START) == 0
    assert gate.runs_out()
    gate.used(START, ahead=True)
    gate.reserve()
    assert gate.ready_at(START, 1.0) == START
    assert gate.room(START) == 2  # 2 % of 100


def test_a_short_period_needs_none() -> None:
    gate = Gate("g", (RateSpec(100, 1.0),))
    assert not gate.runs_out()
    assert gate.ready_at(START, 1.0) == START


def test_a_task_that_costs_more_than_a_block_gets_one_of_its_size() -> None:
    gate = Gate("g", (RateSpec(100, 86_400.0, style="window", burst=100.0, meter="cost"),))
    assert gate.ready_at(START, 40.0) > START
    gate.used(START, ahead=True)
    gate.reserve()
    assert gate.ready_at(START, 40.0) == START


@given(st.integers(0, 2**32), st.integers(1, 300), st.integers(1, 8))
def test_no_crash_is_an_excess_nor_costs_more_than_two_blocks(seed: int, n: int, crashes: int) -> None:
    """Use a rate as fast as it goes, crash between any two steps, and count what really started."""
    rng = random.Random(seed)
    now = START
    disk: tuple[float, list[Used]] | None = None
    starts: list[float] = []
    for _ in range(crashes):
        gate = Gate("g", (day(n),))
        if disk is not None:
            gate.restore(now, disk[1], now - disk[0])
        remembered = sum(units for used in gate.used(now, ahead=False) for _, units in used.dates)
        assert remembered <= len(starts) + 2 * crashes * max(n / 50, 1.0)
        for _ in range(rng.randrange(2 * n)):
            if gate.runs_out():
                disk = now, gate.used(now, ahead=True)
                if rng.random() < 0.1:
                    break  # the crash comes when the block is on disk and not yet used
                gate.reserve()
            if gate.ready_at(now, 1.0) <= now:
                gate.take(now, 1.0)
                starts.append(now)
                if rng.random() < 0.9:
                    gate.date(now, 1.0)
                else:
                    break  # the crash comes before the start was heard of
            now += rng.choice([0.0, 0.001, 1.0])
    assert exceeded(starts, n, 86_400.0) is None
