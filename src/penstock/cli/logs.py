"""`logs`: what tasks wrote."""

import json
import sys
from typing import Annotated

import msgspec
import typer

from penstock.cli.common import connect
from penstock.cli.output import clean, moment
from penstock.client import LogLine


def logs(
    ctx: typer.Context,
    task: Annotated[str | None, typer.Argument(help="Of this task.")] = None,
    pipeline: Annotated[str | None, typer.Option("--pipeline", "-p", help="Of this pipeline.")] = None,
    function: Annotated[str | None, typer.Option("--function", "-f", help="Of this function.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-F", help="Go on with what is to come, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON, one line each.")] = False,
) -> None:
    """Show what tasks wrote to stdout and stderr."""
    with connect(ctx) as client:
        for line in client.logs(task=task, pipeline=pipeline, function=function, follow=follow):
            sys.stdout.write((_as_json(line) if as_json else as_text(line)) + "\n")
            if follow:
                sys.stdout.flush()


def _as_json(line: LogLine) -> str:
    return json.dumps(msgspec.to_builtins(line), ensure_ascii=False)


def as_text(line: LogLine) -> str:
    """Return a line for people."""
    at = moment(line.at) if line.at else ""
    return clean(f"{at} {line.task or ''} {'! ' if line.stream == 'stderr' else ''}{line.text}").strip()
