"""The customers example: its quota, its verdict, and its function against the real service."""

import importlib.util
import json
import subprocess
import sys
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "customers"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"customers_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


demo, service, tasks = load("demo"), load("service"), load("tasks")
MOMENTS = st.lists(st.integers(0, 5_000).map(lambda milliseconds: milliseconds / 1000), max_size=60).map(sorted)


@given(MOMENTS)
def test_the_fullest_window_is_found(moments: list[float]) -> None:
    by_hand = max((sum(0 <= other - first < 1 for other in moments) for first in moments), default=0)
    assert demo.most_in_any_window(moments, 1.0) == by_hand


@given(MOMENTS, st.integers(1, 5))
def test_the_quota_never_allows_more_than_it_says(moments: list[float], per_second: int) -> None:
    quota = service.Quota(per_second)
    allowed = [moment for moment in moments if not quota.wait_at(moment)]
    assert demo.most_in_any_window(allowed, 1.0 - service.TOLERANCE) <= per_second


@given(MOMENTS, st.integers(1, 5))
def test_who_waits_as_long_as_told_is_let_in(moments: list[float], per_second: int) -> None:
    quota = service.Quota(per_second)
    for moment in moments:
        wait = quota.wait_at(moment)
        if wait:
            assert quota.wait_at(moment + wait + 1e-9) == 0
            return


def test_the_verdict() -> None:
    even = [{"key": "k", "at": number / 2, "refused": False} for number in range(21)]
    assert demo.judge("k", 2, even) == demo.Verdict("k", 2, calls=21, most=2, used=1.0, refused=0)
    assert demo.judge("k", 2, even).held
    assert not demo.judge("k", 1, even).held
    assert not demo.judge("k", 2, [*even, {"key": "k", "at": 99.0, "refused": True}]).held
    assert demo.judge("other", 2, even).calls == 0


def test_the_records_are_unicodes_own() -> None:
    found = demo.records("Sc", 3)
    assert [each["name"] for each in found] == ["DOLLAR SIGN", "CENT SIGN", "POUND SIGN"]
    assert all(len(demo.records(category, 36)) == 36 for category in demo.CATEGORIES.values())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [
        sys.executable,
        str(FOLDER / "service.py"),
        "--port=0",
        "--seconds-per-call=0",
        "--quota=k=2",
        "--quota=l=1",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = process.stdout.readline().strip()
        demo.until(lambda: demo.answers(f"{found}/log"), "the service did not start")
        yield found
        process.terminate()


def test_the_function_calls_the_service(url: str) -> None:
    context = SimpleNamespace(params={"url": url, "api_key": "k"})
    assert tasks.call_api({"character": "€"}, context) == {"character": "€", "utf8": "e2 82 ac", "html": "&#8364;"}
    arrivals = json.load(urlopen(f"{url}/log"))["arrivals"]
    assert [each["key"] for each in arrivals] == ["k"]


def test_over_the_quota_it_is_told_when_to_come_again(url: str) -> None:
    context = SimpleNamespace(params={"url": url, "api_key": "l"})

    def call_often() -> None:
        for _ in range(50):
            tasks.call_api({"character": "€"}, context)

    with pytest.raises(urllib.error.HTTPError, match="429") as raised:
        call_often()
    assert raised.value.headers["Retry-After"] == "1"
    raised.value.close()


def test_nobody_in_particular(url: str) -> None:
    context = SimpleNamespace(params={"url": url, "api_key": "unknown"})
    with pytest.raises(urllib.error.HTTPError, match="401") as raised:
        tasks.call_api({"character": "€"}, context)
    raised.value.close()


def test_the_demonstration_from_end_to_end(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "demo.py"), "--once", "--seconds=2", f"--data={tmp_path / 'data'}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # Whether every limit held within 20 ms is for a machine to show that nothing else disturbs; not for a test.
    assert ended.returncode in {0, 1}, ended.stdout + ended.stderr
    assert "The verdict, from the service's own log of arrivals" in ended.stdout
    for key in ("key-of-customer-a", "key-of-customer-b", "key-of-customer-c"):
        assert key in ended.stdout
    assert "ended as" not in ended.stdout
    assert ended.stderr == ""
