"""What the tests of calls within tasks deploy. `works` tells how many work at once, itself included."""

import asyncio
import os
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import penstock


@contextmanager
def works(folder: str) -> Iterator[int]:
    """Be at work, as a file in a folder."""
    mine = Path(folder) / uuid.uuid4().hex
    mine.touch()
    try:
        yield len(os.listdir(folder))
        time.sleep(0.002)
    finally:
        mine.unlink()


def tree(event: Any, context: Any) -> list[int]:
    """Call `to` with a smaller tree for each branch; return how many tasks there were, and how many worked at once."""
    with works(event["folder"]) as before:
        pass
    tasks, most = 1, before
    if event["depth"]:
        branch = {**event, "depth": event["depth"] - 1}
        for more, at_once in context.map(event["to"], [branch] * event["width"]):
            with works(event["folder"]) as here:
                tasks, most = tasks + more, max(most, at_once, here)
    with works(event["folder"]) as after:
        return [tasks, max(most, after)]


async def tree_async(event: Any, context: Any) -> list[int]:
    with works(event["folder"]) as before:
        pass
    tasks, most = 1, before
    if event["depth"]:
        branch = {**event, "depth": event["depth"] - 1}
        for more, at_once in await asyncio.gather(
            *(context.invoke(event["to"], branch) for _ in range(event["width"]))
        ):
            tasks, most = tasks + more, max(most, at_once)
    with works(event["folder"]) as after:
        return [tasks, max(most, after)]


def pooled(event: Any, context: Any) -> list[Any]:
    """Call from threads of the handler's own."""
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda item: context.invoke(event["to"], item), event["items"]))


def calls(event: Any, context: Any) -> Any:
    """Call, and say what was raised."""
    try:
        return context.invoke(event["to"], event.get("payload"), timeout=event.get("timeout"))
    except penstock.CallError as error:
        return {"type": type(error).__name__, "message": str(error), **vars(error)}


async def calls_async(event: Any, context: Any) -> Any:
    try:
        return await context.invoke(event["to"], event.get("payload"), timeout=event.get("timeout"))
    except penstock.CallError as error:
        return {"type": type(error).__name__, "message": str(error), **vars(error)}


def endless(event: Any, context: Any) -> Any:
    """Call itself for ever."""
    try:
        return context.invoke(event, event)
    except penstock.TooDeep as error:
        return str(error)


def sends(event: Any, context: Any) -> str:
    return str(context.send(event["to"], event.get("payload"), **event.get("options", {})))


async def sends_async(event: Any, context: Any) -> str:
    return str(await context.send(event["to"], event.get("payload"), **event.get("options", {})))


def sums(event: Any, context: Any) -> int:
    return sum(context.map(event["to"], event["items"]))


async def sums_async(event: Any, context: Any) -> int:
    total = 0
    async for result in context.map(event["to"], event["items"]):
        total += result
    return total


def fails_between(event: Any, context: Any) -> list[str]:
    """Map over items of which some fail; return what came of each."""
    results = context.map(event["to"], event["items"], return_exceptions=True)
    found = [result.error_message if isinstance(result, penstock.CallFailed) else result for result in results]
    try:
        list(context.map(event["to"], event["items"]))
    except penstock.CallFailed as error:
        found.append(error.error_type)
    return found


async def hedges_async(event: Any, context: Any) -> str:
    """Give up on a call."""
    try:
        await asyncio.wait_for(context.invoke(event["to"], event["payload"]), 0.2)
    except TimeoutError:
        with works(event["folder"]) as here:
            return f"gave up, {here} at work"
    return "came"


async def hedges_often(event: Any, context: Any) -> str:
    """Give up on many calls with long payloads, one after the other; then call."""
    for _ in range(event["times"]):
        with suppress(TimeoutError):
            await asyncio.wait_for(context.invoke(event["to"], "x" * event["size"]), 0.02)
    return str(await context.invoke(event["then"], "came"))


def holding(event: Any, context: Any) -> str:
    """Call within a slot."""
    with context.slot(event["limit"]):
        try:
            context.invoke(event["to"], 1)
        except penstock.HoldAndWait as error:
            return str(error)
    return ""


def stays(event: Any, context: Any) -> str:
    """Wait for a file, and say by another one that it has begun."""
    if event.get("begun"):
        Path(event["begun"]).touch()
    while not Path(event["until"]).exists():
        time.sleep(0.005)
    return "done"


def sleeps_long(event: Any, context: Any) -> None:
    time.sleep(60)


def doubles(event: Any, context: Any) -> Any:
    if event == "bad":
        raise ValueError("bad item")
    return event * 2


def big(event: int, context: Any) -> str:
    return "x" * event


def leaves_thread(event: Any, context: Any) -> None:
    """Leave a thread behind that waits for a call."""

    def wait() -> None:
        try:
            context.invoke(event["to"], event["payload"])
        except penstock.CallRefused:
            Path(event["told"]).touch()

    threading.Thread(target=wait).start()
    while not Path(event["payload"]["begun"]).exists():
        time.sleep(0.005)


def visits(event: Any, context: Any) -> list[int]:
    """Call a smaller tree through a client of its own, as a call, a map or a task; return how many worked at once."""
    with works(event["folder"]) as before:
        pass
    most = before
    if event["depth"]:
        branch = {**event, "depth": event["depth"] - 1}
        with penstock.Client(event["url"], event["token"]) as client:
            function = client.function(event["to"])
            if event["by"] == "map":
                results = list(function.map([branch, branch]))
            elif event["by"] == "invoke":
                results = [function.invoke(branch), function.invoke(branch)]
            else:
                results = [client.wait(client.pipeline(event["in"]).send(branch)).result]
        most = max(most, *(result[0] for result in results))
    with works(event["folder"]) as after:
        return [max(most, after)]


async def visits_async(event: Any, context: Any) -> list[int]:
    with works(event["folder"]) as before:
        pass
    most = before
    if event["depth"]:
        branch = {**event, "depth": event["depth"] - 1}
        async with penstock.AsyncClient(event["url"], event["token"]) as client:
            function = client.function(event["to"])
            results = await asyncio.gather(function.invoke(branch), function.invoke(branch))
        most = max(most, *(result[0] for result in results))
    with works(event["folder"]) as after:
        return [max(most, after)]
