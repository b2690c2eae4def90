"""Checks of single values that users write; each returns the value in its one shortest spelling, or says what is wrong.

Values of `params` and `env` are never shown in a message: they may be secrets.
"""

from collections.abc import Callable, Mapping
from json import dumps
from math import isfinite
from pathlib import PurePosixPath
from re import ASCII, fullmatch
from typing import Any, Final, TypeVar

from pydantic import ValidationInfo
from pydantic_core import PydanticCustomError

from penstock.domain.mistakes import Place, join, part_of, problem, problems
from penstock.domain.redaction import KEY, NO_SECRET, SECRET_HINT, is_secret, restored
from penstock.domain.units import (
    AUTO,
    UNLIMITED_HINT,
    UnitError,
    format_backoff,
    format_duration,
    format_rate,
    format_size,
    parse_backoff,
    parse_duration,
    parse_rate,
    parse_size,
    shown,
)

MAX_RATES: Final = 10
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 10_000
MAX_CONTEXT: Final = 64 * 1024
"""How large (bytes of JSON) `params` and `env` may each be: instances keep them in memory."""

DAY: Final = 86_400.0

ALIAS_HINT: Final = "use up to 50 letters, digits, '_' and '-', a letter first"

_INTEGERS: Final = range(-(2**63), 2**64)
_HANDLER_HINT: Final = "write module:callable, such as tasks:handler"

T = TypeVar("T")


# quantities -----------------------------------------------------------------------------------------------------------
def duration(low: float, high: float) -> Callable[[object], str]:
    """Return a check of a duration between two bounds in seconds."""

    def check(value: object) -> str:
        seconds = _parsed(parse_duration, value)
        if not low <= seconds <= high:
            bounds = f"between {format_duration(low)} and {format_duration(high)}"
            raise problem(f"must be {bounds}, not {format_duration(seconds)}")
        return format_duration(seconds)

    return check


def size(low: int, high: int) -> Callable[[object], str]:
    """Return a check of a size between two bounds in bytes."""

    def check(value: object) -> str:
        found = _parsed(parse_size, value)
        if not low <= found <= high:
            meant = f"did you mean {value}MB?" if isinstance(value, int) and low <= value * 10**6 <= high else ""
            raise problem(
                f"must be between {format_size(low)} and {format_size(high)}, not {format_size(found)}", meant
            )
        return format_size(found)

    return check


def size_or_auto(low: int, high: int) -> Callable[[object], str]:
    """Return a check of a size between two bounds in bytes, or of "auto"."""
    check = size(low, high)
    return lambda value: AUTO if value == AUTO else check(value)


