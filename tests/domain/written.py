"""Strategies for configurations as users write them: valid ones, in any of the spellings that are allowed."""

from typing import Any

from hypothesis import strategies as st

NAMES = ["a", "b-2", "c.d", "Ee_", "9f"]
durations = st.sampled_from(["5s", 5, "5000ms", "10m", "1m30s", 90, "2h", 0.25])
counts = st.integers(1, 1000)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
secrets = st.fixed_dictionaries({"secret": texts})
keys = texts.filter(lambda key: key != "secret")
plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3) | secrets,
    max_leaves=6,
)
params = st.dictionaries(keys, plain, max_size=3) | st.fixed_dictionaries({"secret": texts | secrets, "region": plain})
single_rates = st.sampled_from(["2/s", "100/10s", "500/m", "10000/d", "0.5/s", "10/2m"])
rates = single_rates | st.fixed_dictionaries(
    {"rate": single_rates},
    optional={
        "style": st.just("smooth"),
        "burst": st.just(1),
        "margin": st.sampled_from(["20ms", 0.02, 0]),
        "meter": st.sampled_from(["tasks", "cost"]),
    },
)
some_rates = rates | st.lists(rates, min_size=1, max_size=3)
variables = st.text("ab \n", max_size=5)
environments = st.dictionaries(
    st.sampled_from(["A", "B_1", "_c", "secret"]), variables | st.fixed_dictionaries({"secret": variables})
)


def documents(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


shared_limits = st.one_of(
    documents({"rate": some_rates}, {"concurrency": counts, "adaptive": st.booleans(), "description": texts}),
    documents({"concurrency": counts}, {"rate": some_rates}),
)


def some_of(names: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(names), unique=True) if names else st.just([])


pools = documents(
    {},
    {
        "max_instances": counts,
        "memory": st.sampled_from(["8GB", 2**33]),
        "route": st.sampled_from(
            [{"longer_than": "5m"}, {"larger_than": 10**9}, {"longer_than": 60, "larger_than": "1GB"}]
        ),
        "description": texts,
    },
)


def functions(limits: list[str], pools: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    optional = {
        "timeout": durations,
        "max_runtime": st.sampled_from(["3h", 86_400, None]),
        "memory": st.sampled_from(["256MB", 2**28, "1GiB", "auto"]),
        "max_parallel_requests": counts,
        "reuse": st.just(True),
        "env": environments,
        "max_instances": st.integers(100, 1000),
        "min_instances": st.integers(0, 100),
        "ramp": st.sampled_from(["40/m", "100/s"]),
        "prewarm": st.just("history"),
        "idle_timeout": durations,
        "on_timeout": st.sampled_from(["wait", "kill"]),
        "limits": some_of(limits),
        "rate": some_rates,
        "concurrency": counts,
        "web": st.sampled_from(["asgi", "wsgi"]),
        "public": st.booleans(),
        "hosts": st.lists(st.sampled_from(["a.example", "b-c.example.org", "d"]), unique=True),
        "reserved_concurrency": counts,
        "pool": st.sampled_from(["default", *pools]),
        "description": texts,
    }
    return documents({"handler": st.sampled_from(["tasks:handler", "a.b.c:run"])}, optional)


def pipelines(functions: list[str], limits: list[str], pools: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    optional = {
        "rate": some_rates,
        "concurrency": counts | st.none(),
        "limits": some_of(limits),
        "params": params,
        "env": environments,
        "retry": documents({}, {"attempts": counts, "backoff": st.sampled_from(["1s..5m", "0..1", "500ms..60s"])}),
        "tier": st.sampled_from(["realtime", "background", "batch"]),
        "max_age": st.sampled_from(["1h", 3600, "7d"]),
        "batch": st.sampled_from([100, {"size": 5}, {"size": 5, "wait": "500ms"}, {"size": 1000, "wait": 0}]),
        "debounce": st.sampled_from(["5s", 1, {"wait": "5s"}, {"wait": "500ms", "most": "1m"}]),
        "max_queued": counts,
        "max_payload": st.sampled_from(["1MiB", 2**20, "64KB"]),
        "paused": st.booleans(),
        "remove_when_empty": st.booleans(),
        "timeout": durations,
        "weight": st.sampled_from([1, 2.0, 0.5]),
        "version": counts,
        "pool": st.sampled_from(["default", *pools]),
        "description": texts,
    }
    return documents({"function": st.sampled_from(functions)}, optional)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a whole configuration whose references hold."""
    names = st.lists(st.sampled_from(NAMES), unique=True, max_size=3)
    limits, shares, owners = draw(names), draw(names), draw(names)
    feeding = draw(names) if owners else []
    return {
        "limits": {name: draw(shared_limits) for name in limits},
        "pools": {name: draw(pools) for name in shares},
        "functions": {name: draw(functions(limits, shares)) for name in owners},
        "pipelines": {name: draw(pipelines(owners, limits, shares)) for name in feeding},
    }
