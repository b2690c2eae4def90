"""An ASGI app's lifespan: it starts up before an instance's first request, and shuts down after the last.

An app that does not know the protocol raises or returns at once; then it has no lifespan
(https://asgi.readthedocs.io/en/latest/specs/lifespan.html).
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

STARTUP: Final = 60.0
"""Seconds that the startup may take."""
SHUTDOWN: Final = 10.0
"""Seconds that the shutdown may take: the instance ends then, whatever the app does."""


class StartupFailed(Exception):
    """Report an app that cannot serve."""


class Lifespan:
    """Tell an app of the beginning and the end. `state` is what it wants its requests to see, None without a lifespan."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self._app = app
        self.state: dict[str, Any] | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when the app has started up, or turns out to have no lifespan. Raises `StartupFailed`."""
        self._told: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answered: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        state: dict[str, Any] = {}
        self._task = asyncio.get_running_loop().create_task(self._run(state))
        answer = await self._tell("startup", STARTUP)
        if answer is None:
            if not self._task.done():
                raise StartupFailed(f"The app's lifespan startup took longer than {STARTUP:g} s.")
            self._task = None
        elif answer["type"] == "lifespan.startup.failed":
            raise StartupFailed(f"The app's lifespan startup failed. {answer.get('message', '')}".strip())
        else:
            self.state = state

    async def stop(self) -> None:
        """Return when the app has shut down, or its time for that is over."""
        if self._task is not None:
            await self._tell("shutdown", SHUTDOWN)

    async def _tell(self, event: str, patience: float) -> "dict[str, Any] | None":
        """Return the app's answer; None if it ended without one, or took too long."""
        assert self._task is not None
        self._told.put_nowait({"type": f"lifespan.{event}"})
        answer = asyncio.ensure_future(self._answered.get())
        await asyncio.wait([answer, self._task], timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            return answer.result()
        answer.cancel()
        return None

    async def _run(self, state: dict[str, Any]) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        try:
            await self._app(scope, self._told.get, self._answered.put)
        except Exception:  # it does not know the protocol
            if self.state is not None:
                raise
