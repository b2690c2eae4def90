"""Requests as data; one sync and one async sender over them. Imports nothing of the rest of Penstock.

`call` and `calls` describe every request and how its answer is read; `http1` and `events` are the protocol without I/O;
`sender` and `async_sender` do the I/O; `client` and `async_client` are what users call.
"""

from penstock.client.async_client import AsyncClient
from penstock.client.async_maps import AsyncMap
from penstock.client.bundle import pack
from penstock.client.client import Client
from penstock.client.errors import (
    ApiError,
    BadRequest,
    Conflict,
    DeployFailed,
    DiskFull,
    Forbidden,
    InvalidSettings,
    Mistake,
    NotFound,
    QueueFull,
    Saturated,
    ServerUnreachable,
    TaskFailed,
    TaskNotEnded,
    TooLarge,
    TryLater,
    Unauthorized,
    Unavailable,
)
from penstock.client.local import AsyncLocalMap, LocalMap
from penstock.client.maps import Map
from penstock.client.models import (
    AttemptRecord,
    Change,
    Deployed,
    Function,
    Limit,
    LogLine,
    MapCounts,
    Pipeline,
    Plan,
    Pool,
    Step,
    Task,
    Version,
    Why,
)
from penstock.client.results import ItemResult
from penstock.client.sends import Send

__all__ = [
    "ApiError",
    "AsyncClient",
    "AsyncLocalMap",
    "AsyncMap",
    "AttemptRecord",
    "BadRequest",
    "Change",
    "Client",
    "Conflict",
    "DeployFailed",
    "Deployed",
    "DiskFull",
    "Forbidden",
    "Function",
    "InvalidSettings",
    "ItemResult",
    "Limit",
    "LocalMap",
    "LogLine",
    "Map",
    "MapCounts",
    "Mistake",
    "NotFound",
    "Pipeline",
    "Plan",
    "Pool",
    "QueueFull",
    "Saturated",
    "Send",
    "ServerUnreachable",
    "Step",
    "Task",
    "TaskFailed",
    "TaskNotEnded",
    "TooLarge",
    "TryLater",
    "Unauthorized",
    "Unavailable",
    "Version",
    "Why",
    "pack",
]
