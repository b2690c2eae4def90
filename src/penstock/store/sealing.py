"""Settings as they lie on the disk: the text of every secret is sealed, and nothing else.

`{"secret": "text"}` is stored as `{"secret": {"sealed": "…"}}`, which nobody can write: a secret is text. Whatever stood in
clear, or was sealed with a key that is not the first one any more, is sealed anew when the store opens.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

import msgspec

SEALED: Final = "sealed"
_SECRET: Final = "secret"
_MARK: Final = b'"sealed"'

_encode = msgspec.json.encode
_decode = msgspec.json.decode

log = logging.getLogger(__name__)


class Vault(Protocol):
    """Seal texts with a key that is not in the database."""

    @property
    def current(self) -> str:
        """Return what texts begin with that are sealed by the present key, "" if there is none yet."""

    def seal(self, text: str) -> str:
        """Return a text that only the key opens; the first one makes the key."""

    def open(self, sealed: str) -> str:
        """Return the text. Raises `PenstockError`, which says what to do, if the key is not there."""

    def renew(self) -> None:
        """Seal with a new key from now on. Raises `Conflict` if the key is not the server's to make."""

    def forget(self) -> None:
        """Let go of the keys before the present one: nothing is sealed with them any more."""


def seal(settings: Mapping[str, Any], vault: Vault | None) -> str:
    """Return settings as they are stored."""
    return _encode(settings if vault is None else _walk(settings, vault.seal)).decode()


def unseal(stored: str | bytes, vault: Vault | None) -> dict[str, Any]:
    """Return settings as they were written. Raises `PenstockError` if a key is not there."""
    settings: dict[str, Any] = _decode(stored)
    raw = stored if isinstance(stored, bytes) else stored.encode()
    return settings if vault is None or _MARK not in raw else _walk(settings, None, vault.open)


def _walk(value: Any, close: Callable[[str], str] | None, open_: Callable[[str], str] | None = None) -> Any:
    """Return a copy in which every secret's text is closed, or opened."""
    if isinstance(value, Mapping):
        return {key: _turned(key, one, close, open_) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_walk(one, close, open_) for one in value]
    return value


def _turned(key: str, value: Any, close: Callable[[str], str] | None, open_: Callable[[str], str] | None) -> Any:
    if key == _SECRET:
        if close is not None and isinstance(value, str):
            return {SEALED: close(value)}
        if open_ is not None and isinstance(value, Mapping) and isinstance(value.get(SEALED), str):
            return open_(value[SEALED])
    return _walk(value, close, open_)
