"""The configuration: what users write, validated with every error at once, and what is stored of it.

The laws. Nothing is valid unless all of it is. What is stored is what was written, as plain JSON and in one spelling, so
that writing the same again changes nothing. References hold: a pipeline's function, pool and limits are in what is written or
already known. The engine gets `specs`; secrets are hidden by `redact` wherever settings are shown.
"""

import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from pydantic import ValidationError

from penstock.domain.errors import InvalidSettings, Mistake
from penstock.domain.mistakes import did_you_mean, join, mistakes_of, part_of
from penstock.domain.redaction import keep_secrets, redact
from penstock.domain.specs import (
    DEFAULT_POOL,
    TIMEOUT,
    FunctionSpec,
    LimitSpec,
    PipelineSpec,
    PoolSpec,
    RateSpec,
    Settings,
    function_spec,
    limit_spec,
    pipeline_spec,
    pool_spec,
)
from penstock.domain.units import format_duration, parse_duration, shown
from penstock.domain.written import FunctionSettings, LimitSettings, PipelineSettings, PoolSettings, Written

__all__ = [
    "SECTIONS", "Configuration", "FunctionSettings", "FunctionSpec", "Kind", "LimitSettings", "LimitSpec",
    "PipelineSettings", "PipelineSpec", "PoolSettings", "PoolSpec", "RateSpec", "Settings", "finish", "function_spec",
    "keep_secrets", "limit_spec", "merge", "pipeline_spec", "pool_spec", "redact", "validate", "validate_in_steps",
    "validate_one", "validate_one_in_steps",
]  # fmt: skip

Kind = Literal["limit", "pool", "function", "pipeline"]
T = TypeVar("T")
Known = Mapping[Kind, Mapping[str, Settings]]

SECTIONS: Final[dict[Kind, str]] = {
    "limit": "limits",
    "pool": "pools",
    "function": "functions",
    "pipeline": "pipelines",
}
"""The section of each kind, in the order in which kinds refer back to each other."""

_MODELS: Final[dict[Kind, type[Written]]] = {
    "limit": LimitSettings,
    "pool": PoolSettings,
    "function": FunctionSettings,
    "pipeline": PipelineSettings,
}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DEEPEST_PATCH: Final = 100
_MOST_GUESSES: Final = 100
_CEILINGS: Final = "give it a rate, a concurrency or both: they are the ceilings of what is learned"

LEAST_TAKING: Final = 1.0
"""For how many seconds, at least, an instance with a `max_runtime` takes tasks."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Hold settings as they are stored, secrets in clear, by kind and name."""

    limits: Mapping[str, Settings] = field(default_factory=dict, repr=False)
    pools: Mapping[str, Settings] = field(default_factory=dict, repr=False)
    functions: Mapping[str, Settings] = field(default_factory=dict, repr=False)
    pipelines: Mapping[str, Settings] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, kind: Kind, name: str, settings: Settings) -> "Configuration":
        """Return a configuration of one object."""
        return cls(**{SECTIONS[kind]: {name: settings}})

    def objects(self) -> Iterator[tuple[Kind, str, Settings]]:
        """Return (kind, name, settings) of all objects, those that are referred to first."""
        for kind, section in SECTIONS.items():
            for name, settings in getattr(self, section).items():
                yield kind, name, settings


def validate(document: object, known: Known) -> Configuration:
    """Return what a user wrote, normalised and with stored secrets put back where they were shown as {"secret": true}.

    `known` is the settings of what exists. Raises `InvalidSettings` with every mistake.
    """
    return finish(validate_in_steps(document, known))


def validate_in_steps(document: object, known: Known) -> Generator[None, None, Configuration]:
    """Do what `validate` does, and yield often, so that an event loop can do other things between."""
    reading = _Reading(known)
    if isinstance(document, Mapping):
        for section in document:
            if section not in SECTIONS.values():
                hint = did_you_mean(section, SECTIONS.values()) if isinstance(section, str) else ""
                reading.note(
                    part_of(section), "there is no such section", hint or f"known are {', '.join(SECTIONS.values())}"
                )
    else:
        reading.note(
            "configuration", f"must be a mapping, not {shown(document)}", "such as pipelines: {customer-a: {…}}"
        )
        document = {}
    return Configuration(**(yield from reading.read({kind: document.get(one) for kind, one in SECTIONS.items()})))


