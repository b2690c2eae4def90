"""`up` and `status`: the server itself."""

import os
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.common import AsJson, Target, connect
from penstock.cli.exits import Exit, Refused
from penstock.cli.output import counted, details, note, print_json, say, span

DEFAULT_PORT = 7711


def up(
    ctx: typer.Context,
    data: Annotated[
        Path | None, typer.Option(help="Where everything is kept. (default: PENSTOCK_DATA, or ./.penstock)")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = DEFAULT_PORT,
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
) -> None:
    """Run a server here, until Ctrl-C."""
    # The server's own code is loaded here only: every other command starts without it.
    from penstock.app import serve  # noqa: PLC0415
    from penstock.domain.errors import PenstockError  # noqa: PLC0415

    target = ctx.find_object(Target) or Target()
    folder = data or target.data or Path(os.environ.get("PENSTOCK_DATA") or ".penstock")

    def ready(url: str, promises: list[str]) -> None:
        say(f"Penstock runs at {url} and keeps its data in {folder.resolve()}.")
        for promise in promises:
            note(promise)
        note("Ctrl-C stops it.")

    try:
        serve(folder, host, port, ready)
        note("Stopped.")
    except PenstockError as error:
        raise Refused(error.message, Exit.REFUSED) from error
    except OSError as error:
        if error.errno not in _ADDRESS_ERRORS:
            raise
        raise Refused(f"Nothing can listen at {host}:{port}: {_ADDRESS_ERRORS[error.errno]}.", Exit.REFUSED) from error


_ADDRESS_ERRORS = {
    13: "ports below 1024 are for root; take a higher one with --port",
    98: "another program has that port. --port 0 takes a free one; if it is a Penstock server, use it as it is",
    99: "this machine does not have that address",
}


def rotate_key(ctx: typer.Context) -> None:
    """Make a new key for secrets, and seal every secret with it; the old key is needed for old backups only."""
    with connect(ctx) as client:
        count = client.rotate_key()
    say(f"There is a new key: {counted(count, 'setting')} with secrets sealed with it.")


def status(ctx: typer.Context, as_json: AsJson = False) -> None:
    """Show how the server is."""
    with connect(ctx) as client:
        found = client.status()
        if as_json:
            print_json(found)
            return
        tasks = found.pop("tasks", {})
        if "uptime" in found:
            found["uptime"] = span(float(found["uptime"]))
        for level, sandbox in found.pop("sandbox", {}).items():
            found[f"sandbox {level}"] = ", ".join(
                [sandbox["reached"], *(f"{part} is missing: {why}" for part, why in sandbox["missing"].items())]
            )
        details({"url": client.url, **found, **{f"tasks {state}": count for state, count in tasks.items()}})
