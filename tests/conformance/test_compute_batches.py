"""Batches: what every compute does with an execution that has several tasks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.compute_world import WORLDS, Body, Heard, batch_of, blueprint, exercise, result_of, run_of

from penstock.compute.protocol import Compute, End, Ending

Exercise = Callable[[Body], Heard]
WAYS = [("pick", 1), ("pick", 4), ("pick_async", 1), ("pick_async", 4)]


@pytest.fixture(params=sorted(WORLDS))
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Exercise:
    return lambda body: exercise(WORLDS[request.param], tmp_path, body)


def parts_of(end: End) -> list[tuple[Ending, Any]]:
    return [(part.ending, json.loads(part.body)) for part in end.parts]


@pytest.mark.parametrize(("handler", "slots"), WAYS)
def test_each_task_of_a_batch_gets_its_own_result(run: Exercise, handler: str, slots: int) -> None:
    long = "ü" * 200_000

    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([batch_of(1, 7, {"a": [1, 2]}, None, "x,y"), batch_of(2, long, 1, long), batch_of(3, "alone")])
        several, large, one = await heard.end_of(1, 2, 3)
        assert parts_of(several) == [(Ending.OK, event) for event in (7, {"a": [1, 2]}, None, "x,y")]
        assert parts_of(large) == [(Ending.OK, event) for event in (long, 1, long)]
        assert parts_of(one) == [(Ending.OK, "alone")]
        assert {end.ending for end in (several, large, one)} == {Ending.OK}

    run(body)


@pytest.mark.parametrize(("handler", "slots"), WAYS)
def test_one_that_fails_leaves_the_others_alone(run: Exercise, handler: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([batch_of(1, "good", "bad", "fine")])
        (end,) = await heard.end_of(1)
        assert [part.ending for part in end.parts] == [Ending.OK, Ending.ERROR, Ending.OK]
        error = json.loads(end.parts[1].body)
        assert (error["type"], error["message"]) == ("ValueError", "bad")

    run(body)


def test_a_payload_that_is_not_json_fails_alone(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("pick"))
        instance.run([batch_of(1, "good", b"{nope", "fine")])
        (end,) = await heard.end_of(1)
        assert [part.ending for part in end.parts] == [Ending.OK, Ending.ERROR, Ending.OK]
        assert "payload is not JSON" in json.loads(end.parts[1].body)["message"]
        assert [json.loads(end.parts[at].body) for at in (0, 2)] == ["good", "fine"]

    run(body)


@pytest.mark.parametrize("handler", ["fail", "fail_async"])
def test_an_exception_is_that_of_all(run: Exercise, handler: str) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler))
        instance.run([batch_of(1, "one", "two"), run_of(2, "three")])
        batch, single = await heard.end_of(1, 2)
        assert batch.ending is single.ending is Ending.ERROR
        assert result_of(batch)["type"] == "ValueError"
        assert not batch.parts

    run(body)


def test_a_batch_that_waits_for_later_waits_as_a_whole(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("throttle"))
        instance.run([batch_of(1, 2.5, 2.5)])
        (end,) = await heard.end_of(1)
        assert (end.ending, end.parts, end.limit) == (Ending.THROTTLED, (), "provider")

    run(body)


def test_a_batch_can_be_cancelled_while_it_travels(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("pick_async", 4))
        instance.run([batch_of(1, "x" * 5_000_000, 1)])
        instance.cancel([1])
        instance.run([batch_of(2, "y", 2)])
        cancelled, fine = await heard.end_of(1, 2)
        assert (cancelled.ending, cancelled.parts) == (Ending.CANCELLED, ())
        assert parts_of(fine) == [(Ending.OK, "y"), (Ending.OK, 2)]

    run(body)


def test_batches_and_single_tasks_go_together(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("echo", 4))
        runs = [run_of(at, at) if at % 2 else batch_of(at, at, -at) for at in range(1, 101)]
        instance.run(runs)
        for at, end in enumerate(await heard.end_of(*range(1, 101)), 1):
            if at % 2:
                assert (result_of(end), end.parts) == (at, ())
            else:
                assert parts_of(end) == [(Ending.OK, at), (Ending.OK, -at)]

    run(body)
