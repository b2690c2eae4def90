"""Every request of the HTTP contract, described once; both clients send these."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from penstock.client.call import (
    ANSWER_WITHIN,
    Call,
    Page,
    reads,
    reads_member,
    reads_nothing,
    reads_page,
)
from penstock.client.http1 import Response
from penstock.client.models import (
    Change,
    Deployed,
    Function,
    Limit,
    LogLine,
    MapCounts,
    Pipeline,
    Plan,
    Pool,
    Task,
    Version,
    Why,
)
from penstock.client.results import ItemResult, read_line
from penstock.client.sends import Send, encode

JSON = ("Content-Type", "application/json")
NDJSON = ("Content-Type", "application/x-ndjson")
ZIP = ("Content-Type", "application/zip")
MERGE_PATCH = ("Content-Type", "application/merge-patch+json")
EVENTS = ("Accept", "text/event-stream")

START_WITHIN = 300.0
"""Seconds that starting or cancelling a map may take: it may have a hundred thousand items."""

Settings = Mapping[str, Any]
Seconds = float | timedelta


def seconds(value: Seconds) -> float:
    """Return a duration in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _path(*parts: str, **query: Any) -> str:
    path = "/v1/" + "/".join([quote(part, safe="") for part in parts])
    asked = {name.rstrip("_"): value for name, value in query.items() if value is not None}
    return f"{path}?{urlencode(asked)}" if asked else path


