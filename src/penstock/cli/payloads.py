"""Payloads as people type them: JSON, `@file`, or `-` for stdin."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import msgspec

from penstock.cli.exits import Exit, Refused


def read_payload(argument: str | None) -> msgspec.Raw:
    """Return a payload, checked to be JSON, as the bytes that were given; nothing given is null."""
    if argument is None:
        return msgspec.Raw(b"null")
    if argument == "-":
        content, where = sys.stdin.buffer.read(), "stdin"
    elif argument.startswith("@"):
        content, where = _content_of(argument[1:]), argument[1:]
    else:
        content, where = argument.encode(), "the payload"
    return _checked(content, where)


def read_lines(argument: str | None) -> Iterator[msgspec.Raw]:
    """Yield the payloads of NDJSON from `@file` or stdin; empty lines are passed over."""
    with _opened(argument or "-") as (stream, where):
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield _checked(line, f"{where}:{number}")


def _checked(content: bytes, where: str) -> msgspec.Raw:
    try:
        msgspec.json.decode(content)
    except RecursionError as error:
        raise Refused(f"{where} is nested too deeply to be read.", Exit.USAGE) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        start = content[:60].decode("utf-8", "replace").strip()
        hint = " Text is JSON in quotes: '\"text\"'." if start and start[0].isalpha() else ""
        raise Refused(f"{where} is not JSON: {start!r} ({error}).{hint}", Exit.USAGE) from error
    return msgspec.Raw(content.strip())


def _content_of(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise Refused(f"{name} cannot be read: {error.strerror}.", Exit.USAGE) from error


@contextmanager
def _opened(argument: str) -> Iterator[tuple[BinaryIO, str]]:
    if argument == "-":
        yield sys.stdin.buffer, "stdin"
        return
    if not argument.startswith("@"):
        raise Refused("Many payloads are read one a line: from @file, or from stdin (-).", Exit.USAGE)
    try:
        stream = Path(argument[1:]).open("rb")  # noqa: SIM115 - closed below, outside of what is translated here
    except OSError as error:
        raise Refused(f"{argument[1:]} cannot be read: {error.strerror}.", Exit.USAGE) from error
    with stream:
        yield stream, argument[1:]
