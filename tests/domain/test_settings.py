"""The laws of settings: one spelling is stored, every mistake is told, secrets are hidden and kept."""

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from tests.domain import written

from penstock.domain.errors import InvalidSettings
from penstock.domain.settings import (
    SECTIONS,
    Configuration,
    FunctionSpec,
    Kind,
    LimitSpec,
    PipelineSpec,
    PoolSpec,
    RateSpec,
    Settings,
    function_spec,
    keep_secrets,
    limit_spec,
    merge,
    pipeline_spec,
    pool_spec,
    redact,
    validate,
    validate_in_steps,
    validate_one,
)
from penstock.domain.specs import BatchSpec, RouteSpec

Known = Mapping[Kind, Mapping[str, Settings]]

EXAMPLE: dict[str, dict[str, Any]] = {
    "functions": {
        "call_api": {
            "handler": "tasks:call_api", "timeout": "30s", "max_runtime": "5m", "max_parallel_requests": 20, "memory": "256MB",
        }
    },
    "limits": {"provider": {"rate": ["100/s", "5000/m"]}},
    "pipelines": {
        "customer-a": {
            "function": "call_api", "rate": "2/s", "concurrency": 4, "limits": ["provider"],
            "params": {"api_key": {"secret": "hunter2"}}, "retry": {"attempts": 5, "backoff": "1s..5m"},
        }
    },
}  # fmt: skip


def known(configuration: Configuration) -> Known:
    return {kind: getattr(configuration, section) for kind, section in SECTIONS.items()}


def sections(configuration: Configuration) -> dict[str, Mapping[str, Settings]]:
    return {section: getattr(configuration, section) for section in SECTIONS.values()}


# what is stored -------------------------------------------------------------------------------------------------------
@given(written.configurations())
def test_what_is_stored_is_json_and_stored_again_as_it_is(document: dict[str, Any]) -> None:
    stored = sections(validate(document, {}))
    assert json.loads(json.dumps(stored)) == stored
    assert sections(validate(stored, {})) == stored


@given(written.configurations())
def test_what_is_written_is_left_alone_and_not_shared(document: dict[str, Any]) -> None:
    before = deepcopy(document)
    stored = sections(validate(document, {}))
    assert document == before
    for pipeline in document["pipelines"].values():
        pipeline.get("params", {}).clear()
    assert sections(validate(before, {})) == stored


@given(written.configurations())
def test_the_engine_can_read_whatever_is_stored(document: dict[str, Any]) -> None:
    stored = validate(document, {})
    for name, settings in stored.limits.items():
        assert limit_spec(name, settings).name == name
    for name, settings in stored.functions.items():
        assert function_spec(name, settings).slots >= 1
    for name, settings in stored.pipelines.items():
        spec = pipeline_spec(name, settings)
        assert spec == pipeline_spec(name, json.loads(json.dumps(settings)))
        assert json.loads(spec.params).keys() == settings.get("params", {}).keys()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"timeout": "30s"}, {"timeout": 30}),
        ({"timeout": "90s"}, {"timeout": "1m30s"}),
        ({"max_payload": "1MiB"}, {"max_payload": 2**20}),
        ({"rate": "0.5/s"}, {"rate": ["1/2s"]}),
        ({"rate": {"rate": "10/s"}}, {"rate": "10/1s"}),
        ({"rate": [{"rate": "10/s", "margin": "20ms"}]}, {"rate": {"rate": "10/s", "margin": 0.02}}),
        ({"retry": {"backoff": "1s..300s"}}, {"retry": {"backoff": "1..5m"}}),
        ({"weight": 2.0}, {"weight": 2}),
        ({"batch": 100}, {"batch": {"size": 100}}),
        ({"batch": {"size": 100, "wait": "2s"}}, {"batch": {"size": 100, "wait": 2}}),
        ({"concurrency": None}, {}),
        ({"rate": "5/s", "adaptive": True}, {"rate": ["5/1s"], "adaptive": True}),
    ],
)
def test_other_spellings_are_stored_as_one(one: dict[str, object], other: dict[str, object]) -> None:
    already: Known = {"function": {"f": {"handler": "a:b"}}}
    first, second = (validate_one("pipeline", "p", {"function": "f"} | some, already) for some in (one, other))
    assert json.dumps(first) == json.dumps(second)


