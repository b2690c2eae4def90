"""`map`: many items at once, with their results in a file. `maps`: those that there are."""

import time
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from penstock.cli.common import AsJson, connect
from penstock.cli.exits import Exit, Refused
from penstock.cli.harvest import Bar, Failures, output_to, pace_of
from penstock.cli.output import ago, counted, details, note, print_json, say, span, table
from penstock.cli.payloads import read_lines
from penstock.client import ApiError, Map, MapCounts, NotFound
from penstock.client.gathering import ENDS, ITEMS

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""

MapId = Annotated[str, typer.Argument(metavar="MAP", help="The map's id.")]

commands = typer.Typer(no_args_is_help=True, help="List, show or cancel maps.")


def map_items(
    ctx: typer.Context,
    name: Annotated[str | None, typer.Argument(help="The function's name, or with --pipeline the pipeline's.")] = None,
    items: Annotated[str | None, typer.Argument(help="@FILE with an item a line (NDJSON), or - for stdin.")] = None,
    pipeline: Annotated[
        bool, typer.Option("--pipeline", "-p", help="NAME is a pipeline: keep to its limits and retries.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a result a line to this file. (default: stdout)")
    ] = None,
    as_they_end: Annotated[
        bool, typer.Option("--as-they-end", help="Write results as they end, not in the order of the items.")
    ] = False,
    stragglers: Annotated[
        float | None,
        typer.Option(metavar="TIMES", help="Run an item twice that takes so many times the median. It must not mind."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Mapping again with the same key makes no second map.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="MAP", help="Go on with a map: add what --output does not have yet.")
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Print the map's id, and wait for nothing.")] = False,
) -> None:
    """Run a function for every line of a file, and write the results; exit code 1 if an item failed."""
    if (name is None) == (resume is None) or (resume is not None and (items or stragglers or key or detach)):
        raise Refused("Say what to map, as in `penstock map f @items.jsonl`, or --resume a map.", Exit.USAGE)
    with connect(ctx) as client, output_to(output, resume=resume is not None) as target:
        if resume is not None:
            made = client.map_of(resume)
        else:
            handle = client.pipeline(str(name)) if pipeline else client.function(str(name))
            made = handle.map(read_lines(items), stragglers=stragglers, key=key)
        if detach:
            say(made.id)
            return
        target.begin()
        failures, began = Failures(), time.monotonic()
        again = f"penstock map --resume {made.id}" + (f" --output {output}" if output else "")
        try:
            with Bar() as bar:
                for found in made.results(ENDS if as_they_end else ITEMS, after=target.after, progress=bar.show):
                    target.write(found)
                    failures.take(found)
        except KeyboardInterrupt:
            note(f"The map goes on. Take it up again: {again}. End it: penstock maps cancel {made.id}.")
            raise typer.Exit(INTERRUPTED) from None
        except NotFound:
            raise
        except ApiError as error:
            error.add_note(f"What has come is kept. Go on with it: {again}")
            raise
        finally:
            target.flush()
        failures.tell(made.id, time.monotonic() - began)
        if failures.outcomes or (resume is not None and _has_failed(made)):
            raise typer.Exit(Exit.FAILED)


def _has_failed(made: Map) -> bool:
    """Say whether an item failed whose result was there before the map was taken up again, and tell how many did."""
    counts = made.counts()
    if failed := counts.items - counts.ok:
        note(f"{counted(failed, 'item')} of the map failed before; their errors are among the results.")
    return failed > 0


@commands.command("list")
def list_maps(
    ctx: typer.Context,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1_000_000, help="How many, the newest first.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List maps, the newest first."""
    with connect(ctx) as client:
        found = list(islice(client.maps(), limit))
    if as_json:
        print_json(found)
        return
    columns = ("map", "of", "state", "items", "ended", "failed", "started")
    rows = [
        (
            each.id,
            each.pipeline or each.function,
            each.state,
            each.items,
            each.ended,
            each.ended - each.ok,
            ago(each.created),
        )
        for each in found
    ]
    table("", columns, rows, "There are no maps.")


@commands.command("show")
def show_map(ctx: typer.Context, map_id: MapId, as_json: AsJson = False) -> None:
    """Show how far a map is."""
    with connect(ctx) as client:
        _show(client.map_of(map_id).counts(), as_json=as_json)


@commands.command("cancel")
def cancel_map(ctx: typer.Context, map_id: MapId, as_json: AsJson = False) -> None:
    """Cancel the items of a map that have not ended."""
    with connect(ctx) as client:
        _show(client.map_of(map_id).cancel(), as_json=as_json)


def _show(counts: MapCounts, *, as_json: bool) -> None:
    if as_json:
        print_json(counts)
        return
    took = (counts.finished - counts.created).total_seconds() if counts.finished and counts.created else None
    details(
        {
            "map": counts.id,
            "state": counts.state,
            "pipeline": counts.pipeline,
            "function": counts.function,
            "items": f"{counts.ended:,} of {counts.items:,} ended, {counts.ok:,} ok",
            "failed": ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.failed.items())),
            "running": counts.running,
            "rate": pace_of(counts) if counts.left else None,
            "run twice": counts.rerun or None,
            "started": counts.created,
            "finished": counts.finished,
            "took": None if took is None else span(took),
        }
    )
