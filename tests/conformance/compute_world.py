"""What the compute suite stands on: the handlers, by name, a listener that remembers, and the worlds that can run it."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Protocol

from tests.conformance.compute_sim import SimWorld

from penstock.compute.local import LocalCompute
from penstock.compute.protocol import Blueprint, Compute, End, Entry, Exit, Instance, PipelineContext, Run
from penstock.runtime import wire
from penstock.runtime.frames import Word
from penstock.runtime.wire import Request

HANDLERS = """
import asyncio, ctypes, itertools, os, sys, threading, time

import penstock


def echo(event, context):
    return event


async def echo_async(event, context):
    return event


def pick(events, context):
    return [ValueError(event) if event == "bad" else event for event in events]


async def pick_async(events, context):
    return pick(events, context)


def fail(event, context):
    raise ValueError(event)


async def fail_async(event, context):
    raise ValueError(event)


def leave(event, context):
    raise SystemExit(3)


async def leave_async(event, context):
    raise KeyboardInterrupt


def not_json(event, context):
    return {1, 2}


async def not_json_async(event, context):
    return {1, 2}


def throttle(event, context):
    raise penstock.Throttled(retry_after=event, limit="provider")


def acquire(event, context):
    context.acquire("provider", cost=event)
    return "went on"


async def acquire_async(event, context):
    await context.acquire("provider", cost=event)
    return "went on"


def hold(event, context):
    with context.slot("database"):
        return "held"


async def hold_async(event, context):
    async with context.slot("database"):
        return "held"


def invoke(event, context):
    return ["went on", context.invoke("other", event)]


async def invoke_async(event, context):
    return ["went on", await context.invoke("other", event)]


def spend(event, context):
    context.spent(event)


async def spend_async(event, context):
    context.spent(event)


def exit(event, context):
    print("going")
    os._exit(event)


def crash(event, context):
    print("crashing")
    ctypes.string_at(0)


def sleep(event, context):
    time.sleep(event)


async def sleep_async(event, context):
    await asyncio.sleep(event)


def stuck(event, context):
    any(itertools.repeat(False)) if event else time.sleep(3600)


async def stuck_async(event, context):
    time.sleep(3600) if event else await asyncio.sleep(3600)


def hang(event, context):
    time.sleep(3600)


async def hang_async(event, context):
    await asyncio.sleep(3600)


async def stubborn_async(event, context):
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        return "stayed"


def grow(event, context):
    held = []
    while len(held) * 5_000_000 < event:
        held.append(b"x" * 5_000_000)
    return len(held)


async def grow_async(event, context):
    return grow(event, context)


def tell(event, context):
    return {
        "function": context.function_name, "version": context.function_version, "memory": context.memory_limit_in_mb,
        "task": context.task_id, "request": context.aws_request_id, "attempt": context.attempt,
        "pipeline": context.pipeline, "params": context.params, "left": context.get_remaining_time_in_millis(),
    }


async def spoil_params_async(event, context):
    before = dict(context.params)
    context.params["spoiled"] = True
    return [before, context.params]


def chatter(event, context):
    print("to stdout", event)
    print("to stderr", event, file=sys.stderr)
    context.log.info("to log %s", event)


async def chatter_async(event, context):
    for number in range(5):
        print(event, number)
        await asyncio.sleep(0)


def flood(event, context):
    for number in range(event):
        print("line", number)
    return "done"
