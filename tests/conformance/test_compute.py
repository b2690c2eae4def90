"""What every compute does, the simulated one included; what only processes can do is in `test_compute_local.py`."""

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.compute_world import (
    WORLDS,
    Body,
    Heard,
    blueprint,
    done,
    exercise,
    granted,
    result_of,
    run_of,
)

from penstock.compute.protocol import Compute, Ending, ImportFailed, PipelineContext
from penstock.runtime import wire

Exercise = Callable[[Body], Heard]
WAYS = [("echo", 1), ("echo_async", 1), ("echo", 4), ("echo_async", 4)]


@pytest.fixture(params=sorted(WORLDS))
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Exercise:
    return lambda body: exercise(WORLDS[request.param], tmp_path, body)


@pytest.mark.parametrize(("handler", "slots"), WAYS)
def test_a_payload_goes_in_and_a_result_comes_out(run: Exercise, handler: str, slots: int) -> None:
    events: list[Any] = [None, 7, "ü😀", [1, {"a": None}], {"k": [True, 1.5]}]

    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint(handler, slots)
        await compute.prepare(made_from, 30.0)
        instance = compute.launch(made_from)
        instance.run([run_of(number, event) for number, event in enumerate(events, 1)])
        instance.run([run_of(9, b"")])
        ends = await heard.end_of(*range(1, len(events) + 1), 9)
        assert [result_of(end) for end in ends] == [*events, None]
        assert {end.ending for end in ends} == {Ending.OK}
        assert all(end.started <= end.finished <= time.monotonic() for end in ends)

    run(body)


def test_executions_sent_before_the_instance_is_ready_start_when_it_is(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("echo"))  # not even prepared
        instance.run([run_of(1, "early")])
        (end,) = await heard.end_of(1)
        assert result_of(end) == "early"

    run(body)


