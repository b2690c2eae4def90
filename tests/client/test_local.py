"""Local functions over many items: what they are travels once, values come back as they are, and nothing stays."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.api.serving import Server

from penstock.client import AsyncClient, Client, DeployFailed, TaskFailed
from penstock.client.local import bundle_of
from penstock.client.local_code import load, unwrap, wrap

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.integers() | st.text(), inner),
    max_leaves=20,
)


def cube(number: int) -> int:
    return number**3


def fail_at(number: int) -> int:
    if number == 2:
        raise ValueError(f"no {number}")
    return number


async def slowly(number: int) -> int:
    await asyncio.sleep(0.001)
    return -number


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("server"))
    yield running
    running.close()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.running.url, server.running.token) as one:
        yield one


def dumps(value: Any) -> bytes:
    import cloudpickle  # noqa: PLC0415

    return bytes(cloudpickle.dumps(value))


@given(VALUES)
def test_a_value_comes_back_as_it_is(value: Any) -> None:
    import msgspec  # noqa: PLC0415

    back = unwrap(msgspec.json.decode(msgspec.json.encode(wrap(value, dumps))))
    assert repr(back) == repr(value)


def test_functions_and_lambdas_with_what_they_close_over(client: Client) -> None:
    offset = Fraction(1, 3)
    assert list(client.map(cube, range(5))) == [0, 1, 8, 27, 64]
    assert list(client.map(lambda n: n + offset, (n for n in [1, 2]))) == [Fraction(4, 3), Fraction(7, 3)]
    assert list(client.map(slowly, [1, 2])) == [-1, -2]
    assert list(client.map(lambda pair: pair, [(1, 2), {3: b"x"}])) == [(1, 2), {3: b"x"}]


def test_nothing_stays_on_the_server(client: Client) -> None:
    assert list(client.map(cube, [3])) == [27]
    for _ in client.map(cube, range(50)):
        break
    left = client.map(cube, range(50))
    left.close()
    assert [one.name for one in client.functions() if one.name.startswith("local-")] == []


def test_results_come_as_they_end_too(client: Client) -> None:
    assert sorted(client.map(cube, [1, 2, 3]).as_completed()) == [(0, 1), (1, 8), (2, 27)]


def test_a_failure_comes_with_the_traceback_of_the_other_side(client: Client) -> None:
    with pytest.raises(TaskFailed) as raised:
        list(client.map(fail_at, range(4)))
    assert (raised.value.error_type, raised.value.error_message) == ("ValueError", "no 2")
    assert "in fail_at" in raised.value.traceback
    found = list(client.map(fail_at, range(4), return_exceptions=True))
    assert [one if isinstance(one, int) else one.error_type for one in found] == [0, 1, "ValueError", 3]


def test_many_items(client: Client) -> None:
    results = client.map(cube, iter(range(10_000)), max_parallel_requests=20, max_instances=4)
    assert list(results) == [number**3 for number in range(10_000)]


def test_threads_may_map_at_once_and_what_the_program_has_registered_stays() -> None:
    import cloudpickle  # noqa: PLC0415

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(bundle_of, [cube] * 64))) == 1
        assert __name__ in cloudpickle.list_registry_pickle_by_value()
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_what_cannot_be_pickled_is_said_before_anything_is_sent(client: Client) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent to the server"):
        client.map(lambda n: lock, [1])
    with pytest.raises(TypeError, match="Item 1 can neither"):
        client.map(cube, [1, lock])
    with pytest.raises(TypeError, match="cannot be called"):
        client.map(7, [1])  # type: ignore[arg-type]
    assert [one.name for one in client.functions() if one.name.startswith("local-")] == []


def test_another_python_is_refused_with_a_word_why(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"pickled by Python 2\.7"):
        load(__file__, "2.7")
    monkeypatch.setattr("penstock.client.local_code.python_version", lambda: "2.7")
    with pytest.raises(DeployFailed) as raised:
        client.map(cube, [1])
    assert "pickled by Python 2.7" in raised.value.traceback


def test_the_function_is_not_in_the_bundle_for_each_item() -> None:
    assert len(bundle_of(cube)) < 4000


def test_the_async_client_maps_too(server: Server) -> None:
    async def main() -> None:
        async with AsyncClient(server.running.url, server.running.token) as client:
            results = await client.map(cube, range(5))
            assert [result async for result in results] == [0, 1, 8, 27, 64]
            ended = await client.map(lambda n: (n,), [1, 2])
            assert sorted([one async for one in ended.as_completed()]) == [(0, (1,)), (1, (2,))]
            with pytest.raises(TaskFailed):
                _ = [one async for one in await client.map(fail_at, range(4))]
            assert not [one.name async for one in client.functions() if one.name.startswith("local-")]

    asyncio.run(main())


def test_a_program_maps_what_its_main_module_defines(server: Server, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import penstock\nimport helper\n\nFACTOR = 3\n\ndef scale(n):\n    return helper.shift(n * FACTOR)\n\n"
        "print(list(penstock.map(scale, range(3))), list(penstock.map(helper.shift, [1])))\n"
    )
    (tmp_path / "helper.py").write_text("def shift(n):\n    return _shift(n)\n\n\ndef _shift(n):\n    return n + 1\n")
    env = {**os.environ, "PENSTOCK_URL": server.running.url, "PENSTOCK_TOKEN": server.running.token}
    done = subprocess.run(
        [sys.executable, str(program)], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("[1, 4, 7] [2]", 0), done.stderr
