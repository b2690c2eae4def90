"""What limits have used, and what adaptive ones have learned, kept over restarts.

A clean stop writes it all down. Against a crash, units of long periods (a minute and more) are reserved on disk in blocks
before they are used: after it, what was reserved counts as used, so no window is exceeded and two blocks at most are lost.
Short periods begin as if they had just been used up, and adaptive limits learn anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
from math import inf
from typing import TYPE_CHECKING, Any, Final

from penstock.domain.adaptive import Learned
from penstock.domain.errors import PenstockError
from penstock.domain.limits import Used
from penstock.domain.rates import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock.domain.limits import Gate
    from penstock.engine.loops import Loops
    from penstock.engine.model import Plant

STOPPED: Final = "limits"
"""The note of a clean stop: what all limits have used."""

RESERVED: Final = "reserved "
"""Prefix of the notes of single limits with long periods."""

LIMIT: Final = "limit"
PIPELINE: Final = "pipeline"

RETRY_PAUSE: Final = 0.25

log = logging.getLogger(__name__)


class Reserver:
    """Reserve blocks, and remember what was used."""

    def __init__(self, plant: Plant) -> None:
        self._plant = plant
        self._job: asyncio.Task[None] | None = None
        self._used_up_at = -inf  # when this server took short periods for used up, after a crash

    def join(self, loops: Loops) -> None:
        """Get to know the loop that starts what a new block lets start."""
        self._pump = loops.pump

    async def open(self) -> None:
        """Let limits go on where the last server left them."""
        plant = self._plant
        stopped = await plant.store.note(plant.project_id, STOPPED)
        if stopped is not None:
            self._restore(json.loads(stopped), plant.clock())
            await plant.store.save_note(plant.project_id, STOPPED, None)
        elif plant.store.epoch > 1:
            reserved = await plant.store.notes(plant.project_id, RESERVED)
            for body in reserved.values():
                self._restore(json.loads(body), plant.clock())
            self._used_up_at = plant.clock()
            plant.admission.use_up(self._used_up_at)

    async def close(self) -> None:
        """Write down what all limits have used."""
        plant = self._plant
        if self._job is not None:
            self._job.cancel()
        now = plant.clock()
        if now - self._used_up_at < LONG:  # so it counts as used what pipelines without a task since then may have used
            for pipeline in plant.admission.pipelines.values():
                if pipeline.rates:
                    plant.admission.own_gate(pipeline)
        used = {_name(gate): gate.used(now, ahead=False) for gate in self._gates()}
        counts = {name: rates for name, rates in used.items() if any(rate.dates for rate in rates)}
        learned = {_name(gate): gate.adaptive.learned for gate in self._gates() if gate.adaptive is not None}
        await plant.store.save_note(plant.project_id, STOPPED, self._body(counts, learned))

    def wake(self) -> None:
        """Reserve blocks for the limits that run out of them."""
        if self._job is None:
            self._job = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._plant.admission.unreserved:
                await self._reserve()
        except PenstockError as error:
            log.warning("Units of limits could not be reserved, what needs them waits: %s", error)
            await asyncio.sleep(RETRY_PAUSE)
        finally:
            self._job = None
            self._pump.wake()

    async def _reserve(self) -> None:
        """Write what each limit has used and may use next; all that ask together go into one commit."""
        plant = self._plant
        now = plant.clock()
        gates = [gate for gate in plant.admission.unreserved if gate.runs_out()]
        plant.admission.unreserved.clear()
        writes = [
            plant.store.save_note(
                plant.project_id, RESERVED + _name(gate), self._body({_name(gate): gate.used(now, ahead=True)})
            )
            for gate in gates
        ]
        try:
            await asyncio.gather(*writes)
        except PenstockError:
            plant.admission.unreserved.update(dict.fromkeys(gates))
            raise
        for gate in gates:
            plant.admission.reserved(gate)
        self._pump.wake()

    def _body(self, used: dict[str, list[Used]], learned: dict[str, Learned] | None = None) -> bytes:
        plant = self._plant
        moment = {"at": plant.wall(), "clock": plant.clock(), "boot": plant.boot}
        return json.dumps({**moment, "used": used, "learned": learned or {}}).encode()

    def _away(self, saved: dict[str, Any]) -> float:
        """Return how long ago (seconds) something was saved: by the monotonic clock, if it is the same one still."""
        plant = self._plant
        if plant.boot and saved.get("boot") == plant.boot:
            return max(0.0, plant.clock() - float(saved["clock"]))
        return max(0.0, plant.wall() - float(saved["at"]))

    def _restore(self, saved: dict[str, Any], now: float) -> None:
        away = self._away(saved)
        for name, used in saved["used"].items():
            gate = self._gate(name)
            if gate is not None:
                gate.restore(now, [Used(*one) for one in used], away)
        for name, learned in saved.get("learned", {}).items():
            gate = self._gate(name)
            if gate is not None:
                gate.learn(Learned(*learned))

    def _gate(self, name: str) -> Gate | None:
        kind, _, own_name = name.partition(" ")
        admission = self._plant.admission
        if kind == LIMIT:
            return admission.gates.get(own_name)
        pipeline = admission.pipelines.get(own_name)
        return None if pipeline is None else admission.own_gate(pipeline)

    def _gates(self) -> Iterator[Gate]:
        admission = self._plant.admission
        yield from admission.gates.values()
        yield from (pipeline.own for pipeline in admission.pipelines.values() if pipeline.own is not None)


def _name(gate: Gate) -> str:
    return f"{LIMIT if gate.owner is None else PIPELINE} {gate.name}"
