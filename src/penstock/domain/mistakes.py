"""From what validation finds to what a user reads: where it is in what they wrote, what is wrong, what was meant.

Checks raise `problem` (one thing) or `problems` (several, each with its place inside the value). A value is shown in a
message only where it cannot be a secret: never below `params` and `env`.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from difflib import get_close_matches
from itertools import chain
from string import ascii_letters, digits
from typing import Any, Final, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from penstock.domain.errors import Mistake
from penstock.domain.units import shown

_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_LETTERS: Final = ascii_letters + digits + "._-"
_LONGEST_NAME: Final = 100
_FEW: Final = 300
"""How many words are compared one by one: that takes a few milliseconds, in which nothing else is done."""
_TRUTHS: Final = {
    "true": "true",
    "yes": "true",
    "on": "true",
    "1": "true",
    "false": "false",
    "no": "false",
    "off": "false",
    "0": "false",
}


class Place(NamedTuple):
    """Say what is wrong at a path inside a value ("" is the value itself)."""

    path: str
    message: str
    suggestion: str


def problem(message: str, suggestion: str = "") -> PydanticCustomError:
    """Return an error about the value that is being checked."""
    return PydanticCustomError("problem", "{message}", {"message": message, "suggestion": suggestion})


def problems(places: Iterable[Place]) -> PydanticCustomError:
    """Return an error about several places inside the value that is being checked."""
    return PydanticCustomError("problems", "several mistakes", {"places": tuple(places)})


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that looks most like this one, or "" if none does; among many, only one that is one edit away."""
    words = known if isinstance(known, Collection) else list(known)
    if len(words) > _FEW:
        return _one_edit_away(word, words)
    found = get_close_matches(word, words, n=1, cutoff=0.6)
    if not found:
        folded = {one.casefold().replace("-", "_"): one for one in words}
        found = [folded[one] for one in get_close_matches(word.casefold().replace("-", "_"), folded, n=1, cutoff=0.6)]
    return found[0] if found else ""


def _one_edit_away(word: str, words: Collection[str]) -> str:
    """Return a known word that differs in one letter, or "": the cost grows with the word and not with what is known."""
    if len(word) > _LONGEST_NAME:
        return ""
    known = words if isinstance(words, Set | Mapping) else set(words)
    cuts = [(word[:at], word[at:]) for at in range(len(word) + 1)]
    edits = chain(
        (left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1),
        (left + letter + right[1:] for left, right in cuts if right for letter in _LETTERS),
        (left + right[1:] for left, right in cuts if right),
        (left + letter + right for left, right in cuts for letter in _LETTERS),
    )
    return next((edit for edit in edits if edit in known and edit != word), "")


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return the nearest known word as a question, or what to say when there is none."""
    near = nearest(word, known)
    return f"did you mean '{near}'?" if near else otherwise


def join(path: str, part: str) -> str:
    """Return the path of something inside what stands at a path."""
    return f"{path}{'' if not path or not part or part[0] == '[' else '.'}{part}"


def part_of(key: object) -> str:
    """Return a key as it stands in a path, quoted if it is no plain name."""
    return key if isinstance(key, str) and _PLAIN.fullmatch(key) else f"[{shown(key)}]"


def mistakes_of(error: ValidationError, model: type[BaseModel], document: object, path: str) -> Iterator[Mistake]:
    """Return what is wrong in an object that a user wrote; `path` is where the object stands."""
    for detail in error.errors(include_url=False):
        place = join(path, _written_path(detail["loc"], document))
        context = detail.get("ctx", {})
        if detail["type"] == "problems":
            yield from (Mistake(join(place, inner), message, hint) for inner, message, hint in context["places"])
        elif detail["input"] is None and detail["type"] != "missing":
            yield Mistake(place, "is empty", "give it a value, or leave it out")
        else:
            yield Mistake(place, *_explained(detail, context, model))


def _written_path(loc: Sequence[int | str], document: object) -> str:
    """Return the path as the user wrote it: a list or mapping that was only understood into it has no place there."""
    path = ""
    here: Any = document
    for position, step in enumerate(loc):
        if isinstance(here, list) and isinstance(step, int):
            path, here = f"{path}[{step}]", here[step]
        elif isinstance(here, Mapping) and (step in here or position == len(loc) - 1):
            path, here = join(path, part_of(step)), here.get(step)
    return path


def _explained(detail: ErrorDetails, context: Mapping[str, Any], model: type[BaseModel]) -> tuple[str, str]:
    """Return message and suggestion for one thing that pydantic found."""
    kind, value = detail["type"], detail["input"]
    match kind:
        case "problem":
            said = context["message"], context["suggestion"]
        case "extra_forbidden":
            said = "there is no such setting", _known_setting(detail["loc"], model)
        case "missing":
            field = _model_at(detail["loc"], model).model_fields[str(detail["loc"][-1])]
            said = "is required", f"such as {field.examples[0]}" if field.examples else ""
        case "literal_error":
            choices = re.findall(r"'([^']*)'", context["expected"])
            said = f"must be {context['expected']}, not {shown(value)}", did_you_mean(str(value), choices)
        case "bool_type":
            truth = _TRUTHS.get(str(value).lower())
            said = f"must be true or false, not {shown(value)}", f"did you mean {truth}?" if truth else ""
        case "model_type":
            said = f"must be a mapping, not {shown(value)}", ""
        case "invalid_key":
            said = "the name of a setting must be text", "put it in quotes"
        case "string_unicode":
            said = "contains half a character (a lone surrogate)", ""
        case _:
            said = detail["msg"], ""
    return said


def _known_setting(loc: Sequence[int | str], model: type[BaseModel]) -> str:
    """Return which setting was probably meant, or where one of this name belongs."""
    name, at = str(loc[-1]), _model_at(loc, model)
    for outer, field in at.model_fields.items():
        inner = _model_in(field.annotation)
        if inner and name in inner.model_fields:
            return f"it belongs inside '{outer}'"
    return did_you_mean(name, at.model_fields, f"known are {', '.join(at.model_fields)}")


def _model_at(loc: Sequence[int | str], model: type[BaseModel]) -> type[BaseModel]:
    """Return the model that the last step of a location is a setting of."""
    for step in loc[:-1]:
        if isinstance(step, str):
            model = _model_in(model.model_fields[step].annotation) or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    """Return the model that an annotation such as `list[Model] | None` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