def whole(low: int, high: int, hint: str = "") -> Callable[[object], int]:
    """Return a check of a whole number between two bounds."""

    def check(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            meant = f"did you mean {value}?" if isinstance(value, str) and fullmatch(r"\d{1,9}", value, ASCII) else hint
            raise problem(f"must be a whole number, not {shown(value)}", meant)
        if not low <= value <= high:
            raise problem(f"must be between {low} and {high}, not {shown(value)}", hint)
        return value

    return check


def weight(value: object) -> int | float:
    """Check a share of turns; 1 is an ordinary one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise problem(f"must be a number, not {shown(value)}", "1 is an ordinary share")
    if not 0.001 <= value <= 1000:
        raise problem(f"must be between 0.001 and 1000, not {shown(value)}", "1 is an ordinary share")
    return int(value) if value == int(value) else value


def backoff(value: object) -> str:
    """Check a range of waits between attempts, a week at most."""
    first, longest = _parsed(parse_backoff, value)
    if longest > 7 * DAY:
        raise problem(f"the longest wait must be at most 1w, not {format_duration(longest)}")
    return format_backoff(first, longest)


def rate(value: object) -> str:
    """Check one rate as a text."""
    found = _parsed(parse_rate, value)
    if not 0.001 <= found.period <= 366 * DAY:
        raise problem(f"the period must be between 1ms and 366d, not {format_duration(found.period)}")
    return format_rate(found)


def rates(value: object) -> object:
    """Turn the ways to write rates (one or a list, text or mapping) into a list of mappings."""
    several = value if isinstance(value, list) else [value]
    if not several:
        raise problem("is an empty list", UNLIMITED_HINT)
    if len(several) > MAX_RATES:
        raise problem(f"has {len(several)} rates, and {MAX_RATES} is the most there can be")
    return [one if isinstance(one, dict) else {"rate": one} for one in several]


def batch(value: object) -> object:
    """Turn the ways to write a batch (its size alone, or a mapping) into a mapping."""
    return value if isinstance(value, dict) or value is None else {"size": value}


# texts and names ------------------------------------------------------------------------------------------------------
def handler(value: object) -> str:
    """Check "module:callable", dots in the module allowed, and turn AWS Lambda's "folder/module.callable" into it."""
    if not isinstance(value, str):
        raise problem(f"must be text, not {shown(value)}", _HANDLER_HINT)
    if _is_handler(value):
        return value
    module, _, name = value.replace("/", ".").rpartition(".")
    if _is_handler(f"{module}:{name}") and name != "py":
        return f"{module}:{name}"
    module, _, name = value.replace("/", ".").replace("::", ":").removesuffix(".py").rpartition(":")
    if not module:
        module, _, name = name.rpartition(".")
    meant = f"{module.removesuffix('.py').strip('.')}:{name.removesuffix('()')}"
    raise problem(
        f"{shown(value)} does not name a callable", f"did you mean {meant}?" if _is_handler(meant) else _HANDLER_HINT
    )


def _is_handler(value: str) -> bool:
    module, _, name = value.partition(":")
    return name.isidentifier() and all(part.isidentifier() for part in module.split(".")) and not module.endswith(".py")


def description(value: object) -> str:
    """Check a text for people, of 1000 characters at most."""
    if not isinstance(value, str):
        raise problem(f"must be text, not {shown(value)}", "put it in quotes")
    if len(value) > 1000:
        raise problem(f"has {len(value)} characters, and 1000 is the most there can be")
    if flaw := _flaw(value):
        raise problem(flaw)
    return value


def source(value: object) -> object:
    """Turn the ways to write a source (where it is, or a mapping) into a mapping."""
    return value if isinstance(value, dict) or value is None else {"url": value}


def source_url(value: object) -> str:
    """Check where code comes from: a folder on the server's machine, or a bucket."""
    if not isinstance(value, str) or not value.startswith("s3:"):
        return folder(value)
    if not fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\0]{0,1000})?", value):
        raise problem(f"{shown(value)} does not name a bucket", "such as s3://bucket/folder or s3://bucket/code.zip")
    if flaw := _flaw(value):
        raise problem(flaw)
    return value


def endpoint(value: object) -> str:
    """Check the URL of a server that speaks S3."""
    if not isinstance(value, str) or not fullmatch(r"https?://[^\s/@]+(/[^\s@]*)?", value):
        raise problem(f"must be a URL, not {shown(value)}", "such as https://s3.example.com")
    return value


def secret_key(value: object, info: ValidationInfo) -> dict[str, str]:
    """Check a text that must be a secret; one that was shown as true is looked up in what is stored."""
    if not is_secret(value):
        raise problem("must be a secret", SECRET_HINT)
    assert isinstance(value, dict)
    if isinstance(value[KEY], str):
        return dict(value)
    known = (info.context or {}).get("source")
    kept = known.get(info.field_name) if isinstance(known, Mapping) else None
    if kept is None:
        raise problem(NO_SECRET, SECRET_HINT)
    return dict(kept)


def folder(value: object) -> str:
    """Check the path of a folder on the server's machine: whole, from the root."""
    if not isinstance(value, str):
        raise problem(f"must be text, not {shown(value)}", "such as /srv/code")
    if not value.startswith("/") or ".." in value.split("/") or not value.strip("/") or "\0" in value:
        raise problem(f"{shown(value)} is not the whole path of a folder", "such as /srv/code")
    if len(value) > 4000:
        raise problem(f"has {len(value)} characters, and 4000 is the most there can be")
    if flaw := _flaw(value):
        raise problem(flaw)
    return str(PurePosixPath("/", *value.split("/")))


def folders(value: object) -> list[str]:
    """Check a list of folders on the server's machine, or one alone."""
    found, places = [], []
    for at, one in enumerate(value if isinstance(value, list) else [value]):
        try:
            found.append(folder(one))
        except PydanticCustomError as error:
            places.append(Place(f"[{at}]", error.message(), (error.context or {}).get("suggestion", "")))
    if places:
        raise problems(places)
    return list(dict.fromkeys(found))


