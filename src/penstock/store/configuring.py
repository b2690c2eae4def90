"""What the writer does with configuration, output and notes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from penstock.domain.errors import NotFound
from penstock.store.operations import Verb
from penstock.store.protocol import Change, Kind, Line, Version, Write
from penstock.store.sealing import seal
from penstock.store.session import Session
from penstock.store.statements import Rows

_encode = msgspec.json.encode


def _text(settings: Mapping[str, Any] | None) -> str:
    return "" if settings is None else _encode(settings).decode()


def _project(session: Session, _: int, names: list[str]) -> list[int]:
    (name,) = names
    found = session.value("project", name)
    return [session.value("add_project", name) if found is None else found]


def _apply(
    session: Session, project: int, arguments: list[tuple[Sequence[Write], float, Mapping[str, int]]]
) -> list[list[Change]]:
    ((writes, at, live),) = arguments
    _put(session, project, writes, at)
    last = session.value("last_change", project)
    changes = [
        Change(last + n, at, each.action, each.kind, each.name, each.before, each.after)
        for n, each in enumerate(writes, 1)
    ]
    for n, (function, number) in enumerate(live.items(), last + len(writes) + 1):
        before = _make_live(session, project, function, number)
        changes.append(Change(n, at, "deploy", "function", function, before, {"version": number}))
    _log(session, project, changes, at)
    return [changes]


def _put(session: Session, project: int, writes: Sequence[Write], at: float) -> None:
    """Put and remove objects, in order; of several writes to one object the last one counts."""
    puts: dict[tuple[Kind, str], Mapping[str, Any]] = {}
    for each in writes:
        if each.settings is not None:
            puts[each.kind, each.name] = each.settings
            continue
        puts.pop((each.kind, each.name), None)
        session.run("remove_object", project, each.kind, each.name)
        if each.kind == "function":
            session.run("remove_versions", project, each.name)
    vault = session.vault
    flat = [value for (kind, name), settings in puts.items() for value in (kind, name, seal(settings, vault))]
    session.run_rows("put_objects", Rows(3, flat, {}), project, at)


def _log(session: Session, project: int, changes: Sequence[Change], at: float) -> None:
    flat: list[Any] = []
    for each in changes:
        flat += (each.sequence, each.action, each.kind, each.name, _text(each.before), _text(each.after))
    session.run_rows("add_changes", Rows(6, flat, {}), project, at)


@dataclass(frozen=True, slots=True)
class NewVersion:
    """Ask for the next version of a function."""

    function: str
    bundle: str
    settings: Mapping[str, Any]
    at: float


def _add_version(session: Session, project: int, arguments: list[NewVersion]) -> list[Version]:
    (new,) = arguments
    number = session.value("add_version", project, new.function, new.bundle, seal(new.settings, session.vault), new.at)
    return [Version(new.function, number, new.bundle, dict(new.settings), new.at, live=False)]


def _drop_versions(session: Session, project: int, arguments: list[tuple[str, Sequence[int]]]) -> list[None]:
    ((function, numbers),) = arguments
    session.run("drop_versions", project, function, _encode(numbers).decode())
    return [None]


def _make_live(session: Session, project: int, function: str, number: int) -> dict[str, int] | None:
    """Make a version live; return what was live before, as the change log has it."""
    before = session.value("live_version", project, function)
    if session.run("make_live", project, function, number, before).rowcount == 0:
        raise NotFound("version", f"{function}:{number}")
    return None if before is None else {"version": before}


def _write_output(session: Session, project: int, batches: list[Sequence[Line]]) -> list[None]:
    lines = [line for batch in batches for line in batch]
    last = session.value("count_lines", project, len(lines)) or len(lines)
    flat: list[Any] = []
    for position, line in enumerate(lines, last - len(lines) + 1):
        flat += (
            position,
            line.task,
            line.pipeline,
            line.function,
            line.attempt,
            line.at,
            line.stream,
            line.text,
        )
    session.run_rows("add_output", Rows(8, flat, {}), project)
    return [None] * len(batches)


def _save_note(session: Session, project: int, arguments: list[tuple[str, bytes | None]]) -> list[None]:
    ((name, body),) = arguments
    if body is None:
        session.run("forget_note", project, name)
    else:
        session.run("save_note", project, name, body)
    return [None]


def _reseal(session: Session, project: int, arguments: list[None]) -> list[int]:  # noqa: ARG001 - of all projects
    return [session.reseal()]


PROJECT: Final = Verb(_project, sends=True)
APPLY: Final = Verb(_apply, sends=True)
DROP_VERSIONS: Final = Verb(_drop_versions)
ADD_VERSION: Final = Verb(_add_version, sends=True)
WRITE_OUTPUT: Final = Verb(_write_output, joined=True, free=True, sends=True)
SAVE_NOTE: Final = Verb(_save_note)
RESEAL: Final = Verb(_reseal, sends=True)
