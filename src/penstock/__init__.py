"""Penstock: self-hosted serverless Python tasks whose concurrency you control.

What a user imports, and nothing else. Every name is loaded when it is first used, so that `import penstock` works in
a bare Python inside an instance, where only the standard library is sure to be there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.client import AsyncClient, Client
    from penstock.client.mapping import map  # noqa: A004 - as users name it: penstock.map
    from penstock.runtime.errors import (
        CallError,
        CallFailed,
        CallRefused,
        CostTooHigh,
        HoldAndWait,
        LimitError,
        Throttled,
        TooDeep,
        TooManyWait,
        UnknownLimit,
    )

__version__ = "0.1.0"
__all__ = [
    "AsyncClient",
    "CallError",
    "CallFailed",
    "CallRefused",
    "Client",
    "CostTooHigh",
    "HoldAndWait",
    "LimitError",
    "Throttled",
    "TooDeep",
    "TooManyWait",
    "UnknownLimit",
    "__version__",
    "map",
]

_HOME = {
    "AsyncClient": "penstock.client",
    "CallError": "penstock.runtime.errors",
    "CallFailed": "penstock.runtime.errors",
    "CallRefused": "penstock.runtime.errors",
    "Client": "penstock.client",
    "CostTooHigh": "penstock.runtime.errors",
    "HoldAndWait": "penstock.runtime.errors",
    "LimitError": "penstock.runtime.errors",
    "Throttled": "penstock.runtime.errors",
    "TooDeep": "penstock.runtime.errors",
    "TooManyWait": "penstock.runtime.errors",
    "UnknownLimit": "penstock.runtime.errors",
    "map": "penstock.client.mapping",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'penstock' has no attribute '{name}'")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
