"""The real engine in seeded worlds: no seed breaks a law, a seed is one world for ever, and a broken engine is caught."""

import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.domain import limits, retry
from penstock.domain.lending import Lending
from penstock.domain.limits import Gate
from penstock.domain.pools import Pool
from penstock.domain.rates import Rate
from penstock.domain.task import Outcome
from penstock.engine.deadlines import Deadlines
from penstock.engine.expiry import Expiry
from penstock.engine.intake import Intake
from penstock.engine.lives import Lives
from penstock.engine.model import Fleet
from penstock.engine.pools import Pools
from penstock.engine.recorder import Recorder
from penstock.engine.reserver import Reserver
from penstock.engine.scheduler import Scheduler
from penstock.engine.settle import Settle
from penstock.sim.__main__ import main
from penstock.sim.disk import SimStore
from penstock.sim.scenario import draw
from penstock.sim.simulate import Report, simulate
from penstock.store import operations
from penstock.store.rows import encode_replacements

SEEDS = range(1, 33)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_breaks_no_law(seed: int) -> None:
    report = simulate(seed)
    assert not report.breaches, report.tell(40)


@pytest.mark.long
@pytest.mark.parametrize("first", range(10_000, 12_000, 100))
def test_many_seeds_break_no_law(first: int) -> None:
    for seed in range(first, first + 100):
        report = simulate(seed)
        assert not report.breaches, report.tell(40)


def test_the_seeds_cover_what_can_happen() -> None:
    reports = [draw(seed) for seed in SEEDS]
    actions = {step.action for scenario in reports for step in scenario.steps}
    assert actions >= {
        "send", "call", "cancel", "limit", "pipeline", "function", "pause", "drain", "remove", "deploy", "break", "rollback",
        "redrive", "block", "full", "clock", "crash", "restart",
    }  # fmt: skip


def test_a_seed_is_the_same_world_again_in_every_process() -> None:
    digests = {simulate(9).line()}
    for hashing in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-m", "penstock.sim", "--seed", "9", "--rounds", "1", "--verbose"],
            env={**os.environ, "PYTHONHASHSEED": hashing}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        digests.add(ran.stdout.splitlines()[0])
    assert len(digests) == 1


def test_the_command_tells_what_it_found(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--seed", "3", "--rounds", "2"]) == 0
    assert "2 rounds" in capsys.readouterr().out
    forget_rates(monkeypatch)
    assert main(["--seed", "3", "--rounds", "9", "--lines", "5"]) == 1
    told = capsys.readouterr().out
    assert "broke the law" in told
    assert "To run it again: python -m penstock.sim --seed" in told
    assert "1 rounds broke a law" in told


# a broken engine ------------------------------------------------------------------------------------------------------
def forget_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rate, "ready_at", lambda self, now, units, charged: now)


def forget_dates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count a unit from the admission on, and not from the handler's start."""
    date = Rate.date
    monkeypatch.setattr(Rate, "date", lambda self, at, units: date(self, at - 0.02, units))


def forget_concurrency(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "release", lambda self: setattr(self, "in_use", 0))


def overfill_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    give = Lives.give
    monkeypatch.setattr(Lives, "give", lambda self, member, count: give(self, member, count + 1))


def forget_ages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lives, "_plan_life", lambda self, member: None)


def close_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let instances take tasks up to a timeout longer than they may."""
    monkeypatch.setattr(Fleet, "enter", lambda self, timeout: enter(self, timeout / 2))
    monkeypatch.setattr(Fleet, "leave", lambda self, timeout: leave(self, timeout / 2))


enter, leave = Fleet.enter, Fleet.leave


def lose_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acknowledge what is not on disk yet."""
    write = SimStore._write

    async def lie(self: SimStore, name: str, verb: Any, values: Any, options: Any) -> Any:
        if name == "enqueue":
            self._ledger.note(0.0, "a lie")
            return {}
        return await write(self, name, verb, values, options)

    monkeypatch.setattr(SimStore, "_write", lie)


