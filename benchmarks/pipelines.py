"""Pipelines: 10,000 of them busy at once, each with a limit of one start a second and a backlog.

All tasks are sent before the function has any code, so that all pipelines begin at the same time: they are out of step
only by as much as the first start of one comes after that of another. The limit is judged by the moments that the handlers
note. *Above* is a pipeline of which some half-open window of one second has seen two starts. *Utilisation* is what `limits`
says. *Jitter* is how much later than one second after the one before a start came, while its pipeline had a backlog;
nothing is left out.
"""

import time
from contextlib import ExitStack
from itertools import pairwise

from benchmarks.harness import Figure, median, percentile, program, scratch
from benchmarks.limits import LARGEST, by_pipeline, most_in_window, utilisation
from benchmarks.server import Server, penstock, records
from benchmarks.tasks import payload

RATE = 1


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about a minute, 10 s if `quick`."""
    pipelines, each = (1000, 8) if quick else (10_000, 20)
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
    used = [utilisation(moments, RATE) for moments in starts.values()]
    late = [(after - before - 1 / RATE) * 1e3 for moments in starts.values() for before, after in pairwise(moments)]
    above = sum(most_in_window(moments, 1.0) > RATE for moments in starts.values())
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
        Figure("server CPU, share of one core", share),
        Figure("server memory, RSS", size / 1e6, "MB"),
        Figure(f"applying {pipelines:,} pipelines", applied, "s"),
    ]


def _send(server: Server, pipelines: int, each: int) -> None:
    for pipeline in range(pipelines):
        tasks = [payload(pipeline * LARGEST + task) for task in range(each)]
        server.client.pipeline(f"site-{pipeline:05}").send_many(tasks)


if __name__ == "__main__":
    program("pipelines", measure)
