"""Mistakes: whatever is written is stored or refused, and every mistake is told at once, with its path and what was meant."""

import json
from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.domain import written

from penstock.domain.errors import InvalidSettings
from penstock.domain.settings import Configuration, Kind, Settings, merge, validate, validate_one

Known = Mapping[Kind, Mapping[str, Settings]]


def sections(configuration: Configuration) -> dict[str, Mapping[str, Settings]]:
    return {"limits": configuration.limits, "functions": configuration.functions, "pipelines": configuration.pipelines}


def mistakes(document: object, already: Known | None = None) -> list[tuple[str, str, str]]:
    with pytest.raises(InvalidSettings) as caught:
        validate(document, already or {})
    return [(mistake.path, mistake.message, mistake.suggestion) for mistake in caught.value.mistakes]


@given(written.configurations(), st.data())
def test_whatever_is_written_is_stored_or_refused_with_its_mistakes(
    document: dict[str, Any], data: st.DataObject
) -> None:
    junk = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(date(2026, 1, 1)),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.integers() | st.booleans(), inner, max_size=3)
        ),
        max_leaves=5,
    )
    here: Any = document
    while isinstance(here, dict) and here and data.draw(st.integers(0, 4)):
        parent, key = here, data.draw(st.sampled_from(sorted(here, key=str)))
        here = parent[key]
    if here is document:
        document[data.draw(st.sampled_from(["limits", "functions", "pipelines", "x"]))] = data.draw(junk)
    else:
        parent[key] = data.draw(junk)
    try:
        stored = sections(validate(document, {}))
    except InvalidSettings as error:
        for mistake in error.mistakes:
            assert mistake.path
            assert mistake.message
        str(error).encode()
    else:
        assert json.loads(json.dumps(stored)) == stored


