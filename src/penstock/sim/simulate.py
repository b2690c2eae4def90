"""Simulate one seed: draw its scenario, let it happen, judge it."""

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from traceback import format_exception

from penstock.sim.loop import run
from penstock.sim.scenario import draw
from penstock.sim.verdict import verdict
from penstock.sim.world import World


@dataclass(slots=True)
class Report:
    """Say what came of a seed. `digest` is equal for two runs of one seed; `trace` is for people."""

    seed: int
    breaches: list[str]
    digest: str
    trace: list[str]
    scenario: str
    counts: dict[str, int] = field(default_factory=dict)

    def line(self) -> str:
        """Return the report in one line."""
        counts = ", ".join(f"{count} {name}" for name, count in self.counts.items() if name != "rounds")
        return f"seed {self.seed}: {len(self.breaches)} breaches; {counts}; {self.digest[:12]}"

    def tell(self, lines: int) -> str:
        """Return all there is to say about a failure, with the command that runs it again."""
        return "\n".join(
            [
                self.scenario,
                f"the last {lines} lines of the trace:",
                *self.trace[-lines:],
                f"seed {self.seed} broke the law:",
                *(f"  {breach}" for breach in self.breaches[:20]),
                f"To run it again: python -m penstock.sim --seed {self.seed} --rounds 1",
            ]
        )


def simulate(seed: int) -> Report:
    """Run the world of a seed to its end and return the report."""
    scenario = draw(seed)
    text = str(scenario)
    with tempfile.TemporaryDirectory(prefix="penstock-sim-", dir=_memory()) as directory:
        world = World(scenario, Path(directory))
        try:
            with _listening() as errors:
                run(world.run())
            breaches = [*errors, *verdict(world)]
        except Exception as error:
            breaches = ["the world ended early: " + "".join(format_exception(error)), *world.ledger.breaches]
    ledger, diary = world.ledger, world.diary
    counts = {
        "rounds": 1,
        "tasks": len(diary.tasks),
        "calls": len(diary.calls),
        "executions": len(ledger.executions),
        "crashes": len(diary.crashes),
        "restarts": len(diary.restarts),
    }
    trace = ledger.tell(len(ledger.trace)).splitlines()
    return Report(seed, breaches, ledger.digest(), trace, text, counts)


@contextmanager
def _listening() -> Iterator[list[str]]:
    """Gather what the engine logs as an error; a simulated world is full of warnings, which nobody needs to read."""
    errors: list[str] = []
    log, handler = logging.getLogger("penstock"), _Errors(errors)
    propagate, log.propagate = log.propagate, False
    log.addHandler(handler)
    try:
        yield errors
    finally:
        log.removeHandler(handler)
        log.propagate = propagate


class _Errors(logging.Handler):
    def __init__(self, errors: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._errors = errors

    def emit(self, record: logging.LogRecord) -> None:
        self._errors.append(f"the engine logged an error: {self.format(record)}")


def _memory() -> str | None:
    """Return a directory that is kept in memory, if the machine has one: a simulated disk needs no real one."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
