"""The functions that the tests deploy."""

import os
import time
from typing import Any

from penstock import Throttled


def echo(event: Any, context: Any) -> Any:
    return event


def params(event: Any, context: Any) -> Any:
    return context.params


def loud(event: Any, context: Any) -> None:
    print(event)


def fails(event: Any, context: Any) -> None:
    raise ValueError(f"{event} is no good")


def dies(event: Any, context: Any) -> None:
    os._exit(3)


def sleeps(event: Any, context: Any) -> Any:
    time.sleep(event)
    return event


def waits(event: Any, context: Any) -> bool:
    """Wait until there is a file of that name."""
    while not os.path.exists(event):
        time.sleep(0.005)
    return True


def throttled(event: Any, context: Any) -> None:
    raise Throttled("later", retry_after=event)
