"""Configuration files: what they say, and where."""

from pathlib import Path

import pytest

from penstock.cli.config import read_configuration
from penstock.cli.exits import Refused
from penstock.client import Mistake


def read(here: Path, text: str, name: str = "penstock.yaml") -> object:
    (here / name).write_text(text)
    return read_configuration(Path(name)).content


def test_plain_values_are_what_they_look_like(here: Path) -> None:
    text = """
functions:
  f: {handler: "tasks:f", timeout: 30s, reuse: false, memory: 256MB, n: 10, x: 1.5, y: 1e3, nothing: , also: ~}
pipelines:
  a: {rate: 2/s, at: 2026-11-20, clock: 12:30, country: no, octal: 010, same: &s {b: 1}, list: [1, "2"]}
  b: {<<: *s, c: 2}
"""
    assert read(here, text) == {
        "functions": {
            "f": {
                "handler": "tasks:f", "timeout": "30s", "reuse": False, "memory": "256MB", "n": 10, "x": 1.5, "y": 1000.0,
                "nothing": None, "also": None,
            }
        },
        "pipelines": {
            "a": {
                "rate": "2/s", "at": "2026-11-20", "clock": "12:30", "country": "no", "octal": 10, "same": {"b": 1},
                "list": [1, "2"],
            },
            "b": {"b": 1, "c": 2},
        },
    }  # fmt: skip


def test_json_and_nothing(here: Path) -> None:
    assert read(here, '{"pipelines": {"a": {"rate": "2\\/s"}}}', "c.json") == {"pipelines": {"a": {"rate": "2/s"}}}
    assert read(here, "# nothing yet\n") == {}


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.yaml", "a:\n  b: 1\n c: 2\n", "c.yaml:3"),
        ("c.yaml", "a: [1, 2\nb: 3", "c.yaml:2"),
        ("c.yaml", "pipelines:\n  a: {}\n  b: {}\n  a: {}\n", r"c.yaml:4: pipelines.a is here a second time.*line 2"),
        ("c.yaml", "- a\n- b\n", "holds list"),
        ("c.yaml", "a: !!python/object:os.system {}", "c.yaml:1"),
        ("c.yaml", "a: \x01", "not YAML"),
        ("c.json", '{"a": 1,\n "b"}', "c.json:2"),
        ("c.json", "[" * 100_000, "nested too deeply"),
        ("c.yaml", "[" * 100_000, "c.yaml:1: this is nested too deeply"),
        ("c.yaml", "a:\n  b: &b\n    c: *b\n", r"c.yaml:3: \*b stands within what it names"),
    ],
)
def test_files_that_cannot_be_read(here: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(Refused, match=said):
        read(here, text, name)


def test_a_missing_file() -> None:
    with pytest.raises(Refused, match=r"missing\.yaml cannot be read: No such file"):
        read_configuration(Path("missing.yaml"))


def test_places(here: Path) -> None:
    (here / "c.yaml").write_text("pipelines:\n  a:\n    rate:\n      - 2/s\n      - fast\n")
    configuration = read_configuration(Path("c.yaml"))
    places = {
        "pipelines.a.rate[1]": "c.yaml:5: ",
        "pipelines.a.rate.0": "c.yaml:4: ",
        "pipelines.a.function": "c.yaml:2: ",
        "pipelines.z": "c.yaml:1: ",
        "limits.x": "c.yaml: ",
    }
    assert {path: configuration.place_of(Mistake(path, "")) for path in places} == places
