"""Orders: what running tasks want made. A call waits for its end; a send is on disk, and stays whatever follows.

The laws. A task that waits for what it has called rests: its concurrency is free for others (`domain/resting.py`), and an
instance in which all rest is not counted (`sleepers`). It goes on when it has both again, first the place and then the
units: so whoever holds units runs, and ends. What it has called ends with it. It goes `DEPTH` deep, and of each depth more
may sleep than of the one above: so the deepest always find room.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from penstock.domain.errors import BadRequest, Conflict, NotFound, PenstockError, TooLarge
from penstock.domain.mistakes import nearest
from penstock.domain.task import Outcome, name_of
from penstock.domain.units import UnitError, parse_duration
from penstock.engine.intake import Item
from penstock.engine.model import DIRECT
from penstock.runtime import wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from penstock.compute.protocol import Instance
    from penstock.domain.pipeline import Start
    from penstock.engine.loops import Loops
    from penstock.engine.model import Member, Plant, Running

DEPTH: Final = 16
"""How many tasks may wait for a task, one for the other."""

MOST_ASLEEP: Final = 1000
"""How many instances may sleep when a task that nobody waits for wants to wait."""

MORE_ASLEEP: Final = 10
"""How many more for each depth."""

MOST: Final = 2000
"""How many orders of one task may be under way."""

MOST_BYTES: Final = 64 << 20
"""The most bytes that their payloads have together."""

RUNS: Final = "runs"
RESTS: Final = "rests"
WAKES: Final = "wakes"
STANDS: Final = "stands"


class Crowded(PenstockError):
    """Report that as many instances as may wait for others already."""

    code = "too-many-wait"


class TooDeep(PenstockError):
    """Report a call at a depth that no task may have."""

    code = "too-deep"


class Holds(PenstockError):
    """Report a task that would wait for others while it holds what these may need."""

    code = "holds"


class Options(msgspec.Struct, forbid_unknown_fields=True):
    """Describe a task that is called or sent, besides its payload."""

    timeout: float | None = None
    delay: str | float | None = None
    key: str | None = None
    cost: float = 1.0
    priority: int = 0
    expires_after: str | float | None = None


_OVER: Final = Conflict("The task's time is over, and what it called is withdrawn.")
_options: Final = msgspec.json.Decoder(Options)
_json: Final = msgspec.json.Decoder(msgspec.Raw)


class Nest:
    """Hold what one running task has ordered: it runs, rests, wakes (waits for its place) or stands (in line for units).

    `jobs` are under way, `waits` those of them that it waits for, `early` numbers for which it waits that have not come yet,
    `held` replies that it gets when it goes on, `errands` requests over HTTP that are answered then.
    """

    __slots__ = ("attempt", "bytes", "early", "errands", "held", "jobs", "state", "waits")

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        self.state = RUNS
        self.bytes = 0
        self.jobs: dict[int, asyncio.Task[None]] = {}
        self.waits: set[int] = set()
        self.early: set[int] = set()
        self.held: list[wire.Reply] = []
        self.errands: list[asyncio.Future[None]] = []

    def begin(self, order: wire.Order, job: asyncio.Task[None]) -> None:
        """Hold what makes an order; its payload counts until that has ended, in whichever way."""
        self.bytes += order.size
        self.jobs[order.number] = job
        job.add_done_callback(lambda _: self._let_go(order.size))

    def _let_go(self, size: int) -> None:
        self.bytes -= size

    def told(self) -> str:
        """Return what the task waits for, in words; nothing if it works."""
        return {
            RUNS: "",
            RESTS: f"it runs, and its handler waits for {len(self.waits)} of the calls that it has made",
            WAKES: "what it called has ended, and it goes on when there is room for its instance again",
            STANDS: "what it called has ended, and it goes on when the concurrency is free that it gave back",
        }[self.state]


class Orders:
    """Make what is ordered, and let tasks rest meanwhile."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._standing: dict[Start, Running] = {}
        self._replies: dict[Instance, list[wire.Reply]] = {}

    def join(self, loops: Loops) -> None:
        """Get to know who takes tasks, who starts them, and who knows which instances sleep."""
        self._intake, self._pump, self._sleepers = loops.intake, loops.pump, loops.sleepers

    # what handlers want -------------------------------------------------------------------------------------------
    def hear(self, instance: Instance, running: Running | None, request: wire.Order | wire.Wait) -> None:
        """Act on an order, or on the wait for one. Those of executions that have ended are refused."""
        if isinstance(request, wire.Wait):
            if running is not None and running.tasks and running.nest is not None:
                self._wait(running, running.nest, request.number)
            return
        try:
            if running is None or not running.tasks:
                raise Conflict("The task's time is over, and it calls and sends nothing any more.")
            nest = self.nest_of(running, request.attempt)
            job = self._job(running, nest, request)
        except PenstockError as error:
            self._tell(instance, _refusal(request.attempt, request.number, error))
            return
        nest.begin(request, asyncio.get_running_loop().create_task(job))
        if request.verb == wire.INVOKE and (request.waits or request.number in nest.early):
            nest.early.discard(request.number)
            nest.waits.add(request.number)
            self._rest(running, nest)

    def give(self, running: Running, number: int) -> None:
        """Withdraw what is wanted no longer."""
        nest = running.nest
        job = None if nest is None else nest.jobs.get(number)
        if nest is not None and job is not None:
            job.cancel()
            self._reply(running, nest, _refusal(nest.attempt, number, Conflict("The call was withdrawn.")))

    def _wait(self, running: Running, nest: Nest, number: int) -> None:
        job = nest.jobs.get(number)
        if job is None:  # the reply is on its way to the handler, or the order's payload on its way to us
            nest.early.add(number)
            return
        if (held := _slot_of(running)) is not None:
            job.cancel()
            self._reply(running, nest, _refusal(nest.attempt, number, _holds(held)))
            return
        nest.waits.add(number)
        self._rest(running, nest)

    def _job(self, running: Running, nest: Nest, order: wire.Order) -> Coroutine[None, None, None]:
        """Return what makes an order. Raises a `PenstockError` if it is not taken."""
        if len(nest.jobs) >= MOST or nest.bytes + order.size > MOST_BYTES:
            raise TooLarge(
                f"The task has {len(nest.jobs):,} orders under way with {nest.bytes:,} bytes; it may have {MOST:,} with "
                f"{MOST_BYTES:,}. Wait for some of them first, or use context.map, which does."
            )
        try:
            options = _options.decode(order.options)
            if order.body:
                _json.decode(order.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"What was ordered is not understood: {error}.") from error
        name = self._target(order.target)
        if order.verb == wire.SEND:
            return self._make(running, nest, order, partial(self._send, name, order, options))
        depth = 1 + max(task.depth for task in running.tasks)
        self._check_wait(running, depth)
        return self._make(running, nest, order, partial(self._call, name, running, order, options, depth))

    def _check_wait(self, running: Running, depth: int) -> None:
        """Check that a task may wait for another one. Raises a `PenstockError`."""
        if depth > DEPTH:
            raise TooDeep(
                f"The call would be {depth} deep: a task that was called by one that was called, and so on. {DEPTH} are "
                "allowed. Does a function call itself for ever? What need not be waited for can be sent (context.send)."
            )
        if (held := _slot_of(running)) is not None:
            raise _holds(held)
        most = MOST_ASLEEP + MORE_ASLEEP * (depth - 1)
        if self._sleepers.count >= most:
            raise Crowded(
                f"{self._sleepers.count:,} instances wait for calls of their tasks already, and {most:,} may. Let fewer tasks "
                "that call others run at once (a rate for them), or send what need not be waited for."
            )

    def _target(self, target: str) -> str:
        """Return the name of a pipeline, or of the built-in one of a function (or its alias). Raises `NotFound`."""
        plant = self._plant
        if not target.startswith(DIRECT):
            for name in (target, DIRECT + target):
                if name in plant.pipes:
                    return name
        known = [*(name for name in plant.pipes if not name.startswith(DIRECT)), *plant.functions]
        raise NotFound("pipeline or function", target, nearest(target, known))

    # how it is made -----------------------------------------------------------------------------------------------
    async def _make(
        self, running: Running, nest: Nest, order: wire.Order, work: Callable[[], Awaitable[tuple[int, bytes]]]
    ) -> None:
        try:
            status, body = await work()
        except PenstockError as error:
            reply = _refusal(order.attempt, order.number, error)
        else:
            reply = wire.Reply(order.attempt, order.number, status, len(body), body)
        self._reply(running, nest, reply)

    async def _call(
        self, name: str, running: Running, order: wire.Order, options: Options, depth: int
    ) -> tuple[int, bytes]:
        left = max(0.0, running.deadline - self._plant.clock())
        timeout = None if options.timeout is None else min(left, options.timeout)
        attempt = await self._intake.call(name, order.body or b"null", timeout, start_wait=left, depth=depth)
        if attempt.outcome is Outcome.OK:
            return wire.DONE, attempt.body or b"null"
        told = b'{"outcome":"%s","task":"%s","error":%s}'
        return wire.FAILED, told % (
            attempt.outcome.encode(),
            name_of(attempt.task.id).encode(),
            attempt.body or b"null",
        )

    async def _send(self, name: str, order: wire.Order, options: Options) -> tuple[int, bytes]:
        sent = await self._intake.send(name, [_item(order.body, options, self._plant.wall())])
        return wire.DONE, json.dumps(name_of(sent.ids[0])).encode()

    def _reply(self, running: Running, nest: Nest, reply: wire.Reply) -> None:
        """Let a handler hear of an order; one that waits for nothing else goes on first."""
        if nest.jobs.pop(reply.number, None) is None:
            return
        if nest.waits == {reply.number}:
            nest.held.append(reply)
            self.stop_waiting(running, nest, reply.number)
        else:
            nest.waits.discard(reply.number)
            self._tell(running.member.instance, reply)

    # errands ------------------------------------------------------------------------------------------------------
    def may_rest(self, running: Running) -> bool:
        """Say whether a task may wait for what it asks for over HTTP without what it holds."""
        depth = max(task.depth for task in running.tasks)
        return _slot_of(running) is None and self._sleepers.count < MOST_ASLEEP + MORE_ASLEEP * depth

    @staticmethod
    def nest_of(running: Running, attempt: int) -> Nest:
        """Return what a task has ordered."""
        if running.nest is None:
            running.nest = Nest(attempt)
        return running.nest

    def rest(self, running: Running, nest: Nest, number: int) -> None:
        """Let a task wait for something that is no order of its own."""
        nest.waits.add(number)
        self._rest(running, nest)

    async def go_on(self, running: Running, nest: Nest, number: int) -> None:
        """Return when a task may go on that waits for that no more, or rests for something else."""
        self.stop_waiting(running, nest, number)
        if nest.state in {WAKES, STANDS}:
            nest.errands.append(asyncio.get_running_loop().create_future())
            await nest.errands[-1]

    def stop_waiting(self, running: Running, nest: Nest, number: int) -> None:
        """Let a task wait for something no more; if that was all, it goes on when it has its units again."""
        if number not in nest.waits:
            return
        nest.waits.discard(number)
        if nest.waits or nest.state != RESTS:
            return
        nest.state = WAKES
        if self._sleepers.may_wake(running.member):
            self.awake(running.member)

    # rest ---------------------------------------------------------------------------------------------------------
    def _rest(self, running: Running, nest: Nest) -> None:
        """Let a task rest that waits for something now."""
        if nest.state == RUNS:
            self._plant.admission.lending.resting.rest(running.start)
            self._sleepers.rests(running.member)
        elif nest.state == STANDS:  # another thread or coroutine of it waits for something now
            self._plant.admission.lending.resting.leave(running.start)
            del self._standing[running.start]
            self._sleepers.rests(running.member)
        nest.state = RESTS
        self._hand_over(running, nest)
        self._pump.wake()

    def awake(self, member: Member) -> None:
        """Let tasks of an instance go on that has a place again."""
        for running in list(member.busy.values()):
            if running.nest is not None and running.nest.state == WAKES:
                self._stand(running, running.nest)

    def _stand(self, running: Running, nest: Nest) -> None:
        """Let a task have its units again, now or when they are free."""
        nest.state = STANDS
        self._standing[running.start] = running
        self._sleepers.goes_on(running.member)
        if self._plant.admission.lending.resting.come_back(running.start):
            self.back(running.start)
        self._pump.wake()

    def back(self, start: Start) -> None:
        """Let a task go on that has its units again."""
        running = self._standing.pop(start)
        assert running.nest is not None
        running.nest.state = RUNS
        self._hand_over(running, running.nest)

    def withdraw(self, running: Running) -> None:
        """Let a task wait for nothing any more: its time is over. What is left of its work has its units, too."""
        nest = running.nest
        if nest is None:
            return
        for number, job in list(nest.jobs.items()):
            job.cancel()
            self._reply(running, nest, _refusal(nest.attempt, number, _OVER))

    def end(self, running: Running) -> None:
        """Withdraw what a task still waits for that has ended; threads that it left behind are told."""
        nest = running.nest
        if nest is None:
            return
        for number, job in nest.jobs.items():
            job.cancel()
            nest.held.append(_refusal(nest.attempt, number, _OVER))
        nest.jobs.clear()
        self._hand_over(running, nest)
        if nest.state == STANDS:
            del self._standing[running.start]
        elif nest.state != RUNS:
            self._sleepers.goes_on(running.member)
            if not running.member.asleep:
                self.awake(running.member)
        running.nest = None

    # what handlers hear -------------------------------------------------------------------------------------------
    def _hand_over(self, running: Running, nest: Nest) -> None:
        for reply in nest.held:
            self._tell(running.member.instance, reply)
        nest.held.clear()
        for errand in nest.errands:
            if not errand.done():
                errand.set_result(None)
        nest.errands.clear()

    def _tell(self, instance: Instance, reply: wire.Reply) -> None:
        """Send a reply, with others of this turn of the event loop."""
        if not self._replies:
            asyncio.get_running_loop().call_soon(self._flush)
        self._replies.setdefault(instance, []).append(reply)

    def _flush(self) -> None:
        replies, self._replies = self._replies, {}
        for instance, batch in replies.items():
            instance.answer(batch)


