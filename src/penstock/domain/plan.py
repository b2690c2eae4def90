"""The plan of an apply: what has to be created, changed and removed, in an order in which references always hold.

The laws. Carrying out a plan and planning again gives no steps. What the wanted configuration does not name stays, unless
pruned. Nothing is removed that something which stays refers to. Steps show settings with secrets hidden; a step in which
only secrets differ shows the same before and after.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from penstock.domain.errors import Conflict, InvalidSettings, Mistake, NotFound
from penstock.domain.mistakes import nearest
from penstock.domain.redaction import redact
from penstock.domain.settings import SECTIONS, Configuration, Kind, Settings, finish
from penstock.domain.specs import DEFAULT_POOL

Action = Literal["create", "change", "remove"]
Key = tuple[Kind, str]

_SHOWN_USERS: Final = 5


@dataclass(frozen=True, slots=True)
class Step:
    """Describe one thing to do. `settings` is what to store, secrets in clear (None: remove it)."""

    action: Action
    kind: Kind
    name: str
    before: Settings | None
    after: Settings | None
    settings: Settings | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """Hold steps in the order to take them, and how many wanted objects are already as they should be."""

    steps: tuple[Step, ...]
    unchanged: int


def plan(current: Mapping[Key, Settings], wanted: Configuration, prune: bool = False) -> Plan:
    """Return the steps from the current settings to the wanted ones.

    Raises `InvalidSettings` if pruning would remove what a wanted object uses.
    """
    return finish(plan_in_steps(current, wanted, prune))


def plan_in_steps(
    current: Mapping[Key, Settings], wanted: Configuration, prune: bool = False
) -> Generator[None, None, Plan]:
    """Do what `plan` does, and yield often, so that an event loop can do other things between."""
    steps: list[Step] = []
    named: set[Key] = set()
    for kind, name, settings in wanted.objects():
        before = current.get((kind, name))
        named.add((kind, name))
        if before is None or not _equal(before, settings):
            steps.append(_put(kind, name, before, settings))
        yield
    unchanged = len(named) - len(steps)
    if prune:
        removed: set[Key] = set()
        for key in current:
            if key not in named:
                removed.add(key)
            yield
        mistakes = []
        for path, kind, name in _references(wanted.objects()):
            if (kind, name) in removed:
                what = f"{kind} '{name}' would be pruned: the configuration does not name it"
                mistakes.append(Mistake(path, what, f"name it in {SECTIONS[kind]}"))
            yield
        if mistakes:
            raise InvalidSettings(mistakes)
        for kind in reversed(SECTIONS):  # those that refer before those that are referred to
            for name in sorted([name for its, name in removed if its == kind]):
                steps.append(Step("remove", kind, name, redact(current[kind, name]), None))
                yield
    return Plan(tuple(steps), unchanged)


def plan_removal(current: Mapping[Key, Settings], kind: Kind, name: str) -> Plan:
    """Return the one step that removes an object. Raises `NotFound`, and `Conflict` if something uses it."""
    return finish(plan_removal_in_steps(current, kind, name))


def plan_removal_in_steps(current: Mapping[Key, Settings], kind: Kind, name: str) -> Generator[None, None, Plan]:
    """Do what `plan_removal` does, and yield often."""
    if (kind, name) not in current:
        raise NotFound(kind, name, nearest(name, [other for its, other in current if its == kind]))
    users = []
    for its, other in current if kind != "pipeline" else ():  # nothing refers to a pipeline
        object_ = (its, other, current[its, other])
        if any((used, one) == (kind, name) for _, used, one in _references([object_])):
            users.append(f"{SECTIONS[its]}.{other}")
        yield
    users.sort()
    if users:
        some = ", ".join(users[:_SHOWN_USERS]) + (
            f" and {len(users) - _SHOWN_USERS} more" if len(users) > _SHOWN_USERS else ""
        )
        raise Conflict(f"The {kind} '{name}' is used by {some}. Remove or change these first.")
    return Plan((Step("remove", kind, name, redact(current[kind, name]), None),), 0)


def _put(kind: Kind, name: str, before: Settings | None, settings: Settings) -> Step:
    if before is None:
        return Step("create", kind, name, None, redact(settings), settings)
    return Step("change", kind, name, redact(before), redact(settings), settings)


def _references(objects: Iterable[tuple[Kind, str, Settings]]) -> Iterator[tuple[str, Kind, str]]:
    """Return (path of the reference, kind, name) of all that objects refer to."""
    for kind, name, settings in objects:
        path = f"{SECTIONS[kind]}.{name}"
        if "function" in settings:
            yield f"{path}.function", "function", settings["function"]
        if settings.get("pool", DEFAULT_POOL) != DEFAULT_POOL:
            yield f"{path}.pool", "pool", settings["pool"]
        for at, limit in enumerate(settings.get("limits", ())):
            yield f"{path}.limits[{at}]", "limit", limit


def _equal(one: Any, other: Any) -> bool:
    """Tell whether two pieces of JSON are the same; unlike ==, true is not 1, and 1 is not 1.0."""
    if type(one) is not type(other):
        return isinstance(one, Mapping) and isinstance(other, Mapping) and _equal(dict(one), dict(other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(key in other and _equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
