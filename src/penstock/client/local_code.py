"""What a local function runs as on the server: this file goes into its bundle as it is, beside the pickled function.

Items and results travel as JSON where JSON says all of them, else pickled. Standard library only; what cloudpickle has pickled
needs cloudpickle to be read, which the server's own environment has.
"""

import base64
import inspect
import math
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

DEEPEST = 20


def python_version() -> str:
    """Return the version of this Python as far as pickled code depends on it."""
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def wrap(value: Any, dumps: Callable[[Any], bytes]) -> dict[str, Any]:
    """Return something that JSON can say, from which `unwrap` makes an equal value of the same types."""
    return {"json": value} if is_plain(value) else {"pickle": base64.b64encode(dumps(value)).decode()}


def unwrap(wrapped: dict[str, Any]) -> Any:
    """Return what was wrapped."""
    return pickle.loads(base64.b64decode(wrapped["pickle"])) if "pickle" in wrapped else wrapped["json"]


def is_plain(value: Any, deep: int = 0) -> bool:
    """Say whether a value comes back from JSON as it is: a tuple would be a list, and a number as a key a text."""
    kind = type(value)
    if kind is list:
        return deep < DEEPEST and all(is_plain(one, deep + 1) for one in value)
    if kind is dict:
        return deep < DEEPEST and all(type(key) is str and is_plain(one, deep + 1) for key, one in value.items())
    if kind is str:
        return not any("\ud800" <= letter <= "\udfff" for letter in value)
    if kind is int:
        return bool(-(2**53) <= value <= 2**53)
    return value is None or kind is bool or (kind is float and math.isfinite(value))


def load(file: str, python: str) -> Callable[[Any, Any], Any]:
    """Return the handler that calls the function which lies beside a file."""
    if python != python_version():
        raise RuntimeError(
            f"The function was pickled by Python {python}, and functions run with Python {python_version()} here: pickled "
            "code is for one version. Use the same for both, or deploy the function as a file."
        )
    function = pickle.loads(Path(file).with_name("function.pickle").read_bytes())
    from cloudpickle import dumps  # noqa: PLC0415 - the client reads this file too, and may not pickle anything

    if inspect.iscoroutinefunction(function):

        async def handle_async(event: Any, _context: Any) -> Any:
            return wrap(await function(unwrap(event)), dumps)

        return handle_async

    def handle(event: Any, _context: Any) -> Any:
        return wrap(function(unwrap(event)), dumps)

    return handle
