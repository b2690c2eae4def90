"""Timeouts: the outcome is given at the limit, and what overstays is really ended.

An execution past its limit is cancelled; what has not ended after a short grace taints its instance: it takes nothing
new, its neighbours finish within their own limits, then it is killed. One that no longer answers is killed at once, and
so is one that serves a single task. Timers are kept by attempt: executions with the same timeout end their time in the
order in which they were sent, so each distinct timeout needs one ordered dict and nothing else.
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

HEARTBEAT: Final = 0.5
"""How long (seconds) a tainted instance with neighbours in it may take to answer a ping."""


class Deadlines:
    """Watch the limits of what runs."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._lanes: dict[float, dict[int, Running]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = float("inf")
        self._answered: dict[int, float] = {}

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
        """Give `timeout` to everything whose time is over."""
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
                self.end(attempt, lane.pop(attempt), Outcome.TIMEOUT)
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
        if member.blueprint.slots == 1 or member.apart:
            self._lives.kill(member)
            return
        member.instance.cancel([attempt])
        asyncio.get_running_loop().call_later(GRACE, self._after_grace, attempt, member)

    def answers(self, instance_id: int, at: float) -> None:
        """Note a sign of life."""
        self._answered[instance_id] = at

    def gone(self, instance_id: int) -> None:
        """Forget an instance."""
        self._answered.pop(instance_id, None)

    def settle_tainted(self, member: Member) -> None:
        """Kill a tainted instance in which nothing is left that is within its time."""
        if member.state == TAINTED and not any(running.tasks for running in member.busy.values()):
            self._lives.kill(member)

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
            asked = self._plant.clock()
            self._plant.compute.ping(member.instance)
            asyncio.get_running_loop().call_later(HEARTBEAT, self._after_heartbeat, member, asked)

    def _after_heartbeat(self, member: Member, asked: float) -> None:
        if member.instance.id in self._plant.members and self._answered.get(member.instance.id, -1.0) < asked:
            self._lives.kill(member)

    def _arm(self, at: float) -> None:
        if at >= self._at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self._plant.clock()), self.run_once)
