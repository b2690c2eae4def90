"""What commands share: the connection, and options that mean the same everywhere."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.client import AsyncClient, Client
from penstock.domain.units import UnitError, parse_duration


@dataclass(frozen=True, slots=True)
class Target:
    """Say which server the commands talk to, as far as the user said."""

    url: str | None = None
    token: str | None = None
    data: Path | None = None


def connect(ctx: typer.Context, try_later_for: float = 0.0) -> Client:
    """Return a client of the server that the command is for."""
    target = ctx.find_object(Target) or Target()
    return Client(target.url, target.token, data=target.data, retries=2, try_later_for=try_later_for)


def connect_async(ctx: typer.Context) -> AsyncClient:
    """Return an async client of the server that the command is for."""
    target = ctx.find_object(Target) or Target()
    return AsyncClient(target.url, target.token, data=target.data, retries=2)


def duration(text: str) -> float:
    """Return the seconds of an option such as 30s."""
    try:
        return parse_duration(float(text) if text.replace(".", "", 1).isdigit() else text)
    except UnitError as error:
        raise typer.BadParameter(str(error)) from error


AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
Timeout = Annotated[
    float | None, typer.Option(parser=duration, metavar="DURATION", help="How long to wait, such as 30s.")
]


def setting(text: str) -> tuple[str, Any]:
    """Return the name and the value of "name=value"; what is no JSON is text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"'{text}' is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
