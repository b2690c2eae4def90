"""Timeouts: the outcome is given at the limit, and what overstays is really ended.

An execution past its limit is cancelled; what has not ended after a short grace taints its instance: it takes nothing
new, its neighbours finish within their own limits, then it is killed. One that serves a single task is killed at once.
Timers are kept by attempt: executions with the same timeout end their time in the order in which they were sent, so each
distinct timeout needs one ordered dict and nothing else.

One that has neighbours may be late because of one of them, which holds the GIL or blocks the event loop. So its instance
is asked for a sign of life first. If it gives none, whoever holds it up is looked for; and if it still gives none after a
while, it is killed and all that is in it runs again, at the cost of no attempt, but for a holder whose time is over. A
holder whose time is not over runs alone next, and so does everyone if the holder is not known.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from penstock.domain.task import Outcome
from penstock.engine.model import TAINTED

if TYPE_CHECKING:
    from penstock.engine.loops import Loops
    from penstock.engine.model import Member, Plant, Running

GRACE: Final = 0.1
"""How long (seconds) a cancelled execution may take to end by itself."""

PROMPT: Final = 0.02
"""How long (seconds) an instance may take to answer before it is looked for who holds it up."""

HEARTBEAT: Final = 0.5
"""How long (seconds) an instance with something in it that is over its time may take to answer."""


class Deadlines:
    """Watch the limits of what runs."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._lanes: dict[float, dict[int, Running]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = float("inf")
        self._asked: dict[int, asyncio.Future[None]] = {}  # instances that are to give a sign of life
        self._overdue: dict[int, dict[int, Running]] = {}  # what waits for that, by instance
        self._jobs: set[asyncio.Task[None]] = set()

    def join(self, loops: Loops) -> None:
        """Get to know who ends instances, and who gives an attempt its outcome while its work still goes on."""
        self._lives, self._settle = loops.lives, loops.settle

    def add(self, attempt: int, running: Running) -> None:
        """Begin to watch an attempt."""
        lane = self._lanes.get(running.timeout)
        if lane is None:
            lane = self._lanes[running.timeout] = {}
        lane[attempt] = running
        if running.deadline < self._at:
            self._arm(running.deadline)

    def remove(self, attempt: int, running: Running) -> None:
        """Watch an attempt no more: its work has ended."""
        lane = self._lanes.get(running.timeout)
        if lane is not None:
            lane.pop(attempt, None)

    def run_once(self) -> None:
        """See to everything whose time is over."""
        self._timer, self._at = None, float("inf")
        now = self._plant.clock()
        for timeout, lane in list(self._lanes.items()):
            overdue = []
            for attempt, running in lane.items():
                if running.deadline > now:
                    self._arm(running.deadline)
                    break
                overdue.append(attempt)
            for attempt in overdue:
                self._time_is_over(attempt, lane.pop(attempt))
            if not lane:
                del self._lanes[timeout]

    def end(self, attempt: int, running: Running, outcome: Outcome, task_id: int | None = None) -> None:
        """Give an outcome now, and see to it that the work ends too.

        `task_id`: give it to that task of a batch only; the work goes on while there are others.
        """
        if not running.tasks:
            return
        self._settle.give(attempt, outcome, task_id)
        if running.tasks:
            return
        member = running.member
        if _alone(member):
            self._lives.kill(member)
            return
        member.instance.cancel([attempt])
        asyncio.get_running_loop().call_later(GRACE, self._after_grace, attempt, member)

    def answers(self, instance_id: int) -> None:
        """Note a sign of life."""
        asked = self._asked.pop(instance_id, None)
        if asked is not None and not asked.done():
            asked.set_result(None)

    def gone(self, instance_id: int) -> None:
        """Forget an instance."""
        self.answers(instance_id)

    def settle_tainted(self, member: Member) -> None:
        """Kill a tainted instance in which nothing is left that is within its time."""
        if member.state == TAINTED and not any(running.tasks for running in member.busy.values()):
            self._lives.kill(member)

    # whose fault it is ----------------------------------------------------------------------------------------------
    def _time_is_over(self, attempt: int, running: Running) -> None:
        """Give an attempt its timeout, at once if it has no neighbours that may have held it up."""
        member = running.member
        if _alone(member) or len(member.busy) == 1:
            self.end(attempt, running, Outcome.TIMEOUT)
        elif (waiting := self._overdue.get(member.instance.id)) is not None:
            waiting[attempt] = running
        else:
            self._overdue[member.instance.id] = {attempt: running}
            self._job(member)

    def _job(self, member: Member) -> None:
        job = asyncio.get_running_loop().create_task(self._judge(member))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _judge(self, member: Member) -> None:
        """Give what is overdue in an instance its outcome, or end the instance if another holds it up."""
        overdue = self._overdue[member.instance.id]
        try:
            held_up = not await self._answers_soon(member, overdue)
        finally:
            del self._overdue[member.instance.id]
        if held_up:
            self._lives.kill(member)
            return
        for attempt, running in overdue.items():
            if attempt in member.busy:
                self.end(attempt, running, Outcome.TIMEOUT)

    async def _answers_soon(self, member: Member, overdue: dict[int, Running]) -> bool:
        """Say whether an instance gives a sign of life; give a holder its timeout, or let it run alone next time."""
        until = self._plant.clock() + HEARTBEAT
        sign = self._ask(member)
        if await self._comes(sign, PROMPT):
            return True
        holder = await self._plant.compute.holder(member.instance)
        guilty = None if holder is None or sign.done() else overdue.pop(holder, None)
        if holder is not None and guilty is not None and holder in member.busy:
            self.end(holder, guilty, Outcome.TIMEOUT)
        if await self._comes(sign, until - self._plant.clock()):
            return True
        if guilty is None:
            for attempt, running in member.busy.items():
                for task in running.tasks if holder in {attempt, None} else ():
                    task.apart = True
        return False

    def _ask(self, member: Member) -> asyncio.Future[None]:
        """Ask for a sign of life."""
        sign = self._asked.get(member.instance.id)
        if sign is None:
            sign = self._asked[member.instance.id] = asyncio.get_running_loop().create_future()
            self._plant.compute.ping(member.instance)
        return sign

    async def _comes(self, sign: asyncio.Future[None], seconds: float) -> bool:
        await asyncio.wait([sign], timeout=max(0.0, seconds))
        return sign.done()

    # what does not end ----------------------------------------------------------------------------------------------
    def _after_grace(self, attempt: int, member: Member) -> None:
        if attempt not in member.busy or member.instance.id not in self._plant.members:
            return
        self._lives.taint(member)
        function = self._plant.functions.get(member.fleet.function)
        if function is not None and function.spec.on_timeout == "kill":
            self._lives.kill(member)
            return
        self.settle_tainted(member)
        if any(running.tasks for running in member.busy.values()):
            asyncio.get_running_loop().call_later(HEARTBEAT, self._after_heartbeat, member, self._ask(member))

    def _after_heartbeat(self, member: Member, sign: asyncio.Future[None]) -> None:
        if member.instance.id in self._plant.members and not sign.done():
            self._lives.kill(member)

    def _arm(self, at: float) -> None:
        if at >= self._at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self._plant.clock()), self.run_once)


def _alone(member: Member) -> bool:
    """Say whether an instance serves one task at a time."""
    return member.blueprint.slots == 1 or member.apart
