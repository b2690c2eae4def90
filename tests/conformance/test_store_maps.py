"""What every store does with maps."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.stores import DAY, NOW, WORLDS, World, dead, done, ended, ids, task, tasks

from penstock.domain.errors import Conflict
from penstock.domain.task import Outcome, State
from penstock.store.protocol import Store, StoredMap


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with WORLDS[request.param](tmp_path) as made:
        yield made


def made(number: int, items: int, **given: object) -> StoredMap:
    return StoredMap(number, "a", items, NOW, **given)  # type: ignore[arg-type]


async def started(store: Store, number: int = 100, items: int = 5, **given: object) -> int:
    project = await store.project("default")
    sent = tasks(items, first=number + 1)
    assert await store.start_map(project, made(number, items, **given), sent, None, None) is None
    return project


def test_a_map_is_written_with_its_items(world: World) -> None:
    async def body(store: Store) -> None:
        project = await started(store, stragglers=2.5)
        assert await store.map(project, 100) == made(100, 5, stragglers=2.5)
        assert await store.map(project, 101) is None
        assert ids(await store.waiting(project, "a", None, 9, 99)) == [101, 102, 103, 104, 105]
        assert await store.payloads(project, [105]) == {105: b'{"n": 105}'}

    world.run(body)
    world.run(assert_there)


async def assert_there(store: Store) -> None:
    assert ids(await store.maps(await store.project("default"), None, 9)) == [100]


def test_a_map_is_written_whole_or_not_at_all(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        await store.enqueue(project, [task(205)])
        with pytest.raises(Conflict):  # its last item is there already
            await store.start_map(project, made(200, 5), tasks(5, first=201), "k", None)
        assert await store.map(project, 200) is None
        assert ids(await store.waiting(project, "a", None, 9, 99)) == [205]
        assert await store.start_map(project, made(300, 1), tasks(1, first=301), "k", None) is None

    world.run(body)


def test_a_key_makes_one_map_of_a_pipeline(world: World) -> None:
    async def body(store: Store) -> None:
        project = await store.project("default")
        assert await store.start_map(project, made(10, 2), tasks(2, first=11), "k", None) is None
        assert await store.start_map(project, made(20, 2), tasks(2, first=21), "k", None) == 10
        other = StoredMap(30, "b", 1, NOW)
        assert await store.start_map(project, other, [task(31, "b")], "k", None) is None
        later = StoredMap(40, "a", 1, NOW + 61)
        assert await store.start_map(project, StoredMap(50, "a", 1, NOW), [task(51)], "short", 60.0) is None
        assert await store.start_map(project, later, [task(41)], "short", 60.0) is None
        assert ids(await store.maps(project, None, 9)) == [50, 40, 30, 10]
        assert await store.enqueue(project, [task(60)], "k") == {}

    world.run(body)


def test_how_items_stand(world: World) -> None:
    async def body(store: Store) -> None:
        project = await started(store)
        await store.record(
            project, [done(task(101)), dead(task(103)), ended(task(104), Outcome.ERROR, State.DELAYED, due=NOW)]
        )
        await store.discard(project, "a", (State.DEAD,))
        expected = [
            (101, State.DONE, Outcome.OK),
            (102, State.QUEUED, None),
            (104, State.DELAYED, Outcome.ERROR),
            (105, State.QUEUED, None),
        ]
        assert await store.ends(project, 100, 105, 9) == expected
        assert await store.ends(project, 101, 104, 9) == expected[1:3]
        assert await store.ends(project, 100, 105, 2) == expected[:2]
        assert ids(await store.not_ended(project, 100, 105, 9)) == [102, 104, 105]
        assert ids(await store.not_ended(project, 102, 105, 1)) == [104]

    world.run(body)


def test_results_come_as_asked_and_within_bounds(world: World) -> None:
    async def body(store: Store) -> None:
        project = await started(store)
        await store.record(project, [done(task(n), b"x" * (n - 100)) for n in (101, 102, 103, 104)])
        found = await store.results(project, [104, 99, 101, 105], 99)
        assert [one and one.id for one in found] == [104, None, 101, 105]
        assert [one.result for one in found if one] == [b"xxxx", b"x", None]
        assert [one and one.id for one in await store.results(project, [101, 102, 103], 3)] == [101, 102]
        assert [one and one.id for one in await store.results(project, [104, 101], 3)] == [104]
        assert await store.results(project, [], 3) == []

    world.run(body)


def test_a_map_is_cancelled_and_finished_and_a_redrive_opens_it(world: World) -> None:
    async def body(store: Store) -> None:
        project = await started(store)
        await started(store, 200, 1)
        await store.cancel_map(project, 100, NOW + 1)
        await store.cancel_map(project, 100, NOW + 9)
        for number in (100, 200):
            await store.finish_map(project, number, NOW + 2, {"ok": 4, "error": 1})
        whole = made(100, 5, cancelled=NOW + 1, finished=NOW + 2, ended={"ok": 4, "error": 1})
        assert await store.map(project, 100) == whole
        assert await store.maps(project, None, 9, unfinished=True) == []
        await store.record(project, [dead(task(105)), dead(task(206))])
        await store.enqueue(project, [task(206)])
        assert await store.redrive(project, "a", [105], NOW + DAY) == 1
        assert await store.maps(project, None, 9, unfinished=True) == [made(100, 5, cancelled=NOW + 1)]

    world.run(body)


def test_second_runs_belong_to_their_map(world: World) -> None:
    async def body(store: Store) -> None:
        project = await started(store)
        await store.add_twin(project, 100, 103, task(150))
        found = await store.map(project, 100)
        assert found is not None
        assert found.twins == {103: 150}
        assert ids(await store.waiting(project, "a", None, 99, 0)) == [101, 102, 103, 104, 105, 150]

    world.run(body)


def test_a_map_is_pruned_with_its_last_item(world: World) -> None:
    async def prune(store: Store, project: int, before: float) -> None:
        while await store.prune(project, before, NOW, 2):
            pass

    async def body(store: Store) -> None:
        project = await started(store, items=3)
        await store.add_twin(project, 100, 103, task(150))
        await store.record(project, [done(task(n)) for n in (101, 102)])
        await prune(store, project, NOW + 9)
        assert await store.ends(project, 100, 103, 9) == [(103, State.QUEUED, None)]
        assert ids(await store.maps(project, None, 9)) == [100]
        await store.record(project, [done(task(103)), done(task(150))])
        await prune(store, project, NOW)
        assert ids(await store.maps(project, None, 9)) == [100]
        await prune(store, project, NOW + 9)
        assert await store.maps(project, None, 9) == []

    world.run(body)


def test_maps_are_listed_newest_first_a_page_at_a_time(world: World) -> None:
    async def body(store: Store) -> None:
        for number in (100, 200, 300):
            project = await started(store, number, 1)
        assert ids(await store.maps(project, None, 2)) == [300, 200]
        assert ids(await store.maps(project, 200, 2)) == [100]

    world.run(body)


@pytest.mark.parametrize("kind", ["sqlite-inline", "sqlite-in-small-pieces"])
@given(
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from(["done", "dead", "redrive", "prune"])), max_size=20),
    st.integers(1, 5),
)
@settings(max_examples=50)
def test_a_range_says_what_its_tasks_say(kind: str, story: list[tuple[int, str]], page: int) -> None:
    async def body(store: Store) -> None:
        project = await started(store, items=8)
        await store.enqueue(project, tasks(3, first=200))
        for item, verb in story:
            stored = await store.task(project, 101 + item)
            if verb in {"done", "dead"} and stored is not None and stored.state is State.QUEUED:
                await store.record(project, [(done if verb == "done" else dead)(task(101 + item), b"%d" % item)])
            elif verb == "redrive":
                await store.redrive(project, "a", [101 + item], NOW + DAY)
            elif verb == "prune":
                await store.prune(project, NOW + 9, NOW, item + 1)
        known = {n: await store.task(project, n) for n in range(101, 109)}
        found = []
        after = 100
        while some := await store.ends(project, after, 108, page):
            found += some
            after = some[-1][0]
        assert found == [(n, one.state, one.outcome) for n, one in known.items() if one is not None]
        results = await store.results(project, list(known), 1 << 20)
        assert [one and (one.id, one.result) for one in results] == [
            one and (one.id, one.result) for one in known.values()
        ]

    with tempfile.TemporaryDirectory() as directory, WORLDS[kind](Path(directory)) as world:
        world.run(body)
