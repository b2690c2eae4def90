"""Serve `async def` handlers: one loop, a task for each execution, one write for all that ended in a turn of the loop."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from penstock.runtime import wire
from penstock.runtime.channel import Channel
from penstock.runtime.context import Place
from penstock.runtime.orders import AsyncOrders
from penstock.runtime.results import Result, encode_error, encode_exception
from penstock.runtime.serving import Execution, Serving, now
from penstock.runtime.taking import AsyncTaking
from penstock.runtime.turns import seat
from penstock.runtime.wire import CANCELLED, Open, WireError

_START_DELAY = 0.005
"""Seconds for which the news of a start, or of going on after a wait for a limit, may wait for others."""


_FIRST_STEP = 0.02
"""Seconds after which what a handler does before it first waits is taken for its work, and not for its start."""


class _Steps:
    """Await a coroutine, note whose turn it is while it takes a step, and call `tell` (if given) when the first is done."""

    def __init__(
        self,
        work: Coroutine[Any, Any, Any],
        attempt: int,
        take: Callable[[int], None],
        tell: "Callable[[], None] | None",
    ) -> None:
        self._work = work
        self._attempt = attempt
        self._take = take
        self._tell = tell

    def __await__(self) -> Generator[Any, Any, Any]:
        work, attempt, take, tell = self._work, self._attempt, self._take, self._tell
        step = partial(work.send, None)
        while True:
            take(attempt)
            try:
                waits_for = step()
            except StopIteration as stop:
                return stop.value
            finally:
                take(0)
                if tell is not None:
                    tell()
                    tell = None
            try:
                yield waits_for
            except BaseException as error:  # whatever is thrown in is the coroutine's to see
                step = partial(work.throw, error)
            else:
                step = partial(work.send, None)


class Coroutines(Serving):
    """Run executions as tasks of one event loop."""

    def __init__(self, channel: Channel, handler: Callable[..., Any], place: Place, slots: int) -> None:
        super().__init__(channel, handler, place, slots)
        self.taking = AsyncTaking(channel, self._goes_on)
        self.orders = AsyncOrders(self.taking)
        self._live: dict[int, tuple[Execution, asyncio.Task[None]]] = {}
        self._cancelled: set[int] = set()
        self._starts: list[bytes] = []
        self._frames: list[bytes] = []
        self._broken: WireError | None = None

    def prepare(self) -> None:
        """Make the loop."""
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)

    def serve(self) -> None:
        """Serve until there is nothing left to do after a stop."""
        loop = self._loop
        loop.add_reader(self.channel.fileno(), self._read)
        self._take = seat(self.place.turns, 0)
        while self._live or self._frames or not self.finished:
            try:
                loop.run_forever()
            except (SystemExit, KeyboardInterrupt):  # from a task that a handler made; its own are caught
                continue
            if self._broken:
                raise self._broken

    def begin(self, opened: Open, payload: bytes) -> None:
        """Take an execution whose payload is complete."""
        execution = self.execution(opened, payload)
        self._live[opened.attempt] = execution, self._loop.create_task(self._execute(execution))

    def cancel(self, attempt: int) -> None:
        """Cancel an execution."""
        execution, task = self._live.get(attempt, (None, None))
        if execution is None or task is None:
            return
        task.cancel()
        if execution.started is None:
            del self._live[attempt]
            self.channel.send(self.encode_unstarted(attempt))
        else:
            self._cancelled.add(attempt)

    def _read(self) -> None:
        try:
            self.take(self.channel.receive(wait=False))
        except WireError as error:
            self._broken = error
            self._loop.stop()
        if self.stopping:
            self._stop_if_idle()

    def _stop_if_idle(self) -> None:
        if self.finished and not self._live and not self._frames:
            self._loop.stop()

    async def _execute(self, execution: Execution) -> None:
        attempt = execution.opened.attempt
        self.output.current.set(execution.capture)
        if self.slots == 1:
            self.output.only = execution.capture
        result = await self._run(execution)
        self._cancelled.discard(attempt)
        raw = self.output.raw(attempt) if self.slots == 1 else b""
        self.put(raw + self.encode_end(execution, result))
        del self._live[attempt]

    def put(self, frames: bytes) -> None:
        """Send frames at the end of this turn of the loop, with all others."""
        if not self._frames:
            self._loop.call_soon(self._send_frames)
        self._frames.append(frames)

    async def _run(self, execution: Execution) -> Result:
        attempt = execution.opened.attempt
        try:
            work = self.call(execution)
            tell = partial(self._date, attempt, now()) if execution.opened.dated else None
            if tell is None and self.place.turns is None:
                return self.conclude(execution, await work)
            return self.conclude(execution, await _Steps(work, attempt, self._take, tell))
        except asyncio.CancelledError as error:
            if attempt not in self._cancelled:
                return encode_exception(error)
            return encode_error("CancelledError", "The execution was cancelled.", ending=CANCELLED)
        except BaseException as error:  # SystemExit too: it ends the task, not the instance
            return encode_exception(error)

    def call(self, execution: Execution) -> Coroutine[Any, Any, Any]:
        """Call the handler, and return the work to be awaited."""
        event = execution.decode()
        context = self.context(execution)
        execution.started = now()
        work: Coroutine[Any, Any, Any] = self.handler(event, context)
        return work

    def conclude(self, execution: Execution, value: Any) -> Result:
        """Return what the work came to."""
        return execution.encode(value)

    def _date(self, attempt: int, before: float) -> None:
        """Tell when a handler has started: the process may have been interrupted on the way to its first line."""
        self._tell_soon(wire.encode_started(attempt, min(now(), before + _FIRST_STEP)))

    def _goes_on(self, attempt: int, number: int) -> None:
        """Tell when a handler has gone on with what it took, after its next step."""
        self._loop.call_soon(self._date_take, attempt, number, now())

    def _date_take(self, attempt: int, number: int, before: float) -> None:
        self._tell_soon(wire.encode_took(attempt, number, min(now(), before + _FIRST_STEP)))

    def _tell_soon(self, frame: bytes) -> None:
        if not self._starts:
            self._loop.call_later(_START_DELAY, self._send_starts)
        self._starts.append(frame)

    def _send_starts(self) -> None:
        if self._starts:
            self.channel.send(b"".join(self._starts))
            self._starts.clear()

    def _send_frames(self) -> None:
        raw = b"" if self.slots == 1 else self.output.raw(0)
        self.channel.send(b"".join((*self._starts, raw, *self._frames)))
        self._starts.clear()
        self._frames.clear()
        if self.stopping:
            self._stop_if_idle()
