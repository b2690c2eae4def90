"""Commands that show what there is: ls and show."""

from collections.abc import Iterable
from enum import StrEnum
from itertools import islice
from typing import Annotated, Any

import typer

from penstock.cli.common import AsJson, connect
from penstock.cli.exits import Exit, Refused
from penstock.cli.names import find
from penstock.cli.output import ago, ahead, brief, details, expected, figure, print_json, say, table, when
from penstock.cli.plan import flatten
from penstock.cli.work import took
from penstock.client import Function, Limit, Pipeline, Pool, Task

STATES = ("delayed", "queued", "running", "dead", "done")


class What(StrEnum):
    """Name what can be listed."""

    FUNCTIONS = "functions"
    PIPELINES = "pipelines"
    TASKS = "tasks"
    LIMITS = "limits"
    POOLS = "pools"


IF_ANY = (What.LIMITS, What.POOLS)
"""What is listed with the rest only if there is some."""


def ls(
    ctx: typer.Context,
    what: Annotated[What | None, typer.Argument(help="(default: all but tasks)")] = None,
    pipeline: Annotated[str | None, typer.Option("--pipeline", "-p", help="Only the tasks of this pipeline.")] = None,
    state: Annotated[str | None, typer.Option("--state", "-s", help="Only the tasks in this state.")] = None,
    function: Annotated[
        str | None, typer.Option("--function", "-f", help="Only the pipelines of this function.")
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="How many tasks, the newest first.")
    ] = 50,
    as_json: AsJson = False,
) -> None:
    """List functions, pipelines with their counts and what they wait for, shared limits, pools, or tasks."""
    if what is not What.TASKS and (pipeline or state):
        raise Refused("--pipeline and --state are for tasks: penstock ls tasks …", Exit.USAGE)
    asked = [what] if what else [each for each in What if each is not What.TASKS]
    with connect(ctx) as client:
        found: dict[What, list[Any]] = {}
        for each in asked:
            if each is What.TASKS:
                found[each] = list(islice(client.tasks(pipeline, state), limit))
            elif each is What.PIPELINES:
                found[each] = list(client.pipelines(function))
            else:
                found[each] = list(getattr(client, each.value)())
    if as_json:
        print_json(found[what] if what else found)
        return
    for place, (each, items) in enumerate(found.items()):
        if place and (items or each not in IF_ANY):
            say("")
        if items or what or each not in IF_ANY:
            _TABLES[each](items, each.value if not what else "")


def tasks_table(tasks: Iterable[Task], title: str = "") -> None:
    """Print tasks, one a line."""
    rows = [
        (
            each.id,
            each.pipeline or each.function,
            _state(each),
            each.attempts,
            ago(each.created),
            took(each.started, each.finished),
        )
        for each in tasks
    ]
    table(title, ("task", "pipeline", "state", "attempts", "created", "took"), rows, "There are no tasks here.")


def _state(task: Task) -> str:
    return task.state if task.outcome in (None, "ok", task.state) else f"{task.state} ({task.outcome})"


def _functions_table(functions: Iterable[Function], title: str) -> None:
    rows = [
        (
            each.name,
            each.settings.get("handler"),
            f"version {each.live}" if each.live else "no code yet",
            _instances_of(each),
            "" if each.saving is None else figure(each.saving),
            ago(each.updated),
        )
        for each in functions
    ]
    columns = ("function", "handler", "live", "instances", "saving", "updated")
    table(title, columns, rows, "There are no functions. `penstock deploy` makes one.")


def _pipelines_table(pipelines: Iterable[Pipeline], title: str) -> None:
    rows = [
        (
            each.name,
            each.settings.get("function"),
            _limits_of(each),
            *[each.counts.get(state, 0) for state in STATES],
            _waits_for(each),
            _ends(each),
        )
        for each in pipelines
    ]
    columns = ("pipeline", "function", "limits", *STATES, "waits for", "ends")
    table(title, columns, rows, "There are no pipelines. `penstock apply` makes them.")


def _limits_of(pipeline: Pipeline) -> str:
    settings = pipeline.settings
    rate, concurrency, shared = settings.get("rate"), settings.get("concurrency"), settings.get("limits")
    rates = [rate] if rate is not None and not isinstance(rate, list) else rate or []
    said = [_rate(each) for each in rates]
    if concurrency is not None:
        said.append(f"{brief(concurrency)} at once")
    return ", ".join(said + [brief(each) for each in shared or []])


def _rate(rate: Any) -> str:
    """Return a rate as short text: its number, and its style and margin in words if it has some."""
    if not isinstance(rate, dict):
        return brief(rate)
    rest = [f"{name} {brief(value)}" for name, value in rate.items() if name != "rate"]
    return brief(rate.get("rate")) + (f" ({', '.join(rest)})" if rest else "")


def _waits_for(pipeline: Pipeline) -> str:
    if pipeline.paused:
        return "being resumed (it is paused)"
    if pipeline.held_until:
        return f"downstream, until {ago(pipeline.held_until)}"
    waits = pipeline.waits_for or ""
    return f"{waits} (it drains)".strip() if pipeline.draining else waits