@pytest.mark.parametrize("ceiling", [{}, {"rate": None, "concurrency": None}])
def test_what_is_adaptive_needs_a_ceiling(ceiling: dict[str, object]) -> None:
    with pytest.raises(InvalidSettings) as refused:
        validate_one(
            "pipeline", "p", {"function": "f", "adaptive": True, **ceiling}, {"function": {"f": {"handler": "a:b"}}}
        )
    (mistake,) = refused.value.mistakes
    assert mistake.path == "pipelines.p.adaptive"
    assert "ceilings" in mistake.suggestion
    with pytest.raises(InvalidSettings):
        validate_one("limit", "l", {"adaptive": True, **ceiling}, {})


def test_what_is_adaptive_is_told_to_the_engine() -> None:
    pipeline = validate_one(
        "pipeline", "p", {"function": "f", "rate": "5/s", "adaptive": True}, {"function": {"f": {"handler": "a:b"}}}
    )
    assert pipeline_spec("p", pipeline).adaptive
    assert limit_spec("l", validate_one("limit", "l", {"concurrency": 3, "adaptive": True}, {})).adaptive


def test_defaults_are_not_written_in() -> None:
    assert validate_one("function", "f", {"handler": "a:b"}, {}) == {"handler": "a:b"}


def test_the_shown_configuration_is_stored_as_it_is() -> None:
    assert sections(validate(EXAMPLE, {})) == {"pools": {}, **EXAMPLE}


def test_an_empty_section_is_a_section() -> None:
    assert validate({"pipelines": None, "limits": {}}, {}) == Configuration()


def test_validation_lets_others_run_after_each_object() -> None:
    steps = validate_in_steps(EXAMPLE, {})
    assert sum(1 for _ in steps) >= 3


def test_a_configuration_shows_no_secrets_by_accident() -> None:
    assert "hunter2" not in repr(validate(EXAMPLE, {}))
    assert "hunter2" not in repr(pipeline_spec("a", EXAMPLE["pipelines"]["customer-a"]))


# what the engine reads ------------------------------------------------------------------------------------------------
def test_defaults_of_a_function() -> None:
    assert function_spec("f", {"handler": "a:b"}) == FunctionSpec(
        "f", "a:b", timeout=30.0, max_runtime=None, max_parallel_requests=0, reuse=True, memory=None, env={},
        max_instances=1000, min_instances=0, idle_timeout=60.0, on_timeout="wait", limits=(), rates=(), concurrency=None,
    )  # fmt: skip


def test_defaults_of_a_pipeline() -> None:
    assert pipeline_spec("p", {"function": "f"}) == PipelineSpec(
        "p", "f", rates=(), concurrency=None, limits=(), params=b"{}", env={}, attempts=3, backoff=(1.0, 300.0),
        tier="background", max_age=14 * 86_400.0, max_queued=1_000_000, max_payload=256 * 1024, paused=False,
        remove_when_empty=False, timeout=None, weight=1.0, version=None, batch=None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("batch", "spec"),
    [(7, BatchSpec(7, 1.0)), ({"size": 7}, BatchSpec(7, 1.0)), ({"size": 7, "wait": "250ms"}, BatchSpec(7, 0.25))],
)
def test_a_batch_in_full(batch: object, spec: BatchSpec) -> None:
    stored = validate_one("pipeline", "p", {"function": "f", "batch": batch}, {"function": {"f": {"handler": "a:b"}}})
    assert pipeline_spec("p", stored).batch == spec


@pytest.mark.parametrize(("max_runtime", "fits"), [("30s", False), ("30500ms", False), ("31s", True)])
def test_an_instance_has_time_to_take_tasks(max_runtime: str, fits: bool) -> None:
    settings = {"handler": "a:b", "timeout": "30s", "max_runtime": max_runtime}
    if fits:
        validate_one("function", "f", settings, {})
        return
    with pytest.raises(InvalidSettings) as caught:
        validate_one("function", "f", settings, {})
    (mistake,) = caught.value.mistakes
    assert mistake.suggestion == "set max_runtime to 31s or more, or timeout lower"


