"""The command `penstock`: its commands, and where it finds the server."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from penstock import __version__
from penstock.cli import code, configure, dead, listing, logs, maps, server, work
from penstock.cli.common import Target
from penstock.cli.exits import EPILOG, Commands

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"penstock {__version__}")
        raise typer.Exit


@app.callback()
def penstock(
    ctx: typer.Context,
    url: Annotated[str | None, typer.Option(help="The server's URL. (default: PENSTOCK_URL)")] = None,
    token: Annotated[str | None, typer.Option(help="Its token. (default: PENSTOCK_TOKEN)")] = None,
    data: Annotated[
        Path | None, typer.Option(help="The data directory of a server here. (default: PENSTOCK_DATA, or ./.penstock)")
    ] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,  # noqa: ARG001
) -> None:
    """Self-hosted serverless Python tasks whose concurrency you control."""
    ctx.obj = Target(url, token, data)


PANELS = {
    "Server": (server.up, server.status, server.rotate_key),
    "Code and configuration": (
        code.deploy,
        code.rollback,
        code.alias,
        code.versions,
        configure.apply,
        configure.diff,
        configure.rm,
    ),
    "Tasks": (work.send, work.invoke, work.task, work.why, work.cancel, logs.logs),
    "Flow": (listing.ls, listing.show, configure.pause, configure.drain, configure.resume),
}

for _panel, _commands in PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
app.command("set", rich_help_panel="Code and configuration")(configure.set_settings)
app.command("map", rich_help_panel="Tasks")(maps.map_items)
app.add_typer(maps.commands, name="maps", rich_help_panel="Tasks")
app.add_typer(dead.commands, name="dead", rich_help_panel="Tasks")


def main() -> None:
    """Run a command and exit with its code."""
    try:
        app(prog_name="penstock")
    except BrokenPipeError:
        # The reader has gone (`penstock ls | head`): Python must not complain about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
