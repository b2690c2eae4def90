"""The functions that the tests deploy."""

import os
import time
import urllib.request
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


def together(events: Any, context: Any) -> Any:
    """Answer each event with what its call was, and fail those that say so."""
    call = {"events": events, "ids": context.task_ids, "attempts": context.attempts, "batched": context.batched}
    return [ValueError("no good") if event == "bad" else call for event in events]


async def together_async(events: Any, context: Any) -> Any:
    return together(events, context)


def as_told(events: Any, context: Any) -> Any:
    """Do what the first event says to the whole call."""
    verb = events[0]["do"] if isinstance(events[0], dict) else None
    if verb == "raise":
        raise ValueError("the whole call")
    if verb == "throttle":
        raise Throttled("later", retry_after=0.05)
    if verb == "report":
        return {"batchItemFailures": [{"itemIdentifier": context.task_ids[1]}]}
    if verb == "wait":
        return waits(events[0]["file"], context) and [event["file"] for event in events]
    if verb == "exit" or "exit" in events:
        os._exit(3)
    return {"none": None, "short": events[1:], "number": 7}.get(verb or "", events)


def calls(event: Any, context: Any) -> int:
    """Call a URL, and let what its library raises pass."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(event) as answer:
        return int(answer.status)
