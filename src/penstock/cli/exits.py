"""How commands end: the exit codes, and errors as their readers see them, without a traceback of Penstock's own."""

from collections.abc import Callable, Mapping
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from penstock.cli.output import complain
from penstock.client.errors import (
    ApiError,
    BadRequest,
    Conflict,
    DeployFailed,
    DiskFull,
    Forbidden,
    InvalidSettings,
    Mistake,
    NotFound,
    ServerUnreachable,
    TaskFailed,
    TaskNotEnded,
    TooLarge,
    TryLater,
    Unauthorized,
)


class Exit(IntEnum):
    """Name the exit codes."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNREACHABLE = 5
    TRY_LATER = 6


MEANINGS: Mapping[Exit, str] = {
    Exit.OK: "done",
    Exit.FAILED: "what was asked for failed, such as the task",
    Exit.USAGE: "the command was not understood",
    Exit.NOT_FOUND: "there is nothing of that name",
    Exit.REFUSED: "refused: invalid settings, code that cannot be deployed, a conflict, a wrong token, a port that is taken",
    Exit.UNREACHABLE: "no server answered",
    Exit.TRY_LATER: "no room, or not ended, now: try later",
}

EPILOG = "Exit codes: " + "; ".join(f"{code.value} {meaning}" for code, meaning in MEANINGS.items()) + "."

_CODES: tuple[tuple[type[ApiError] | tuple[type[ApiError], ...], Exit], ...] = (
    (NotFound, Exit.NOT_FOUND),
    ((InvalidSettings, DeployFailed, Conflict, BadRequest, TooLarge, Unauthorized, Forbidden), Exit.REFUSED),
    (ServerUnreachable, Exit.UNREACHABLE),
    ((TryLater, DiskFull, TaskNotEnded), Exit.TRY_LATER),
)


def exit_code_of(error: ApiError) -> Exit:
    """Return the exit code that an error ends a command with."""
    return next((code for kinds, code in _CODES if isinstance(error, kinds)), Exit.FAILED)


class Refused(Exception):
    """End a command with a message and a code of its own."""

    def __init__(self, message: str, code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.code = code


def report(error: ApiError, place_of: Callable[[Mistake], str] = lambda _: "") -> Exit:
    """Tell of an error on stderr and return its exit code; `place_of` says where a mistake stands in a file."""
    if isinstance(error, InvalidSettings) and error.mistakes:
        count = len(error.mistakes)
        complain(f"{count} mistake{'s' if count > 1 else ''}; nothing was applied.")
        for mistake in error.mistakes:
            complain(f"  {place_of(mistake)}{mistake}", lead="")
        return exit_code_of(error)
    complain(error.message)
    for remark in getattr(error, "__notes__", ()):
        complain(remark, lead="")
    if isinstance(error, TaskFailed | DeployFailed) and error.traceback:
        complain(error.traceback.rstrip(), lead="")
    if isinstance(error, TaskFailed) and error.task:
        complain(f"Its record: penstock task {error.task}", lead="")
    if isinstance(error, TryLater) and error.retry_after is not None:
        complain(f"Try again in {error.retry_after:g} s.", lead="")
    if isinstance(error, Unauthorized):
        complain("It was that of --token, else of PENSTOCK_TOKEN, else of the data directory.", lead="")
    return exit_code_of(error)


class Commands(TyperGroup):
    """End every command with a clear word and a stated code, whatever went wrong."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except ApiError as error:
            raise typer.Exit(report(error)) from error
        except Refused as refusal:
            complain(" ".join([str(refusal), *getattr(refusal, "__notes__", ())]))
            raise typer.Exit(refusal.code) from refusal