def lose_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    write = Recorder.write

    def forgetful(self: Recorder, attempt: Any) -> None:
        if attempt.outcome is not Outcome.ERROR:
            write(self, attempt)

    monkeypatch.setattr(Recorder, "write", forgetful)


def charge_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FREE_OF_CHARGE", frozenset({Outcome.INTERRUPTED}))


def charge_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take all that are in an instance for what used its memory."""
    blame = Settle._blame

    def harsh(member: Any, inside: int, exit: Any) -> Outcome:  # noqa: A002
        return blame(member, inside if exit.overran is None else 1, exit)

    monkeypatch.setattr(Settle, "_blame", staticmethod(harsh))


def ignore_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "hold_for", lambda retry_after, refusals: 0.0)


def charge_who_is_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    end = lambda self, attempt, running: self.end(attempt, running, Outcome.TIMEOUT)  # noqa: E731
    monkeypatch.setattr(Deadlines, "_time_is_over", end)


def watch_no_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Deadlines, "add", lambda self, attempt, running: None)


def give_ids_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Intake, "open", lambda self, epoch: None)


def expire_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let only the heads of queues expire."""
    monkeypatch.setattr(Expiry, "watch", lambda self, moment: None)


def start_late(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Intake._task

    def patient(self: Intake, name: str, item: Any, wall: float, expires: float) -> Any:
        item.expires_after = item.expires_after and item.expires_after + 5.0
        return send(self, name, item, wall, expires)

    monkeypatch.setattr(Intake, "_task", patient)


def wake_while_a_send_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "_may_be_replaced", lambda self, task: False)


def forget_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the first of debounced tasks stand for all."""
    monkeypatch.setattr(operations, "encode_replacements", lambda pairs: encode_replacements([]))


def overfill_pools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "free", lambda self, typical: 100)


def never_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pools, "_make_room", lambda self, fleet: False)
    monkeypatch.setattr(Pools, "gives_way", lambda self, member, now: False)


def lend_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gate, "is_full", False)


def lend_without_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lending, "went_on", lambda self, ask, at: self.give(ask))


def forget_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lending, "end", lambda self, start, at: None)


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (forget_rates, "rate of"),
        (forget_dates, "rate of"),
        (forget_concurrency, "concurrency of"),
        (overfill_instances, "at once on"),
        (forget_ages, "at the age of"),
        (close_late, "at the age of"),
        (lose_sends, "is lost"),
        (lose_outcomes, "not ended"),
        (charge_throttled, "attempts"),
        (charge_neighbours, "ended beside and was recorded as out_of_memory"),
        (ignore_retry_after, "is held until"),
        (charge_who_is_held_up, "was held up by another"),
        (watch_no_timeout, "still has"),
        (give_ids_twice, ""),
        (expire_late, "it expired at"),
        (start_late, "had to be by"),
        (forget_the_last, "its result is not its payload"),
        (wake_while_a_send_is_written, "still has"),
        (overfill_pools, "instances are in the pool"),
        (never_give_way, "still has"),
        (lend_to_all, "concurrency of limit"),
        (lend_without_charge, "rate of limit"),
        (forget_what_is_held, "still"),
    ],
)
def test_a_broken_engine_is_caught(
    damage: Callable[[pytest.MonkeyPatch], None], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(monkeypatch)
    for seed in range(1, 2000):
        report: Report = simulate(seed)
        if any(complaint in breach for breach in report.breaches):
            return
    raise AssertionError(f"no seed found what {damage.__name__} does")


@pytest.mark.parametrize(
    ("boot", "wall", "away"),
    [("one", 1030.0, 30.0), ("one", -2600.0, 30.0), ("one", 9000.0, 30.0), ("two", 1020.0, 20.0), ("two", -5.0, 0.0)],
)
def test_what_limits_have_used_is_as_old_as_the_monotonic_clock_says(boot: str, wall: float, away: float) -> None:
    """After another boot of the machine only the wall clock is left, and it may have been set back."""
    plant: Any = SimpleNamespace(boot=boot, clock=lambda: 80.0, wall=lambda: wall)
    assert Reserver(plant)._away({"at": 1000.0, "clock": 50.0, "boot": "one"}) == away
