"""Simulated instances keep the laws of the compute protocol, and catch an engine that does not."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from penstock.compute.protocol import Blueprint, End, Ending, Exit, ImportFailed, Instance, PipelineContext, Run
from penstock.runtime.frames import Word
from penstock.runtime.wire import Request
from penstock.sim.compute import Machine, SimCompute
from penstock.sim.ledger import Fate, Ledger
from penstock.sim.loop import Life, run, virtual_loop
from penstock.sim.script import (
    Act,
    Behaviour,
    Call,
    Delays,
    Script,
    Spread,
    answers,
    crashes,
    echoes,
    fails,
    in_turn,
    sometimes,
    stalls,
    throttles,
)

PIPELINE = PipelineContext(1, "customer-a", b'{"tier": 1}')
BLUEPRINT = Blueprint("default", "f", 1, "bundle", "m:work", slots=4)
JITTER = Delays(
    down=Spread(0.0, 0.002, 0.5, 0.01), up=Spread(0.0, 0.002), start=Spread(0.0, 0.001), flush=Spread(0.0, 0.001),
    fork=Spread(0.001, 0.01), kill=Spread(0.0, 0.001), reap=Spread(0.0, 0.01),
)  # fmt: skip


@dataclass
class Heard:
    """Write down all that a listener is told, in order."""

    told: list[tuple[Any, ...]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def _add(self, *what: Any) -> None:
        self.told.append(what)
        self.changed.set()

    def ready(self, instance: Instance, at: float) -> None:
        self._add("ready", instance.id, at)

    def started(self, instance: Instance, starts: Sequence[tuple[int, float]]) -> None:
        for attempt, at in starts:
            self._add("started", instance.id, attempt, at)

    def asked(self, instance: Instance, requests: Sequence[Request]) -> None:
        for request in requests:
            self._add("asked", instance.id, request.attempt, request)

    def heard(self, instance: Instance, words: Sequence[Word]) -> None:
        for word in words:
            self._add("told", instance.id, word.attempt, word)

    def finished(self, instance: Instance, ends: Sequence[End]) -> None:
        for end in ends:
            self._add("finished", instance.id, end.attempt, end)

    def output(self, instance: Instance, attempt: int, stream: str, text: str) -> None:
        self._add("output", instance.id, attempt, stream, text)

    def gone(self, instance: Instance, exit: Exit) -> None:  # noqa: A002
        self._add("gone", instance.id, exit)

    def answers(self, instance: Instance, at: float) -> None:
        self._add("answers", instance.id, at)

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [entry[1:] for entry in self.told if entry[0] == kind]

    async def until(self, kind: str, count: int = 1) -> list[tuple[Any, ...]]:
        while len(self.of(kind)) < count:
            self.changed.clear()
            await self.changed.wait()
        return self.of(kind)


@dataclass
class World:
    compute: SimCompute
    heard: Heard
    ledger: Ledger
    machine: Machine


def request(attempt: int, *, dated: bool = False, payload: bytes = b"{}") -> Run:
    return Run(attempt, attempt, 1, PIPELINE, payload, 30.0, dated)


def simulate(
    check: Callable[[World], Awaitable[None]],
    behaviour: Behaviour,
    delays: Delays = JITTER,
    seed: int = 1,
    **handler: Any,
) -> Ledger:
    """Run a check in a small world with one handler, close it, and return its ledger."""
    ledger = Ledger()

    async def main() -> None:
        script = Script(delays=delays)
        script.add("m:work", behaviour, **handler)
        machine = Machine(script, random.Random(seed), ledger)
        world = World(SimCompute(machine), Heard(), ledger, machine)
        await world.compute.open(world.heard)
        await check(world)
        await world.compute.close()
        assert not machine.processes

    run(main())
    return ledger


@pytest.mark.parametrize("seed", range(5))
def test_tasks_run_and_are_told_in_order(seed: int) -> None:
    async def check(world: World) -> None:
        instance = world.compute.launch(BLUEPRINT)
        instance.run([request(n, dated=n % 2 == 0, payload=b"%d" % n) for n in range(4)])
        ends = await world.heard.until("finished", 4)
        assert sorted(end.body for _, _, end in ends) == [b"0", b"1", b"2", b"3"]
        assert all(end.ending is Ending.OK and end.finished - end.started >= 0.1 for _, _, end in ends)
        kinds = [entry[0] for entry in world.heard.told]
        assert kinds[0] == "ready"
        assert sorted(attempt for _, attempt, _ in world.heard.of("started")) == [0, 2]
        assert {a: at for _, a, at in world.heard.of("started")}.items() <= {a: e.started for _, a, e in ends}.items()
        instance.stop()
        assert [exit_.code for _, exit_ in await world.heard.until("gone")] == [0]
        assert world.heard.told[-1][0] == "gone"

    ledger = simulate(check, echoes(Spread(0.1, 0.2)), seed=seed)
    assert ledger.breaches == []
    assert [e.fate for e in ledger.executions] == [Fate.OK] * 4
    assert all(e.sent <= (e.started or 0) <= (e.ended or 0) <= (e.told or 0) for e in ledger.executions)


def test_the_same_seed_is_the_same_world() -> None:
    async def check(world: World) -> None:
        for number in range(20):
            world.compute.launch(BLUEPRINT).run([request(4 * number + n, dated=True) for n in range(4)])
        await world.heard.until("gone", 20)

    behaviour = sometimes({answers(Spread(0, 1)): 5, crashes(Spread(0, 1)): 1, fails(0.1): 2})
    options: dict[str, Any] = {"lifetime": lambda rng: rng.expovariate(1)}
    one, same, other = (simulate(check, behaviour, seed=seed, **options).digest() for seed in (7, 7, 8))
    assert one == same != other


def test_a_crash_takes_all_its_tasks_along_and_what_was_not_flushed() -> None:
    async def check(world: World) -> None:
        instance = world.compute.launch(BLUEPRINT)
        instance.run([request(1), request(2, dated=True), request(3, dated=True)])
        ((_, exit_),) = await world.heard.until("gone")
        assert replace(exit_, peak=0) == Exit(None, 11, killed=False, detail="crashed")
        instance.run([request(4)])
        instance.cancel([4])
        instance.stop()
        instance.kill()
        world.compute.ping(instance)
        await asyncio.sleep(1)
        assert world.heard.told[-1][0] == "gone"

    def behaviour(call: Call) -> Act:
        return Act(1.0, crash=-11) if call.task == 1 else Act(0.9995 if call.task == 2 else 5.0)

    delays = Delays(flush=Spread(0.001, 0.001), up=Spread(0.2, 0.2))
    ledger = simulate(check, behaviour, delays)
    assert [e.fate for e in ledger.executions] == [Fate.DIED, Fate.OK, Fate.DIED, Fate.LOST]
    assert len(ledger.breaches) == 1
    assert "after it was gone" in ledger.breaches[0]


def test_cancel_is_obeyed_late_or_ignored() -> None:
    async def check(world: World) -> None:
        instance = world.compute.launch(BLUEPRINT)
        instance.run([request(1), request(2), request(3)])
        await world.heard.until("ready")
        await asyncio.sleep(0.5)
        instance.cancel([1, 2])
        instance.cancel([1, 99])
        (_, attempt, end), *more = await world.heard.until("finished")
        assert (attempt, end.ending, more) == (1, Ending.CANCELLED, [])
        assert end.finished - end.started == pytest.approx(0.7, abs=0.1)
        instance.kill()
        instance.kill()
        ((_, exit_),) = await world.heard.until("gone")
        assert (exit_.signal, exit_.killed) == (9, True)

    def behaviour(call: Call) -> Act:
        return stalls(grace=0.2 if call.task == 1 else None)(call)

    ledger = simulate(check, behaviour)
    assert [e.fate for e in ledger.executions] == [Fate.CANCELLED, Fate.KILLED, Fate.KILLED]


def test_a_handler_that_hogs_lets_nothing_in_or_out() -> None:
    async def check(world: World) -> None:
        instance = world.compute.launch(BLUEPRINT)
        await world.heard.until("ready")
        world.compute.ping(instance)
        await world.heard.until("answers")
        instance.run([request(1)])
        await asyncio.sleep(0.1)
        world.compute.ping(instance)
        instance.run([request(2)])
        instance.cancel([1])
        await asyncio.sleep(1)
        assert len(world.heard.of("answers")) == 1
        await world.heard.until("finished", 2)
        (_, before), (_, after) = await world.heard.until("answers", 2)
        assert after - before > 4

    def behaviour(call: Call) -> Act:
        return Act(5.0, hogs=call.task == 1)

    ledger = simulate(check, behaviour)
    first, second = ledger.executions
    assert (first.fate, second.fate) == (Fate.OK, Fate.OK)
    assert (second.started or 0) >= (first.ended or 0)


def test_throttling_errors_and_output_are_passed_on() -> None:
    async def check(world: World) -> None:
        instance = world.compute.launch(replace(BLUEPRINT, slots=1))
        for attempt in (1, 2):
            instance.run([request(attempt)])
            await world.heard.until("finished", attempt)
        instance.run([Run(3, 3, 1, PIPELINE, b"", 30.0)])
        throttled, failed, well = (end for _, _, end in await world.heard.until("finished", 3))
        assert (throttled.ending, throttled.retry_after, throttled.limit) == (Ending.THROTTLED, 2.5, "provider")
        assert (failed.ending, failed.retry_after) == (Ending.ERROR, None)
        assert b"scripted" in failed.body
        assert well.ending is Ending.OK
        assert world.heard.of("output") == [(instance.id, 3, "stdout", "hello\n")]

    def says_hello(call: Call) -> Act:
        return Act(0.1, output=(("stdout", "hello\n"),))

    def by_task(call: Call) -> Act:
        return behaviours[call.task](call)

    behaviours = {
        1: in_turn(throttles(0.1, Spread(2.5, 2.5), "provider"), answers(0)),
        2: fails(0.1),
        3: says_hello,
    }
    assert simulate(check, by_task).breaches == []


def test_imports_may_fail_or_take_too_long() -> None:
    async def fails_to_import(world: World) -> None:
        with pytest.raises(ImportFailed, match="No module named 'numpie'"):
            await world.compute.prepare(BLUEPRINT, 10.0)
        world.compute.launch(BLUEPRINT).run([request(1)])
        ((_, exit_),) = await world.heard.until("gone")
        assert (exit_.code, exit_.killed) == (1, False)
        assert world.heard.of("ready") == []
        with pytest.raises(ImportFailed, match="has no 'other'"):
            await world.compute.prepare(replace(BLUEPRINT, handler="m:other"), 10.0)

    async def takes_long(world: World) -> None:
        began = virtual_loop().time()
        with pytest.raises(ImportFailed, match=r"longer than 3\.0 s"):
            await world.compute.prepare(BLUEPRINT, 3.0)
        assert virtual_loop().time() - began == 3.0
        await world.compute.prepare(BLUEPRINT, 6.0)
        before = virtual_loop().time()
        world.compute.launch(BLUEPRINT)
        await world.heard.until("ready")
        assert virtual_loop().time() - before < 1  # it is a fork, for it was prepared
        world.compute.retire(BLUEPRINT)
        world.compute.launch(BLUEPRINT)
        await world.heard.until("ready", 2)
        assert virtual_loop().time() - before > 5

    ledger = simulate(fails_to_import, answers(0), import_error="No module named 'numpie'")
    assert [e.fate for e in ledger.executions] == [Fate.LOST]
    simulate(takes_long, answers(0), import_time=Spread(5.0, 5.0))


def test_breaches_of_the_protocol_are_noted() -> None:
    async def check(world: World) -> None:
        full = world.compute.launch(replace(BLUEPRINT, slots=1))
        full.run([request(1), request(2)])
        await world.heard.until("finished", 2)
        full.run([request(1)])
        full.stop()
        full.run([replace(request(3), pipeline=PipelineContext(1, "another"))])
        once = world.compute.launch(replace(BLUEPRINT, slots=1, reuse=False))
        once.run([request(4)])
        await world.heard.until("finished", 4)
        once.run([request(5)])
        once.kill()
        once.run([request(6)])

    found = simulate(check, answers(0.1)).breaches
    for what in (
        "2 executions at once on 1 slots",
        "sent twice",
        "after stop",
        "context key 1",
        "reuse: false",
        "after kill",
    ):
        assert any(what in breach for breach in found), what


def test_the_next_server_ends_what_a_killed_one_left() -> None:
    ledger = Ledger()

    async def serve(machine: Machine, compute: SimCompute, heard: Heard) -> None:
        await compute.open(heard)
        compute.launch(BLUEPRINT).run([request(1), request(2)])
        await asyncio.sleep(3600)

    async def main() -> None:
        script = Script(delays=JITTER)
        script.add("m:work", in_turn(answers(2.0), answers(1.0)))
        machine = Machine(script, random.Random(3), ledger, orphans_live=Spread(10.0, 20.0))
        dead, unheard, life = SimCompute(machine), Heard(), Life("first")
        virtual_loop().spawn(life, serve(machine, dead, unheard))
        await asyncio.sleep(1)
        dead.die()
        await virtual_loop().kill(life)
        dead.launch(BLUEPRINT).run([request(9)])
        for instance in list(machine.processes.values()):
            instance.kill()
            dead.ping(instance)
        alive, heard = SimCompute(machine), Heard()
        await alive.open(heard)
        assert not machine.processes
        alive.launch(BLUEPRINT).run([request(1)])
        await heard.until("finished")
        await alive.close()
        assert {entry[0] for entry in unheard.told} == {"ready"}

    run(main())
    assert ledger.breaches == []
    assert [(e.epoch, e.fate) for e in ledger.executions] == [
        (1, Fate.KILLED), (1, Fate.KILLED), (1, Fate.LOST), (2, Fate.OK),
    ]  # fmt: skip


def test_orphans_die_by_themselves() -> None:
    async def main() -> None:
        script = Script()
        script.add("m:work", stalls())
        machine = Machine(script, random.Random(3), Ledger(), orphans_live=Spread(0.1, 0.2))
        compute = SimCompute(machine)
        await compute.open(Heard())
        compute.launch(BLUEPRINT).run([request(1)])
        await asyncio.sleep(1)
        compute.die()
        await asyncio.sleep(1)
        assert not machine.processes

    run(main())