def _refusal(attempt: int, number: int, error: PenstockError) -> wire.Reply:
    body = json.dumps({"code": error.code, "message": error.message}).encode()
    return wire.Reply(attempt, number, wire.REFUSED, len(body), body)


def _slot_of(running: Running) -> str | None:
    """Return the limit of which a task holds a slot, or waits for one."""
    return next((ask.gate.name for ask in (running.start.asks or {}).values() if ask.slot), None)


def _holds(limit: str) -> Holds:
    return Holds(
        f"The task holds a slot of '{limit}' and would wait for a task that may need it: that could last for ever. "
        "Leave that block before you call."
    )


def _item(payload: bytes, options: Options, wall: float) -> Item:
    """Return a task as intake takes it. Raises `BadRequest`."""
    try:
        due = None if options.delay is None else wall + parse_duration(options.delay)
        expires_after = None if options.expires_after is None else parse_duration(options.expires_after)
    except UnitError as error:
        raise BadRequest(f"delay or expires_after is wrong: {error}.") from error
    if options.cost <= 0 or abs(options.priority) > 1 << 31 or (expires_after is not None and expires_after <= 0):
        raise BadRequest("A cost is above 0, a priority at most 2,147,483,648, expires_after more than nothing.")
    return Item(payload or b"null", due, options.key or None, options.cost, options.priority, expires_after)
