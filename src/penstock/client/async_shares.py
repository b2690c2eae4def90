"""What callers of an `AsyncClient` do with shared limits and pools, as coroutines."""

from typing import TYPE_CHECKING

from penstock.client import calls
from penstock.client.calls import Settings
from penstock.client.models import Limit, Pool

if TYPE_CHECKING:
    from penstock.client.async_client import AsyncClient


class AsyncLimitHandle:
    """Act on one shared limit."""

    def __init__(self, client: "AsyncClient", name: str) -> None:
        self._client = client
        self.name = name

    async def show(self) -> Limit:
        """Return the limit as it is. Raises NotFound."""
        return await self._client._run(calls.show_limit(self.name))

    async def put(self, settings: Settings) -> Limit:
        """Make the limit, or replace its settings."""
        return await self._client._run(calls.put_limit(self.name, settings))

    async def patch(self, settings: Settings) -> Limit:
        """Change some of the settings; None removes one."""
        return await self._client._run(calls.patch_limit(self.name, settings))

    async def resume(self) -> Limit:
        """Let tasks pass the limit again that downstream asked to hold."""
        return await self._client._run(calls.resume_limit(self.name))

    async def delete(self) -> None:
        """Remove the limit. Raises Conflict if pipelines use it."""
        await self._client._run(calls.delete_limit(self.name))


class AsyncPoolHandle:
    """Act on one pool."""

    def __init__(self, client: "AsyncClient", name: str) -> None:
        self._client = client
        self.name = name

    async def show(self) -> Pool:
        """Return the pool as it is. Raises NotFound."""
        return await self._client._run(calls.show_pool(self.name))

    async def put(self, settings: Settings) -> Pool:
        """Make the pool, or replace its settings."""
        return await self._client._run(calls.put_pool(self.name, settings))

    async def patch(self, settings: Settings) -> Pool:
        """Change some of the settings; None removes one."""
        return await self._client._run(calls.patch_pool(self.name, settings))

    async def delete(self) -> None:
        """Remove the pool. Raises Conflict if functions or pipelines name it."""
        await self._client._run(calls.delete_pool(self.name))
