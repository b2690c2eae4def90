"""Commands that change what there is: apply, diff, rm, pause, drain and resume."""

import json
import sys
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from penstock.cli.common import AsJson, connect, setting
from penstock.cli.config import Configuration, read_configuration
from penstock.cli.exits import Exit, Refused, report
from penstock.cli.names import Kind, only_one
from penstock.cli.output import err, note, print_json, say
from penstock.cli.plan import show_plan
from penstock.client import Client, InvalidSettings, NotFound, Plan


class Leftover(StrEnum):
    """Say what becomes of the tasks of a pipeline that is removed."""

    REFUSE = "refuse"
    DRAIN = "drain"
    DISCARD = "discard"


_LEAST_PAUSE, _MOST_PAUSE = 0.1, 1.0
"""Seconds between two looks at what is left."""

File = Annotated[Path, typer.Argument(help="The configuration, in YAML or JSON.")]
Prune = Annotated[bool, typer.Option("--prune", help="Remove what the file does not name.")]
Tasks = Annotated[Leftover, typer.Option(help="What becomes of the tasks of removed pipelines.")]


def diff(
    ctx: typer.Context,
    file: File = Path("penstock.yaml"),
    prune: Prune = False,
    tasks: Tasks = Leftover.REFUSE,
    as_json: AsJson = False,
) -> None:
    """Show what `apply` would change."""
    configuration = read_configuration(file)
    with connect(ctx) as client:
        _show(_apply(client, configuration, prune=prune, tasks=tasks, dry_run=True), as_json=as_json)


def apply(
    ctx: typer.Context,
    file: File = Path("penstock.yaml"),
    prune: Prune = False,
    tasks: Tasks = Leftover.REFUSE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a configuration changes, ask, and make it so in one transaction."""
    configuration = read_configuration(file)
    with connect(ctx) as client:
        if not yes:
            plan = _apply(client, configuration, prune=prune, tasks=tasks, dry_run=True)
            _show(plan, as_json=as_json)
            if not plan.plan:
                return
            if not sys.stdin.isatty():
                raise Refused("Nothing was applied: there is nobody to ask. Say --yes.", Exit.USAGE)
            if not typer.confirm("Apply this?", err=True):
                note("Nothing was applied.")
                return
        _show(_apply(client, configuration, prune=prune, tasks=tasks, dry_run=False), as_json=as_json)


def _apply(client: Client, configuration: Configuration, *, prune: bool, tasks: Leftover, dry_run: bool) -> Plan:
    try:
        return client.apply(configuration.content, prune=prune, dry_run=dry_run, tasks=tasks.value)
    except InvalidSettings as error:
        raise typer.Exit(report(error, configuration.place_of)) from error


def _show(plan: Plan, *, as_json: bool) -> None:
    if as_json:
        print_json(plan)
    else:
        show_plan(plan)


Names = Annotated[list[str], typer.Argument(metavar="PIPELINE...", help="The pipelines.")]


def pause(ctx: typer.Context, pipelines: Names) -> None:
    """Let pipelines start nothing more; what runs goes on, what is sent waits."""
    with connect(ctx) as client:
        for name in pipelines:
            counts = client.pipeline(name).pause().counts
            say(f"{name} is paused: {counts.get('queued', 0)} wait, {counts.get('running', 0)} still run.")


def drain(
    ctx: typer.Context,
    pipelines: Names,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until they are empty.")] = False,
) -> None:
    """Let pipelines take no more tasks; what they have goes on, also if they were paused."""
    with connect(ctx) as client:
        for name in pipelines:
            counts = client.pipeline(name).drain().counts
            say(f"{name} drains: {_left(counts)} left, {counts.get('running', 0)} of them running.")
        if wait:
            _wait_until_empty(client, pipelines)
            say("They are empty." if len(pipelines) > 1 else "It is empty.")


def _wait_until_empty(client: Client, pipelines: list[str]) -> None:
    columns = (SpinnerColumn(), TextColumn("{task.fields[left]:,} tasks left"), TimeElapsedColumn())
    with Progress(*columns, console=err(), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("", total=None, left=0)
        pause = _LEAST_PAUSE
        while left := sum(_left_of(client, name) for name in pipelines):
            progress.update(bar, left=left)
            time.sleep(pause)
            pause = min(_MOST_PAUSE, pause * 1.5)


def _left_of(client: Client, pipeline: str) -> int:
    try:
        return _left(client.pipeline(pipeline).show().counts)
    except NotFound:  # it was to go when it is empty
        return 0


def _left(counts: Mapping[str, int]) -> int:
    return sum(counts.get(state, 0) for state in ("delayed", "queued", "running"))


def resume(
    ctx: typer.Context,
    pipelines: Annotated[
        list[str], typer.Argument(metavar="PIPELINE...", help="The pipelines; a limit as limit/NAME.")
    ],
) -> None:
    """Let pipelines take and start tasks again, or a shared limit that downstream holds let them pass."""
    with connect(ctx) as client:
        for name in pipelines:
            if name.startswith("limit/"):
                waiting = client.limit(name.removeprefix("limit/")).resume().waiting
                say(f"{name} goes on: {waiting} pipelines wait at it.")
                continue
            counts = client.pipeline(name).resume().counts
            say(f"{name} goes on: {counts.get('queued', 0)} wait.")


def set_settings(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(help="A name, or KIND/NAME where it is not unique.")],
    settings: Annotated[
        list[Any], typer.Argument(parser=setting, metavar="NAME=VALUE...", help="A setting; null takes it away.")
    ],
) -> None:
    """Change some settings of a function, pipeline, shared limit or pool, and leave the others and its code as they are."""
    wanted = dict(settings)
    with connect(ctx) as client:
        kind, found = only_one(client, name)
        getattr(client, kind.value)(found).patch(wanted)
    changes = (f"{key} is {'not set' if value is None else json.dumps(value)}" for key, value in wanted.items())
    say(f"{kind} {found}: {', '.join(changes)}.")


def rm(
    ctx: typer.Context,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="A name, or KIND/NAME where it is not unique.")],
    tasks: Tasks = Leftover.REFUSE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove functions, pipelines, shared limits or pools."""
    with connect(ctx) as client:
        found = [only_one(client, name) for name in names]
        if not yes:
            if not sys.stdin.isatty():
                raise Refused("Nothing was removed: there is nobody to ask. Say --yes.", Exit.USAGE)
            if not typer.confirm(f"Remove {', '.join(f'{kind} {name}' for kind, name in found)}?", err=True):
                note("Nothing was removed.")
                return
        for kind, name in found:
            gone = True
            if kind is Kind.PIPELINE:
                gone = client.pipeline(name).delete(tasks.value)
            elif kind is Kind.FUNCTION:
                client.function(name).delete()
            elif kind is Kind.POOL:
                client.pool(name).delete()
            else:
                client.limit(name).delete()
            say(
                f"Removed {kind} {name}."
                if gone
                else f"{name} takes no more tasks, and goes when those it has are done."
            )
