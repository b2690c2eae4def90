"""Find the handler in the user's code, and say what in that code a fork would not survive."""

import importlib
import os
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

_CO_COROUTINE = 0x80


class BadHandler(Exception):
    """Report a name that leads to no handler."""


def load(name: str, web: str = "") -> Callable[..., Any]:
    """Import "module:callable" and return the callable; `web` says how it answers web requests, if that is known.

    Raises `BadHandler`, or whatever the module raises.
    """
    module_name, colon, path = name.partition(":")
    if not colon or not module_name or not path:
        raise BadHandler(f"the handler '{name}' must be written as module:callable, as in tasks:handler")
    module = importlib.import_module(module_name)
    _check_whose(module, module_name)
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise BadHandler(f"module '{module_name}' has no '{path}'. {_offer(module)}")
        found = getattr(found, part)
    if not callable(found):
        raise BadHandler(f"'{name}' is not callable; it is {type(found).__name__}. {_offer(module)}")
    if web == "apigateway" and is_async(found):
        raise BadHandler(f"'{name}' is async; a handler of API Gateway's events is a plain def, as on AWS Lambda.")
    if interface_of(found, web) in {"", "apigateway"}:
        _check_parameters(name, found)
    return found  # type: ignore[no-any-return]


def _check_whose(module: Any, name: str) -> None:
    """Raises `BadHandler` for a module that stands beside one of Python's own of the same name, which was imported first."""
    top, here = name.partition(".")[0], os.getcwd() + os.sep
    found = getattr(module, "__file__", None) or ""
    if top in sys.stdlib_module_names and not found.startswith(here) and {top, f"{top}.py"} & set(os.listdir(here)):
        raise BadHandler(f"Python has a module '{top}' of its own, and imports that one. Rename yours.")


def interface_of(handler: Callable[..., Any], stated: str = "") -> str:
    """Return how a handler answers web requests, "asgi" or "wsgi", by what it takes, unless that is `stated`; "" for not."""
    if stated:
        return stated
    names = _parameters(handler)
    if names is None or len(names) < 2:
        return ""
    if len(names) == 3 and is_async(handler):
        return "asgi"
    return "wsgi" if names[1] == "start_response" else ""


def _parameters(handler: Callable[..., Any]) -> "list[str] | None":
    """Return the names of the parameters that a call has to fill by their places; None if that cannot be known."""
    if isinstance(handler, FunctionType) and not handler.__dict__:
        code = handler.__code__
        return list(code.co_varnames[: code.co_argcount - len(handler.__defaults__ or ())])
    import inspect  # noqa: PLC0415 - a large module that a plain function does not need

    try:
        parameters = inspect.signature(handler).parameters.values()
    except (TypeError, ValueError):  # of some callables that are written in C nobody knows
        return None
    places = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [one.name for one in parameters if one.kind in places and one.default is inspect.Parameter.empty]


def _check_parameters(name: str, handler: Callable[..., Any]) -> None:
    """Raises `BadHandler` for what takes more than a handler is called with, and is no web app either."""
    names = _parameters(handler)
    if names is not None and len(names) > 2:
        raise BadHandler(
            f"'{name}' takes {len(names)} arguments ({', '.join(names)}). A handler of tasks takes (event, context), an ASGI "
            "app is async and takes (scope, receive, send), a WSGI app takes (environ, start_response). If it is a web app "
            "that does not look like one, say so with web: asgi or web: wsgi."
        )


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
