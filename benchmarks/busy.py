"""What runs inside the instances of the update benchmark: tasks that note on which version they began and ended.

The modules `release` and `late` come with each deploy and hold its number; `late` is imported when a task is about to end, so
that one which saw another version's files would tell.
"""

import asyncio
import time
from importlib import import_module
from typing import Any

TAGS = 100
NUMBER = int(import_module("release").NUMBER)
record = import_module("tasks").record


async def work(event: dict[str, Any], context: Any) -> None:  # noqa: ARG001
    """Take the seconds that the task asks for, and note its number, with the versions that it saw in the last two digits."""
    start = time.monotonic()
    await asyncio.sleep(event["seconds"])
    record(event["i"] * TAGS + NUMBER * 10 + import_module("late").NUMBER, start)