def name(value: object) -> str:
    """Check that something may be a name; whether anything has it is found out elsewhere."""
    if not isinstance(value, str):
        raise problem(
            f"must be a name, not {shown(value)}", "put it in quotes" if isinstance(value, int | float) else ""
        )
    return value


def names(value: object) -> list[str]:
    """Check a list of names in which none is twice."""
    if not isinstance(value, list):
        raise problem(
            f"must be a list of names, not {shown(value)}", f"did you mean [{value}]?" if isinstance(value, str) else ""
        )
    places = []
    for at, one in enumerate(value):
        if not isinstance(one, str):
            places.append(Place(f"[{at}]", f"must be a name, not {shown(one)}", ""))
        elif one in value[:at]:
            places.append(Place(f"[{at}]", f"{shown(one)} is named twice", "leave one out"))
    if places:
        raise problems(places)
    return list(value)


def aliases(value: object) -> dict[str, int]:
    """Check a mapping of names, which are no numbers, to numbers of versions."""
    if not isinstance(value, dict):
        raise problem(f"must be a mapping of names to versions, not {_kind(value)}", "such as {stable: 3}")
    places = []
    for alias, number in value.items():
        if not is_alias(alias):
            places.append(Place(part_of(alias), "cannot be an alias", ALIAS_HINT))
        elif isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 10**9:
            places.append(Place(part_of(alias), f"must be the number of a version, not {shown(number)}", ""))
    if places:
        raise problems(places)
    return dict(value)


def python(value: object) -> str:
    """Check a version of Python that instances can run on, as a text."""
    if not isinstance(value, str):
        raise problem(f"must be text, not {shown(value)}", 'put it in quotes: "3.12"')
    if not fullmatch(r"3\.(1[0-9]|[2-9][0-9])(\.[0-9]{1,3})?", value, ASCII):
        raise problem(f"{shown(value)} is no Python from 3.10 on", 'such as "3.12", or "3.12.4" for that one alone')
    return value


def version(value: object) -> int | str:
    """Check what a version is named by: its number, or an alias."""
    if isinstance(value, str) and is_alias(value):
        return value
    if isinstance(value, str):
        meant = f"did you mean {value}?" if fullmatch(r"\d{1,9}", value, ASCII) else ALIAS_HINT
        raise problem(f"must be the number of a version or an alias, not {shown(value)}", meant)
    return whole(1, 10**9)(value)


def is_alias(name: object) -> bool:
    """Tell whether something can be the name of an alias."""
    return isinstance(name, str) and fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,49}", name, ASCII) is not None


def hosts(value: object) -> list[str]:
    """Check a list of host names in which none is twice; returns them in small letters."""
    found = [one.rstrip(".").lower() for one in names(value)]
    places = [
        Place(f"[{at}]", f"{shown(one)} is no host name", "write a name such as app.example.org, without port or path")
        for at, one in enumerate(found)
        if not fullmatch(r"(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})?(\.[a-z0-9_]([a-z0-9_-]{0,62})?)*", one, ASCII)
        or fullmatch(r"[0-9.]+", one)
        or one == "localhost"
    ]
    if places:
        raise problems(places)
    return found


# what handlers are given ----------------------------------------------------------------------------------------------
def params(value: object, info: ValidationInfo) -> dict[str, Any]:
    """Check a mapping of names to plain JSON; returns a copy, with stored secrets where they were shown as true."""
    copied, places = _plain_copy(value, info)
    if places:
        raise problems(places)
    return copied


def environment(value: object, info: ValidationInfo) -> dict[str, Any]:
    """Check a mapping of names of variables to texts or secrets; returns a copy as `params` does."""
    copied, places = _plain_copy(value, info)
    for variable, content in copied.items():
        text = content[KEY] if isinstance(content, dict) and set(content) == {KEY} else content
        if not fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable, ASCII):
            places.append(Place(part_of(variable), "cannot be the name of a variable", "use letters, digits and _"))
        if not isinstance(text, str):
            hint = "put it in quotes" if isinstance(text, int | float) else 'write a text, or {"secret": "text"}'
            places.append(Place(part_of(variable), f"must be text, not {_kind(text)}", hint))
        elif "\0" in text:
            places.append(Place(part_of(variable), "contains a zero character, which no variable can hold", ""))
    if places:
        raise problems(places)
    return copied


