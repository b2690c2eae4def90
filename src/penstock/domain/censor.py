"""What tasks print and raise, with secrets taken out before anybody keeps or shows it.

The law: no text of a secret with at least `LEAST` characters is left, nor a line of one that has several, be it in plain
text or in the texts of a JSON document. What is encoded otherwise, or comes in pieces, cannot be recognised.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from json import dumps, loads
from typing import Any, Final

from penstock.domain.redaction import KEY

LEAST: Final = 6
"""Characters that a secret needs to be recognised: shorter ones stand in too many innocent words."""

Secret = tuple[str, str]
"""A secret's name, and its text."""


class Hidden(str):
    """Hold the text of a secret where it stands among others that are none."""

    __slots__ = ()


def secrets_of(settings: Any, name: str = "") -> Iterator[Secret]:
    """Yield the secrets in settings, each named by its path."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            if key == KEY and isinstance(value, str):
                yield name or KEY, value
            else:
                yield from secrets_of(value, f"{name}.{key}" if name else key)
    elif isinstance(settings, list | tuple):
        for at, value in enumerate(settings):
            yield from secrets_of(value, f"{name}[{at}]")


class Censor:
    """Replace the texts of secrets by `[secret NAME]`."""

    __slots__ = ("_names", "_pattern", "_secrets")

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._secrets = tuple(secrets)
        self._names: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None

    def text(self, said: str) -> str:
        """Return text without secrets."""
        if self._pattern is None:  # most pipelines' tasks never print
            self._names = dict(self._pieces())
            self._pattern = re.compile("|".join(map(re.escape, sorted(self._names, key=len, reverse=True))))
        return self._pattern.sub(lambda found: f"[secret {self._names[found[0]]}]", said)

    def json(self, body: bytes) -> bytes:
        """Return the bytes of a JSON text whose texts, but for the names of members, have no secrets."""
        try:
            return dumps(self._walk(loads(body)), separators=(",", ":")).encode()
        except ValueError:
            return dumps(self.text(body.decode("utf-8", "replace"))).encode()

    def _walk(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._walk(one) for one in value]
        return {key: self._walk(one) for key, one in value.items()} if isinstance(value, dict) else value

    def _pieces(self) -> Iterator[Secret]:
        """Yield what is looked for, and the name of its secret."""
        for name, secret in self._secrets:
            for piece in (secret, secret.strip(), *map(str.strip, secret.splitlines())):
                if len(piece) >= LEAST:
                    yield piece, name


def censor_of(secrets: Iterable[Secret]) -> Censor | None:
    """Return a censor of secrets, None if there is none to recognise."""
    found = [secret for secret in secrets if len(secret[1].strip()) >= LEAST]
    return Censor(found) if found else None
