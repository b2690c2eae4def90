"""Pipelines: 10,000 of them busy at once, each with a limit of one start a second and a backlog.

All tasks are sent before the function has any code, so that all pipelines begin at the same moment and in step: in the first
seconds, all of them are due together, and wait for each other. A start that was late makes the next one later, so with time
they spread over the second. The targets are for all starts; those after `IN_STEP` seconds are told apart.

The limit is judged by the moments that the handlers note, of all starts. *Above* is a pipeline of which some half-open window
of one second has seen two. *Utilisation* is what `limits` says. *Jitter* is how much later than one second after the one
before a start came, while its pipeline had a backlog; nothing is left out.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import pairwise

from benchmarks.harness import Figure, median, percentile, program, scratch
from benchmarks.limits import LARGEST, by_pipeline, most_in_window, utilisation
from benchmarks.server import Server, penstock, records
from benchmarks.tasks import payload

RATE = 1
IN_STEP = 15.0


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about two minutes, 15 s if `quick`."""
    pipelines, each = (1000, 8) if quick else (10_000, 40)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        notes = records(folder)
        server = stack.enter_context(penstock(folder / "data"))
        function = {"handler": "tasks:noop", "max_parallel_requests": 1000, "max_instances": 2}
        settings = {"function": "noop", "rate": f"{RATE}/s"}
        server.client.apply({"functions": {"noop": function}})
        begin = time.monotonic()
        server.client.apply({"pipelines": {f"site-{pipeline:05}": settings for pipeline in range(pipelines)}})
        applied = time.monotonic() - begin
        _send(server, pipelines, each)
        server.deploy("noop", **function)  # until now there was no code: so they all begin at once
        begin, cpu = time.monotonic(), server.cpu()
        numbers = frozenset(pipeline * LARGEST + task for pipeline in range(pipelines) for task in range(each))
        time.sleep(each / 2)
        share = (server.cpu() - cpu) / (time.monotonic() - begin)
        size = server.memory()["Rss"]
        rows = notes.wait(numbers, 300)
    starts = by_pipeline([(number, start) for number, start, _ in rows])
    above = sum(most_in_window(moments, 1.0) > RATE for moments in starts.values())
    begun = min(moments[0] for moments in starts.values()) + (1.0 if quick else IN_STEP)
    late, used = _judge(list(starts.values()))
    late_after, used_after = _judge([[moment for moment in moments if moment >= begun] for moments in starts.values()])
    first, last = max(moments[0] for moments in starts.values()), min(moments[-1] for moments in starts.values())
    together = sum(first <= moment < last for moments in starts.values() for moment in moments) / (last - first)
    return [
        Figure("busy pipelines", len(starts), "", 5000 if not quick else None),
        Figure("starts a second while all were busy", together, "/s", note=f"for {last - first:.0f} s"),
        Figure("pipelines above their limit at handler start", above, "", 0, "at most"),
        Figure("utilisation, median pipeline", median(used), "", 0.99),
        Figure("utilisation, worst pipeline", min(used), "", 0.97),
        Figure("jitter of starts, p50", percentile(late, 0.5), "ms"),
        Figure("jitter of starts, p99", percentile(late, 0.99), "ms", 20, "at most"),
        Figure("jitter of starts, worst", max(late), "ms"),
        Figure("out of step: utilisation, median pipeline", median(used_after)),
        Figure("out of step: utilisation, worst pipeline", min(used_after)),
        Figure("out of step: jitter of starts, p99", percentile(late_after, 0.99), "ms"),
        Figure("server CPU, share of one core", share),
        Figure("server memory, RSS", size / 1e6, "MB"),
        Figure(f"applying {pipelines:,} pipelines", applied, "s"),
    ]


def _judge(starts: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    """Return how late each start was (ms), and the utilisation of each pipeline."""
    late = [(after - before - 1 / RATE) * 1e3 for moments in starts for before, after in pairwise(moments)]
    return late, [utilisation(moments, RATE) for moments in starts]


def _send(server: Server, pipelines: int, each: int) -> None:
    for pipeline in range(pipelines):
        tasks = [payload(pipeline * LARGEST + task) for task in range(each)]
        server.client.pipeline(f"site-{pipeline:05}").send_many(tasks)


if __name__ == "__main__":
    program("pipelines", measure)
