"""A bell: rung when something has happened that others may wait for."""

import asyncio
import contextlib


class Bell:
    """Wake those who wait. `rung` counts, so that what happens while one looks for news is not missed."""

    def __init__(self) -> None:
        self.rung = 0
        self._heard: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake all who wait."""
        self.rung += 1
        heard, self._heard = self._heard, None
        if heard is not None:
            heard.set_result(None)

    async def wait(self, rung: int, timeout: float | None) -> None:
        """Return once the bell was rung more often than `rung` times, or when `timeout` seconds (None: never) are over."""
        if self.rung != rung:
            return
        if self._heard is None:
            self._heard = asyncio.get_running_loop().create_future()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._heard), timeout)
