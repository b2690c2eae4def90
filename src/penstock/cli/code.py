"""Commands about code: deploy, rollback, alias and versions."""

import contextlib
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from penstock.cli.common import AsJson, connect, connect_async, setting
from penstock.cli.exits import Exit, Refused
from penstock.cli.output import ago, counted, err, note, print_json, say, table
from penstock.client import Deployed, NotFound, Version

REQUIREMENTS = ("requirements.txt", "pyproject.toml")
"""Where code names its packages."""

FunctionName = Annotated[str, typer.Argument(metavar="FUNCTION", help="The function's name.")]


class Event(StrEnum):
    """Say what a web request is for a handler that is no web app."""

    APIGATEWAY = "apigateway"


def deploy(
    ctx: typer.Context,
    function: Annotated[str, typer.Argument(help="The function's name.")],
    path: Annotated[Path | None, typer.Argument(help="Its code: a file, a folder or a zip. (default: .)")] = None,
    handler: Annotated[
        str | None, typer.Option(help='What is called, as "module:name". Needed for a new function.')
    ] = None,
    event: Annotated[
        Event | None, typer.Option(help="What a web request is for the handler: an event of Amazon API Gateway.")
    ] = None,
    settings: Annotated[
        list[Any] | None,
        typer.Option("--set", parser=setting, metavar="NAME=VALUE", help="Another setting; may be repeated."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Deploy again whenever it changes, and show its logs, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make code the live version of a function; settings make the function, or change those that it has."""
    wanted = (
        dict(settings or ()) | ({"handler": handler} if handler else {}) | ({"event": event.value} if event else {})
    )
    if path is None:
        if wanted and not handler:
            raise Refused(
                f"It is not clear whether the code of '{function}' is to change, too: name its folder (`.` is this one), or "
                f"change settings alone with `penstock set function/{function} NAME=VALUE`.",
                Exit.USAGE,
            )
        path = Path()
    if watch:
        if as_json or not path.exists():
            raise Refused("--watch does not go with --json." if as_json else f"There is no {path}.", Exit.USAGE)
        from penstock.cli import watching  # noqa: PLC0415 - the kernel's watches are loaded here only

        watching.watch(connect_async(ctx), function, path, wanted)
        return
    with connect(ctx) as client, _installing(path):
        try:
            deployed = client.function(function).deploy(path, **wanted)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.filename is None:
                raise
            words = f"{error.filename}: {error.strerror}." if isinstance(error, OSError) else str(error)
            raise Refused(words, Exit.USAGE) from error
    _show_live(deployed, as_json=as_json)


@contextlib.contextmanager
def _installing(path: Path) -> Iterator[None]:
    """Tell what a deploy may be waiting for."""
    found = [name for name in REQUIREMENTS if (path / name).is_file()]
    if found:
        note(f"Packages that {found[0]} names are installed on the server first, unless they are there already.")
    columns = (SpinnerColumn(), TextColumn("deploying"), TimeElapsedColumn())
    with Progress(*columns, console=err(), transient=True, disable=not sys.stderr.isatty()) as progress:
        progress.add_task("", total=None)
        yield


def rollback(
    ctx: typer.Context,
    function: FunctionName,
    to: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The version. (default: what the live one took over from)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make an earlier version of a function live again, with the settings that it had."""
    with connect(ctx) as client:
        _show_live(client.function(function).rollback(to), as_json=as_json)


def _show_live(deployed: Deployed, *, as_json: bool) -> None:
    if as_json:
        print_json(deployed)
    else:
        say(f"{deployed.function}: version {deployed.version} is live (bundle {deployed.bundle[:12]}).")
        made = deployed.environment
        if made is not None:
            how = f"was made in {made['seconds']:.1f} s" if made["fresh"] else "was there"
            say(f"Its environment {how}: {counted(made['packages'], 'package')} ({made['digest'][:12]}).")


def alias(
    ctx: typer.Context,
    function: FunctionName,
    name: Annotated[str | None, typer.Argument(metavar="ALIAS", help="The alias.")] = None,
    version: Annotated[int | None, typer.Argument(min=1, metavar="N", help="The version it is to point at.")] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the alias away.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a function's aliases, or let one point at a version; calls and pipelines that name it follow at once."""
    if remove and (name is None or version is not None):
        raise Refused("--remove takes the name of an alias and no version.", Exit.USAGE)
    with connect(ctx) as client:
        handle = client.function(function)
        changes = name is not None and (remove or version is not None)
        shown = handle.alias(name, version) if changes and name is not None else handle.show()
    aliases: dict[str, int] = shown.settings.get("aliases", {})
    if name is not None and not remove and name not in aliases:
        raise NotFound(
            f"There is no alias '{function}@{name}'. `penstock alias {function} {name} N` makes it.", status=404
        )
    if as_json:
        print_json(aliases)
    elif changes:
        say(f"Removed {function}@{name}." if remove else f"{function}@{name} is version {version} now.")
    else:
        rows = [(one, number) for one, number in aliases.items() if name in {None, one}]
        table("", ("alias", "version"), rows, "It has no aliases.")


def versions(
    ctx: typer.Context,
    function: FunctionName,
    as_json: AsJson = False,
) -> None:
    """List a function's versions."""
    with connect(ctx) as client:
        found = client.function(function).versions()
    if as_json:
        print_json(found)
        return
    rows = [
        (
            each.number, ", ".join(["live"] * each.live + each.aliases), each.bundle[:12], _environment(each),
            each.previous or "", ago(each.created),
        )
        for each in found
    ]  # fmt: skip
    table(
        "",
        ("version", "", "bundle", "environment", "took over from", "created"),
        rows,
        "It has no code yet. `penstock deploy` brings some.",
    )


def _environment(version: Version) -> str:
    made = version.environment
    return "" if made is None else f"{made['digest'][:12]} ({counted(made['packages'], 'package')})"