def _ends(pipeline: Pipeline) -> str:
    if pipeline.expected_end is None:
        return ""
    return ahead(pipeline.expected_end) + " at the earliest" * (not pipeline.exact)


def _limits_table(limits: Iterable[Limit], title: str) -> None:
    rows = [
        (each.name, ", ".join(f"{path}: {brief(value)}" for path, value in flatten(each.settings)), ago(each.updated))
        for each in limits
    ]
    table(title, ("limit", "settings", "updated"), rows, "There are no shared limits.")


def _pools_table(pools: Iterable[Pool], title: str) -> None:
    rows = [
        (
            each.name,
            ", ".join(f"{path}: {brief(value)}" for path, value in flatten(each.settings)),
            each.instances,
            ", ".join(f"{name} {count}" for name, count in each.functions.items()),
            each.waiting,
        )
        for each in pools
    ]
    table(title, ("pool", "settings", "instances", "of", "waiting"), rows, "There are no pools.")


_TABLES: dict[What, Any] = {
    What.FUNCTIONS: _functions_table,
    What.PIPELINES: _pipelines_table,
    What.TASKS: tasks_table,
    What.LIMITS: _limits_table,
    What.POOLS: _pools_table,
}


def show(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name, or KIND/NAME: pipeline/a, function/f, limit/l, pool/p.")],
    as_json: AsJson = False,
) -> None:
    """Show everything about a function, a pipeline, a shared limit or a pool."""
    with connect(ctx) as client:
        found = find(client, name)
    if as_json:
        print_json(next(iter(found.values())) if len(found) == 1 else found)
        return
    for kind, each in found.items():
        say(f"{kind} {each.name}")
        shown = {path: brief(value, 200) for path, value in flatten(each.settings)}
        details({f"  {name}": value for name, value in (shown | _state_of(each, client.url)).items()})


def _state_of(shown: Pipeline | Function | Limit | Pool, url: str) -> dict[str, Any]:
    state: dict[str, Any] = {}
    if isinstance(shown, Pipeline):
        state = {each: str(shown.counts.get(each, 0)) for each in STATES} | {
            "waits for": _waits_for(shown),
            "until": when(shown.until),
            "backlog": shown.backlog or None,
            "ends": expected(shown.expected_end, shown.because) if shown.backlog else None,
        }
    elif isinstance(shown, Function):
        live = f"version {shown.live} of {shown.versions}" if shown.live else "no code yet"
        state = {"live": live, "instances": _instances_of(shown), "saving": _saving(shown), "memory": _memory(shown)}
        if shown.sandbox:
            state["sandbox reached"] = ", ".join(
                [shown.sandbox["reached"], *(f"without {part}" for part in shown.sandbox["missing"])]
            )
        if any(shown.settings.get(each) for each in ("web", "public", "hosts")) or _asked(shown.web):
            state["web"] = _web(shown, url)
        if shown.source is not None:
            state["deployed from it"] = shown.source["error"] or ("yes" if shown.source["at"] else "not changed since")
    elif isinstance(shown, Pool):
        of = ", ".join(f"{count} of {name}" for name, count in shown.functions.items())
        state = {"instances": of or "none", "waiting": shown.waiting, "memory": f"{shown.memory / 1e6:,.0f} MB"}
    else:
        state = {"held until": shown.held_until, "waiting": f"{shown.waiting} pipelines"}
    if isinstance(shown, Pipeline | Function) and shown.pool.get("routed"):
        state["runs in the pool"] = f"{shown.pool['name']}: {shown.pool['why']}"
    if isinstance(shown, Pipeline | Limit) and shown.learned is not None:
        state["learned"] = _learned(shown.learned)
    return state | {"created": shown.created, "updated": shown.updated}


def _asked(web: dict[str, Any]) -> int:
    """Return how many web requests there have been."""
    return sum(web.get(each, 0) for each in ("open", "answered", "failed"))


def _web(function: Function, url: str) -> str:
    """Return where a web app is found, and what came of its requests."""
    web, hosts = function.web, function.settings.get("hosts", [])
    where = ", ".join([url + web["path"], *(f"http://{host}/" for host in hosts)])
    return f"{where}; {web['answered']} answered, {web['failed']} failed, {web['open']} open"


def _memory(function: Function) -> str | None:
    """Return what was learned of the memory that an instance needs."""
    learned = function.learned
    return None if learned is None else f"{learned['memory']} for each instance, learned from {learned['runs']:,} runs"


def _saving(function: Function) -> str | None:
    """Return what sharing saves: the seconds that requests ran, and the seconds of instances in which they did."""
    if function.saving is None:
        return None
    ran, lived = function.usage["request_seconds"], function.usage["instance_seconds"]
    return f"{figure(ran)} s of requests in {figure(lived)} s of instances: {figure(function.saving)} s in each"


def _learned(learned: dict[str, Any]) -> str:
    """Return what an adaptive limit holds to now, as text."""
    number = learned.get("concurrency")
    return ", ".join(filter(None, [learned.get("rate"), None if number is None else f"{number} at once"]))


def _instances_of(function: Function) -> str:
    return ", ".join(f"{count} {state}" for state, count in function.instances.items() if count) or "none"