@given(
    st.recursive(
        st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_whatever_is_patched_is_merged(patch: object) -> None:
    merged = merge({"a": {"b": "c"}}, patch)
    assert isinstance(merged, dict) == isinstance(patch, dict)


CLOCKS = (
    "timeout ({}) must be less than max_runtime ({}): an instance takes a task only while its age plus timeout is within "
    "max_runtime, so it would never take one"
)
NO_LIMIT = "to have no limit, leave it out; to stop a pipeline, write paused: true"
NAME_RULE = "use up to 100 letters, digits, '.', '_' and '-', a letter or digit first"
NO_SECRET = '{"secret": true} keeps a stored secret, and none is stored here'
WRITE_SECRET = 'write it as {"secret": "the text"}'
FUNCTION_SETTINGS = (
    "handler, timeout, max_runtime, max_parallel_requests, reuse, memory, env, max_instances, min_instances, idle_timeout, "
    "on_timeout, limits, rate, concurrency, description"
)

# The settings of one function "f", and all that is wrong with them.
WRONG_FUNCTIONS = [
    ({}, [("handler", "is required", "such as handler: tasks:handler")]),
    ("tasks:f", [("", "must be a mapping, not 'tasks:f'", "")]),
    (None, [("", "is empty", "give it a value, or leave it out")]),
    ({"handler": "tasks.f"}, [("handler", "'tasks.f' does not name a callable", "did you mean tasks:f?")]),
    ({"handler": "tasks.py:f"}, [("handler", "'tasks.py:f' does not name a callable", "did you mean tasks:f?")]),
    ({"handler": "src/tasks.py:f()"},
     [("handler", "'src/tasks.py:f()' does not name a callable", "did you mean src.tasks:f?")]),
    ({"handler": "my tasks"},
     [("handler", "'my tasks' does not name a callable", "write module:callable, such as tasks:handler")]),
    ({"handler": 3}, [("handler", "must be text, not 3", "write module:callable, such as tasks:handler")]),
    ({"handler": "a:b", "timeout": "30 sec"}, [("timeout", "'30 sec' is not a duration", "did you mean 30s?")]),
    ({"handler": "a:b", "timeout": 0}, [("timeout", "must be between 1ms and 30d, not 0s", "")]),
    ({"handler": "a:b", "timeout": None}, [("timeout", "is empty", "give it a value, or leave it out")]),
    ({"handler": "a:b", "timeout": "5m", "max_runtime": 300},
     [("timeout", CLOCKS.format("5m", "5m"), "set max_runtime above 5m, or timeout below 5m")]),
    ({"handler": "a:b", "max_runtime": "10s"},
     [("max_runtime", CLOCKS.format("30s", "10s"), "set max_runtime above 30s, or timeout below 10s")]),
    ({"handler": "a:b", "memory": 256}, [("memory", "must be between 16MB and 16TiB, not 256B", "did you mean 256MB?")]),
    ({"handler": "a:b", "memory": "256M"}, [("memory", "'256M' is not a size", "did you mean 256MB?")]),
    ({"handler": "a:b", "max_paralel_requests": 5},
     [("max_paralel_requests", "there is no such setting", "did you mean 'max_parallel_requests'?")]),
    ({"handler": "a:b", "maxParallelRequests": 5},
     [("maxParallelRequests", "there is no such setting", "did you mean 'max_parallel_requests'?")]),
    ({"handler": "a:b", "colour": "red"}, [("colour", "there is no such setting", f"known are {FUNCTION_SETTINGS}")]),
    ({"handler": "a:b", "max_parallel_requests": 1001},
     [("max_parallel_requests", "must be between 0 and 1000, not 1001", "")]),
    ({"handler": "a:b", "max_parallel_requests": True},
     [("max_parallel_requests", "must be a whole number, not true", "")]),
    ({"handler": "a:b", "max_parallel_requests": "20"},
     [("max_parallel_requests", "must be a whole number, not '20'", "did you mean 20?")]),
    ({"handler": "a:b", "max_parallel_requests": 20, "reuse": False},
     [("reuse", "a fresh instance for each task (reuse: false) cannot serve 20 at once",
       "leave out reuse or max_parallel_requests")]),
    ({"handler": "a:b", "reuse": "no"}, [("reuse", "must be true or false, not 'no'", "did you mean false?")]),
    ({"handler": "a:b", "max_instances": 100, "min_instances": 200},
     [("min_instances", "is 200, more than max_instances, which is 100", "at most 100")]),
    ({"handler": "a:b", "on_timeout": "kil"},
     [("on_timeout", "must be 'wait' or 'kill', not 'kil'", "did you mean 'kill'?")]),
    ({"handler": "a:b", "env": {"PORT": 80, "A B": "", "K": {"secret": True}, "Z": "\0"}},
     [("env.K", NO_SECRET, WRITE_SECRET), ("env.PORT", "must be text, not a number", "put it in quotes"),
      ("env['A B']", "cannot be the name of a variable", "use letters, digits and _"),
      ("env.Z", "contains a zero character, which no variable can hold", "")]),
    ({"handler": "a:b", "limits": "provider"},
     [("limits", "must be a list of names, not 'provider'", "did you mean [provider]?")]),
    ({"handler": "a:b", "limits": ["provder", 3, "slow", "slow"]},
     [("limits[1]", "must be a name, not 3", ""), ("limits[3]", "'slow' is named twice", "leave one out"),
      ("limits[0]", "there is no limit 'provder'", "did you mean 'provider'?")]),
    ({"handler": "a:b", "description": "x" * 1001},
     [("description", "has 1001 characters, and 1000 is the most there can be", "")]),
    ({"handler": "a:b", "description": "\ud800"}, [("description", "contains half a character (a lone surrogate)", "")]),
    ({"handler": "a:b", 5: 1}, [("[5]", "the name of a setting must be text", "put it in quotes")]),
]  # fmt: skip

# The settings of one pipeline "p", which lack nothing but what is wrong with them.
WRONG_PIPELINES = [
    ({"function": "call_apy"}, [("function", "there is no function 'call_apy'", "did you mean 'call_api'?")]),
    ({"function": 5}, [("function", "must be a name, not 5", "put it in quotes")]),
    ({"rate": "0/s"}, [("rate", "the rate '0/s' has a count of zero, so nothing would ever start", NO_LIMIT)]),
    ({"rate": 10}, [("rate", "10 is a rate without a period", "did you mean 10/s?")]),
    ({"rate": ["2/s", "9"]}, [("rate[1]", "'9' is not a rate", "did you mean 9/s?")]),
    ({"rate": []}, [("rate", "is an empty list", NO_LIMIT)]),
    ({"rate": ["1/s"] * 11}, [("rate", "has 11 rates, and 10 is the most there can be", "")]),
    ({"rate": "1/400d"}, [("rate", "the period must be between 1ms and 366d, not 400d", "")]),
    ({"rate": {"rate": "5/s", "burst": 9}}, [("rate.burst", "is 9, more than the 5 that 5/s allows", "at most 5")]),
    ({"rate": [{"rate": "5/s", "style": "window", "burst": 1}, {"burst": 3}]},
     [("rate[0].burst", "has no meaning with style: window, which lets all of them start at once", "leave burst out"),
      ("rate[1].rate", "is required", "such as rate: 10/s")]),
    ({"rate": {"rate": "5/s", "margin": "2s", "style": "smoth", "metre": "cost"}},
     [("rate.style", "must be 'smooth' or 'window', not 'smoth'", "did you mean 'smooth'?"),
      ("rate.margin", "is 2s, longer than the period of 5/s", "at most 1s"),
      ("rate.metre", "there is no such setting", "did you mean 'meter'?")]),
    ({"burst": 3, "attempts": 5},
     [("burst", "there is no such setting", "it belongs inside 'rate'"),
      ("attempts", "there is no such setting", "it belongs inside 'retry'")]),
    ({"concurrency": -1}, [("concurrency", "must be between 1 and 1000000, not -1", NO_LIMIT)]),
    ({"concurrency": 2.5}, [("concurrency", "must be a whole number, not 2.5", NO_LIMIT)]),
    ({"retry": 5}, [("retry", "must be a mapping, not 5", "")]),
    ({"retry": {"attempts": 0, "backoff": "5m..1s", "x": 1}},
     [("retry.attempts", "must be between 1 and 1000, not 0", ""),
      ("retry.backoff", "in '5m..1s' the first wait is longer than the longest", "did you mean 1s..5m?"),
      ("retry.x", "there is no such setting", "known are attempts, backoff")]),
    ({"retry": {"backoff": "1s..2w"}}, [("retry.backoff", "the longest wait must be at most 1w, not 2w", "")]),
    ({"tier": "realtme"},
     [("tier", "must be 'realtime', 'background' or 'batch', not 'realtme'", "did you mean 'realtime'?")]),
    ({"paused": "yes"}, [("paused", "must be true or false, not 'yes'", "did you mean true?")]),
    ({"weight": 0}, [("weight", "must be between 0.001 and 1000, not 0", "1 is an ordinary share")]),
    ({"weight": "2"}, [("weight", "must be a number, not '2'", "1 is an ordinary share")]),
    ({"timeout": "10m"},
     [("timeout", CLOCKS.format("10m", "5m of function 'call_api'"), "set max_runtime above 10m, or timeout below 5m")]),
    ({"max_payload": "1TB"}, [("max_payload", "must be between 1B and 64MiB, not 1TB", "")]),
    ({"params": ["a"]}, [("params", "must be a mapping of names to values, not a list", "")]),
    ({"params": {"when": date(2026, 1, 1), 5: 1, "n": float("nan"), "big": 2**70, "k": {"secret": 5}, "l": [{"secret": True}]}},
     [("params.when", "must be plain JSON, not a date", "put it in quotes"),
      ("params[5]", "the name must be text", "put it in quotes"),
      ("params.n", "is not a number that JSON can hold", "put it in quotes"),
      ("params.big", "is a number of more than 64 bits", "put it in quotes"),
      ("params.k.secret", "a secret must be text, not a number", "put it in quotes"),
      ("params.l[0]", NO_SECRET, WRITE_SECRET)]),
    ({"params": {"a": "x" * 70_000}},
     [("params", "takes 70009 bytes as JSON, and 64KiB is the most", "put it in the bundle")]),
    ({"params": {"a": [[0] * 100] * 100}},
     [("params.a[98][99]", "comes after 10000 other values", "put it in the bundle, or in payloads")]),
]  # fmt: skip

ALREADY: Known = {
    "function": {"call_api": {"handler": "a:b", "max_runtime": "5m"}},
    "limit": {"provider": {"rate": "2/s"}, "slow": {"concurrency": 1}},
}


def at(place: str, path: str) -> str:
    return place if not path else f"{place}{path}" if path.startswith("[") else f"{place}.{path}"


@pytest.mark.parametrize(("settings", "expected"), WRONG_FUNCTIONS)
def test_wrong_functions(settings: object, expected: list[tuple[str, str, str]]) -> None:
    found = mistakes({"functions": {"f": settings}}, ALREADY)
    assert found == [(at("functions.f", path), message, suggestion) for path, message, suggestion in expected]


@pytest.mark.parametrize(("settings", "expected"), WRONG_PIPELINES)
def test_wrong_pipelines(settings: dict[str, object], expected: list[tuple[str, str, str]]) -> None:
    found = mistakes({"pipelines": {"p": {"function": "call_api", **settings}}}, ALREADY)
    assert found == [(at("pipelines.p", path), message, suggestion) for path, message, suggestion in expected]


SECTIONS = "known are limits, functions, pipelines"
EXAMPLES = "such as pipelines: {customer-a: {…}}"

WRONG_DOCUMENTS: list[tuple[object, list[tuple[str, str, str]]]] = [
    (None, [("configuration", "must be a mapping, not nothing (null)", EXAMPLES)]),
    (["a"], [("configuration", "must be a mapping, not a list", EXAMPLES)]),
    ({"pipeline": {}, "colours": 1, 3: 4},
     [("pipeline", "there is no such section", "did you mean 'pipelines'?"),
      ("colours", "there is no such section", SECTIONS), ("[3]", "there is no such section", SECTIONS)]),
    ({"pipelines": ["a"]}, [("pipelines", "must be a mapping of names to settings, not a list", "")]),
    ({"limits": {"l": {"description": "x", "ratee": "1/s"}}},
     [("limits.l.ratee", "there is no such setting", "did you mean 'rate'?"),
      ("limits.l", "limits nothing", "give it a rate, a concurrency or both")]),
    ({"limits": {"my limit": {}, ".x": {}, 5: {}, "y" * 101: {}, "\ud800": {}}},
     [("limits['my limit']", "'my limit' cannot be a name", "did you mean 'my-limit'?"),
      ("limits['.x']", "'.x' cannot be a name", "did you mean 'x'?"),
      ("limits[5]", "a limit's name must be text, not 5", "put it in quotes"),
      (f"limits['{'y' * 39}…']", f"'{'y' * 39}…' cannot be a name", NAME_RULE),
      ("limits['\\ud800']", "'\\ud800' cannot be a name", NAME_RULE)]),
    ({"pipelines": {"p": {"function": "nothing-like-it", "limits": ["nothing-like-it"]}}},
     [("pipelines.p.function", "there is no function 'nothing-like-it'", "add it to functions"),
      ("pipelines.p.limits[0]", "there is no limit 'nothing-like-it'", "add it to limits")]),
]  # fmt: skip


@pytest.mark.parametrize(("document", "expected"), WRONG_DOCUMENTS)
def test_wrong_documents(document: object, expected: list[tuple[str, str, str]]) -> None:
    assert mistakes(document, ALREADY) == expected


def test_every_mistake_of_a_document_is_told_at_once() -> None:
    document = {
        "limits": {"l": {}},
        "functions": {"f": {}},
        "pipelines": {"p": {"function": "f", "rate": "x"}, "q": {}},
        "z": 1,
    }
    assert [path for path, _, _ in mistakes(document)] == [
        "z", "limits.l", "functions.f.handler", "pipelines.p.rate", "pipelines.q.function",
    ]  # fmt: skip


def test_references_hold_to_what_is_written_wrongly_too() -> None:
    document = {
        "functions": {"f": {"max_runtime": "1m", "x": 1}},
        "pipelines": {"p": {"function": "f", "timeout": "2m"}},
    }
    assert [path for path, _, _ in mistakes(document)] == [
        "functions.f.handler",
        "functions.f.x",
        "pipelines.p.timeout",
    ]


def test_a_function_may_not_outrun_the_timeouts_of_pipelines_that_are_not_written() -> None:
    already: Known = {"pipeline": {"p": {"function": "f", "timeout": "2m"}, "q": {"function": "f"}}}
    found = mistakes({"functions": {"f": {"handler": "a:b", "max_runtime": "1m"}}}, already)
    expected = CLOCKS.format("2m of pipeline 'p'", "1m")
    assert found == [("functions.f.max_runtime", expected, "set max_runtime above 2m, or timeout below 1m")]


def test_what_refers_to_itself_is_refused() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    (found,) = mistakes({"pipelines": {"p": {"function": "call_api", "params": {"x": endless}}}}, ALREADY)
    assert found[1] == "is deeper than 32 levels"


def test_many_wrong_names_are_all_told() -> None:
    pipelines = {f"p{n}": {"function": f"cal_api{n}"} for n in range(300)}
    found = mistakes({"pipelines": pipelines}, ALREADY)
    assert [path for path, _, _ in found] == [f"pipelines.p{n}.function" for n in range(300)]
    assert found[0][2] == "did you mean 'call_api'?"


def test_one_object_has_the_paths_of_a_whole_configuration() -> None:
    with pytest.raises(InvalidSettings) as caught:
        validate_one("pipeline", "customer-a", {"function": "call_api", "rate": "2"}, ALREADY)
    assert str(caught.value) == "pipelines.customer-a.rate: '2' is not a rate (did you mean 2/s?)"


def test_one_object_may_have_no_name_that_cannot_be_one() -> None:
    with pytest.raises(InvalidSettings, match="cannot be a name"):
        validate_one("limit", "../etc", {"concurrency": 1}, {})
