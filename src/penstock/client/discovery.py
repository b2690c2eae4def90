"""Where the server is, for a client that was not told."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

from penstock.client.errors import ServerUnreachable


@dataclass(frozen=True, slots=True)
class Server:
    """Say where a server is, and the token it takes."""

    url: str
    token: str | None


def find_server(url: str | None = None, token: str | None = None, data: str | os.PathLike[str] | None = None) -> Server:
    """Return the server to talk to: as told, else as PENSTOCK_URL says, else the one that runs in the data directory.

    The data directory is `data`, else PENSTOCK_DATA, else `.penstock` here. Its token goes to its own server only, never to
    another URL. Raises ServerUnreachable if nothing names a server.
    """
    token = token or os.environ.get("PENSTOCK_TOKEN") or None
    told = url or (None if data else os.environ.get("PENSTOCK_URL"))
    folder = Path(data or os.environ.get("PENSTOCK_DATA") or ".penstock")
    running = _running_in(folder)
    if told is None:
        if running is None:
            raise ServerUnreachable(
                f"No server is known: PENSTOCK_URL is not set, and {folder / 'server.json'} is not there. "
                "`penstock up` starts a server here.",
                code="unreachable",
            )
        return Server(running, token or _token_in(folder))
    told = told.rstrip("/")
    if token is None and running == told:
        token = _token_in(folder)
    return Server(told, token)


def _running_in(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / "server.json").read_bytes())["url"]).rstrip("/")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _token_in(folder: Path) -> str | None:
    try:
        return (folder / "token").read_text().strip() or None
    except OSError:
        return None
