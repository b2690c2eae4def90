"""Configuration files: YAML or JSON, with the line of everything in them, so that mistakes can be pointed at."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from penstock.cli.exits import Exit, Refused
from penstock.client.errors import Mistake

MOST_NESTED: Final = 100
"""How deep a configuration may be nested."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Hold what a file says, and the line where each path of it stands."""

    file: str
    content: dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)

    def place_of(self, mistake: Mistake) -> str:
        """Return `file:line: ` for a mistake, or for the nearest thing around it that stands in the file."""
        path = mistake.path.replace("[", ".").replace("]", "")
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return f"{self.file}:{self.lines[path]}: " if path else f"{self.file}: "


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Load YAML 1.2's plain values: only true and false are booleans, moments stay text, and 1:30 is no number."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the base class has it so


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda loader, node: float(loader.construct_scalar(node)))


def read_configuration(path: Path) -> Configuration:
    """Return what a configuration file says. Raises Refused, with the line, for one that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}.", Exit.USAGE) from error
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not UTF-8 text: {error}.", Exit.USAGE) from error
    content, lines = _from_json(path, text) if path.suffix == ".json" else _from_yaml(path, text)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise Refused(
            f"{path} must name functions, limits, pools and pipelines, and it holds {type(content).__name__}.",
            Exit.REFUSED,
        )
    return Configuration(str(path), content, lines)


def _from_json(path: Path, text: str) -> tuple[Any, dict[str, int]]:
    try:
        return json.loads(text), {}
    except RecursionError as error:
        raise _too_deep(str(path)) from error
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise Refused(f"{path}:{line}: this is not JSON: {error}.", Exit.REFUSED) from error


def _from_yaml(path: Path, text: str) -> tuple[Any, dict[str, int]]:
    loader = _Loader(text)
    try:
        _check_nesting(path, text)
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines: dict[str, int] = {}
        for name, line in _lines(node, ""):
            if name in lines:
                raise Refused(
                    f"{path}:{line}: {name} is here a second time; it was first on line {lines[name]}.", Exit.REFUSED
                )
            lines[name] = line
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise Refused(f"{place}: this is not YAML: {error.problem or error.context}.", Exit.REFUSED) from error
    except yaml.YAMLError as error:
        raise Refused(f"{path}: this is not YAML: {error}.", Exit.REFUSED) from error
    finally:
        loader.dispose()


def _check_nesting(path: Path, text: str) -> None:
    """Refuse what is nested without end, or so deep that reading it would exhaust the stack."""
    around: list[str | None] = []  # the anchors of what is open
    for event in yaml.parse(text, Loader=_Loader):
        place = f"{path}:{event.start_mark.line + 1}" if event.start_mark else str(path)
        if isinstance(event, yaml.CollectionStartEvent):
            around.append(event.anchor)
            if len(around) > MOST_NESTED:
                raise _too_deep(place)
        elif isinstance(event, yaml.CollectionEndEvent):
            around.pop()
        elif isinstance(event, yaml.AliasEvent) and event.anchor in around:
            raise Refused(
                f"{place}: *{event.anchor} stands within what it names, which would have no end.", Exit.REFUSED
            )


def _too_deep(place: str) -> Refused:
    return Refused(f"{place}: this is nested too deeply: {MOST_NESTED} levels are the most.", Exit.REFUSED)


def _lines(node: yaml.Node, path: str) -> Iterator[tuple[str, int]]:
    """Yield every path under a node, with the line that it stands on; what is merged in stands where it was written."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                inner = f"{path}.{key.value}" if path else str(key.value)
                yield inner, key.start_mark.line + 1
                yield from _lines(value, inner)
    elif isinstance(node, yaml.SequenceNode):
        for place, value in enumerate(node.value):
            inner = f"{path}.{place}" if path else str(place)
            yield inner, value.start_mark.line + 1
            yield from _lines(value, inner)
