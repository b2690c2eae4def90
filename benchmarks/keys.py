"""Keys: 200 keys of 5/s, 50 tasks of 50 ms each, all queued beforehand. Penstock beside the peers that limit each key.

Penstock with a pipeline for each key, durable: its tasks are sent before their function has any code, which holds them, and
the deploy lets all begin. Peers in the same run (see `benchmarks/peers/keys_*.py`), each with its tasks queued before its
workers are started. So what is measured, everywhere, goes from the start of the workers to the end of the last task.

What is *above the limit* and what *utilisation* is: see `limits`, by the moments that the handlers note. A key is above
its limit if any half-open window of one second sees more starts of it than the limit allows; such a key may have used more
than the whole of it. A system that is short of CPU uses less: look at what other programs kept busy before comparing.

*CPU* is that of all processes (server or workers and database), from the start of the workers on, which it includes; what
queueing the tasks took is before that, and left out. *Memory* is the most that the sum of the proportional set sizes of
these processes was, twice a second. *Makespan* goes from the first start of any task to the last end; a limit that is used
up evenly allows 49 / 5 + 0.05 = 9.85 s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.environments import run_peer
from benchmarks.harness import Figure, median, program, scratch
from benchmarks.keyed import Usage, Work
from benchmarks.limits import most_in_window, utilisation
from benchmarks.server import penstock, records
from benchmarks.services import NotHere
from benchmarks.tasks import payload

FULL, QUICK = Work(keys=200, each=50, rate=5), Work(keys=20, each=20, rate=5)


@dataclass(frozen=True, slots=True)
class Peer:
    """Name a peer, its program, the environments that it needs, and what its program is told besides the work."""

    name: str
    module: str
    needs: Sequence[str]
    options: Sequence[str] = ()


PEERS = (
    Peer("BullMQ", "keys_bullmq", ("redis", "bullmq")),
    Peer("BullMQ, paced", "keys_bullmq", ("redis", "bullmq"), ("--paced",)),
    Peer("Celery", "keys_celery", ("redis", "celery")),
    Peer("DBOS", "keys_dbos", ("postgres", "dbos")),
)


def measure(quick: bool) -> list[Figure]:
    """Return the figures of one run: about 2 minutes, half a minute if `quick`."""
    work = QUICK if quick else FULL
    figures = _figures("Penstock", work, _penstock(work), promised=True)
    for peer in PEERS:
        try:
            line = run_peer(peer.module, peer.needs, *work.words(), *peer.options)
        except NotHere as reason:
            figures.append(Figure(f"{peer.name}: left out", None, note=str(reason)))
        else:
            figures += _figures(peer.name, work, line)
    return figures


def _penstock(work: Work) -> dict[str, Any]:
    """Return what a run on Penstock was like."""
    settings = {"handler": "tasks:rest", "max_parallel_requests": 100, "max_instances": 2}
    names = [f"key-{key:03}" for key in range(work.keys)]
    with scratch() as folder:
        notes = records(folder)
        with penstock(folder / "data") as server:
            pipelines = {name: {"function": "rest", "rate": f"{work.rate}/s"} for name in names}
            server.client.apply({"functions": {"rest": settings}, "pipelines": pipelines})
            for key, name in enumerate(names):
                server.client.pipeline(name).send_many(payload(number) for number in work.tasks(key))
            with Usage() as usage:
                server.deploy("rest", **settings)
                rows = notes.wait(work.numbers(), 120)
                for name in names:
                    server.settled(name, work.each)
    configuration = f"a pipeline of {work.rate}/s for each key, SQLite with fsync, 2 shared instances"
    return {"configuration": configuration, **usage.outcome(work, rows)}


def _figures(name: str, work: Work, line: Mapping[str, Any], promised: bool = False) -> list[Figure]:
    """Return what is told of one system; only Penstock promises something."""
    most = [most_in_window(starts, 1.0) for starts in line["starts"]]
    used = [utilisation(starts, work.rate) for starts in line["starts"]]
    none, nearly_all, allowed = (0, 0.99, work.rate) if promised else (None, None, None)
    above = sum(starts > work.rate for starts in most)
    note = line["configuration"]
    if line["others"] >= 0.1:
        note += f"; other programs kept {line['others']:.1f} cores busy"
    return [
        Figure(f"{name}: keys above their limit, of {work.keys}", above, "", none, "at most", note),
        Figure(f"{name}: most starts of a key in any 1 s", max(most), "", allowed, "at most"),
        Figure(f"{name}: utilisation, median key", median(used), "", nearly_all),
        Figure(f"{name}: utilisation, worst key", min(used)),
        Figure(f"{name}: makespan", line["makespan"], "s"),
        Figure(f"{name}: CPU of all processes", line["cpu"], "s"),
        Figure(f"{name}: memory of all {line['processes']} processes", line["memory"] / 2**20, "MiB"),
    ]


if __name__ == "__main__":
    program("keys", measure)