def _plain_copy(value: object, info: ValidationInfo) -> tuple[dict[str, Any], list[Place]]:
    """Return a copy of a mapping of names to JSON, and what is wrong with it; secrets are looked up in the context."""
    if not isinstance(value, dict):
        raise problem(f"must be a mapping of names to values, not {_kind(value)}")
    plain = _Plain()
    copied: dict[str, Any] = plain.copy(value, "", 0)
    copied, unknown = restored((info.context or {}).get(info.field_name), copied)
    places = plain.places + [Place(path, NO_SECRET, SECRET_HINT) for path in unknown]
    if not places and copied and (length := len(dumps(copied))) > MAX_CONTEXT:
        raise problem(
            f"takes {length} bytes as JSON, and {format_size(MAX_CONTEXT)} is the most", "put it in the bundle"
        )
    return copied, places


class _Plain:
    """Copy a value that must be plain JSON, and note every place where it is not.

    What YAML can build and JSON cannot is refused: dates, keys that are not text, and references to itself (whose copy
    would have no end, hence the bounds on depth and on the number of values).
    """

    def __init__(self) -> None:
        self.places: list[Place] = []
        self._values = 0

    def copy(self, value: Any, path: str, depth: int) -> Any:
        self._values += 1
        if self._values > MAX_VALUES or depth > MAX_DEPTH:
            if self._values <= MAX_VALUES + 1:
                what = (
                    f"is deeper than {MAX_DEPTH} levels"
                    if depth > MAX_DEPTH
                    else f"comes after {MAX_VALUES} other values"
                )
                self.places.append(Place(path, what, "put it in the bundle, or in payloads"))
            self._values = MAX_VALUES + 1  # one such mistake is enough, and looking further could take for ever
            return None
        if isinstance(value, dict):
            return {
                key: self.copy(one, join(path, part_of(key)), depth + 1)
                for key, one in value.items()
                if self._allows(key, path) and self._allows_secret(key, one, path)
            }
        if isinstance(value, list):
            return [self.copy(one, f"{path}[{at}]", depth + 1) for at, one in enumerate(value)]
        if flaw := _not_json(value):
            self.places.append(Place(path, *flaw))
        return value

    def _allows(self, key: object, path: str) -> bool:
        """Tell whether a key can be one in JSON."""
        if not isinstance(key, str):
            self.places.append(Place(join(path, part_of(key)), "the name must be text", "put it in quotes"))
        elif flaw := _flaw(key):
            self.places.append(Place(join(path, part_of(key)), flaw, ""))
        else:
            return True
        return False

    def _allows_secret(self, key: str, value: object, path: str) -> bool:
        if key != KEY or isinstance(value, str) or value is True or is_secret(value):
            return True
        hint = "put it in quotes" if isinstance(value, int | float) else ""
        self.places.append(Place(join(path, KEY), f"a secret must be text, not {_kind(value)}", hint))
        return False


def _not_json(value: object) -> tuple[str, str] | None:
    if isinstance(value, str):
        flaw = _flaw(value)
        return (flaw, "") if flaw else None
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int):
        return None if value in _INTEGERS else ("is a number of more than 64 bits", "put it in quotes")
    if isinstance(value, float):
        return None if isfinite(value) else ("is not a number that JSON can hold", "put it in quotes")
    return f"must be plain JSON, not {_kind(value)}", "put it in quotes"


def _flaw(text: str) -> str:
    """Return why a text cannot be stored, or "" if it can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "contains half a character (a lone surrogate)"
    return ""


def _kind(value: object) -> str:
    """Return what kind of thing a value is, without showing it."""
    kinds: Mapping[type, str] = {
        str: "text", int: "a number", float: "a number", bool: "true or false", dict: "a mapping", list: "a list",
        type(None): "nothing (null)",
    }  # fmt: skip
    return kinds.get(type(value), f"a {type(value).__name__}")


def _parsed(parse: Callable[[object], T], value: object) -> T:
    try:
        return parse(value)
    except UnitError as error:
        raise problem(error.message, error.suggestion) from error
