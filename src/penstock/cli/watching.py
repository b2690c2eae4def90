"""`deploy --watch`: code is deployed again whenever it changes, and what the function writes is shown beside it."""

import asyncio
import contextlib
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.cli.exits import report
from penstock.cli.logs import as_text
from penstock.cli.output import complain, note, say, span
from penstock.client import ApiError, AsyncClient
from penstock.client.async_client import AsyncFunctionHandle
from penstock.links.folder import WatchedFile, WatchedFolder


def watch(client: AsyncClient, function: str, path: Path, settings: Mapping[str, Any]) -> None:
    """Deploy code now and after every change, until Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_watch(client, function, path.resolve(), settings))
    note("Stopped watching.")


async def _watch(client: AsyncClient, function: str, path: Path, settings: Mapping[str, Any]) -> None:
    async with client:
        handle = client.function(function)
        showing: asyncio.Task[None] | None = None
        try:
            while True:
                with contextlib.closing(_watched(path)) as watched:
                    await asyncio.to_thread(watched.begin)
                    if await _deploy(handle, path, settings) and (showing is None or showing.done()):
                        showing = asyncio.create_task(_show_logs(client, function))
                    await watched.changed()
                    while not await watched.settled():
                        note("It keeps changing: it is deployed once it rests.")
        finally:
            if showing is not None:
                showing.cancel()


def _watched(path: Path) -> WatchedFolder:
    return WatchedFolder(path) if path.is_dir() else WatchedFile(path)


async def _deploy(handle: AsyncFunctionHandle, path: Path, settings: Mapping[str, Any]) -> bool:
    """Deploy what is there; tell what came of it, and return whether it is live."""
    began = asyncio.get_running_loop().time()
    try:
        live = await handle.deploy(path, **settings)
    except ApiError as error:
        report(error)
        return False
    except (OSError, ValueError) as error:
        complain(str(error))
        return False
    took = span(asyncio.get_running_loop().time() - began)
    say(f"{live.function}: version {live.version} is live ({took}). Watching {path}; Ctrl-C ends that.")
    return True


async def _show_logs(client: AsyncClient, function: str) -> None:
    """Show what the function writes from now on."""
    since = datetime.now(UTC)
    try:
        async for line in client.logs(function=function, follow=True):
            if line.at is None or line.at >= since:
                sys.stdout.write(as_text(line) + "\n")
                sys.stdout.flush()
    except ApiError as error:  # they are shown again from the next deploy on
        report(error)
