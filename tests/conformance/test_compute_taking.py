"""Limits inside a task, in real instances of every kind: what handlers see of refusals, cancellations and stray threads."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.compute_world import Body, Heard, LocalWorld, blueprint, exercise, granted, result_of, run_of

from penstock.compute.protocol import Compute, Ending
from penstock.runtime import wire

CODE = """
import asyncio, os, threading
from concurrent.futures import ThreadPoolExecutor

import penstock


def several(event, context):
    with ThreadPoolExecutor(event) as pool:
        return sorted(pool.map(lambda n: [context.acquire("provider", n + 1), n][1], range(event)))


async def several_async(event, context):
    await asyncio.gather(*(context.acquire("provider", n + 1) for n in range(event)))
    return list(range(event))


def take(event, context):
    try:
        context.acquire("provider")
    except penstock.LimitError as error:
        return [type(error).__name__, str(error)]


async def take_async(event, context):
    try:
        await context.acquire("provider")
    except penstock.LimitError as error:
        return [type(error).__name__, str(error)]


def enter(event, context):
    try:
        with context.slot("database"):
            return "in"
    except penstock.LimitError as error:
        return [type(error).__name__, str(error)]


def fail_inside(event, context):
    with context.slot("database"):
        raise ValueError("inside")


async def fail_inside_async(event, context):
    async with context.slot("database"):
        raise ValueError("inside")


def wrong(event, context):
    found = []
    for call in (lambda: context.acquire("l", 0), lambda: context.acquire("l", float("nan")),
                 lambda: context.acquire("l", "1"), lambda: context.acquire(7), lambda: context.spent(-1),
                 lambda: context.spent(float("inf"))):
        try:
            call()
        except (ValueError, TypeError) as error:
            found.append(str(error))
    return found


def echo(event, context):
    return event


async def impatient_async(event, context):
    try:
        await asyncio.wait_for(context.acquire("provider"), 0.01)
    except asyncio.TimeoutError:
        return "gave up"


def leave_behind(event, context):
    def wait():
        try:
            context.acquire("provider")
        except penstock.LimitError as error:
            print(error, flush=True)
    threading.Thread(target=wait).start()


def forks(event, context):
    reads, writes = os.pipe()
    if not os.fork():
        for call in (lambda: context.acquire("provider"), lambda: context.slot("database").__enter__(),
                     lambda: context.spent(3)):
            try:
                call()
            except penstock.LimitError as error:
                os.write(writes, str(error).encode() + b"|")
        os._exit(0)
    os.close(writes)
    text = b""
    while chunk := os.read(reads, 4096):
        text += chunk
    return text.decode()


def forks_inside(event, context):
    with context.slot("database"):
        child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return "parent"
