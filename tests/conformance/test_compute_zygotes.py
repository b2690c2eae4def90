"""Several zygotes of one blueprint: side by side in a burst, and one after the other."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conformance.compute_world import (
    HANDLERS,
    PATIENCE,
    Body,
    Heard,
    LocalWorld,
    blueprint,
    exercise,
    result_of,
    run_of,
)

from penstock.compute import nursery
from penstock.compute.local import LocalCompute
from penstock.compute.protocol import Blueprint, Compute, Instance, Level
from penstock.runtime.procfs import children

CODE = (
    HANDLERS
    + """

def parent(event, context):
    return [os.readlink("/proc/self/ns/pid"), os.getppid()]
"""
)
Exercise = Callable[[Body], Heard]
Family = dict[tuple[str, int], list[Instance]]
"""Instances by their zygote, which is known by a namespace and a process id in it."""


@pytest.fixture
def run(tmp_path: Path) -> Exercise:
    return lambda body: exercise(LocalWorld(), tmp_path, body, CODE)


@pytest.fixture
def bursting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery, "CORES", 2)
    monkeypatch.setattr(nursery, "MANY", 10)
    monkeypatch.setattr(nursery, "_FORK", 1.0)  # so that no import takes longer than forking what waits


async def ask(heard: Heard, *instances: Instance) -> Family:
    """Ask instances for their zygotes."""
    first = len(heard.ends) + 1
    for attempt, instance in enumerate(instances, first):
        instance.run([run_of(attempt)])
    ends = await heard.end_of(*range(first, first + len(instances)))
    family: Family = {}
    for instance, end in zip(instances, ends, strict=True):
        space, pid = result_of(end)
        family.setdefault((space, pid), []).append(instance)
    return family


async def burst(compute: Compute, heard: Heard, made_from: Blueprint) -> Family:
    """Launch in bursts until two zygotes have taken their share of one."""
    while len(family := await ask(heard, *[compute.launch(made_from) for _ in range(100)])) < 2:
        for instances in family.values():
            await leave(heard, instances)
    return family


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no instance tells of."""
    limit = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < limit
        await asyncio.sleep(0.01)


async def leave(heard: Heard, instances: list[Instance]) -> None:
    for instance in instances:
        instance.stop()
    await heard.until(lambda: all(instance.id in heard.exits for instance in instances))


@pytest.mark.parametrize("level", ["off", "standard", "strict"])
@pytest.mark.usefixtures("bursting")
def test_a_killed_zygote_takes_only_its_own_instances(run: Exercise, level: Level) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        assert isinstance(compute, LocalCompute)
        if level == "strict" and compute.isolation("strict").missing:
            pytest.skip("this machine has no strict sandbox")
        made_from, before = blueprint("parent", sandbox=level), set(children())
        one, other = (await burst(compute, heard, made_from)).values()
        os.kill(min(set(children()) - before), signal.SIGKILL)
        await heard.until(lambda: heard.exits.keys() & {instance.id for instance in (*one, *other)})
        lost, left = (one, other) if heard.exits.keys() & {instance.id for instance in one} else (other, one)
        for instance in lost:
            exit = await heard.exit_of(instance)  # noqa: A001
            assert (exit.signal, exit.killed) == (9, False)
            assert "SIGKILL" in exit.detail
        assert len(await ask(heard, *left)) == 1
        assert await ask(heard, compute.launch(made_from), compute.launch(made_from))
        assert not {instance.id for instance in left} & heard.exits.keys()

    run(body)


@pytest.mark.usefixtures("bursting")
def test_zygotes_that_help_go_after_a_rest(run: Exercise, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery, "REST", 0.3)

    async def body(compute: Compute, heard: Heard) -> None:
        made_from, before = blueprint("parent"), set(children())
        family = await burst(compute, heard, made_from)
        for instances in family.values():
            await leave(heard, instances)
        await until(lambda: len(set(children()) - before) == 1)
        (left,) = await ask(heard, compute.launch(made_from))
        assert left in family

    run(body)


def test_few_launches_have_one_zygote(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        made_from, before = blueprint("parent"), set(children())
        for _ in range(3):
            assert len(await ask(heard, *[compute.launch(made_from) for _ in range(40)])) == 1
        assert len(set(children()) - before) == 1

    run(body)


def test_a_kill_reaches_launches_wherever_they_are(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("parent")
        unready = [compute.launch(made_from) for _ in range(100)]
        unready[0].kill()
        await heard.until(lambda: heard.alive)
        waiting = [compute.launch(made_from) for _ in range(200)]
        await asyncio.sleep(0)
        for instance in (*unready, *waiting):
            instance.kill()
        for instance in (*unready, *waiting):
            exit = await heard.exit_of(instance)  # noqa: A001
            assert (exit.signal, exit.killed) == (9, True)
        assert await ask(heard, compute.launch(made_from))

    run(body)


def test_a_zygote_is_replaced_and_goes_with_its_last_instance(run: Exercise, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nursery, "FORKS", 3)

    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("parent")
        veteran = compute.launch(made_from)
        (old,) = await ask(heard, veteran)
        seen = {old}
        while len(seen) < 4:
            instance = compute.launch(made_from)
            seen |= (await ask(heard, instance)).keys()
            await leave(heard, [instance])
        assert list(await ask(heard, veteran)) == [old]
        assert old[1] in children()
        await leave(heard, [veteran])
        await until(lambda: old[1] not in children())

    heard = run(body)
    assert all((exit.code, exit.killed) == (0, False) for exits in heard.exits.values() for exit in exits)  # noqa: A001


def test_a_replacement_that_does_not_import_is_in_nobodys_way(
    run: Exercise, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(nursery, "FORKS", 1)
    tried = tmp_path / "tried"

    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("parent")
        known = {*await ask(heard, compute.launch(made_from))}
        (tmp_path / "bundle" / "handlers.py").write_text(f"open({str(tried)!r}, 'a').close()\n1 / 0\n")
        while not tried.exists():
            instance = compute.launch(made_from)
            known |= (await ask(heard, instance)).keys()
            await leave(heard, [instance])
        assert (await ask(heard, compute.launch(made_from))).keys() <= known
        assert len(known) <= 2  # it may be that the first replacement had read the code before it was broken

    run(body)