def _duration(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "s"


_function, _functions = reads(Function), reads_page("functions", Function)
_pipeline, _pipelines = reads(Pipeline), reads_page("pipelines", Pipeline)
_limit, _limits = reads(Limit), reads_page("limits", Limit)
_pool, _pools = reads(Pool), reads_page("pools", Pool)
_task, _tasks = reads(Task), reads_page("tasks", Task)
_change, _line = reads(Change), reads(LogLine)
_changes, _lines = reads_page("changes", Change), reads_page("lines", LogLine)
_versions, _deployed = reads_member("versions", list[Version]), reads(Deployed)
_ids, _redriven, _purged = reads_member("ids", list[str]), reads_member("redriven", int), reads_member("purged", int)
_sealed = reads_member("sealed", int)
_counts, _maps = reads(MapCounts), reads_page("maps", MapCounts)
_why, _plan, _anything = reads(Why), reads(Plan), reads(dict[str, Any])


def _result(response: Response) -> Any:
    return msgspec.json.decode(response.body) if response.body else None


# functions


def list_functions(after: Any = None) -> Call[Page[Function]]:
    """List functions, by name."""
    return Call("GET", _path("functions", after=after), _functions, repeatable=True)


def show_function(name: str) -> Call[Function]:
    """Ask for one function."""
    return Call("GET", _path("functions", name), _function, repeatable=True)


def put_function(name: str, settings: Settings) -> Call[Function]:
    """Make a function, or replace its settings."""
    return Call("PUT", _path("functions", name), _function, encode(settings), (JSON,), repeatable=True)


def patch_function(name: str, settings: Settings) -> Call[Function]:
    """Change some of a function's settings; None removes one."""
    return Call("PATCH", _path("functions", name), _function, encode(settings), (MERGE_PATCH,), repeatable=True)


def delete_function(name: str) -> Call[None]:
    """Remove a function that no pipeline uses."""
    return Call("DELETE", _path("functions", name), reads_nothing)


def deploy(name: str, bundle: bytes, settings: Settings | None) -> Call[Deployed]:
    """Make a zip of code the live version of a function; `settings` make the function if there is none."""
    written = encode(settings).decode() if settings else None
    path = _path("functions", name, "code", settings=written)
    return Call("PUT", path, _deployed, bundle, (ZIP,), within=None)


def rollback(name: str, version: int | None) -> Call[Deployed]:
    """Make an earlier version of a function live again; without one, that which the live one took over from."""
    body = encode({} if version is None else {"version": version})
    return Call("POST", _path("functions", name, "rollback"), _deployed, body, (JSON,), within=None)


def list_versions(name: str) -> Call[list[Version]]:
    """List a function's versions."""
    return Call("GET", _path("functions", name, "versions"), _versions, repeatable=True)


def invoke(kind: str, name: str, payload: Any, timeout: Seconds | None) -> Call[Any]:
    """Call a function, or a pipeline's function under its limits, and wait for the result."""
    bound = None if timeout is None else seconds(timeout)
    path = _path(kind, name, "invoke", timeout=None if bound is None else _duration(bound))
    within = None if bound is None else bound + 10
    return Call("POST", path, _result, encode(payload), (JSON,), within=within)


# pipelines


def list_pipelines(after: Any = None, function: str | None = None) -> Call[Page[Pipeline]]:
    """List pipelines, by name."""
    path = _path("pipelines", after=after, function=function)
    return Call("GET", path, _pipelines, repeatable=True)


def show_pipeline(name: str) -> Call[Pipeline]:
    """Ask for one pipeline."""
    return Call("GET", _path("pipelines", name), _pipeline, repeatable=True)


def put_pipeline(name: str, settings: Settings) -> Call[Pipeline]:
    """Make a pipeline, or replace its settings."""
    return Call("PUT", _path("pipelines", name), _pipeline, encode(settings), (JSON,), repeatable=True)


def patch_pipeline(name: str, settings: Settings) -> Call[Pipeline]:
    """Change some of a pipeline's settings; None removes one."""
    return Call("PATCH", _path("pipelines", name), _pipeline, encode(settings), (MERGE_PATCH,), repeatable=True)


def delete_pipeline(name: str, tasks: str | None = None) -> Call[bool]:
    """Remove a pipeline; `tasks` says what becomes of those it still has: refuse, drain or discard."""
    return Call("DELETE", _path("pipelines", name, tasks=tasks), _has_gone)


def _has_gone(response: Response) -> bool:
    return response.status != 202


def pause(name: str) -> Call[Pipeline]:
    """Let a pipeline start nothing more."""
    return Call("POST", _path("pipelines", name, "pause"), _pipeline, repeatable=True)


def drain(name: str) -> Call[Pipeline]:
    """Let a pipeline take no more tasks."""
    return Call("POST", _path("pipelines", name, "drain"), _pipeline, repeatable=True)


def resume(name: str) -> Call[Pipeline]:
    """Let a pipeline take and start tasks again."""
    return Call("POST", _path("pipelines", name, "resume"), _pipeline, repeatable=True)


def send(name: str, task: Send, key: str | None) -> Call[str]:
    """Put one task into a pipeline; with an idempotency key it is safe to repeat."""
    headers = (JSON, ("Idempotency-Key", key)) if key else (JSON,)
    repeatable = bool(key or task.key)
    return Call("POST", _path("pipelines", name, "tasks"), _first_id, encode(task), headers, repeatable)


def send_batch(name: str, body: bytes, key: str | None) -> Call[list[str]]:
    """Put a batch of tasks, as NDJSON, into a pipeline."""
    headers = (NDJSON, ("Idempotency-Key", key)) if key else (NDJSON,)
    return Call("POST", _path("pipelines", name, "tasks"), _ids, body, headers, bool(key))


def _first_id(response: Response) -> str:
    return _ids(response)[0]


def redrive(name: str, ids: list[str] | None) -> Call[int]:
    """Queue dead tasks again: those named, or all."""
    body = encode({"ids": ids} if ids is not None else {})
    return Call("POST", _path("pipelines", name, "dead", "redrive"), _redriven, body, (JSON,))


def purge(name: str) -> Call[int]:
    """Forget a pipeline's dead tasks."""
    return Call("DELETE", _path("pipelines", name, "dead"), _purged)


# tasks


def show_task(task: str, wait: float | None = None) -> Call[Task]:
    """Ask for a task; `wait` lets the server answer when it has ended, after at most as many seconds."""
    within = ANSWER_WITHIN + (wait or 0)
    path = _path("tasks", task, wait=None if wait is None else _duration(wait))
    return Call("GET", path, _task, repeatable=True, within=within)


def list_tasks(pipeline: str | None = None, state: str | None = None, before: Any = None) -> Call[Page[Task]]:
    """List tasks, the newest first."""
    path = _path("tasks", pipeline=pipeline, state=state, before=before)
    return Call("GET", path, _tasks, repeatable=True)


def list_dead(name: str, before: Any = None) -> Call[Page[Task]]:
    """List a pipeline's dead tasks, the newest first."""
    return Call("GET", _path("pipelines", name, "dead", before=before), _tasks, repeatable=True)


def cancel(task: str) -> Call[Task]:
    """Cancel a task that has not ended."""
    return Call("DELETE", _path("tasks", task), _task)


def why(task: str) -> Call[Why]:
    """Ask what a task waits for."""
    return Call("GET", _path("tasks", task, "why"), _why, repeatable=True)


# maps


def start_map(kind: str, name: str, body: bytes, stragglers: float | None, key: str | None) -> Call[MapCounts]:
    """Run a function, or a pipeline, for every item of an NDJSON body."""
    headers = (NDJSON, ("Idempotency-Key", key)) if key else (NDJSON,)
    path = _path(kind, name, "map", stragglers=stragglers)
    return Call("POST", path, _counts, body, headers, bool(key), within=START_WITHIN)


def show_map(name: str) -> Call[MapCounts]:
    """Ask how far a map is."""
    return Call("GET", _path("maps", name), _counts, repeatable=True)


def list_maps(before: Any = None) -> Call[Page[MapCounts]]:
    """List maps, the newest first."""
    return Call("GET", _path("maps", before=before), _maps, repeatable=True)


def follow_map(name: str, order: str, after: int, *, progress: bool) -> Call[ItemResult | MapCounts]:
    """Follow the results of a map behind an item; each line is one, or tells the counts."""
    path = _path("maps", name, "results", order=order, after=after, progress=str(progress).lower())
    return Call("GET", path, read_line, None, (("Accept", NDJSON[1]),), repeatable=True, within=None)


def cancel_map(name: str) -> Call[MapCounts]:
    """Cancel the items of a map that have not ended."""
    return Call("DELETE", _path("maps", name), _counts, within=START_WITHIN)


# limits


def list_limits(after: Any = None) -> Call[Page[Limit]]:
    """List shared limits, by name."""
    return Call("GET", _path("limits", after=after), _limits, repeatable=True)


def show_limit(name: str) -> Call[Limit]:
    """Ask for one shared limit."""
    return Call("GET", _path("limits", name), _limit, repeatable=True)


def put_limit(name: str, settings: Settings) -> Call[Limit]:
    """Make a shared limit, or replace its settings."""
    return Call("PUT", _path("limits", name), _limit, encode(settings), (JSON,), repeatable=True)


def patch_limit(name: str, settings: Settings) -> Call[Limit]:
    """Change some of a shared limit's settings; None removes one."""
    return Call("PATCH", _path("limits", name), _limit, encode(settings), (MERGE_PATCH,), repeatable=True)


def resume_limit(name: str) -> Call[Limit]:
    """Let tasks pass a shared limit again that downstream asked to hold."""
    return Call("POST", _path("limits", name, "resume"), _limit, repeatable=True)


def delete_limit(name: str) -> Call[None]:
    """Remove a shared limit that no pipeline uses."""
    return Call("DELETE", _path("limits", name), reads_nothing)


# pools


def list_pools(after: Any = None) -> Call[Page[Pool]]:
    """List pools, by name."""
    return Call("GET", _path("pools", after=after), _pools, repeatable=True)


def show_pool(name: str) -> Call[Pool]:
    """Ask for one pool."""
    return Call("GET", _path("pools", name), _pool, repeatable=True)


def put_pool(name: str, settings: Settings) -> Call[Pool]:
    """Make a pool, or replace its settings."""
    return Call("PUT", _path("pools", name), _pool, encode(settings), (JSON,), repeatable=True)


def patch_pool(name: str, settings: Settings) -> Call[Pool]:
    """Change some of a pool's settings; None removes one."""
    return Call("PATCH", _path("pools", name), _pool, encode(settings), (MERGE_PATCH,), repeatable=True)


def delete_pool(name: str) -> Call[None]:
    """Remove a pool that no function and no pipeline names."""
    return Call("DELETE", _path("pools", name), reads_nothing)


# the whole


def apply(config: Settings, *, prune: bool, dry_run: bool, tasks: str) -> Call[Plan]:
    """Make the configuration so, in one transaction; a dry run only plans."""
    body = encode({"config": config, "prune": prune, "dry_run": dry_run, "tasks": tasks})
    return Call("POST", _path("apply"), _plan, body, (JSON,), repeatable=dry_run)


def rotate_key() -> Call[int]:
    """Let the server make a new key, and seal every stored secret with it."""
    return Call("POST", _path("secrets", "rotate"), _sealed, within=None)


def list_changes(after: int = 0) -> Call[Page[Change]]:
    """List the configuration's changes after a sequence number."""
    return Call("GET", _path("changes", after=after), _changes, repeatable=True)


def follow_changes(after: int) -> Call[Change]:
    """Follow the configuration's changes; each event is one."""
    path = _path("changes", after=after)
    return Call("GET", path, _change, None, (EVENTS,), repeatable=True, within=None)


def list_logs(of: Mapping[str, str | None], after: int | None = None) -> Call[Page[LogLine]]:
    """List log lines `of` a task, a pipeline or a function, the oldest first."""
    return Call("GET", _path("logs", after=after, **of), _lines, repeatable=True)


def follow_logs(of: Mapping[str, str | None], after: int | None = None) -> Call[LogLine]:
    """Follow log lines `of` a task, a pipeline or a function; each event is one."""
    path = _path("logs", after=after, follow=1, **of)
    return Call("GET", path, _line, None, (EVENTS,), repeatable=True, within=None)


def status() -> Call[dict[str, Any]]:
    """Ask how the server is."""
    return Call("GET", _path("status"), _anything, repeatable=True)
