"""`dead`: the tasks that failed for good."""

import sys
from itertools import islice
from typing import Annotated

import typer

from penstock.cli.common import AsJson, connect
from penstock.cli.exits import Exit, Refused
from penstock.cli.listing import tasks_table
from penstock.cli.output import print_json, say

PipelineName = Annotated[str, typer.Argument(metavar="PIPELINE", help="The pipeline's name.")]

commands = typer.Typer(no_args_is_help=True, help="List, redrive or purge the tasks that failed for good.")


@commands.command("list")
def list_dead(
    ctx: typer.Context,
    pipeline: PipelineName,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="How many, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List a pipeline's dead tasks."""
    with connect(ctx) as client:
        found = list(islice(client.pipeline(pipeline).dead(), limit))
    if as_json:
        print_json(found)
    else:
        tasks_table(found)


@commands.command()
def redrive(
    ctx: typer.Context,
    pipeline: PipelineName,
    tasks: Annotated[list[str] | None, typer.Argument(metavar="[TASK]...", help="Which. (default: all)")] = None,
    as_json: AsJson = False,
) -> None:
    """Queue dead tasks again."""
    with connect(ctx) as client:
        count = client.pipeline(pipeline).redrive(tasks or None)
    if as_json:
        print_json({"redriven": count})
    else:
        say(f"{count} queued again.")


@commands.command()
def purge(
    ctx: typer.Context,
    pipeline: PipelineName,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Forget a pipeline's dead tasks, for good."""
    if not yes:
        if not sys.stdin.isatty():
            raise Refused("Nothing was forgotten: there is nobody to ask. Say --yes.", Exit.USAGE)
        if not typer.confirm(f"Forget the dead tasks of {pipeline}, for good?", err=True):
            raise Refused("Nothing was forgotten.", Exit.OK)
    with connect(ctx) as client:
        count = client.pipeline(pipeline).purge()
    if as_json:
        print_json({"purged": count})
    else:
        say(f"{count} forgotten.")