"""
PIPELINE = PipelineContext(1, "customer-a", b'{"api_key":"k"}')
PATIENCE = 30.0


class Heard:
    """Be a listener that remembers everything, and lets one wait for it."""

    def __init__(self) -> None:
        self.ends: dict[int, End] = {}
        self.order: list[tuple[str, int]] = []
        self.starts: dict[int, float] = {}
        self.requests: list[Request] = []
        self.words: list[Word] = []
        self.exits: dict[int, list[Exit]] = {}
        self.texts: list[tuple[int, int, str, str]] = []
        self.alive: set[int] = set()
        self.answered = 0
        self.after_gone: list[str] = []
        self._changed = asyncio.Event()

    def ready(self, instance: Instance, at: float) -> None:
        self._note(instance, "ready")
        self.alive.add(instance.id)

    def started(self, instance: Instance, starts: Sequence[tuple[int, float]]) -> None:
        self._note(instance, "started")
        for attempt, at in starts:
            self.starts[attempt] = at
            self.order.append(("started", attempt))

    def heard(self, instance: Instance, words: Sequence[Word]) -> None:
        self._note(instance, "heard")
        self.words += words

    def asked(self, instance: Instance, requests: Sequence[Request]) -> None:
        self._note(instance, "asked")
        self.requests += requests
        self.order += [("asked", request.attempt) for request in requests]

    def finished(self, instance: Instance, ends: Sequence[End]) -> None:
        self._note(instance, "finished")
        for end in ends:
            assert end.attempt not in self.ends, "an execution ended twice"
            self.ends[end.attempt] = end
            self.order.append(("finished", end.attempt))

    def output(self, instance: Instance, attempt: int, stream: str, text: str) -> None:
        self._note(instance, "output")
        self.texts.append((instance.id, attempt, stream, text))
        self.order.append(("output", attempt))

    def gone(self, instance: Instance, exit: Exit) -> None:  # noqa: A002
        self._note(instance, "gone")
        self.exits.setdefault(instance.id, []).append(exit)
        self.order.append(("gone", instance.id))

    def answers(self, instance: Instance, at: float) -> None:
        self._note(instance, "answers")
        self.answered += 1

    def _note(self, instance: Instance, what: str) -> None:
        if instance.id in self.exits:
            self.after_gone.append(what)
        self._changed.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition holds."""

        async def wait() -> None:
            while not condition():
                self._changed.clear()
                await self._changed.wait()

        await asyncio.wait_for(wait(), PATIENCE)

    def takes(self, attempt: int) -> list[wire.Take]:
        """Return what an attempt has asked of limits so far."""
        return [one for one in self.requests if isinstance(one, wire.Take) and one.attempt == attempt]

    async def take_of(self, attempt: int, number: int = 1) -> wire.Take:
        """Return what an attempt asks, when it has asked that often."""
        await self.until(lambda: len(self.takes(attempt)) >= number)
        return self.takes(attempt)[number - 1]

    async def order_of(self, attempt: int) -> wire.Order:
        """Return what an attempt wants made, when it does."""

        def orders() -> list[wire.Order]:
            return [one for one in self.requests if isinstance(one, wire.Order) and one.attempt == attempt]

        await self.until(orders)
        return orders()[0]

    async def end_of(self, *attempts: int) -> list[End]:
        """Return the ends of attempts, when they have ended."""
        await self.until(lambda: all(attempt in self.ends for attempt in attempts))
        return [self.ends[attempt] for attempt in attempts]

    async def exit_of(self, instance: Instance) -> Exit:
        """Return how an instance went, when it is gone."""
        await self.until(lambda: instance.id in self.exits)
        return self.exits[instance.id][0]

    def text(self, attempt: int, stream: str = "stdout") -> str:
        """Return the output of an attempt so far."""
        return "".join(text for _, of, on, text in self.texts if (of, on) == (attempt, stream))


Body = Callable[[Compute, Heard], Awaitable[None]]


class World(Protocol):
    """Say how a compute is made, and on what loop it runs."""

    def make(self, folder: Path, bundle: Path) -> Compute:
        """Return a compute whose every bundle is the one in that folder."""

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine to its end."""


class LocalWorld:
    """Real processes on this machine."""

    def make(self, folder: Path, bundle: Path) -> Compute:
        """Return a compute whose every bundle is the one in that folder."""
        return LocalCompute(folder, lambda _: bundle)

    def run(self, main: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine to its end."""
        asyncio.run(main)


WORLDS: dict[str, World] = {"local": LocalWorld(), "sim": SimWorld()}


def exercise(world: World, folder: Path, body: Body, code: str = HANDLERS) -> Heard:
    """Run a test's body against a compute that is open, close it, and check what holds in every test."""
    bundle = folder / "bundle"
    bundle.mkdir()
    (bundle / "handlers.py").write_text(code)
    heard: list[Heard] = []

    async def main() -> None:
        heard.append(Heard())
        compute = world.make(folder / "compute", bundle)
        await compute.open(heard[0])
        try:
            await body(compute, heard[0])
        finally:
            await compute.close()

    world.run(main())
    assert all(len(exits) == 1 for exits in heard[0].exits.values()), "an instance was gone twice"
    assert not heard[0].after_gone, "something was told of an instance that was gone"
    assert heard[0].alive <= heard[0].exits.keys(), "an instance was left after close"
    return heard[0]


def blueprint(handler: str, slots: int = 1, **more: Any) -> Blueprint:
    """Return a blueprint of a handler in the suite's bundle."""
    return Blueprint("default", "suite", 3, "bundle", f"handlers:{handler}", slots=slots, **more)


def granted(take: wire.Take) -> wire.Answer:
    """Return the answer that lets a handler go on."""
    return wire.Answer(take.attempt, take.number, wire.GRANTED, "")


def done(order: wire.Order, body: bytes) -> wire.Reply:
    """Return the reply that gives a handler a result."""
    return wire.Reply(order.attempt, order.number, wire.DONE, len(body), body)


def run_of(attempt: int, event: Any = None, **more: Any) -> Run:
    """Return a run whose payload is the JSON of an event (or the bytes as they are)."""
    payload = event if isinstance(event, bytes) else json.dumps(event).encode()
    fields: dict[str, Any] = {"task": attempt + 1000, "number": 1, "pipeline": PIPELINE, "timeout": 30.0, **more}
    return Run(attempt, payload=payload, **fields)


def batch_of(attempt: int, *events: Any, **more: Any) -> Run:
    """Return a run of a batch whose tasks are numbered from 2000 on, and are tried the first, the second… time."""
    payloads = [event if isinstance(event, bytes) else json.dumps(event).encode() for event in events]
    entries = tuple(Entry(2000 + at, 1 + at, len(payload)) for at, payload in enumerate(payloads))
    return run_of(attempt, b"".join(payloads), task=2000, batch=entries, **more)


def result_of(end: End) -> Any:
    """Return what an end's body says."""
    return json.loads(end.body)
