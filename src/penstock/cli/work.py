"""Commands on tasks: send, invoke, task, cancel and why."""

import sys
from datetime import datetime
from typing import Annotated

import msgspec
import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from penstock.cli.common import AsJson, Timeout, connect, duration
from penstock.cli.exits import Exit, Refused
from penstock.cli.output import ago, details, err, expected, print_json, say, span, table, when
from penstock.cli.payloads import read_lines, read_payload
from penstock.client import ApiError, Task
from penstock.client.call import MADE_HERE
from penstock.client.client import PipelineHandle

Payload = Annotated[str | None, typer.Argument(help="JSON, @FILE, or - for stdin.")]
TaskId = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.")]
PipelineName = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline's name.")]


def invoke(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="The function's name, or with --pipeline the pipeline's.")],
    payload: Payload = None,
    pipeline: Annotated[
        bool, typer.Option("--pipeline", "-p", help="NAME is a pipeline: call its function under its limits.")
    ] = False,
    timeout: Timeout = None,
) -> None:
    """Call a function, wait, and print its result."""
    content = read_payload(payload)
    with connect(ctx) as client:
        target = client.pipeline(name) if pipeline else client.function(name)
        print_json(target.invoke(content, timeout=timeout))


def send(
    ctx: typer.Context,
    pipeline: PipelineName,
    payload: Payload = None,
    many: Annotated[
        bool, typer.Option("--many", help="Send each line of @FILE or stdin as a payload (NDJSON).")
    ] = False,
    delay: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Start it no sooner than after, such as 10s.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(metavar="MOMENT", help="Start it no sooner than 2027-01-31T08:00:00Z.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Sending the same key again makes no second task.")] = None,
    cost: Annotated[float | None, typer.Option(help="What it takes from limits that meter cost.")] = None,
    priority: Annotated[int | None, typer.Option(help="Higher goes first.")] = None,
    expires_after: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Let it end as expired if it has not started by then.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended; exit code 1 if it failed.")] = False,
    ids: Annotated[bool, typer.Option("--ids", help="With --many, print the tasks' ids, not their number.")] = False,
    patience: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="DURATION", help="How long to wait for room in a full queue."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Put a task, or many, into a pipeline. What is printed is on the server's disk."""
    if many:
        if wait or any(option is not None for option in (delay, at, key, cost, priority, expires_after)):
            raise Refused("--many goes with a payload a line, and with none of the options of one task.", Exit.USAGE)
        with connect(ctx, patience or 0.0) as client:
            _send_many(client.pipeline(pipeline), payload, ids=ids, as_json=as_json)
        return
    content = read_payload(payload)
    with connect(ctx, patience or 0.0) as client:
        sent = client.pipeline(pipeline).send(
            content, delay=delay, at=at, key=key, cost=cost, priority=priority, expires_after=expires_after
        )
        if wait:
            _show_ended(client.wait(sent), as_json=as_json)
        elif as_json:
            print_json({"ids": [sent]})
        else:
            say(sent)


def _send_many(pipeline: PipelineHandle, source: str | None, *, ids: bool, as_json: bool) -> None:
    sent: list[str] = []
    count = 0
    columns = (
        SpinnerColumn(),
        TextColumn("{task.completed:,.0f} tasks sent to {task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err(), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(pipeline.name, total=None)
        try:
            for batch in pipeline.send_batches(read_lines(source)):
                count += len(batch)
                progress.update(bar, completed=count)
                if as_json:
                    sent += batch
                elif ids:
                    sys.stdout.write("\n".join(batch) + "\n")
        except (ApiError, Refused) as error:
            error.add_note(f"{count} tasks before that were sent, and are kept.")
            raise
    if as_json:
        print_json({"ids": sent})
    elif not ids:
        say(f"{count} tasks sent to {pipeline.name}.")


def task(
    ctx: typer.Context,
    task_id: TaskId,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended; exit code 1 if it failed.")] = False,
    timeout: Timeout = None,
    as_json: AsJson = False,
) -> None:
    """Show a task: its state, its result or error, and its attempts."""
    with connect(ctx) as client:
        if wait or timeout is not None:
            _show_ended(client.wait(task_id, timeout), as_json=as_json)
        else:
            _show_task(client.task(task_id), as_json=as_json)


def cancel(
    ctx: typer.Context, task_ids: Annotated[list[str], typer.Argument(metavar="TASK...")], as_json: AsJson = False
) -> None:
    """Cancel tasks that have not ended."""
    with connect(ctx) as client:
        found = [client.cancel(task_id) for task_id in task_ids]
    if as_json:
        print_json(found)
        return
    for each in found:
        say(f"{each.id} is {'cancelled' if each.ended else 'being cancelled'}.")


def why(ctx: typer.Context, task_id: TaskId, as_json: AsJson = False) -> None:
    """Show what a task waits for, until when, how many are ahead of it, and when it is expected to start."""
    with connect(ctx) as client:
        found = client.why(task_id)
    if as_json:
        print_json(found)
        return
    if not found.waits_for:
        say(f"It is {found.state}: it waits for nothing.")
        return
    details(
        {
            "waits for": found.waits_for,
            "limit": found.limit,
            "until": when(found.until),
            "ahead of it": None if found.position is None else found.position or "nothing",
            "starts": expected(found.expected_start, found.because),
        }
    )


def _show_ended(found: Task, *, as_json: bool) -> None:
    _show_task(found, as_json=as_json)
    if not found.ok:
        raise typer.Exit(Exit.FAILED)


def _show_task(found: Task, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    error = found.error or {}
    details(
        {
            "task": found.id,
            "state": found.state,
            "outcome": found.outcome if found.outcome not in (found.state, None) else None,
            "pipeline": found.pipeline,
            "function": found.function and f"{found.function}, version {found.version}" * bool(found.version),
            "attempts": found.attempts,
            "interruptions": found.interruptions or None,
            "key": None if found.key is None or found.key.startswith(MADE_HERE) else found.key,
            "created": found.created,
            "due": found.due if not found.ended else None,
            "started": found.started,
            "finished": found.finished,
            "took": took(found.started, found.finished),
            "result": msgspec.json.encode(found.result).decode() if found.ok else None,
            "error": f"{error.get('type') or found.outcome}: {error.get('message') or ''}" if error else None,
        }
    )
    if error.get("traceback"):
        say(str(error["traceback"]).rstrip())
    if len(found.history) > 1:
        rows = [
            (each.number, each.outcome, took(each.started, each.finished), ago(each.started)) for each in found.history
        ]
        table("", ("attempt", "outcome", "took", "started"), rows, "")


def took(started: datetime | None, finished: datetime | None) -> str:
    """Return how long an attempt ran, or nothing if it has not both ends."""
    return span((finished - started).total_seconds()) if started and finished else ""