@pytest.mark.parametrize(("handler", "slots"), [("fail", 1), ("fail_async", 4), ("fail", 4)])
def test_an_exception_is_an_error_and_the_instance_lives_on(run: Exercise, handler: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([run_of(1, "first"), run_of(2, "second")])
        for end, message in zip(await heard.end_of(1, 2), ("first", "second"), strict=True):
            assert end.ending is Ending.ERROR
            assert result_of(end)["type"] == "ValueError"
            assert result_of(end)["message"] == message
        assert not heard.exits

    run(body)


@pytest.mark.parametrize(("handler", "kind"), [("leave", "SystemExit"), ("leave_async", "KeyboardInterrupt")])
@pytest.mark.parametrize("slots", [1, 4])
def test_leaving_ends_the_task_and_not_the_instance(run: Exercise, handler: str, kind: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        for attempt in (1, 2):
            instance.run([run_of(attempt)])
            (end,) = await heard.end_of(attempt)
            assert end.ending is Ending.ERROR
            assert result_of(end)["type"] == kind
        assert not heard.exits

    run(body)


@pytest.mark.parametrize(("handler", "slots"), [("not_json", 1), ("not_json_async", 4), ("not_json", 4)])
def test_a_result_that_is_not_json_is_an_error_that_names_it(run: Exercise, handler: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([run_of(1)])
        (end,) = await heard.end_of(1)
        assert end.ending is Ending.ERROR
        assert "set" in result_of(end)["message"]

    run(body)


def test_a_payload_that_is_not_json_is_an_error(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("echo"))
        instance.run([run_of(1, b"{nope"), run_of(2, "fine")])
        bad, fine = await heard.end_of(1, 2)
        assert bad.ending is Ending.ERROR
        assert "payload is not JSON" in result_of(bad)["message"]
        assert fine.ending is Ending.OK

    run(body)


@pytest.mark.parametrize(("handler", "slots"), [("acquire", 1), ("acquire", 4), ("acquire_async", 4)])
def test_who_acquires_goes_on_when_that_is_granted_and_tells_when(run: Exercise, handler: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([run_of(1, 2.5)])
        take = await heard.take_of(1)
        assert (take.slot, take.cost, take.limit) == (False, 2.5, "provider")
        compute.ping(instance)
        await heard.until(lambda: heard.answered)
        assert not heard.ends
        instance.answer([granted(take)])
        (end,) = await heard.end_of(1)
        assert result_of(end) == "went on"
        took = [one for one in heard.requests if isinstance(one, wire.Took)]
        assert {(one.attempt, one.number) for one in took} == {(1, take.number)}
        assert end.started <= took[-1].at
        assert heard.order.index(("asked", 1)) < heard.order.index(("finished", 1))

    run(body)


@pytest.mark.parametrize(("handler", "slots"), [("hold", 1), ("hold", 4), ("hold_async", 4)])
def test_a_slot_is_given_back(run: Exercise, handler: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([run_of(1)])
        take = await heard.take_of(1)
        assert (take.slot, take.limit) == (True, "database")
        instance.answer([granted(take)])
        await heard.end_of(1)
        assert heard.requests == [take, wire.Give(1, take.number)]

    run(body)


@pytest.mark.parametrize(("handler", "slots"), [("spend", 1), ("spend", 4), ("spend_async", 4)])
def test_what_was_spent_is_told_before_the_end(run: Exercise, handler: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([run_of(1, 812)])
        await heard.end_of(1)
        assert heard.requests == [wire.Spent(1, 812.0)]

    run(body)


@pytest.mark.parametrize(("handler", "slots"), [("invoke", 1), ("invoke", 4), ("invoke_async", 4)])
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_who_calls_others_goes_on_when_that_is_replied_to(run: Exercise, handler: str, slots: int, size: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([run_of(1, "x" * size)])
        order = await heard.order_of(1)
        assert (order.verb, order.waits, order.target) == (wire.INVOKE, True, "other")
        assert (order.size, order.body) == (size + 2, b'"' + b"x" * size + b'"')
        compute.ping(instance)
        await heard.until(lambda: heard.answered)
        assert not heard.ends
        instance.answer([done(order, order.body)])
        (end,) = await heard.end_of(1)
        assert result_of(end) == ["went on", "x" * size]
        instance.answer([done(order, b"1")])  # nobody waits for it any more
        instance.run([run_of(2, 1)])
        instance.answer([done(await heard.order_of(2), b"1")])
        await heard.end_of(2)

    run(body)


def test_a_cancellation_ends_the_wait_for_a_limit(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("acquire_async", 4))
        instance.run([run_of(1, 1)])
        take = await heard.take_of(1)
        instance.cancel([1])
        (end,) = await heard.end_of(1)
        assert end.ending is Ending.CANCELLED
        assert heard.requests == [take, wire.Give(1, take.number)]
        instance.answer([granted(take)])  # it crossed the cancellation: nobody hears it
        instance.run([run_of(2, 1)])
        instance.answer([granted(await heard.take_of(2))])
        await heard.end_of(2)

    run(body)


def test_throttled_carries_its_wait_and_its_limit(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("throttle"))
        instance.run([run_of(1, 2.5), run_of(2, None)])
        named, unnamed = await heard.end_of(1, 2)
        assert named.ending is unnamed.ending is Ending.THROTTLED
        assert (named.retry_after, named.limit) == (2.5, "provider")
        assert unnamed.retry_after is None

    run(body)


def test_a_process_that_exits_is_gone_with_its_code(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("exit"))
        instance.run([run_of(1, 7)])
        gone = await heard.exit_of(instance)
        assert (gone.code, gone.signal, gone.killed) == (7, None, False)
        assert 1 not in heard.ends

    run(body)


def test_a_process_that_crashes_is_gone_with_its_signal(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("crash"))
        instance.run([run_of(1)])
        gone = await heard.exit_of(instance)
        assert (gone.code, gone.signal, gone.killed) == (None, 11, False)
        assert 1 not in heard.ends

    run(body)


@pytest.mark.parametrize(("handler", "slots"), [("hang", 1), ("hang", 4), ("hang_async", 4)])
def test_kill_ends_an_instance_whatever_it_does(run: Exercise, handler: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([run_of(1, dated=True)])
        await heard.until(lambda: 1 in heard.starts)
        instance.kill()
        instance.kill()
        gone = await heard.exit_of(instance)
        assert (gone.code, gone.signal, gone.killed) == (None, 9, True)
        assert not heard.ends
        instance.kill()
        instance.stop()
        instance.cancel([1])
        instance.run([run_of(2)])
        compute.ping(instance)

    run(body)


def test_an_instance_can_be_killed_before_it_has_begun(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instances = [compute.launch(blueprint("echo")) for _ in range(5)]
        for instance in instances:
            instance.kill()
        for instance in instances:
            assert (await heard.exit_of(instance)).killed

    run(body)


@pytest.mark.parametrize(("handler", "slots"), [("grow", 1), ("grow", 3), ("grow_async", 3)])
def test_an_instance_that_uses_more_memory_than_it_may_is_ended_and_its_neighbour_goes_on(
    run: Exercise, handler: str, slots: int
) -> None:
    limit = 100_000_000

    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint(handler, slots, memory=limit)
        modest, greedy = compute.launch(made_from), compute.launch(made_from)
        modest.run([run_of(1, 30_000_000)])
        greedy.run([run_of(2, 3_000_000_000)])
        gone = await heard.exit_of(greedy)
        assert (gone.code, gone.signal, gone.killed) == (None, 9, False)
        assert gone.overran is not None
        assert gone.overran >= limit  # the kernel never lets it get further
        modest.run([run_of(3, 30_000_000)])
        assert [result_of(end) for end in await heard.end_of(1, 3)] == [6, 6]
        assert 2 not in heard.ends

    run(body)


def test_memory_without_a_limit_and_ends_of_other_causes_are_no_overrun(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        free = compute.launch(blueprint("grow"))
        free.run([run_of(1, 200_000_000)])
        assert result_of((await heard.end_of(1))[0]) == 40
        free.kill()
        crashing = compute.launch(blueprint("crash", memory=100_000_000))
        crashing.run([run_of(2)])
        for instance in (free, crashing):
            assert (await heard.exit_of(instance)).overran is None
        assert (await heard.exit_of(free)).peak >= 200_000_000
        assert compute.enforcement

    run(body)


def test_an_async_execution_is_cancelled_and_its_neighbours_go_on(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("sleep_async", 4))
        instance.run([run_of(1, 3600, dated=True), run_of(2, 0.2)])
        await heard.until(lambda: 1 in heard.starts)
        instance.cancel([1, 77])
        cancelled, neighbour = await heard.end_of(1, 2)
        assert cancelled.ending is Ending.CANCELLED
        assert neighbour.ending is Ending.OK

    run(body)


def test_a_handler_may_answer_its_cancellation(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("stubborn_async", 4))
        instance.run([run_of(1, dated=True)])
        await heard.until(lambda: 1 in heard.starts)
        instance.cancel([1])
        (end,) = await heard.end_of(1)
        assert (end.ending, result_of(end)) == (Ending.OK, "stayed")

    run(body)


@pytest.mark.parametrize("slots", [1, 2])
def test_a_sync_execution_is_cancelled_only_before_it_starts(run: Exercise, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("sleep", slots))
        started = list(range(1, slots + 1))
        instance.run([run_of(number, 0.3, dated=True) for number in started])
        await heard.until(lambda: len(heard.starts) == slots)
        instance.run([run_of(9, 3600)])
        instance.cancel([1, 9])
        *finished, waiting = await heard.end_of(*started, 9)
        assert {end.ending for end in finished} == {Ending.OK}
        assert waiting.ending is Ending.CANCELLED

    run(body)


@pytest.mark.parametrize(("handler", "slots"), WAYS)
def test_a_dated_execution_tells_its_start_first(run: Exercise, handler: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([run_of(1, dated=True), run_of(2, dated=False), run_of(3, dated=True)])
        ends = await heard.end_of(1, 2, 3)
        assert set(heard.starts) == {1, 3}
        for end in (ends[0], ends[2]):
            assert heard.starts[end.attempt] >= end.started
            assert heard.order.index(("started", end.attempt)) < heard.order.index(("finished", end.attempt))

    run(body)


def test_a_start_is_told_while_the_handler_still_runs(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        for attempt, (handler, slots) in enumerate([("hang", 1), ("hang", 3), ("hang_async", 3)], 1):
            instance = compute.launch(blueprint(handler, slots))
            instance.run([run_of(attempt, dated=True)])
            await heard.until(partial(heard.starts.__contains__, attempt))
        assert not heard.ends

    run(body)


def test_the_context_says_which_task_and_pipeline_it_is(run: Exercise) -> None:
    other = PipelineContext(2, "customer-b", b'{"n": [1]}')

    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("tell", memory=256 << 20))
        instance.run([run_of(1, task=0xABC, number=4, timeout=20.0), run_of(2, pipeline=other)])
        first, second = map(result_of, await heard.end_of(1, 2))
        assert 0 < first.pop("left") <= 20_000
        assert first == {
            "function": "suite",
            "version": "3",
            "memory": 256,
            "task": "0000000000000abc",
            "request": "0000000000000abc",
            "attempt": 4,
            "pipeline": "customer-a",
            "params": {"api_key": "k"},
        }
        assert (second["pipeline"], second["params"]) == ("customer-b", {"n": [1]})

    run(body)


def test_params_are_each_executions_own(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("spoil_params_async", 4))
        instance.run([run_of(1), run_of(2)])
        for end in await heard.end_of(1, 2):
            assert result_of(end)[0] == {"api_key": "k"}

    run(body)


@pytest.mark.parametrize(("handler", "slots"), [("echo_async", 50), ("echo", 8)])
def test_a_thousand_tasks_through_shared_slots(run: Exercise, handler: str, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint(handler, slots)
        instances = [compute.launch(made_from) for _ in range(2)]
        todo = list(range(1, 1001))
        while todo:
            for instance in instances:
                batch = [todo.pop() for _ in range(min(slots, len(todo)))]
                instance.run([run_of(number, {"n": number}, dated=number % 3 == 0) for number in batch])
            sent = 1000 - len(todo)
            await heard.until(lambda: len(heard.ends) >= sent)  # noqa: B023 - waited for in this turn
        assert {number: result_of(end)["n"] for number, end in heard.ends.items()} == {n: n for n in range(1, 1001)}
        assert len(heard.starts) == 333

    run(body)


@pytest.mark.parametrize(("handler", "slots"), WAYS)
def test_large_payloads_and_results_travel_with_small_ones(run: Exercise, handler: str, slots: int) -> None:
    large = "ü" * 2_500_000

    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        large_run = run_of(1, large)
        instance.run([large_run, *(run_of(number, number) for number in range(2, 50)), run_of(50, large)])
        ends = await heard.end_of(*range(1, 51))
        assert result_of(ends[0]) == result_of(ends[-1]) == large
        assert [result_of(end) for end in ends[1:-1]] == list(range(2, 50))

    run(body)


def test_a_large_execution_can_be_cancelled_while_it_travels(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("echo_async", 4))
        instance.run([run_of(1, "x" * 5_000_000)])
        instance.cancel([1])
        instance.run([run_of(2, "y" * 5_000_000)])
        cancelled, fine = await heard.end_of(1, 2)
        assert cancelled.ending is Ending.CANCELLED
        assert fine.ending is Ending.OK

    run(body)


def test_the_end_that_is_reported_is_whole_and_finite(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("echo"))
        instance.run([run_of(1)])
        (end,) = await heard.end_of(1)
        assert (end.retry_after, end.limit) == (None, None)
        assert math.isfinite(end.started)
        assert math.isfinite(end.finished)

    run(body)


@pytest.mark.parametrize("slots", [1, 4])
def test_output_belongs_to_the_task_that_wrote_it_and_comes_before_its_end(run: Exercise, slots: int) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("chatter", slots))
        instance.run([run_of(number, number) for number in (1, 2, 3)])
        await heard.end_of(1, 2, 3)
        for number in (1, 2, 3):
            assert heard.text(number) == f"to stdout {number}\n"
            assert heard.text(number, "stderr") == f"to stderr {number}\n"
            assert heard.text(number, "log") == f"INFO to log {number}\n"
            outputs = [place for place, event in enumerate(heard.order) if event == ("output", number)]
            assert max(outputs) < heard.order.index(("finished", number))

    run(body)


def test_output_of_interleaving_tasks_is_kept_apart(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint("chatter_async", 10))
        instance.run([run_of(number, f"task {number}") for number in range(1, 11)])
        await heard.end_of(*range(1, 11))
        for number in range(1, 11):
            assert heard.text(number) == "".join(f"task {number} {line}\n" for line in range(5))

    run(body)


def test_stop_lets_an_instance_finish_what_it_has(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        for first, (handler, slots) in enumerate([("sleep", 1), ("sleep", 3), ("sleep_async", 3)]):
            instance = compute.launch(blueprint(handler, slots))
            attempts = [first * 10 + number for number in (1, 2, 3)]
            instance.run([run_of(attempt, 0.05) for attempt in attempts])
            instance.stop()
            instance.stop()
            gone = await heard.exit_of(instance)
            assert (gone.code, gone.killed) == (0, False)
            assert {heard.ends[attempt].ending for attempt in attempts} == {Ending.OK}

    run(body)


def test_stop_of_an_idle_instance_and_of_one_that_has_not_begun(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("echo_async", 4)
        fresh = compute.launch(made_from)
        fresh.stop()
        assert (await heard.exit_of(fresh)).code == 0
        idle = compute.launch(made_from)
        await heard.until(lambda: idle.id in heard.alive)
        idle.stop()
        assert (await heard.exit_of(idle)).code == 0

    run(body)


@pytest.mark.parametrize(("handler", "slots"), [("hang_async", 4), ("hang", 4), ("echo", 1)])
def test_an_instance_with_a_loop_of_its_own_answers_a_ping_while_it_works(
    run: Exercise, handler: str, slots: int
) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, slots))
        instance.run([run_of(1, dated=True)])
        await heard.until(lambda: 1 in heard.starts)
        compute.ping(instance)
        await heard.until(lambda: heard.answered)

    run(body)


def test_close_ends_what_still_runs(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        for attempt, (handler, slots) in enumerate([("hang", 1), ("hang_async", 4), ("echo", 1)], 1):
            compute.launch(blueprint(handler, slots)).run([run_of(attempt, dated=True)])
        await heard.until(lambda: len(heard.starts) == 3)

    heard = run(body)
    assert len(heard.exits) == 3


def test_retired_code_can_be_launched_again(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("echo")
        compute.retire(made_from)
        old = compute.launch(made_from)
        await heard.until(lambda: old.id in heard.alive)
        compute.retire(made_from)
        new = compute.launch(made_from)
        for attempt, instance in enumerate((old, new), 1):
            instance.run([run_of(attempt, attempt)])
            (end,) = await heard.end_of(attempt)
            assert result_of(end) == attempt

    run(body)


def test_instances_have_numbers_of_their_own_and_know_what_they_are_made_from(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        made_from = blueprint("echo")
        instances = [compute.launch(made_from) for _ in range(3)]
        assert len({instance.id for instance in instances}) == 3
        assert {instance.blueprint.handler for instance in instances} == {"handlers:echo"}

    run(body)


def test_a_handler_that_is_not_there_is_told_by_name(run: Exercise) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        with pytest.raises(ImportFailed, match="no 'nothing'"):
            await compute.prepare(blueprint("nothing"), 30.0)
        instance = compute.launch(blueprint("nothing"))
        instance.run([run_of(1)])
        assert "nothing" in (await heard.exit_of(instance)).detail
        assert not heard.ends

    run(body)


@pytest.mark.parametrize("handler", ["stuck", "stuck_async"])
def test_who_keeps_an_instance_from_answering_is_known(run: Exercise, handler: str) -> None:
    async def body(compute: Compute, heard: Heard) -> None:
        instance = compute.launch(blueprint(handler, 4))
        instance.run([run_of(1, False, dated=True), run_of(2, False, dated=True)])
        await heard.until(lambda: {1, 2} <= heard.starts.keys())
        assert await compute.holder(instance) is None
        instance.run([run_of(3, True)])
        while (holder := await compute.holder(instance)) != 3:
            assert holder is None
        instance.kill()
        await heard.exit_of(instance)
        assert await compute.holder(instance) is None

    run(body)