@pytest.mark.parametrize(
    ("settings", "path", "says"),
    [
        ({"batch": 0}, "pipelines.p.batch", "between 1 and 1000"),
        ({"batch": 1001}, "pipelines.p.batch", "between 1 and 1000"),
        ({"batch": "many"}, "pipelines.p.batch", "whole number"),
        ({"batch": {"wait": "1s"}}, "pipelines.p.batch.size", "is required"),
        ({"batch": {"size": 5, "wait": "2h"}}, "pipelines.p.batch.wait", "between 0s and 1h"),
        ({"batch": {"size": 5, "most": 2}}, "pipelines.p.batch.most", "no such setting"),
        ({"batch": {"size": 5, "wait": "5s"}, "max_age": "5s"}, "pipelines.p.batch", "expires after 5s"),
    ],
)
def test_a_batch_that_cannot_be(settings: dict[str, object], path: str, says: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        validate_one("pipeline", "p", {"function": "f"} | settings, {"function": {"f": {"handler": "a:b"}}})
    (mistake,) = caught.value.mistakes
    assert mistake.path == path
    assert says in mistake.message


def test_memory_that_is_to_be_learned_is_not_known_beforehand() -> None:
    stored = validate_one("function", "f", {"handler": "a:b", "memory": "auto"}, {})
    assert stored["memory"] == "auto"
    spec = function_spec("f", stored)
    assert (spec.memory, spec.learns_memory) == (None, True)


def test_a_function_in_full() -> None:
    settings = {
        "handler": "a:b", "timeout": "1m", "max_runtime": "1h", "max_parallel_requests": 20, "reuse": True, "memory": "256MB",
        "env": {"A": "b", "KEY": {"secret": "hunter2"}, "secret": "x"}, "max_instances": 7, "min_instances": 2,
        "idle_timeout": "5m", "on_timeout": "kill", "limits": ["l"], "rate": "5/s", "concurrency": 9, "description": "d",
        "ramp": "40/m",
    }  # fmt: skip
    stored = validate_one("function", "f", settings, {"limit": {"l": {"concurrency": 1}}})
    assert stored == settings
    assert function_spec("f", stored) == FunctionSpec(
        "f", "a:b", 60.0, 3600.0, 20, True, 256_000_000, {"A": "b", "KEY": "hunter2", "secret": "x"}, 7, 2, 300.0, "kill",
        ("l",), (RateSpec(5, 1.0),), 9, ramp=RateSpec(40, 60.0),
    )  # fmt: skip


def test_a_web_app_in_full() -> None:
    written = {"handler": "a:b", "web": "wsgi", "public": True, "hosts": ["Shop.Example.", "b"]}
    stored = validate_one("function", "f", written, {})
    assert stored == {**written, "hosts": ["shop.example", "b"]}
    spec = function_spec("f", stored)
    assert (spec.web, spec.public, spec.hosts) == ("wsgi", True, ("shop.example", "b"))


@pytest.mark.parametrize(
    "host", ["", "a b", "a:80", "http://a", "a/b", "127.0.0.1", "localhost", "-a", "a..b", "x" * 64]
)
def test_what_is_no_host_name_is_refused(host: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        validate_one("function", "f", {"handler": "a:b", "hosts": ["a", host]}, {})
    assert caught.value.mistakes[0].path == "functions.f.hosts[1]"


def test_a_sandbox_in_full() -> None:
    written = {
        "handler": "a:b",
        "sandbox": "standard",
        "network": False,
        "writable": "/srv//reports/",
        "tmpdir": "1GB",
        "max_processes": 9,
    }
    stored = validate_one("function", "f", written, {})
    assert stored == written | {"writable": ["/srv/reports"]}
    spec = function_spec("f", stored)
    assert (spec.sandbox, spec.network, spec.writable) == ("standard", False, ("/srv/reports",))
    assert (spec.tmpdir, spec.max_processes) == (10**9, 9)


@pytest.mark.parametrize(
    ("settings", "path", "says"),
    [
        ({"sandbox": "loose"}, "functions.f.sandbox", "standard"),
        ({"sandbox": "off", "network": False}, "functions.f.network", "without a sandbox"),
        ({"sandbox": "off", "writable": ["/srv"]}, "functions.f.writable", "no meaning with sandbox: off"),
        ({"writable": ["srv"]}, "functions.f.writable[0]", "not the whole path of a folder"),
        ({"network": "no"}, "functions.f.network", "true or false"),
    ],
)
def test_a_sandbox_that_cannot_be(settings: dict[str, object], path: str, says: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        validate_one("function", "f", {"handler": "a:b"} | settings, {})
    (mistake,) = caught.value.mistakes
    assert mistake.path == path
    assert says in str(mistake)


def test_a_pool_in_full() -> None:
    settings = {"max_instances": 20, "memory": "8GB"}
    stored = validate_one("pool", "long", settings | {"description": "d"}, {})
    assert pool_spec("long", stored) == PoolSpec("long", 20, 8 * 10**9)
    assert pool_spec("any", validate_one("pool", "any", {}, {})) == PoolSpec("any")


def test_a_route_in_full() -> None:
    stored = validate_one("pool", "long", {"route": {"longer_than": 300, "larger_than": "1GB"}}, {})
    assert stored == {"route": {"longer_than": "5m", "larger_than": "1GB"}}
    assert pool_spec("long", stored) == PoolSpec("long", route=RouteSpec(300.0, 10**9))
    one = validate_one("pool", "long", {"route": {"larger_than": "1GiB", "longer_than": None}}, {})
    assert pool_spec("long", one).route == RouteSpec(None, 2**30)


@pytest.mark.parametrize(
    ("name", "route", "says"),
    [
        ("long", {}, "pools.long.route: takes nothing (give it longer_than, larger_than or both)"),
        ("long", {"longer_than": "5 min"}, "did you mean 5m?"),
        ("default", {"longer_than": "5m"}, "pools.default.route: has no meaning"),
    ],
)
def test_a_route_that_takes_nothing(name: str, route: dict[str, str], says: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        validate_one("pool", name, {"route": route}, {})
    (mistake,) = caught.value.mistakes
    assert says in str(mistake)


def test_the_default_pool_needs_no_configuration() -> None:
    validate_one("function", "f", {"handler": "a:b", "pool": "default"}, {})
    with pytest.raises(InvalidSettings, match="there is no pool 'lnog'"):
        validate_one("function", "f", {"handler": "a:b", "pool": "lnog"}, {"pool": {"long": {}}})


def test_rates_in_full() -> None:
    paced = {"rate": "9/m", "burst": 4, "margin": "20ms", "meter": "cost"}
    rate = ["2/s", paced, {"rate": "7/h", "style": "window"}]
    stored = validate_one("limit", "l", {"rate": rate, "concurrency": 3}, {})
    assert limit_spec("l", stored) == LimitSpec(
        "l",
        (
            RateSpec(2, 1.0, "smooth", 1.0, 0.0, "tasks"),
            RateSpec(9, 60.0, "smooth", 4.0, 0.02, "cost"),
            RateSpec(7, 3600.0, "window", 7.0, 0.0, "tasks"),
        ),
        3,
    )


def test_params_reach_handlers_with_secrets_in_clear() -> None:
    params = {
        "key": {"secret": "hunter2"},
        "deep": [{"and": {"secret": "é"}}],
        "secret": "plain name",
        "two": {"secret": "x", "y": 1},
    }
    spec = pipeline_spec("p", {"function": "f", "params": params})
    assert json.loads(spec.params) == {
        "key": "hunter2", "deep": [{"and": "é"}], "secret": "plain name", "two": {"secret": "x", "y": 1},
    }  # fmt: skip


# secrets --------------------------------------------------------------------------------------------------------------
@given(written.configurations())
def test_what_is_shown_can_be_written_back_and_changes_nothing(document: dict[str, Any]) -> None:
    stored = validate(document, {})
    shown = {
        section: {name: redact(one) for name, one in objects.items()} for section, objects in sections(stored).items()
    }
    assert validate(shown, known(stored)) == stored


@given(written.plain)
def test_redacting_twice_is_redacting_once(value: object) -> None:
    assert redact(redact(value)) == redact(value)


@given(written.params)
def test_secrets_are_hidden_and_kept(settings: dict[str, Any]) -> None:
    hidden = redact(settings)
    assert keep_secrets(settings, hidden) == settings

    def no_secret(value: object) -> bool:
        if isinstance(value, dict):
            return not isinstance(value.get("secret"), str) and all(map(no_secret, value.values()))
        return all(map(no_secret, value)) if isinstance(value, list) else True

    assert no_secret(hidden)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dedup": "1h", "debounce": "5s"}, "goes without dedup"),
        ({"debounce": {"wait": "5s", "most": "4s"}}, "shorter than the wait of 5s"),
        ({"debounce": "0s"}, "must be between"),
        ({"debounce": {"most": "4s"}}, "wait"),
        ({"dedup": 0}, "must be between"),
    ],
)
def test_what_cannot_be_remembered_or_debounced_is_a_mistake(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        validate_one("pipeline", "p", {"function": "f", **settings}, {"function": {"f": {"handler": "a:b"}}})
    assert says in str(caught.value.mistakes)


def test_debounce_is_read_in_both_spellings() -> None:
    def read(settings: Any) -> Any:
        known: Any = {"function": {"f": {"handler": "a:b"}}}
        stored = validate_one("pipeline", "p", {"function": "f", "debounce": settings}, known)
        return stored["debounce"], pipeline_spec("p", stored).debounce

    assert read(5) == read({"wait": "5000ms"}) == ("5s", (5.0, 50.0))
    assert read({"wait": 5, "most": "60s"}) == ({"wait": "5s", "most": "1m"}, (5.0, 60.0))


def test_a_hidden_secret_that_is_not_stored_is_a_mistake() -> None:
    new = {"params": {"a": {"secret": True}, "b": [{"secret": True}]}}
    with pytest.raises(InvalidSettings) as caught:
        keep_secrets({"params": {"a": {"secret": "x"}, "b": "not a list"}}, new)
    assert [mistake.path for mistake in caught.value.mistakes] == ["params.b[0]"]


def test_mistakes_never_show_what_could_be_secret() -> None:
    params = {"a": {"secret": ["hunter2"]}, "b": b"hunter2", "c": {"secret": {"d": "hunter2"}}}
    env = {"A": ["hunter2"], "B": {"secret": "hunter2", "x": 1}, "C": "hunter2\0", "D": b"hunter2"}
    for pipeline in ({"params": params, "env": env}, {"params": "hunter2"}, {"env": ["hunter2"]}):
        with pytest.raises(InvalidSettings) as caught:
            validate({"pipelines": {"p": {"function": "f", **pipeline}}}, {"function": {"f": {"handler": "a:b"}}})
        assert "hunter2" not in str(caught.value)


# patches --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # the examples of RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches(target: object, patch: object, result: object) -> None:
    before = deepcopy(target)
    assert merge(target, patch) == result
    assert target == before


def test_a_patch_keeps_secrets_that_it_does_not_name() -> None:
    already = known(validate(EXAMPLE, {}))
    old = already["pipeline"]["customer-a"]
    assert validate_one("pipeline", "customer-a", merge(old, {"paused": True}), already) == {**old, "paused": True}
    shown = merge(old, {"params": {"api_key": {"secret": True}, "region": "eu"}})
    assert validate_one("pipeline", "customer-a", shown, already)["params"] == {
        "api_key": {"secret": "hunter2"},
        "region": "eu",
    }


def test_a_patch_that_is_too_deep_is_refused() -> None:
    patch: dict[str, Any] = {}
    for _ in range(200):
        patch = {"a": patch}
    with pytest.raises(InvalidSettings, match="deeper than 100 levels"):
        merge({}, patch)


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("lambda_function.lambda_handler", "lambda_function:lambda_handler"),
        ("src/orders/app.handler", "src.orders.app:handler"),
        ("tasks:Api.handler", None),
        ("tasks.py", None),
        ("handler", None),
        ("../app.handler", None),
    ],
)
def test_a_handler_may_be_named_as_on_aws_lambda(written: str, stored: str | None) -> None:
    if stored is None:
        with pytest.raises(InvalidSettings, match="does not name a callable"):
            validate_one("function", "f", {"handler": written}, {})
    else:
        assert validate_one("function", "f", {"handler": written}, {}) == {"handler": stored}


@pytest.mark.parametrize("python", [3.12, 3, "3", "3.9", "2.7", "3.12.x", "python3.12", "", "3.12 ", True])
def test_a_python_that_no_instance_runs_on_is_a_mistake(python: object) -> None:
    with pytest.raises(InvalidSettings) as caught:
        validate_one("function", "f", {"handler": "a:b", "python": python}, {})
    assert [mistake.path for mistake in caught.value.mistakes] == ["functions.f.python"]


@pytest.mark.parametrize("python", ["3.10", "3.12", "3.13.1"])
def test_a_python_is_told_to_the_engine(python: str) -> None:
    stored = validate_one("function", "f", {"handler": "a:b", "python": python}, {})
    assert (stored["python"], function_spec("f", stored).python) == (python, python)
