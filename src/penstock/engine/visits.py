"""Web requests: from their admission to the last piece of their answer, and their clocks.

A visit is admitted as a synchronous call of its function is, and holds its slot until the app has really ended; it leaves
numbers and no row. The clocks: one who waits for its start gives up after a while. Then the app may be silent for the
function's `timeout` (each piece that passes, in either direction, begins that anew), while a client that keeps the app
waiting has `PATIENCE`. A WebSocket that was accepted may be silent for ever. Nothing outlives its instance's `max_runtime`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from penstock.compute.protocol import Run
from penstock.domain.errors import Conflict, DiskFull, PenstockError, QueueFull, Saturated, Unavailable
from penstock.domain.task import Outcome, Task
from penstock.runtime.frames import LAST, Close, Credit, Head, Piece
from penstock.runtime.wire import CHUNK, WINDOW
from penstock.store.protocol import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from penstock.compute.protocol import Instance
    from penstock.domain.pipeline import Start
    from penstock.engine.loops import Loops
    from penstock.engine.model import Pipe, Plant, Running, Traffic
    from penstock.runtime.frames import Word

START_WAIT: Final = 10.0
"""How long (seconds) a web request waits for its start."""

MOST_WAITING: Final = 1000
"""How many web requests of a function wait for their start; those that come then are told to try later."""

PATIENCE: Final = 60.0
"""How long (seconds) a client may keep the app waiting: by not reading, or by sending less than `SLOWEST`."""

SLOWEST: Final = 8 << 10
"""Bytes a second that a client has to send of its body, on average after the first minute."""

FAREWELL: Final = 1.0
"""Seconds that an app has to end by itself when its client is gone, before it is cancelled."""

SWITCHING: Final = 101
"""The status of an answer that accepts a WebSocket."""

GOING_AWAY: Final = 1001
RESTART: Final = 1012
"""Codes with which WebSockets are closed: the client has vanished; the instance or the server ends (RFC 6455, IANA)."""


class Over(NamedTuple):
    """Say how a visit ended: with `body`, what its instance said last."""

    outcome: Outcome
    body: bytes

    @property
    def whole(self) -> bool:
        """Say whether the body is a whole answer."""
        return self.outcome is Outcome.OK and bool(self.body)


class ClientTooSlow(PenstockError):
    """Report a client that kept the app waiting for too long."""

    code = "too-slow"


class Visit:
    """Be one web request, for the one who relays it."""

    def __init__(
        self, visits: Visits, pipe: Pipe, task: Task, head: bytes, traffic: Traffic, *, more: bool, socket: bool
    ) -> None:
        self.task = task
        self.traffic = traffic
        self.head = head
        self.more = more
        self.socket = socket
        self.pipe = pipe
        self.running: Running | None = None
        self.attempt = 0
        self.moved = 0.0  # when something last passed
        self.sends_since: float | None = None  # the client has not taken a piece since then
        self.reads_since: float | None = None  # the client has sent nothing since then
        self.patience = PATIENCE  # what is left of it for one who sends
        self.accepted = False
        self.gone = False  # the client is
        self.ended = False  # the app has
        self.abort: Callable[[], None] = _nothing
        self.timer: asyncio.TimerHandle | None = None
        self.visits = visits
        self._heard: deque[Word | Over | PenstockError] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._window = WINDOW
        self._room: asyncio.Future[None] | None = None
        self._owed = 0

    # for the relay ------------------------------------------------------------------------------------------------
    @property
    def pending(self) -> bool:
        """Say whether `next` has something at once."""
        return bool(self._heard)

    @property
    def ends(self) -> float:
        """Return the moment at which its instance must be gone."""
        return inf if self.running is None else self.running.member.ends

    async def next(self) -> Head | Piece | Close | Over:
        """Return what the app answers next. Raises `Saturated`, `ClientTooSlow` and what else ends it before that."""
        while not self._heard:
            self._waiter = self.visits.loop.create_future()
            await self._waiter
        word = self._heard.popleft()
        if isinstance(word, PenstockError):
            raise word
        assert not isinstance(word, Credit)
        return word

    def took(self, size: int) -> None:
        """Take note that the client has room for more. Nothing counts as a byte: it takes room, too."""
        self._owed += size or 1
        if self._owed >= CHUNK and not self.ended:
            self.visits.tell(self, (Credit(self.attempt, self._owed),))
            self._owed = 0

    async def send(self, data: bytes, flags: int) -> None:
        """Pass on what the client sends, when the app has room for it; `flags` are those of the last piece."""
        at = 0
        while not (self.gone or self.ended):
            while self._window <= 0 or self.running is None:
                if self.gone or self.ended:
                    return
                self._room = self.visits.loop.create_future()
                await self._room
            piece = data[at : at + min(CHUNK, self._window)]
            at += len(piece)
            self._window -= len(piece) or 1
            done = at >= len(data)
            self.visits.tell(self, (Piece(self.attempt, flags if done else flags & ~LAST, piece),))
            if done:
                return

    def leave(self, code: int = GOING_AWAY, reason: str = "") -> None:
        """Take note that the client is gone."""
        self.visits.leave(self, code, reason)

    # for the loop ---------------------------------------------------------------------------------------------------
    def hear(self, word: Word | Over | PenstockError) -> None:
        """Take what the relay gets next."""
        if isinstance(word, Credit):
            self._window = min(WINDOW, self._window + word.granted)
            self.wake_sender()
            return
        if isinstance(word, Head) and self.socket:
            self.accepted = word.status == SWITCHING
        self._heard.append(word)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def wake_sender(self) -> None:
        """Let who sends look again."""
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def _nothing() -> None:
    """Do nothing: there is no connection that could be cut."""


class Visits:
    """Admit web requests and watch their clocks."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self.clock = plant.clock
        self.loop: asyncio.AbstractEventLoop

    def join(self, loops: Loops) -> None:
        """Get to know the loops that requests pass."""
        self._pump, self._intake, self._settle = loops.pump, loops.intake, loops.settle
        self._deadlines, self._recorder = loops.deadlines, loops.recorder

    # admission ------------------------------------------------------------------------------------------------------
    def open(self, name: str, head: bytes, body: bytes, *, more: bool, socket: bool = False) -> Visit:
        """Let a request wait for its start in a pipeline. Raises what says that it cannot be taken now."""
        plant, pipe = self._plant, self._intake.pipe(name)
        self._check(pipe)
        self.loop = asyncio.get_running_loop()
        task = Task(self._intake.next_id(), name, body, created=plant.wall(), expires=inf, durable=False)
        traffic = plant.functions[pipe.spec.function].traffic
        visit = Visit(self, pipe, task, head, traffic, more=more, socket=socket)
        plant.visits[task.id] = visit
        pipe.counts.queued += 1
        plant.admission.offer(name, (task,))
        self._pump.wake()
        visit.timer = self.loop.call_later(START_WAIT, self._give_up, visit)
        return visit

    def _check(self, pipe: Pipe) -> None:
        function = pipe.spec.function
        if not self._plant.accepting:
            raise Unavailable("The server is starting or stopping. Ask again in a moment.", 1.0)
        if self._plant.store.full:
            raise DiskFull("The disk is full: nothing new is taken until there is room.")
        if pipe.fleet.blueprint is None:
            raise Conflict(f"The function '{function}' has no code yet. Deploy it first.")
        if pipe.counts.queued >= MOST_WAITING:
            raise QueueFull(f"The app '{function}' has {MOST_WAITING} requests that wait. Ask again later.", 1.0)

    def _give_up(self, visit: Visit) -> None:
        """Let a request that has not started go."""
        if self._withdraw(visit):
            function = visit.pipe.spec.function
            fails = visit.pipe.fleet.failures
            why = (
                f"its instances end before they are ready; see penstock logs --function {function}"
                if fails
                else "it is busy"
            )
            visit.hear(Saturated(f"The app '{function}' did not take the request in time: {why}.", 1.0))

    def _withdraw(self, visit: Visit) -> bool:
        """Take a request out of its queue; return whether it was there."""
        plant, task, pipe = self._plant, visit.task, visit.pipe
        if plant.pipes.get(task.pipeline) is not pipe or not plant.admission.withdraw(task.pipeline, (task.id,)):
            return False
        plant.visits.pop(task.id, None)
        pipe.counts.queued -= 1
        self._pump.wake()  # it may have been what others waited behind
        self._settle.look_empty(pipe)
        return True

    def refuse(self, tasks: Iterable[Task], error: PenstockError) -> None:
        """Let requests go whose pipeline has been removed, or whose server stops."""
        for task in tasks:
            visit = self._plant.visits.pop(task.id, None)
            if visit is not None:
                self._stop_clock(visit)
                visit.hear(error)

    # in the instance ------------------------------------------------------------------------------------------------
    def begin(self, visit: Visit, attempt: int, running: Running, start: Start) -> Run:
        """Return what an instance is asked for, and start the clock."""
        visit.attempt, visit.running = attempt, running
        visit.traffic.open += 1
        visit.moved = running.sent
        self._stop_clock(visit)
        self._watch(visit, min(running.timeout, PATIENCE, visit.ends - running.sent))
        visit.wake_sender()
        task = visit.task
        return Run(
            attempt, task.id, 1, running.pipe.context, task.payload or b"", running.timeout, start.dated,
            head=visit.head, more=visit.more,
        )  # fmt: skip

    def told(self, instance: Instance, words: Sequence[Word]) -> None:  # noqa: ARG002 - the listener's
        """Pass on what apps answer."""
        now = self._plant.clock()
        for word in words:
            running = self._plant.running.get(word.attempt)
            visit = None if running is None else self._plant.visits.get(running.start.task.id)
            if visit is not None:
                visit.moved = now
                visit.hear(word)

    def tell(self, visit: Visit, words: Sequence[Word]) -> None:
        """Pass on what a client sends."""
        visit.moved = self._plant.clock()
        if visit.running is not None:
            visit.running.member.instance.tell(words)

    def leave(self, visit: Visit, code: int, reason: str) -> None:
        """Let a request end whose client is gone: the app hears of it, then it is cancelled, and then it has overstayed."""
        if visit.gone:
            return
        visit.gone = True
        visit.wake_sender()
        if visit.running is None:
            self._stop_clock(visit)
            if self._withdraw(visit):
                visit.hear(Over(Outcome.CANCELLED, b""))
        elif visit.task.id in self._plant.visits:
            self.tell(visit, (Close(visit.attempt, code, reason),))
            self._stop_clock(visit)
            self._watch(visit, FAREWELL)

    def conclude(self, visit: Visit, outcome: Outcome, body: bytes) -> None:
        """Tell the end of a request."""
        self._plant.visits.pop(visit.task.id, None)
        if visit.running is not None:
            visit.traffic.ended(self._plant.clock() - visit.running.sent, failed=outcome is not Outcome.OK)
        if outcome is Outcome.ERROR:
            self._log(visit, body)
        self._stop_clock(visit)
        visit.ended = True
        visit.wake_sender()
        visit.hear(Over(outcome, body))

    def _log(self, visit: Visit, body: bytes) -> None:
        """Let the function's log say how an app failed: its client is told nothing of that."""
        error = json.loads(body)
        text = error.get("traceback") or f"{error['type']}: {error['message']}\n"
        self._recorder.keep(Line(0, "", visit.pipe.spec.function, 0, self._plant.wall(), "stderr", text))

    def close(self) -> None:
        """Let WebSockets end, and what has not started: the server stops."""
        error = Unavailable("The server stops. Ask again in a moment.", 1.0)
        for visit in list(self._plant.visits.values()):
            if visit.running is None:
                self.refuse((visit.task,), error)
            elif visit.socket:
                self._cut(visit)

    # the clock ------------------------------------------------------------------------------------------------------
    def _watch(self, visit: Visit, delay: float) -> None:
        visit.timer = self.loop.call_later(max(0.0, delay), self._look, visit)

    @staticmethod
    def _stop_clock(visit: Visit) -> None:
        if visit.timer is not None:
            visit.timer.cancel()

    def _look(self, visit: Visit) -> None:
        """End what has overstayed, or look again when it will have."""
        running = visit.running
        if running is None or visit.attempt not in self._plant.running:
            return
        now = self._plant.clock()
        if visit.gone:
            self._end_gone(visit, running, now)
        elif now >= visit.ends:
            self._cut(visit)
        elif visit.accepted:
            if visit.ends < inf:
                self._watch(visit, visit.ends - now)
        elif (left := self._left(visit, running, now)) > 0:
            self._watch(visit, min(left, PATIENCE, visit.ends - now))
        elif visit.sends_since is not None or visit.reads_since is not None:
            visit.hear(ClientTooSlow("The request came too slowly, or its answer was not read. It was given up."))
            if visit.sends_since is not None:
                visit.abort()
            self.leave(visit, GOING_AWAY, "")
        else:
            self._deadlines.end(visit.attempt, running, Outcome.TIMEOUT)

    def _end_gone(self, visit: Visit, running: Running, now: float) -> None:
        """Cancel an app whose client is gone; if it goes on until its time is over, it is treated as what overstays."""
        left = visit.moved + max(running.timeout, 2 * FAREWELL) - now
        if left > 0:
            running.member.instance.cancel([visit.attempt])
            self._watch(visit, left)
        else:
            self._deadlines.end(visit.attempt, running, Outcome.CANCELLED)

    @staticmethod
    def _left(visit: Visit, running: Running, now: float) -> float:
        """Return the seconds that the one who is waited for still has."""
        if visit.sends_since is not None:
            return visit.sends_since + PATIENCE - now
        if visit.reads_since is not None:
            return visit.reads_since + visit.patience - now
        return visit.moved + running.timeout - now

    def _cut(self, visit: Visit) -> None:
        """End a request whose instance must go."""
        visit.hear(Close(visit.attempt, RESTART, "the instance ends"))
        self.leave(visit, RESTART, "the instance ends")
