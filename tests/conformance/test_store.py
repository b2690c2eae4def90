"""What every store does. Written against the protocol only; a further store joins by its entry in `stores.WORLDS`."""

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conformance.stores import (
    DAY,
    KEY_TTL,
    NOW,
    WORLDS,
    World,
    all_waiting,
    dead,
    done,
    ended,
    ids,
    task,
    tasks,
)

from penstock.domain.errors import Conflict, Fenced, Locked, NotFound, PenstockError
from penstock.domain.task import ENDED, Outcome, State, Task
from penstock.store.protocol import Kind, Line, Standing, Store, StoredObject, Write


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with WORLDS[request.param](tmp_path) as made:
        yield made


# tasks ----------------------------------------------------------------------------------------------------------------
def test_what_was_sent_is_read_back_as_it_was(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = [
            task(7, payload=b"\x00\xff\xfe binary \x00", priority=-3, cost=2.5, key="k", expires=NOW + 0.1),
            task(8, "ümläut/…", payload=b"", created=NOW + 1e-6),
            task(9, payload="ü😀".encode(), due=NOW + 0.3333333),
            task((1 << 63) - 1, cost=0.1, priority=1 << 40),
        ]
        assert await store.enqueue(project, sent) == {}
        found = [
            *await store.waiting(project, "a", None, 9, 999),
            *await store.waiting(project, "ümläut/…", None, 9, 9),
        ]
        found += await store.due(project, NOW + 1, None, 9)
        by_id = {each.id: each for each in found}
        for each in sent:
            same = by_id[each.id]
            assert (same.pipeline, same.priority, same.cost, same.key) == (
                each.pipeline,
                each.priority,
                each.cost,
                each.key,
            )
            assert (same.created, same.due, same.expires) == (each.created, each.due, each.expires)
            assert (same.attempts, same.interruptions, same.durable) == (0, 0, True)
            assert same.payload == (each.payload if each.due is None else None)
        assert await store.payloads(project, [*by_id, 12345]) == {each.id: each.payload for each in sent}

    world.run(body)


def test_tasks_wait_in_the_order_of_priority_and_then_as_they_came(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = [task(n, "ab"[n % 2], priority=n % 3 - 1) for n in range(1, 31)]
        await asyncio.gather(*[store.enqueue(project, sent[n : n + 5]) for n in range(0, 30, 5)])
        for pipeline in "ab":
            expected = sorted((each for each in sent if each.pipeline == pipeline), key=lambda t: (-t.priority, t.id))
            for page in (1, 4, 100):
                assert ids(await all_waiting(store, project, pipeline, page)) == ids(expected)
            assert ids(await store.waiting(project, pipeline, None, 3, 0)) == ids(expected)[:3]
        assert await store.waiting(project, "c", None, 10, 10) == []

    world.run(body)


def test_large_payloads_stay_on_disk(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        payloads = [b"x" * size for size in (10, 11, 0, 300_000, 9)]
        await store.enqueue(project, [task(n, payload=each) for n, each in enumerate(payloads, 1)])
        found = await store.waiting(project, "a", None, 10, 10)
        assert [each.payload for each in found] == [payloads[0], None, b"", None, payloads[4]]
        assert await store.payloads(project, [2, 4]) == {2: payloads[1], 4: payloads[3]}
        assert await store.payloads(project, []) == {}

    world.run(body)


def test_a_later_task_with_a_smaller_id_takes_its_place(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        for number in (20, 21, 22, 23, 24, 25, 3, 26, 4, 1):
            await store.enqueue(project, [task(number)])
            await store.waiting(project, "a", None, 100, 0)
        assert ids(await all_waiting(store, project, "a")) == [1, 3, 4, 20, 21, 22, 23, 24, 25, 26]
        assert ids(await store.tasks(project, pipeline="a")) == [26, 25, 24, 23, 22, 21, 20, 4, 3, 1]

    world.run(body)


def test_delayed_tasks_are_due_in_order_and_wait_once_promoted(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        await store.enqueue(project, [task(n, "ab"[n % 2], due=NOW + (n * 7) % 5) for n in range(1, 11)])
        expected = sorted(range(1, 11), key=lambda n: ((n * 7) % 5, n))
        found: list[Any] = []
        while page := await store.due(project, NOW + 3, (found[-1].due, found[-1].id) if found else None, 3):
            found += page
        assert ids(found) == [n for n in expected if (n * 7) % 5 <= 3]
        assert ids(await store.due(project, float("inf"), (NOW + 3, 1 << 62), 9)) == [
            n for n in expected if n * 7 % 5 == 4
        ]
        assert await store.waiting(project, "a", None, 9, 9) == []
        await store.promote(project, [2, 4, 99])
        assert ids(await all_waiting(store, project, "a")) == [2, 4]
        assert 2 not in ids(await store.due(project, NOW + 9, None, 99))

    world.run(body)


def test_tasks_that_must_start_by_a_moment_are_found_in_its_order_until_they_have(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        moments = {1: 5.0, 2: 3.0, 3: None, 4: 3.0, 5: 0.1234567, 6: 9.0, 7: 4.0}
        sent = [
            task(n, "ab"[n % 2], due=NOW + 2 if n == 6 else None, start_by=None if after is None else NOW + after)
            for n, after in moments.items()
        ]
        await store.enqueue(project, sent)
        found = await store.expiring(project, None, 99)
        assert [(each.id, each.start_by) for each in found] == [
            (n, NOW + (moments[n] or 0.0)) for n in (5, 2, 4, 7, 1, 6)
        ]
        assert [each.state for each in found] == [State.QUEUED] * 5 + [State.DELAYED]
        assert ids(await store.expiring(project, (NOW + 3.0, 2), 2)) == [4, 7]
        (waiting,) = await store.waiting(project, "a", (0, 1), 1, 99)
        assert (waiting.id, waiting.start_by) == (2, NOW + 3.0)
        await store.note_starts(project, [sent[0]])
        await store.record(project, [ended(sent[1], Outcome.THROTTLED, State.QUEUED), done(sent[3])])
        await store.promote(project, [6])
        assert ids(await store.expiring(project, None, 99)) == [5, 7, 6]
        await store.recover(project)
        assert await store.discard(project, "b", (State.QUEUED,)) == 4
        assert ids(await store.expiring(project, None, 99)) == [6]
        assert {each.id: each.start_by for each in await store.tasks(project)}[2] is None

    world.run(body)


def test_known_keys_are_not_written_again(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        assert await store.enqueue(project, [task(1, key="x"), task(2, key="y"), task(3)]) == {}
        again = [task(4, key="new"), task(5, key="x"), task(6, key="new"), task(7), task(8, "b", key="x")]
        assert await store.enqueue(project, again) == {1: 1, 2: 4}
        assert ids(await all_waiting(store, project, "a")) == [1, 2, 3, 4, 7]
        assert ids(await all_waiting(store, project, "b")) == [8]
        other = await store.project("other")
        assert await store.enqueue(other, [task(9, key="x")]) == {}

    world.run(body)


def test_a_key_is_kept_for_its_time_and_no_longer(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        await store.enqueue(project, [task(1, key="x")])
        await store.record(project, [done(task(1))])
        assert await store.prune(project, NOW + DAY, NOW + DAY, 10) > 0
        assert await store.enqueue(project, [task(2, key="x", created=NOW + KEY_TTL - 1)]) == {0: 1}
        assert await store.enqueue(project, [task(3, key="x", created=NOW + KEY_TTL + 1)]) == {}
        assert await store.enqueue(project, [task(4, key="x", created=NOW + KEY_TTL + 2)]) == {0: 3}
        assert await store.prune(project, NOW, NOW + 2 * KEY_TTL + 1, 10) == 1
        assert await store.enqueue(project, [task(5, key="x", created=NOW + KEY_TTL + 3)]) == {}

    world.run(body)


def test_a_pipeline_may_remember_keys_for_a_time_of_its_own(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        await store.enqueue(project, [task(1, key="x")], None, 60.0)
        await store.enqueue(project, [task(2, "b", key="x")])
        assert await store.enqueue(project, [task(3, key="x", created=NOW + 59)], None, 60.0) == {0: 1}
        assert await store.enqueue(project, [task(4, key="x", created=NOW + 61)], None, 60.0) == {}
        assert await store.enqueue(project, [task(5, "b", key="x", created=NOW + 61)]) == {0: 2}
        many = tasks(2, first=6, created=NOW + 62)
        assert await store.enqueue(project, many, "batch", 5.0) == {}
        assert await store.enqueue(project, tasks(2, first=8, created=NOW + 66), "batch", 5.0) == {0: 6, 1: 7}
        assert await store.enqueue(project, tasks(2, first=10, created=NOW + 68), "batch", 5.0) == {}

    world.run(body)


def test_a_debounced_task_takes_the_place_of_the_one_that_waits(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")

        async def send(number: int, after: float, **given: Any) -> list[Standing]:
            at = NOW + after
            sent = task(number, created=at, due=at + 5, expires=at + 5 + DAY, payload=b"%d" % number, **given)
            return await store.debounce(project, [sent], 12.0)

        assert await send(1, 0) == [Standing(1, NOW + 5)]
        assert await send(2, 3, cost=7.0, priority=2, start_by=NOW + 9) == [Standing(1, NOW + 8, replaced=True)]
        assert await send(3, 3, key="k") == [Standing(3, NOW + 8)]
        assert await send(4, 7.5, start_by=NOW + 13.5) == [Standing(1, NOW + 12, replaced=True)]
        (k, first) = await store.due(project, NOW + 99, None, 9)
        assert (k.id, first.id, first.due, first.created) == (3, 1, NOW + 12, NOW)
        assert (first.cost, first.priority, first.expires, first.start_by) == (1.0, 0, NOW + 12 + DAY, NOW + 13)
        assert await store.payloads(project, [1, 2, 3, 4]) == {1: b"4", 3: b"3"}
        assert await store.counts(project) == {
            "a": {State.DELAYED: 2, State.QUEUED: 0, State.RUNNING: 0, State.DEAD: 0}
        }
        assert await send(5, 12) == [Standing(5, NOW + 17)], "it is due: another one begins"
        await store.promote(project, [5])
        assert await send(6, 13) == [Standing(6, NOW + 18)], "it was woken"
        await store.record(project, [ended(task(6), Outcome.ERROR, State.DELAYED, due=NOW + 60)])
        assert await send(7, 14) == [Standing(7, NOW + 19)], "it was tried"
        await store.record(project, [ended(task(7), Outcome.CANCELLED, State.CANCELLED)])
        assert await send(8, 15) == [Standing(8, NOW + 20)], "it was cancelled"
        assert await store.discard(project, "a", (State.DELAYED,)) == 4
        assert await send(9, 15.5) == [Standing(9, NOW + 20.5)], "it was discarded"

    world.run(body)


def test_a_debounced_send_is_safe_to_repeat(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")

        def made(first: int, after: float) -> list[Task]:
            at = NOW + after
            keys = (None, "k", "l")
            return [task(first + n, key=key, created=at, due=at + 5) for n, key in enumerate(keys)]

        await store.debounce(project, made(1, 0)[:1], 60.0)
        sent = await store.debounce(project, made(11, 1), 60.0, "again")
        assert [(each.id, each.replaced) for each in sent] == [(1, True), (12, False), (13, False)]
        await store.debounce(project, made(21, 2), 60.0)
        again = await store.debounce(project, made(31, 3), 60.0, "again")
        assert [(each.id, each.replaced, each.known) for each in again] == [(n, False, True) for n in (1, 12, 13)]
        assert await store.payloads(project, [1, 12, 13]) == {1: b'{"n": 21}', 12: b'{"n": 22}', 13: b'{"n": 23}'}
        assert {each.id: each.due for each in await store.tasks(project)} == dict.fromkeys((1, 12, 13), NOW + 7)
        other = await store.debounce(project, [task(41, "b", created=NOW + 3, due=NOW + 8)], 60.0, "again")
        assert (other[0].id, other[0].known) == (41, False)
        await store.record(project, [ended(task(12), Outcome.ERROR, State.DEAD)])
        await store.discard(project, "a", (State.DEAD,))
        again = await store.debounce(project, made(51, 4), 60.0, "again")
        assert [(each.id, each.known) for each in again] == [(1, True), (52, False), (13, True)], "one of them is gone"

    world.run(body)


async def every_object(store: Store, project: int) -> list[StoredObject]:
    """Read the configuration, two objects at a time."""
    found: list[StoredObject] = []
    kinds: tuple[Kind, ...] = ("function", "limit", "pipeline")
    for kind in kinds:
        after = ""
        while page := await store.objects(project, kind, after, 2):
            found += page
            after = page[-1].name
    return found


def test_one_key_stands_for_a_whole_batch(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        assert await store.enqueue(project, [task(1), task(2), task(3)], "batch") == {}
        assert await store.enqueue(project, [task(4), task(5), task(6)], "batch") == {0: 1, 1: 2, 2: 3}
        assert await store.enqueue(project, [task(7), task(8)], "batch") == {}  # another number: another batch
        assert await store.enqueue(project, [task(9, key="x"), task(10)], "mixed") == {}
        assert await store.enqueue(project, [task(11, key="x"), task(12)], "mixed") == {0: 9, 1: 10}
        assert await store.enqueue(project, [task(13, "b"), task(14, "b"), task(15, "b")], "batch") == {}
        assert ids(await all_waiting(store, project, "a")) == [1, 2, 3, 7, 8, 9, 10]
        assert await store.discard(project, "b", [State.QUEUED]) == 3
        assert await store.enqueue(project, [task(16, "b"), task(17, "b"), task(18, "b")], "batch") == {}

    world.run(body)


def test_of_many_who_send_one_key_at_once_one_is_first(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        answers = await asyncio.gather(*[store.enqueue(project, [task(n, key="same")]) for n in range(1, 51)])
        (first,) = [n for n, answer in enumerate(answers, 1) if not answer]
        assert all(answer == {0: first} for n, answer in enumerate(answers, 1) if n != first)
        assert ids(await all_waiting(store, project, "a")) == [first]

    world.run(body)


@pytest.mark.parametrize("state", sorted(ENDED))
def test_what_became_of_a_task_is_read_back(world: World, state: State) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = task(1, priority=2, cost=3.0, key="k")
        await store.enqueue(project, [sent, task(2)])
        sent.attempts, sent.interruptions = 2, 1
        attempt = ended(sent, Outcome.TIMEOUT, state, body=b"\x00body", version=7)
        await store.record(project, [attempt])
        found = await store.task(project, 1)
        assert found is not None
        assert (found.id, found.pipeline, found.state, found.outcome) == (1, "a", state, Outcome.TIMEOUT)
        assert (found.priority, found.cost, found.key, found.attempts, found.interruptions) == (2, 3.0, "k", 2, 1)
        assert (found.created, found.due, found.expires) == (sent.created, None, sent.expires)
        assert (found.started, found.finished, found.version) == (attempt.started, attempt.finished, 7)
        assert found.result == b"\x00body"
        assert list(found.history) == []
        assert ids(await all_waiting(store, project, "a")) == [2]
        assert [each == dataclasses.replace(found, history=()) for each in await store.tasks(project, state=state)] == [
            True
        ]
        assert await store.task(project, 99) is None

    world.run(body)


def test_a_task_that_goes_on_keeps_the_history_of_its_attempts(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = task(1)
        await store.enqueue(project, [sent])
        sent.attempts = 1
        first = ended(sent, Outcome.ERROR, State.DELAYED, body=b"first", due=NOW + 9, version=3, instance="i-1")
        await store.record(project, [first])
        (waits,) = await store.due(project, NOW + 9, None, 9)
        assert (waits.due, waits.attempts) == (NOW + 9, 1)
        stored = await store.task(project, 1)
        assert stored is not None
        assert (stored.state, stored.outcome, stored.finished, stored.result) == (
            State.DELAYED, Outcome.ERROR, None, b"first",
        )  # fmt: skip
        await store.promote(project, [1])
        sent.interruptions = 1
        second = ended(sent, Outcome.INTERRUPTED, State.QUEUED, started=None)
        third = ended(sent, Outcome.THROTTLED, State.QUEUED, body=b"third", instance="i-3")
        await store.record(project, [second, third])
        assert [(each.attempts, each.payload) for each in await all_waiting(store, project, "a")] == [(1, sent.payload)]
        await store.record(project, [done(sent, finished=NOW + 8)])
        stored = await store.task(project, 1)
        assert stored is not None
        assert (stored.state, stored.finished, stored.due, stored.result) == (State.DONE, NOW + 8, NOW + 9, b"1")
        assert [each.number for each in stored.history] == [1, 2, 3]
        assert [(each.outcome, each.error, each.instance) for each in stored.history] == [
            (Outcome.ERROR, b"first", "i-1"), (Outcome.INTERRUPTED, None, ""), (Outcome.THROTTLED, b"third", "i-3"),
        ]  # fmt: skip
        assert (stored.history[0].started, stored.history[0].finished) == (first.started, first.finished)
        assert (stored.history[0].version, stored.history[1].started) == (3, None)

    world.run(body)


def test_the_last_of_several_attempts_recorded_at_once_counts(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = tasks(3)
        await store.enqueue(project, sent)
        goes_on = [ended(each, Outcome.ERROR, State.QUEUED, body=b"e") for each in sent]
        await store.record(project, [goes_on[0], goes_on[1], done(sent[0]), goes_on[1], goes_on[2], done(sent[1])])
        assert [each.state for each in await store.tasks(project)] == [State.QUEUED, State.DONE, State.DONE]
        histories = [await store.task(project, each.id) for each in sent]
        assert [each and len(each.history) for each in histories] == [1, 2, 1]

    world.run(body)


def test_a_task_that_left_no_trace_is_written_with_its_outcome(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        call = task(5, "calls", durable=False, key="k", cost=2.0, priority=1)
        call.attempts = 1
        await store.enqueue(project, [task(6)])
        await store.record(project, [done(call, b"result"), dead(task(3, "calls", durable=False)), done(task(6))])
        stored = await store.task(project, 5)
        assert stored is not None
        assert (stored.pipeline, stored.state, stored.key, stored.cost) == ("calls", State.DONE, "k", 2.0)
        assert (stored.priority, stored.attempts, stored.result) == (1, 1, b"result")
        assert ids(await store.tasks(project, pipeline="calls")) == [5, 3]
        assert ids(await store.tasks(project)) == [6, 5, 3]
        again = task(8, "calls", durable=False)
        await store.record(project, [ended(again, Outcome.INTERRUPTED, State.QUEUED)])
        await store.record(project, [done(again, b"2")])
        stored = await store.task(project, 8)
        assert stored is not None
        assert (stored.state, stored.result, len(stored.history)) == (State.DONE, b"2", 1)

    world.run(body)


def test_what_was_discarded_does_not_come_back_with_its_outcome(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = tasks(2)
        await store.enqueue(project, sent)
        assert await store.discard(project, "a", [State.QUEUED]) == 2
        await store.record(project, [done(sent[0]), ended(sent[1], Outcome.ERROR, State.QUEUED)])
        assert await store.tasks(project) == []

    world.run(body)


def test_running_tasks_are_recovered_with_one_interruption_more(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = tasks(4)
        await store.enqueue(project, sent)
        for each in sent[:3]:
            each.attempts, each.interruptions = 1, 2
        await store.note_starts(project, sent[:3])
        assert ids(await all_waiting(store, project, "a")) == [4]
        assert (await store.counts(project))["a"][State.RUNNING] == 3
        await store.record(project, [done(sent[0])])
        assert await store.recover(project) == 2
        assert await store.recover(project) == 0
        found = await all_waiting(store, project, "a")
        assert [(each.id, each.attempts, each.interruptions) for each in found] == [(2, 1, 3), (3, 1, 3), (4, 0, 0)]

    world.run(body)


def test_a_start_that_was_noted_late_does_not_wake_the_dead(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = tasks(2)
        await store.enqueue(project, sent)
        await asyncio.gather(store.record(project, [done(sent[0])]), store.note_starts(project, sent))
        assert [each.state for each in await store.tasks(project)] == [State.RUNNING, State.DONE]

    world.run(body)


def test_dead_tasks_are_redriven_with_no_attempts_spent(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = [*tasks(5), *tasks(2, "b", first=6)]
        await store.enqueue(project, sent)
        for each in sent:
            each.attempts, each.interruptions = 3, 2
        await store.record(project, [dead(each) for each in sent if each.id != 5])
        assert await store.redrive(project, "a", [2, 5, 6, 99], NOW + 3 * DAY) == 1
        (first, _) = await all_waiting(store, project, "a")
        assert (first.id, first.attempts, first.interruptions) == (2, 0, 0)
        assert (first.expires, first.payload) == (NOW + 3 * DAY, sent[1].payload)
        stored = await store.task(project, 2)
        assert stored is not None
        assert [each.error for each in stored.history] == [b'{"type": "E"}']
        assert await store.redrive(project, "a", None, NOW + DAY) == 3
        assert await store.redrive(project, "a", None, NOW + DAY) == 0
        assert ids(await all_waiting(store, project, "a")) == [1, 2, 3, 4, 5]
        assert ids(await store.tasks(project, state=State.DEAD)) == [7, 6]

    world.run(body)


def test_discarding_takes_only_what_was_named_and_frees_its_keys(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = [task(n, "ab"[n % 2], key=f"k{n}", due=NOW if n in {3, 4} else None) for n in range(1, 13)]
        await store.enqueue(project, sent)
        await store.record(project, [done(sent[4]), dead(sent[6]), ended(sent[8], Outcome.ERROR, State.QUEUED)])
        assert await store.discard(project, "b", [State.QUEUED, State.DELAYED]) == 4
        assert ids(await store.tasks(project, pipeline="b")) == [7, 5]
        assert ids(await store.tasks(project, pipeline="a")) == [12, 10, 8, 6, 4, 2]
        assert await store.enqueue(project, [task(20, "b", key="k1"), task(21, "b", key="k5")]) == {1: 5}
        assert await store.discard(project, "b", [State.DONE, State.DEAD, State.RUNNING]) == 2
        assert ids(await store.tasks(project, pipeline="b")) == [20]
        assert await store.discard(project, "nobody", list(State)) == 0

    world.run(body)


def test_listings_are_newest_first_and_filtered(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = [task(n, "ab"[n % 2], due=NOW + n if n % 7 == 0 else None) for n in range(1, 25)]
        states = [State.DONE, State.DEAD, State.CANCELLED, State.EXPIRED, None]
        await store.enqueue(project, sent)
        where: dict[int, State] = {}
        for each in sent:
            state = states[each.id % 5]
            if state is not None:
                await store.record(project, [ended(each, Outcome.OK, state)])
            where[each.id] = state or (State.DELAYED if each.due else State.QUEUED)
        for pipeline in ("a", "b", None):
            for state in (None, *State):
                fits = [
                    each.id for each in reversed(sent)
                    if pipeline in {None, each.pipeline} and state in {None, where[each.id]}
                ]  # fmt: skip
                assert ids(await store.tasks(project, pipeline=pipeline, state=state)) == fits
                paged = await store.tasks(project, pipeline=pipeline, state=state, before=13, limit=3)
                assert ids(paged) == [each for each in fits if each < 13][:3]

    world.run(body)


def test_tasks_are_counted_by_pipeline_and_state(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        assert await store.counts(project) == {}
        sent = [*tasks(6), *tasks(3, "b", first=7), task(10, "b", due=NOW)]
        await store.enqueue(project, sent)
        await store.note_starts(project, sent[:2])
        await store.record(project, [dead(sent[2]), done(sent[3]), *[done(each) for each in sent[6:9]]])
        zero = dict.fromkeys((State.DELAYED, State.QUEUED, State.RUNNING, State.DEAD), 0)
        assert await store.counts(project) == {
            "a": {**zero, State.RUNNING: 2, State.DEAD: 1, State.QUEUED: 2},
            "b": {**zero, State.DELAYED: 1},
        }

    world.run(body)


def test_pruning_deletes_what_ended_and_nothing_else(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        sent = tasks(20)
        await store.enqueue(project, sent)
        attempts = [done(each, finished=NOW + each.id) for each in sent[:12]]
        attempts[3] = dead(sent[3], finished=NOW)
        await store.record(project, [ended(sent[0], Outcome.ERROR, State.QUEUED), *attempts])
        lines = [Line(each, "a", "f", 1, NOW + 50, "stdout", f"of {each}") for each in (1, 4, 15)]
        await store.write_output(project, [*lines, Line(0, "", "f", 0, NOW, "log", "old")])
        went = []
        while count := await store.prune(project, NOW + 10, NOW, 4):
            went.append(count)
        assert sum(went) == 9
        assert ids(await store.tasks(project)) == [20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 4]
        assert ids(await store.tasks(project, pipeline="a", state=State.DONE)) == [12, 11, 10]
        assert ids(await store.tasks(project, pipeline="a", before=11, limit=2)) == [10, 4]
        assert [line.task for _, line in await store.output(project)] == [4, 15]
        await store.record(project, [done(each, finished=NOW + 9) for each in sent[12:14]])
        assert await store.prune(project, NOW + 10, NOW, 100) == 2
        assert await store.prune(project, NOW + 10, NOW, 100) == 0

    world.run(body)


# configuration --------------------------------------------------------------------------------------------------------
def test_objects_and_their_log_are_written_together(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        assert await every_object(store, project) == []
        secret = {"params": {"key": {"secret": "s3cret"}}, "rate": ["2/s"], "ü": None}
        redacted = {"params": {"key": {"secret": True}}}
        rows = await store.apply(
            project,
            [Write("function", "f", "create", {"handler": "a:b"}, None, {"handler": "a:b"}),
             Write("pipeline", "p", "create", secret, None, redacted)],
            NOW,
        )  # fmt: skip
        assert [(row.sequence, row.action, row.kind, row.name) for row in rows] == [
            (1, "create", "function", "f"), (2, "create", "pipeline", "p"),
        ]  # fmt: skip
        more = await store.apply(project, [Write("pipeline", "p", "change", {"rate": "3/s"}, redacted, {})], NOW + 1)
        assert [row.sequence for row in more] == [3]
        found = {(each.kind, each.name): each for each in await every_object(store, project)}
        assert found["pipeline", "p"].settings == {"rate": "3/s"}
        assert (found["pipeline", "p"].created, found["pipeline", "p"].updated) == (NOW, NOW + 1)
        assert found["function", "f"].settings == {"handler": "a:b"}
        await store.apply(project, [Write("pipeline", "p", "remove", None, {}, None)], NOW + 2)
        assert [each.name for each in await every_object(store, project)] == ["f"]
        log = await store.changes(project, 0, 99)
        assert log[:3] == [*rows, *more]
        assert (log[3].action, log[3].before, log[3].after, log[3].at) == ("remove", {}, None, NOW + 2)
        assert await store.changes(project, 1, 2) == log[1:3]
        assert "s3cret" not in repr(log)
        assert await store.changes(project, 4, 99) == []

    world.run(body)


def test_a_large_configuration_is_one_transaction(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        writes = [Write("pipeline", f"p{n}", "create", {"n": n}, None, {"n": n}) for n in range(2500)]
        rows = await store.apply(project, writes, NOW)
        assert [row.sequence for row in rows] == list(range(1, 2501))
        assert {each.name: each.settings["n"] for each in await every_object(store, project)} == {
            f"p{n}": n for n in range(2500)
        }
        assert await store.changes(project, 0, 9999) == rows

    world.run(body)


def test_an_object_written_twice_at_once_is_as_it_was_written_last(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        put = [Write("limit", "l", "create", {"n": n}) for n in range(3)]
        remove = Write("limit", "l", "remove", None)
        await store.apply(project, [put[0], put[1]], NOW)
        assert [each.settings for each in await every_object(store, project)] == [{"n": 1}]
        await store.apply(project, [remove, put[2]], NOW + 1)
        assert [(each.settings, each.created) for each in await every_object(store, project)] == [({"n": 2}, NOW + 1)]
        await store.apply(project, [put[0], remove], NOW + 2)
        assert await every_object(store, project) == []

    world.run(body)


def test_exactly_one_version_is_live(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        first = await store.add_version(project, "f", "digest-1", {"handler": "a:b"}, NOW)
        assert (first.number, first.live, first.settings, first.bundle) == (1, False, {"handler": "a:b"}, "digest-1")
        (change,) = await store.apply(project, [], NOW + 1, {"f": 1})
        assert (change.action, change.kind, change.name) == ("deploy", "function", "f")
        assert (change.before, change.after) == (None, {"version": 1})
        numbers = [await store.add_version(project, name, "d", {}, NOW) for name in ("f", "g", "f")]
        assert [each.number for each in numbers] == [2, 1, 3]
        (second,) = await store.apply(project, [], NOW + 2, {"f": 3})
        assert (second.before, second.after, second.sequence) == ({"version": 1}, {"version": 3}, change.sequence + 1)
        assert [(each.number, each.live) for each in await store.versions(project, "f")] == [
            (1, False), (2, False), (3, True),
        ]  # fmt: skip
        assert [(each.function, each.number) for each in await store.versions(project)] == [
            ("f", 1), ("f", 2), ("f", 3), ("g", 1),
        ]  # fmt: skip
        with pytest.raises(NotFound):
            await store.apply(project, [Write("limit", "l", "create", {})], NOW, {"f": 9})
        assert await every_object(store, project) == []
        assert [each.number for each in await store.versions(project, "f") if each.live] == [3]
        assert await store.changes(project, 0, 9) == [change, second]

    world.run(body)


def test_objects_and_versions_go_live_together(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        for name in ("f", "g"):
            await store.add_version(project, name, "d", {}, NOW)
        writes = [Write("function", "f", "create", {}), Write("limit", "l", "create", {"n": 1})]
        changes = await store.apply(project, writes, NOW, {"f": 1, "g": 1})
        assert [(each.sequence, each.action, each.kind, each.name) for each in changes] == [
            (1, "create", "function", "f"), (2, "create", "limit", "l"),
            (3, "deploy", "function", "f"), (4, "deploy", "function", "g"),
        ]  # fmt: skip
        assert await store.changes(project, 0, 9) == changes

    world.run(body)


def test_a_version_remembers_which_older_one_it_took_over_from(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        for _ in range(5):
            await store.add_version(project, "f", "d", {}, NOW)
        for live in (1, 3, 1, 4, 3, 4, 1, 5):
            await store.apply(project, [], NOW, {"f": live})
        versions = await store.versions(project, "f")
        assert [(each.number, each.previous) for each in versions] == [(1, None), (2, None), (3, 1), (4, 1), (5, 1)]

    world.run(body)


def test_versions_go_with_their_function(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        await store.apply(project, [Write("function", "f", "create", {})], NOW)
        await store.add_version(project, "f", "d", {}, NOW)
        await store.add_version(project, "g", "d", {}, NOW)
        await store.apply(project, [Write("function", "f", "remove", None)], NOW)
        assert [each.function for each in await store.versions(project)] == ["g"]
        assert (await store.add_version(project, "f", "d", {}, NOW)).number == 1

    world.run(body)


# output and notes -----------------------------------------------------------------------------------------------------
def test_output_is_read_in_order_and_filtered(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        lines = [
            Line(n % 3, f"p{n % 2}" if n % 3 else "", f"f{n % 4}", n, NOW + n, "stdout", f"line {n}\n\x00\x1b ü😀")
            for n in range(1, 25)
        ]
        for at in range(0, 24, 5):
            await store.write_output(project, lines[at : at + 5])
        await store.write_output(project, [])
        everything = await store.output(project)
        assert [line for _, line in everything] == lines
        positions = [position for position, _ in everything]
        assert positions == sorted(set(positions))
        for wanted in ({"task": 1}, {"pipeline": "p1"}, {"function": "f2"}, {"pipeline": "p0", "function": "f0"}):
            fits = [pair for pair in everything if all(getattr(pair[1], name) == each for name, each in wanted.items())]
            assert fits
            assert await store.output(project, **wanted) == fits
            assert await store.output(project, **wanted, after=fits[0][0], limit=1) == fits[1:2]

    world.run(body)


def test_positions_of_output_grow_for_ever(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        await store.write_output(project, [Line(0, "", "f", 0, NOW, "log", "one")])
        ((before, _),) = await store.output(project)
        assert await store.prune(project, NOW + 1, NOW + 1, 10) == 1
        await store.write_output(project, [Line(0, "", "f", 0, NOW, "log", "two")])
        ((after, line),) = await store.output(project, after=before)
        assert (line.text, after > before) == ("two", True)

    world.run(body)


def test_notes_are_kept_and_forgotten(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        assert await store.note(project, "limits") is None
        await store.save_note(project, "limits", b"\x00one")
        await store.save_note(project, "limits", b"two")
        await store.save_note(await store.project("other"), "limits", b"theirs")
        assert await store.note(project, "limits") == b"two"
        await store.save_note(project, "limits", None)
        await store.save_note(project, "limits", None)
        assert await store.note(project, "limits") is None
        assert await store.note(await store.project("other"), "limits") == b"theirs"

    world.run(body)


# owners, projects and errors --------------------------------------------------------------------------------------------
def test_projects_share_nothing(world: World) -> None:
    async def body(store: Store) -> None:
        one, other = await store.project("one"), await store.project("other")
        assert one != other
        assert await store.project("one") == one
        await store.enqueue(one, tasks(3))
        await store.enqueue(other, tasks(2, key=None, payload=b"theirs"))
        await store.record(one, [done(task(1)), dead(task(2))])
        assert [each.state for each in await store.tasks(other)] == [State.QUEUED, State.QUEUED]
        assert await store.payloads(other, [1, 3]) == {1: b"theirs"}
        assert await store.discard(other, "a", list(State)) == 2
        assert await store.prune(other, NOW + DAY, NOW, 10) == 0
        assert ids(await store.tasks(one)) == [3, 2, 1]

    world.run(body)


def test_everything_is_there_after_a_restart(world: World) -> None:
    async def before(store: Store) -> None:
        project = await store.project("default")
        await store.enqueue(project, [*tasks(10), task(11, due=NOW + 1)])
        await store.record(project, [done(task(1)), ended(task(2), Outcome.ERROR, State.QUEUED)])
        await store.apply(project, [Write("limit", "l", "create", {"rate": "2/s"})], NOW)
        await store.save_note(project, "n", b"note")
        epochs.append(store.epoch)

    async def after(store: Store) -> None:
        project = await store.project("default")
        assert ids(await all_waiting(store, project, "a")) == list(range(2, 11))
        assert ids(await store.due(project, NOW + 1, None, 9)) == [11]
        assert [each.name for each in await every_object(store, project)] == ["l"]
        assert await store.note(project, "n") == b"note"
        await store.enqueue(project, [task(12)])
        assert ids(await store.tasks(project, pipeline="a"))[:2] == [12, 11]
        epochs.append(store.epoch)

    epochs: list[int] = []
    world.run(before)
    world.run(after)
    assert 0 < epochs[0] < epochs[1] <= 1 << 23


def test_a_second_owner_is_refused_while_the_first_is_alive(world: World) -> None:
    async def body(store: Store) -> None:
        await store.project("default")
        second = world.make()
        with pytest.raises(Locked):
            await second.open()
        await second.close()
        assert await store.project("default") > 0

    world.run(body)
    world.run(body)


def test_a_stale_owner_is_fenced_off(world: World) -> None:
    async def body(stale: Store) -> None:
        project = await stale.project("default")
        await stale.enqueue(project, tasks(2))
        world.push_aside()
        owner = world.make()
        await owner.open()
        try:
            assert owner.epoch > stale.epoch
            writes = [
                stale.enqueue(project, [task(3)]), stale.record(project, [done(task(1))]), stale.recover(project),
                stale.note_starts(project, [task(1)]), stale.promote(project, [1]), stale.discard(project, "a", list(State)),
                stale.apply(project, [Write("limit", "l", "create", {})], NOW), stale.save_note(project, "n", b""),
                stale.redrive(project, "a", None, NOW), stale.apply(project, [], NOW, {"f": 1}),
                stale.prune(project, NOW + DAY, NOW, 9), stale.add_version(project, "f", "d", {}, NOW),
            ]  # fmt: skip
            results = await asyncio.gather(*writes, return_exceptions=True)
            assert [type(each) for each in results] == [Fenced] * len(writes)
            assert ids(await owner.tasks(project)) == [2, 1]
            await owner.enqueue(project, [task(4)])
        finally:
            await owner.close()

    world.run(body)


def test_a_write_that_fails_does_so_alone(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        await store.enqueue(project, [task(5)])
        batches = [[task(n), task(1 << 63 if n == 30 else n + 100)] for n in range(1, 41)]
        results = await asyncio.gather(*[store.enqueue(project, batch) for batch in batches], return_exceptions=True)
        failed = [n for n, result in enumerate(results, 1) if isinstance(result, BaseException)]
        assert failed == [5, 30]
        assert isinstance(results[4], Conflict)
        kept = [n for n in range(1, 41) if n not in {5, 30}]
        assert ids(await all_waiting(store, project, "a")) == sorted([5, *kept, *[n + 100 for n in kept]])

    world.run(body)


def test_a_closed_store_says_so(world: World) -> None:
    async def body() -> None:
        store = world.make()
        await store.open()
        project = await store.project("default")
        await store.close()
        await store.close()
        with pytest.raises(PenstockError):
            await store.enqueue(project, [task(1)])
        with pytest.raises(PenstockError):
            await store.tasks(project)

    asyncio.run(body())


def test_empty_batches_write_nothing(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        assert await store.enqueue(project, []) == {}
        await store.record(project, [])
        await store.note_starts(project, [])
        await store.promote(project, [])
        assert await store.redrive(project, "a", [], NOW) == 0
        assert await store.discard(project, "a", []) == 0
        assert await store.apply(project, [], NOW) == []
        assert await store.tasks(project) == []

    world.run(body)


def test_who_stops_waiting_does_not_undo_the_write(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        impatient = asyncio.ensure_future(store.enqueue(project, [task(1)]))
        await asyncio.sleep(0)
        impatient.cancel()
        await asyncio.gather(impatient, return_exceptions=True)
        await store.enqueue(project, [task(2)])
        assert ids(await store.tasks(project)) == [2, 1]

    world.run(body)
