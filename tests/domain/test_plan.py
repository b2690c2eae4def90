"""The laws of a plan: carried out, it leads to what was wanted, and references hold after each of its steps."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.domain import written

from penstock.domain.errors import Conflict, InvalidSettings, NotFound
from penstock.domain.plan import Key, Plan, Step, plan, plan_in_steps, plan_removal
from penstock.domain.settings import Configuration, Kind, Settings, redact, validate

State = dict[Key, Settings]

F: dict[str, Any] = {"handler": "a:b"}
L: dict[str, Any] = {"rate": "2/s"}


def known(state: State) -> dict[Kind, dict[str, Settings]]:
    found: dict[Kind, dict[str, Settings]] = {}
    for (kind, name), settings in state.items():
        found.setdefault(kind, {})[name] = settings
    return found


def carried_out(state: State, the_plan: Plan) -> State:
    """Take the steps one by one; what one refers to must be there at each moment."""
    state = dict(state)
    for step in the_plan.steps:
        key: Key = (step.kind, step.name)
        assert (step.before is None) == (key not in state) == (step.action == "create")
        assert (step.after is None) == (step.settings is None) == (step.action == "remove")
        if step.settings is None:
            del state[key]
        else:
            state[key] = step.settings
        for settings in state.values():
            assert "function" not in settings or ("function", settings["function"]) in state
            assert all(("limit", limit) in state for limit in settings.get("limits", ()))
    return state


def applied(state: State, document: Mapping[str, Any]) -> State:
    return carried_out(state, plan(state, validate(document, known(state))))


def of(configuration: Configuration) -> State:
    return {(kind, name): settings for kind, name, settings in configuration.objects()}


def steps(the_plan: Plan) -> list[tuple[str, str, str]]:
    return [(step.action, step.kind, step.name) for step in the_plan.steps]


@given(written.configurations(), written.configurations())
def test_applying_twice_changes_nothing_the_second_time(first: dict[str, Any], second: dict[str, Any]) -> None:
    wanted = validate(second, {})
    state = carried_out(applied({}, first), plan(applied({}, first), wanted))
    assert plan(state, wanted) == Plan((), len(of(wanted)))


@given(written.configurations(), written.configurations())
def test_pruning_leads_to_exactly_what_is_wanted(first: dict[str, Any], second: dict[str, Any]) -> None:
    state, wanted = applied({}, first), validate(second, {})
    pruned = carried_out(state, plan(state, wanted, prune=True))
    assert pruned == of(wanted)
    assert not plan(pruned, wanted, prune=True).steps


@given(written.configurations(), written.configurations())
def test_what_is_not_named_stays_unless_pruned(first: dict[str, Any], second: dict[str, Any]) -> None:
    state, wanted = applied({}, first), validate(second, {})
    after = carried_out(state, plan(state, wanted))
    assert after == state | of(wanted)


@given(written.configurations())
def test_a_plan_shows_no_secrets(document: dict[str, Any]) -> None:
    wanted = validate(document, {})
    for step in plan({}, wanted).steps + plan(of(wanted), Configuration(), prune=True).steps:
        for shown in (step.before, step.after):
            assert shown == redact(shown)


def test_what_is_referred_to_comes_first_and_goes_last() -> None:
    document = {"pipelines": {"p": {"function": "f", "limits": ["l"]}}, "functions": {"f": F}, "limits": {"l": L}}
    wanted = validate(document, {})
    assert steps(plan({}, wanted)) == [
        ("create", "limit", "l"),
        ("create", "function", "f"),
        ("create", "pipeline", "p"),
    ]
    assert steps(plan(of(wanted), Configuration(), prune=True)) == [
        ("remove", "pipeline", "p"), ("remove", "function", "f"), ("remove", "limit", "l"),
    ]  # fmt: skip


def test_steps_carry_what_to_store_and_show_it_redacted() -> None:
    old: Settings = {"function": "f", "params": {"key": {"secret": "old"}}}
    new: Settings = {"function": "f", "params": {"key": {"secret": "hunter2"}}}
    hidden = {"function": "f", "params": {"key": {"secret": True}}}
    (step,) = plan({("pipeline", "p"): old}, Configuration(pipelines={"p": new})).steps
    assert step == Step("change", "pipeline", "p", hidden, hidden, new)
    assert "hunter2" not in repr(step)


@pytest.mark.parametrize(
    ("before", "after"), [(1, True), (1, 1.0), (0, False), ([], {}), (None, False), ({"a": 1}, {"a": True})]
)
def test_what_python_takes_for_equal_and_json_does_not_is_a_change(before: object, after: object) -> None:
    current: State = {("pipeline", "p"): {"function": "f", "params": {"x": before}}}
    wanted = Configuration(pipelines={"p": {"function": "f", "params": {"x": after}}})
    assert steps(plan(current, wanted)) == [("change", "pipeline", "p")]


def test_the_order_of_keys_is_no_change() -> None:
    current: State = {("pipeline", "p"): {"function": "f", "params": {"a": 1, "b": [1, None]}}}
    wanted = Configuration(pipelines={"p": {"params": {"b": [1, None], "a": 1}, "function": "f"}})
    assert plan(current, wanted) == Plan((), 1)


def test_pruning_what_is_used_is_refused_with_every_use() -> None:
    current: State = {("function", "f"): F, ("limit", "l"): L, ("limit", "m"): L}
    document = {"functions": {"g": {**F, "limits": ["m"]}}, "pipelines": {"p": {"function": "f", "limits": ["m", "l"]}}}
    wanted = validate(document, known(current))
    with pytest.raises(InvalidSettings) as caught:
        plan(current, wanted, prune=True)
    assert [(mistake.path, mistake.message, mistake.suggestion) for mistake in caught.value.mistakes] == [
        ("functions.g.limits[0]", "limit 'm' would be pruned: the configuration does not name it", "name it in limits"),
        (
            "pipelines.p.function",
            "function 'f' would be pruned: the configuration does not name it",
            "name it in functions",
        ),
        ("pipelines.p.limits[0]", "limit 'm' would be pruned: the configuration does not name it", "name it in limits"),
        ("pipelines.p.limits[1]", "limit 'l' would be pruned: the configuration does not name it", "name it in limits"),
    ]


def test_planning_lets_others_run_after_each_object() -> None:
    wanted = validate({"functions": {"f": F, "g": F}}, {})
    assert sum(1 for _ in plan_in_steps({("limit", "l"): L}, wanted, prune=True)) >= 3


def test_one_object_is_removed_by_itself() -> None:
    assert plan_removal({("limit", "l"): L}, "limit", "l") == Plan((Step("remove", "limit", "l", L, None),), 0)


@given(st.integers(1, 9))
def test_what_is_used_is_not_removed(users: int) -> None:
    current: State = {("function", "call_api"): F}
    current |= {("pipeline", f"p{n}"): {"function": "call_api"} for n in range(users)}
    with pytest.raises(Conflict) as caught:
        plan_removal(current, "function", "call_api")
    some = ", ".join(f"pipelines.p{n}" for n in range(min(users, 5))) + (f" and {users - 5} more" if users > 5 else "")
    assert caught.value.message == f"The function 'call_api' is used by {some}. Remove or change these first."


def test_what_is_not_there_is_not_removed() -> None:
    with pytest.raises(NotFound, match=r"There is no function 'call_apy'. Did you mean 'call_api'\?"):
        plan_removal({("function", "call_api"): F, ("limit", "call_apy"): L}, "function", "call_apy")