def validate_one(kind: Kind, name: str, document: object, known: Known) -> dict[str, Any]:
    """Return the settings that a user wrote for one object, as `validate` does."""
    return finish(validate_one_in_steps(kind, name, document, known))


def validate_one_in_steps(
    kind: Kind, name: str, document: object, known: Known
) -> Generator[None, None, dict[str, Any]]:
    """Do what `validate_one` does, and yield often."""
    read = yield from _Reading(known).read({kind: {name: document}})
    return read[SECTIONS[kind]][name]


def finish(steps: Generator[None, None, T]) -> T:
    """Do all steps at once and return what they come to."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


def merge(settings: Any, patch: Any, depth: int = 0) -> Any:
    """Return settings changed by a JSON merge patch (RFC 7396): null takes a member away, other values replace it."""
    if depth > _DEEPEST_PATCH:
        raise InvalidSettings([Mistake("patch", f"is deeper than {_DEEPEST_PATCH} levels")])
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(settings) if isinstance(settings, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value, depth + 1)
    return merged


class _Reading:
    """Read one configuration and gather its mistakes.

    What lies between objects (references, the two clocks) is read from the documents themselves, so that a mistake
    elsewhere in an object hides none of it.
    """

    def __init__(self, known: Known) -> None:
        self._known = known
        self._written: dict[Kind, dict[str, Any]] = {}
        self._mistakes: list[Mistake] = []
        self._guesses: dict[tuple[Kind, str], str] = {}

    def note(self, path: str, message: str, suggestion: str = "") -> None:
        self._mistakes.append(Mistake(path, message, suggestion))

    def read(self, sections: Mapping[Kind, object]) -> Generator[None, None, dict[str, dict[str, dict[str, Any]]]]:
        """Return normalised settings by section and name. Raises `InvalidSettings` with every mistake."""
        for kind, section in sections.items():
            self._written[kind] = self._named(kind, section)
        read: dict[str, dict[str, dict[str, Any]]] = {}
        for kind, documents in self._written.items():
            settings = read[SECTIONS[kind]] = {}
            for name, document in documents.items():
                settings[name] = self._settings(kind, name, document)
                yield
        yield from self._check_known_clocks()
        if self._mistakes:
            raise InvalidSettings(self._mistakes)
        return read

    def _named(self, kind: Kind, section: object) -> dict[str, Any]:
        """Return those documents of a section that have a name that can be one."""
        if section is None:  # in YAML, a section whose every line is commented out
            return {}
        if not isinstance(section, Mapping):
            self.note(SECTIONS[kind], f"must be a mapping of names to settings, not {shown(section)}")
            return {}
        named = {}
        for name, document in section.items():
            if isinstance(name, str) and _NAME.fullmatch(name):
                named[name] = document
                continue
            path = join(SECTIONS[kind], part_of(name))
            if not isinstance(name, str):
                self.note(path, f"a {kind}'s name must be text, not {shown(name)}", "put it in quotes")
                continue
            meant = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")[:100]
            rule = "use up to 100 letters, digits, '.', '_' and '-', a letter or digit first"
            self.note(
                path,
                f"{shown(name)} cannot be a name",
                f"did you mean '{meant}'?" if len(name) <= 100 and meant else rule,
            )
        return named

    def _settings(self, kind: Kind, name: str, document: Any) -> dict[str, Any]:
        path, model = f"{SECTIONS[kind]}.{name}", _MODELS[kind]
        settings: dict[str, Any] = {}
        try:
            settings = model.model_validate(document, context=self._known.get(kind, {}).get(name)).stored()
        except ValidationError as error:
            self._mistakes += mistakes_of(error, model, document, path)
        if isinstance(document, Mapping):
            self._check_references(path, document)
            if kind == "function":
                self._check_function_clocks(path, document)
            elif kind == "pipeline":
                self._check_pipeline_clocks(path, document)
                if document.get("adaptive") is True and not _limits_itself(document):
                    self.note(f"{path}.adaptive", "there is nothing to adapt", _CEILINGS)
            elif kind == "limit" and not _limits_itself(document):
                self.note(path, "limits nothing", "give it a rate, a concurrency or both")
            elif kind == "pool" and name == DEFAULT_POOL and document.get("route") is not None:
                self.note(f"{path}.route", "has no meaning: what no other pool takes is here anyway", "leave it out")
        return settings

    # references -------------------------------------------------------------------------------------------------------
    def _check_references(self, path: str, document: Mapping[str, Any]) -> None:
        function, limits, pool = document.get("function"), document.get("limits"), document.get("pool")
        if isinstance(pool, str) and pool != DEFAULT_POOL:
            self._check_reference(f"{path}.pool", "pool", pool)
        if isinstance(function, str):
            self._check_reference(f"{path}.function", "function", function)
        for at, limit in enumerate(limits if isinstance(limits, list) else ()):
            if isinstance(limit, str):
                self._check_reference(f"{path}.limits[{at}]", "limit", limit)

    def _check_reference(self, path: str, kind: Kind, name: str) -> None:
        if self._document(kind, name) is None:
            self.note(path, f"there is no {kind} {shown(name)}", self._guess(kind, name))

    def _document(self, kind: Kind, name: str) -> Any:
        """Return what is written for an object, else what is known of it, else None."""
        written = self._written.get(kind, {})
        return (written[name] or {}) if name in written else self._known.get(kind, {}).get(name)

    def _guess(self, kind: Kind, name: str) -> str:
        """Return which name was probably meant; the search is slow, so after many wrong names it is given up."""
        if (kind, name) not in self._guesses and len(self._guesses) < _MOST_GUESSES:
            names = {*self._known.get(kind, {}), *self._written.get(kind, {})}
            self._guesses[kind, name] = did_you_mean(name, names, f"add it to {SECTIONS[kind]}" if names else "")
        return self._guesses.get((kind, name), "")

    # the two clocks ---------------------------------------------------------------------------------------------------
    def _check_function_clocks(self, path: str, document: Mapping[str, Any]) -> None:
        timeout, max_runtime = _seconds(document, "timeout", TIMEOUT), _seconds(document, "max_runtime")
        if timeout and max_runtime and timeout + LEAST_TAKING > max_runtime:
            place = "max_runtime" if document.get("timeout") is None else "timeout"
            self.note(f"{path}.{place}", *_clocks(timeout, max_runtime))

    def _check_pipeline_clocks(self, path: str, document: Mapping[str, Any]) -> None:
        name, timeout = document.get("function"), _seconds(document, "timeout")
        function = self._document("function", name) if isinstance(name, str) and timeout else None
        max_runtime = _seconds(function, "max_runtime") if isinstance(function, Mapping) else None
        if timeout and max_runtime and timeout + LEAST_TAKING > max_runtime:
            self.note(f"{path}.timeout", *_clocks(timeout, max_runtime, f" of function '{name}'"))

    def _check_known_clocks(self) -> Iterator[None]:
        """Check pipelines that are not written here, and whose function now gets a `max_runtime`."""
        documents = self._written.get("function", {})
        clocks = {name: _seconds(one, "max_runtime") for name, one in documents.items() if isinstance(one, Mapping)}
        if not any(clocks.values()):
            return
        for name, settings in self._known.get("pipeline", {}).items():
            yield
            max_runtime = clocks.get(settings["function"])
            if max_runtime and name not in self._written.get("pipeline", {}):
                timeout = _seconds(settings, "timeout")
                if timeout and timeout + LEAST_TAKING > max_runtime:
                    path = f"functions.{settings['function']}.max_runtime"
                    self.note(path, *_clocks(timeout, max_runtime, whose=f" of pipeline '{name}'"))


def _limits_itself(document: Mapping[str, Any]) -> bool:
    return document.get("rate") is not None or document.get("concurrency") is not None


def _seconds(document: Mapping[str, Any], key: str, default: float | None = None) -> float | None:
    """Return a duration of a document, or None if it has none that can be read."""
    value = document.get(key)
    if value is None:
        return default
    try:
        return parse_duration(value)
    except ValueError:
        return None


def _clocks(timeout: float, max_runtime: float, of: str = "", whose: str = "") -> tuple[str, str]:
    """Return message and suggestion about a task's clock that does not fit into an instance's."""
    short, long, least = map(format_duration, (timeout, max_runtime, timeout + LEAST_TAKING))
    message = (
        f"timeout ({short}{whose}) must be less than max_runtime ({long}{of}), by {format_duration(LEAST_TAKING)} at least: an "
        "instance takes a task only while its age plus timeout is within max_runtime, so it would hardly ever take one"
    )
    return message, f"set max_runtime to {least} or more, or timeout lower"
