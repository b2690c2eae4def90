"""A store and a model of it in a few dictionaries are told the same; whatever is asked, they must say the same."""

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.stores import DAY, KEY_TTL, NOW, WORLDS, all_waiting, ended, ids, task

from penstock.domain.task import ENDED, WAITING, Outcome, State, Task
from penstock.store.protocol import Store

PIPELINES = ("a", "b", "c")
KEPT = (State.DELAYED, State.QUEUED, State.RUNNING, State.DEAD)

sends = st.tuples(
    st.just("send"),
    st.lists(
        st.tuples(
            st.sampled_from(PIPELINES),
            st.integers(-1, 1),  # priority
            st.none() | st.sampled_from(("k", "l", "m")),
            st.none() | st.integers(0, 9),  # due
            st.none() | st.integers(0, 9),  # start by
        ),
        min_size=1, max_size=8,
    ),
)  # fmt: skip
picks = st.lists(st.integers(0, 40), min_size=1, max_size=6)
records = st.tuples(
    st.just("record"), picks, st.sampled_from((State.QUEUED, State.DELAYED, *sorted(ENDED))), st.integers(0, 9)
)
calls = st.tuples(st.just("call"), st.sampled_from(PIPELINES), st.sampled_from((State.DONE, State.DEAD, State.QUEUED)))
starts = st.tuples(st.just("start"), picks)
promotions = st.tuples(st.just("promote"), picks)
recoveries = st.tuples(st.just("recover"))
redrives = st.tuples(st.just("redrive"), st.sampled_from(PIPELINES), st.none() | picks)
discards = st.tuples(
    st.just("discard"), st.sampled_from(PIPELINES), st.lists(st.sampled_from(list(State)), unique=True, max_size=3)
)
prunings = st.tuples(st.just("prune"), st.integers(0, 9), st.integers(1, 5))
stories = st.lists(
    sends | sends | records | records | calls | starts | promotions | recoveries | redrives | discards | prunings,
    max_size=25,
)


@dataclass
class Row:
    """Be what the model knows of one task."""

    task: Task
    state: State
    outcome: Outcome | None = None
    finished: float | None = None
    history: int = 0


@dataclass
class Model:
    """Be a store, as simple as can be."""

    rows: dict[int, Row] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[int, float]] = field(default_factory=dict)
    last: int = 0

    def pick(self, numbers: list[int], *states: State) -> list[Row]:
        """Return rows by their places among those in some states."""
        rows = [row for row in self.rows.values() if row.state in states]
        return [rows[place] for place in dict.fromkeys(n % len(rows) for n in numbers)] if rows else []

    def new(self, pipeline: str, **given: Any) -> Task:
        self.last += 1
        return task(self.last, pipeline, created=NOW + self.last * 1e-3, **given)

    def forget(self, gone: list[Row], *, keys: bool) -> int:
        for row in gone:
            del self.rows[row.task.id]
            if keys and row.task.key and self.keys.get((row.task.pipeline, row.task.key), (0, 0))[0] == row.task.id:
                del self.keys[row.task.pipeline, row.task.key]
        return len(gone)