"""

Exercise = Callable[[Body], Heard]
KINDS = [("", 1), ("", 4), ("_async", 4)]


@pytest.fixture
def run(tmp_path: Path) -> Exercise:
    return lambda body: exercise(LocalWorld(), tmp_path, body, CODE)


@pytest.mark.parametrize(("kind", "slots"), KINDS)
def test_several_wait_at_once_and_answers_may_come_in_any_order(run: Exercise, kind: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("several" + kind, slots))
        instance.run([run_of(1, 5)])
        await heard.take_of(1, 5)
        for take in reversed(heard.takes(1)):
            instance.answer([granted(take)])
        (end,) = await heard.end_of(1)
        assert result_of(end) == [0, 1, 2, 3, 4]
        took = {one.number for one in heard.requests if isinstance(one, wire.Took)}  # one may be told again
        assert took == {take.number for take in heard.takes(1)}
        assert sorted(take.cost for take in heard.takes(1)) == [1, 2, 3, 4, 5]

    run(body)


@pytest.mark.parametrize(("kind", "slots"), KINDS)
def test_a_refusal_is_raised_as_what_it_is(run: Exercise, kind: str, slots: int) -> None:
    names = {
        wire.MISUSED: "LimitError",
        wire.UNKNOWN: "UnknownLimit",
        wire.HOLDS: "HoldAndWait",
        wire.TOO_COSTLY: "CostTooHigh",
    }

    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("take" + kind, slots))
        for attempt, (refusal, name) in enumerate(names.items(), 1):
            instance.run([run_of(attempt)])
            take = await heard.take_of(attempt)
            instance.answer([wire.Answer(attempt, take.number, refusal, "because")])
            (end,) = await heard.end_of(attempt)
            assert result_of(end) == [name, "because"]

    heard = run(body)
    assert not [one for one in heard.requests if not isinstance(one, wire.Take)], (
        "nothing was taken, nothing given back"
    )


@pytest.mark.parametrize(("kind", "slots"), KINDS)
def test_an_exception_inside_the_block_gives_the_slot_back(run: Exercise, kind: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("fail_inside" + kind, slots))
        instance.run([run_of(1)])
        take = await heard.take_of(1)
        instance.answer([granted(take)])
        (end,) = await heard.end_of(1)
        assert result_of(end)["message"] == "inside"
        assert heard.requests[-1] == wire.Give(1, take.number)

    run(body)


def test_costs_and_names_that_are_none_are_refused_at_once(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("wrong"))
        instance.run([run_of(1)])
        (end,) = await heard.end_of(1)
        found = result_of(end)
        assert len(found) == 6
        assert "above 0" in found[0]
        assert "named by a text" in found[3]
        assert "from 0 up" in found[4]

    assert not run(body).requests


def test_a_serial_instance_reads_on_while_its_handler_waits(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("take"))
        instance.run([run_of(1)])
        take = await heard.take_of(1)
        instance.run([run_of(2), run_of(3)])
        instance.cancel([3])
        compute.ping(instance)
        await heard.until(lambda: heard.answered)
        (cancelled,) = await heard.end_of(3)
        assert cancelled.ending is Ending.CANCELLED
        instance.stop()
        instance.answer([granted(take)])
        instance.answer([granted(await heard.take_of(2))])
        await heard.end_of(1, 2)
        assert (await heard.exit_of(instance)).code == 0

    run(body)


def test_a_thread_that_gets_no_answer_dies_with_its_instance(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instances = [compute.launch(blueprint("take" + kind, slots)) for kind, slots in KINDS]
        for attempt, instance in enumerate(instances, 1):
            instance.run([run_of(attempt)])
            await heard.take_of(attempt)
            instance.kill()
            assert (await heard.exit_of(instance)).killed

    run(body)


def test_a_coroutine_that_gives_up_takes_its_request_back(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("impatient_async", 4))
        instance.run([run_of(1)])
        (end,) = await heard.end_of(1)
        assert result_of(end) == "gave up"
        take = heard.takes(1)[0]
        assert heard.requests == [take, wire.Give(1, take.number)]

    run(body)


@pytest.mark.parametrize("slots", [1, 4])
def test_a_thread_that_was_left_behind_waits_no_more(run: Exercise, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("leave_behind", slots))
        instance.run([run_of(1)])
        await heard.end_of(1)
        # One that asked before the end is answered, as the server does it; one that asks later is refused where it is.
        instance.answer([wire.Answer(1, take.number, wire.MISUSED, "has ended") for take in heard.takes(1)])
        await heard.until(lambda: any("has ended" in text for _, _, _, text in heard.texts))

    run(body)


@pytest.mark.parametrize("slots", [1, 4])
def test_a_forked_process_is_told_that_it_has_no_way_to_limits(run: Exercise, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("forks", slots))
        instance.run([run_of(1)])
        (end,) = await heard.end_of(1)
        assert result_of(end).count("forked by the handler") == 3

    assert not run(body).requests


def test_a_forked_process_gives_nothing_back(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("forks_inside", 4))
        instance.run([run_of(1)])
        take = await heard.take_of(1)
        instance.answer([granted(take)])
        (end,) = await heard.end_of(1)
        assert result_of(end) == "parent"
        gave: list[Any] = [one for one in heard.requests if isinstance(one, wire.Give)]
        assert len(gave) == 1

    run(body)
