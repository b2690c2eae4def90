"""Admission: what does the decision about one start cost in memory, with few pipelines and with very many?

In this process, without a server: pipelines with a limit of their own and a backlog take turns, each start is dated, ends,
and gives its slot back. Beside them stand pipelines that are configured and idle, and those that wait at one shared limit
of 100 a second and are served as it has room. Rounds with few and with many alternate; each figure is the median of its
rounds.
"""

import time

from benchmarks.harness import Figure, median, program
from penstock.domain.admission import Admission
from penstock.domain.limits import Gate
from penstock.domain.specs import PipelineSpec, RateSpec
from penstock.domain.task import Task

BUSY = 10
FOREVER = 1e12
STEP = 0.001


class World:
    """Hold an admission with `BUSY` pipelines that start tasks, and others beside them."""

    def __init__(self, idle: int, blocked: int) -> None:
        self.now = 1000.0
        self.admission = admission = Admission()
        self._ids = 0
        admission.limit(Gate("narrow", (RateSpec(100, 1.0),)))
        for number in range(idle):
            admission.configure(PipelineSpec(f"idle-{number}", "f", rates=(RateSpec(5, 1.0),)), "f")
        for number in range(blocked):
            name = f"blocked-{number}"
            admission.configure(
                PipelineSpec(name, "f", rates=(RateSpec(5, 1.0),), limits=("narrow",)), "f", ("narrow",)
            )
            self._offer(name, 2)
        self.busy = [f"busy-{number}" for number in range(BUSY)]
        for name in self.busy:
            admission.configure(PipelineSpec(name, "f", rates=(RateSpec(1000, 1.0),)), "f")
        admission.provide("f", 100)
        admission.admit(self.now, self.now)

    def cost(self, starts: int) -> float:
        """Return the seconds that one start takes, of so many."""
        for name in self.busy:
            self._offer(name, starts // BUSY + BUSY)
        admission, done = self.admission, 0
        begin = time.perf_counter()
        while done < starts:
            self.now += STEP
            admitted = admission.admit(self.now, self.now)
            for start in admitted.starts:
                admission.started(start, self.now)
                admission.finish(start, self.now)
            admission.provide("f", len(admitted.starts))
            done += len(admitted.starts)
            admission.next_wakeup()
        return (time.perf_counter() - begin) / done

    def _offer(self, name: str, tasks: int) -> None:
        ids = range(self._ids, self._ids + tasks)
        self._ids += tasks
        self.admission.offer(name, [Task(one, name, b"{}", created=self.now, expires=FOREVER) for one in ids])


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 20 s, 5 s if `quick`."""
    idle, blocked, rounds, starts = (10_000, 1000, 5, 10_000) if quick else (90_000, 10_000, 15, 20_000)
    few, many = World(0, 0), World(idle, blocked)
    costs: list[tuple[float, float]] = [(few.cost(starts), many.cost(starts)) for _ in range(rounds)]
    return [
        Figure(f"a start with {BUSY} pipelines", median([one for one, _ in costs]) * 1e6, "µs"),
        Figure(f"a start with {BUSY + idle + blocked:,} pipelines", median([one for _, one in costs]) * 1e6, "µs"),
        Figure("many compared with few", median([many / few for few, many in costs]), "times", 1.5, "at most"),
    ]


if __name__ == "__main__":
    program("admission", measure)