class Play:
    """Tell both the same."""

    def __init__(self, store: Store, project: int, model: Model) -> None:
        self.store = store
        self.project = project
        self.model = model

    async def send(self, wanted: list[tuple[str, int, str | None, int | None, int | None]]) -> None:
        model = self.model
        tasks = [
            model.new(
                pipeline,
                priority=priority,
                key=key,
                due=None if due is None else NOW + due,
                start_by=None if start_by is None else NOW + start_by,
            )
            for pipeline, priority, key, due, start_by in wanted
        ]
        known: dict[int, int] = {}
        for place, each in enumerate(tasks):
            if each.key:
                earlier, until = model.keys.get((each.pipeline, each.key), (0, 0.0))
                if until > each.created:
                    known[place] = earlier
                    continue
                model.keys[each.pipeline, each.key] = (each.id, each.created + KEY_TTL)
            model.rows[each.id] = Row(each, State.QUEUED if each.due is None else State.DELAYED)
        assert await self.store.enqueue(self.project, tasks) == known

    async def record(self, numbers: list[int], state: State, at: int) -> None:
        attempts = []
        for row in self.model.pick(numbers, State.QUEUED, State.RUNNING, State.DELAYED):
            outcome = Outcome.OK if state is State.DONE else Outcome.ERROR
            due = NOW + at if state is State.DELAYED else None
            row.task.attempts += 1
            row.task.start_by = None
            row.task.due = due or row.task.due
            attempts.append(ended(row.task, outcome, state, due=due, finished=NOW + at))
            row.state, row.outcome = state, outcome
            row.finished = NOW + at if state in ENDED else None
            row.history += state in WAITING
        await self.store.record(self.project, attempts)

    async def call(self, pipeline: str, state: State) -> None:
        called = self.model.new(pipeline, durable=False)
        attempt = ended(called, Outcome.ERROR, state)
        self.model.rows[called.id] = Row(
            called, state, Outcome.ERROR, attempt.finished if state in ENDED else None, int(state in WAITING)
        )
        await self.store.record(self.project, [attempt])
        called.durable = True

    async def start(self, numbers: list[int]) -> None:
        rows = self.model.pick(numbers, State.QUEUED)
        for row in rows:
            row.state, row.task.start_by = State.RUNNING, None
        await self.store.note_starts(self.project, [row.task for row in rows])

    async def promote(self, numbers: list[int]) -> None:
        rows = self.model.pick(numbers, State.DELAYED)
        for row in rows:
            row.state = State.QUEUED
        await self.store.promote(self.project, [row.task.id for row in rows])

    async def recover(self) -> None:
        rows = [row for row in self.model.rows.values() if row.state is State.RUNNING]
        for row in rows:
            row.state = State.QUEUED
            row.task.interruptions += 1
        assert await self.store.recover(self.project) == len(rows)

    async def redrive(self, pipeline: str, numbers: list[int] | None) -> None:
        dead = [row for row in self.model.rows.values() if row.state is State.DEAD and row.task.pipeline == pipeline]
        named = None
        if numbers is not None:
            named = [row.task.id for row in self.model.pick(numbers, *State)]
            dead = [row for row in dead if row.task.id in named]
        for row in dead:
            row.state, row.finished = State.QUEUED, None
            row.task.attempts = row.task.interruptions = 0
            row.task.expires = NOW + 2 * DAY
            row.history += 1
        assert await self.store.redrive(self.project, pipeline, named, NOW + 2 * DAY) == len(dead)

    async def discard(self, pipeline: str, states: list[State]) -> None:
        gone = [row for row in self.model.rows.values() if row.state in states and row.task.pipeline == pipeline]
        expected = self.model.forget(gone, keys=True)
        assert await self.store.discard(self.project, pipeline, states) == expected

    async def prune(self, before: int, limit: int) -> None:
        old = [
            row for row in self.model.rows.values()
            if row.state in ENDED - {State.DEAD} and row.finished is not None and row.finished < NOW + before
        ]  # fmt: skip
        expected = self.model.forget(old, keys=False)
        went = 0
        while count := await self.store.prune(self.project, NOW + before, NOW, limit):
            assert count <= limit
            went += count
        assert went == expected

    async def compare_places(self, pipeline: str, waiting: list[Task]) -> None:
        for place, each in enumerate(waiting):
            before, named = (-each.priority, each.id), [other.id for other in waiting[::3]]
            after = (-waiting[0].priority, waiting[0].id)
            ahead = self.store.ahead
            assert await ahead(self.project, pipeline, None, before, (), 99) == place
            assert await ahead(self.project, pipeline, after, before, (), 99) == max(0, place - 1)
            assert await ahead(self.project, pipeline, None, before, named, 99) == place - len(waiting[:place:3])
            assert await ahead(self.project, pipeline, None, before, (), 2) == min(2, place)

    async def compare(self) -> None:
        rows = self.model.rows
        newest = sorted(rows, reverse=True)
        for pipeline in PIPELINES:
            waiting = [r.task for r in rows.values() if r.state is State.QUEUED and r.task.pipeline == pipeline]
            waiting.sort(key=lambda each: (-each.priority, each.id))
            found = await all_waiting(self.store, self.project, pipeline, page=4)
            assert [facts(each) for each in found] == [facts(each) for each in waiting]
            await self.compare_places(pipeline, waiting)
            named = [n for n in newest if rows[n].task.pipeline == pipeline]
            assert ids(await self.store.tasks(self.project, pipeline=pipeline)) == named
            middle = named[len(named) // 2] if named else 0
            listed = await self.store.tasks(self.project, pipeline=pipeline, before=middle, limit=3)
            assert ids(listed) == [n for n in named if n < middle][:3]
        delayed = sorted((r.task.due, n) for n, r in rows.items() if r.state is State.DELAYED)
        assert [(each.due, each.id) for each in await self.store.due(self.project, NOW + 99, None, 999)] == delayed
        late = sorted((r.task.start_by, n) for n, r in rows.items() if r.task.start_by is not None)
        assert [(each.start_by, each.id) for each in await self.store.expiring(self.project, None, 999)] == late
        for each in await self.store.tasks(self.project, limit=999):
            row = rows[each.id]
            assert (each.state, each.outcome, each.finished) == (row.state, row.outcome, row.finished)
            assert each.due == row.task.due
            assert (each.attempts, each.interruptions) == (row.task.attempts, row.task.interruptions)
        stored = [await self.store.task(self.project, n) for n in newest]
        assert [each and len(each.history) for each in stored] == [rows[n].history for n in newest]
        counts: dict[str, dict[State, int]] = {}
        for row in rows.values():
            if row.state in KEPT:
                counts.setdefault(row.task.pipeline, dict.fromkeys(KEPT, 0))[row.state] += 1
        assert await self.store.counts(self.project) == counts


def facts(of: Task) -> tuple[Any, ...]:
    return (of.id, of.pipeline, of.priority, of.payload, of.key, of.attempts, of.interruptions, of.expires, of.created)


@pytest.mark.parametrize("kind", ["sqlite-inline", "sqlite-in-small-pieces"])
@given(story=stories, restarts=st.booleans())
@settings(max_examples=100)
def test_a_store_says_what_its_model_says(kind: str, story: list[tuple[Any, ...]], restarts: bool) -> None:
    model = Model()

    async def tell(store: Store, part: list[tuple[Any, ...]]) -> None:
        play = Play(store, await store.project("default"), model)
        for verb, *arguments in part:
            await getattr(play, verb)(*arguments)
        await play.compare()

    middle = len(story) // 2 if restarts else len(story)
    with tempfile.TemporaryDirectory() as directory, WORLDS[kind](Path(directory)) as world:
        world.run(lambda store: tell(store, story[:middle]))
        if restarts:
            world.run(lambda store: tell(store, story[middle:]))


def test_many_who_write_at_once_are_not_mixed_up(tmp_path: Path) -> None:
    async def one(store: Store, project: int, number: int) -> None:
        sent = [task(number * 1000 + n, f"p{number}", key=f"{number}-{n}", payload=b"%d" % n) for n in range(40)]
        for at in range(0, 40, number % 7 + 1):
            batch = sent[at : at + number % 7 + 1]
            assert await store.enqueue(project, batch) == {}
            assert await store.payloads(project, [batch[0].id]) == {batch[0].id: batch[0].payload}
            await store.record(project, [ended(batch[0], Outcome.OK, State.DONE, body=batch[0].payload)])
        listed = await store.tasks(project, pipeline=f"p{number}", limit=999)
        assert ids(listed) == ids(sent[::-1])
        finished = [each for each in listed if each.state is State.DONE]
        assert [each.result for each in finished] == [b"%d" % (each.id % 1000) for each in finished]
        assert len(finished) == -(-40 // (number % 7 + 1))

    async def body(store: Store) -> None:
        project = await store.project("default")
        await asyncio.gather(*[one(store, project, number) for number in range(1, 21)])

    with WORLDS["sqlite-in-small-pieces"](tmp_path) as world:
        world.run(body)
