"""Find the handler in the user's code, and say what in that code a fork would not survive."""

import importlib
import os
from collections.abc import Callable
from types import FunctionType
from typing import Any

_CO_COROUTINE = 0x80


class BadHandler(Exception):
    """Report a name that leads to no handler."""


def load(name: str) -> Callable[..., Any]:
    """Import "module:callable" and return the callable. Raises `BadHandler`, or whatever the module raises."""
    module_name, colon, path = name.partition(":")
    if not colon or not module_name or not path:
        raise BadHandler(f"the handler '{name}' must be written as module:callable, as in tasks:handler")
    module = importlib.import_module(module_name)
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise BadHandler(f"module '{module_name}' has no '{path}'. {_offer(module)}")
        found = getattr(found, part)
    if not callable(found):
        raise BadHandler(f"'{name}' is not callable; it is {type(found).__name__}. {_offer(module)}")
    return found  # type: ignore[no-any-return]


def is_async(handler: Callable[..., Any]) -> bool:
    """Say whether calling the handler gives a coroutine."""
    if isinstance(handler, FunctionType) and not handler.__code__.co_flags & _CO_COROUTINE and not handler.__dict__:
        return False
    import inspect  # noqa: PLC0415 - a large module that a plain function does not need

    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004


def fork_hazards(known: "set[int]") -> "list[str]":
    """Return what the process holds that must not be shared by forks: threads, and sockets other than the known ones."""
    hazards = []
    threads = len(os.listdir("/proc/self/task")) - 1
    if threads:
        hazards.append(f"{threads} thread{'s' * (threads > 1)}")
    sockets = sum(
        1 for descriptor in map(int, os.listdir("/proc/self/fd")) if descriptor not in known and _is_socket(descriptor)
    )
    if sockets:
        hazards.append(f"{sockets} open socket{'s' * (sockets > 1)}")
    return hazards


def _is_socket(descriptor: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    except OSError:  # the descriptor of the listing itself
        return False


def _offer(module: Any) -> str:
    names = sorted(
        name
        for name, value in vars(module).items()
        if isinstance(value, FunctionType) and value.__module__ == module.__name__ and not name.startswith("_")
    )
    return f"It defines: {', '.join(names[:10])}." if names else "It defines no function."
