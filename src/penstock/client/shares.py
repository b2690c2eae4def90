"""What callers of a `Client` do with shared limits and pools."""

from typing import TYPE_CHECKING

from penstock.client import calls
from penstock.client.calls import Settings
from penstock.client.models import Limit, Pool

if TYPE_CHECKING:
    from penstock.client.client import Client


class LimitHandle:
    """Act on one shared limit."""

    def __init__(self, client: "Client", name: str) -> None:
        self._client = client
        self.name = name

    def show(self) -> Limit:
        """Return the limit as it is. Raises NotFound."""
        return self._client._run(calls.show_limit(self.name))

    def put(self, settings: Settings) -> Limit:
        """Make the limit, or replace its settings."""
        return self._client._run(calls.put_limit(self.name, settings))

    def patch(self, settings: Settings) -> Limit:
        """Change some of the settings; None removes one."""
        return self._client._run(calls.patch_limit(self.name, settings))

    def resume(self) -> Limit:
        """Let tasks pass the limit again that downstream asked to hold."""
        return self._client._run(calls.resume_limit(self.name))

    def delete(self) -> None:
        """Remove the limit. Raises Conflict if pipelines use it."""
        self._client._run(calls.delete_limit(self.name))


class PoolHandle:
    """Act on one pool."""

    def __init__(self, client: "Client", name: str) -> None:
        self._client = client
        self.name = name

    def show(self) -> Pool:
        """Return the pool as it is. Raises NotFound."""
        return self._client._run(calls.show_pool(self.name))

    def put(self, settings: Settings) -> Pool:
        """Make the pool, or replace its settings."""
        return self._client._run(calls.put_pool(self.name, settings))

    def patch(self, settings: Settings) -> Pool:
        """Change some of the settings; None removes one."""
        return self._client._run(calls.patch_pool(self.name, settings))

    def delete(self) -> None:
        """Remove the pool. Raises Conflict if functions or pipelines name it."""
        self._client._run(calls.delete_pool(self.name))
