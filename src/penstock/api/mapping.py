"""How maps look from outside: their counts, and a line for each result, in which the handler's bytes stand as they are."""

from collections.abc import Mapping
from math import isfinite

from penstock.api.views import View, encode, function_of, moment
from penstock.domain.tally import GONE
from penstock.domain.task import Outcome, name_of
from penstock.engine.engine import Engine
from penstock.engine.livemap import LiveMap
from penstock.engine.model import built_in_of
from penstock.store.protocol import StoredMap, StoredTask

_GONE = encode(
    {
        "type": "Gone",
        "message": "What became of this item is no longer kept: its results are older than the server keeps them, or its "
        "pipeline was removed.",
    }
)


async def map_view(engine: Engine, stored: StoredMap) -> View:
    """Show a map; one that the server has not counted since it started is counted now."""
    live = engine.maps.kept(stored.id)
    if live is None and stored.finished is None:
        live = await engine.maps.live(stored.id)
    if live is not None:
        stored = live.stored
    direct = built_in_of(stored.pipeline)
    ended = stored.ended if live is None else live.tally.by_ending
    left = stored.items - sum(ended.values())
    rate = live.rate(engine.plant.clock()) if live is not None and left else None
    return {
        "id": name_of(stored.id),
        "pipeline": None if direct else stored.pipeline,
        "function": direct or function_of(engine, stored.pipeline),
        "state": _state(stored, left),
        **_counts(stored.items, ended),
        "running": engine.maps.running(live) if live is not None and left else 0,
        "rerun": len(stored.twins),
        "rate": _rounded(rate),
        "stragglers": stored.stragglers,
        "created": moment(stored.created),
        "cancelled": moment(stored.cancelled),
        "finished": moment(stored.finished),
    }


def _state(stored: StoredMap, left: int) -> str:
    if stored.cancelled is not None:
        return "cancelling" if left else "cancelled"
    return "running" if left else "done"


def _counts(items: int, ended: Mapping[str, int]) -> View:
    failed = {ending: count for ending, count in ended.items() if ending != Outcome.OK}
    return {"items": items, "ended": sum(ended.values()), "ok": ended.get(Outcome.OK, 0), "failed": failed}


def _rounded(rate: float | None) -> float | None:
    return None if rate is None or not isfinite(rate) else round(rate, 3)


def counts_view(engine: Engine, live: LiveMap) -> View:
    """Show how far a map is."""
    return {
        **_counts(live.stored.items, live.tally.by_ending),
        "rate": _rounded(live.rate(engine.plant.clock())),
    }


def result_line(live: LiveMap, item: int, task: StoredTask | None) -> bytes:
    """Return the line of an item that has ended; None is a task that is no longer kept."""
    named = task.id if task is not None else live.tally.task_of(item)
    outcome = GONE if task is None or task.outcome is None else task.outcome.value
    if outcome == Outcome.OK:
        body = (task.result if task is not None else None) or b"null"
        return b'{"index":%d,"task":"%016x","outcome":"ok","result":%b}\n' % (item, named, body)
    error = _GONE if outcome == GONE or task is None else task.result or b"null"
    return b'{"index":%d,"task":"%016x","outcome":"%b","error":%b}\n' % (item, named, outcome.encode(), error)
