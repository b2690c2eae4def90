"""Names as people type them: `customer-a`, or `pipeline/customer-a` where one word would name two things."""

from enum import StrEnum
from typing import Final

from penstock.cli.exits import Exit, Refused
from penstock.client import Client, Function, Limit, NotFound, Pipeline, Pool


class Kind(StrEnum):
    """Name what can have a name."""

    PIPELINE = "pipeline"
    FUNCTION = "function"
    LIMIT = "limit"
    POOL = "pool"


_ANY: Final = "pipeline, function, limit or pool"


def find(client: Client, text: str) -> dict[Kind, Pipeline | Function | Limit | Pool]:
    """Return everything of a name. Raises NotFound, with the nearest name that any kind has."""
    head, slash, rest = text.partition("/")
    asked = [Kind(head)] if slash and head in set(Kind) else list(Kind)
    name = rest if slash and head in set(Kind) else text
    found: dict[Kind, Pipeline | Function | Limit | Pool] = {}
    missing: list[NotFound] = []
    for kind in asked:
        try:
            found[kind] = getattr(client, kind.value)(name).show()
        except NotFound as error:
            missing.append(error)
    if not found:
        close = next((error for error in missing if error.nearest), missing[0])
        raise close if close.nearest or len(missing) == 1 else NotFound(f"There is no {_ANY} '{name}'.", status=404)
    return found


def only_one(client: Client, text: str) -> tuple[Kind, str]:
    """Return the kind and name of the one thing that a text names."""
    found = find(client, text)
    if len(found) > 1:
        said = " or ".join(f"{kind}/{text}" for kind in found)
        raise Refused(f"'{text}' names more than one thing; say {said}.", Exit.USAGE)
    kind = next(iter(found))
    return kind, found[kind].name
