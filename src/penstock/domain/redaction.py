"""Secrets inside settings: hidden wherever settings are shown, kept when what was shown comes back.

The law: in `params` and `env` the text of a key named `secret` is never shown. It is written as {"secret": "text"} and
shown as {"secret": true}; writing {"secret": true} keeps the stored text. `redact(keep_secrets(old, redact(old)))` equals
`redact(old)`, and `keep_secrets(old, redact(old))` equals `old`.
"""

from collections.abc import Mapping
from typing import Any, Final

from penstock.domain.errors import InvalidSettings, Mistake

KEY: Final = "secret"
NO_SECRET: Final = '{"secret": true} keeps a stored secret, and none is stored here'
SECRET_HINT: Final = 'write it as {"secret": "the text"}'


def is_secret(value: object) -> bool:
    """Tell whether a value is a secret as it is written or shown, and nothing else."""
    return (
        isinstance(value, Mapping) and len(value) == 1 and (isinstance(value.get(KEY), str) or value.get(KEY) is True)
    )


def redact(settings: Any) -> Any:
    """Return a copy of settings in which every secret is {"secret": true}."""
    if isinstance(settings, Mapping):
        return {key: True if key == KEY and not is_secret(value) else redact(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [redact(value) for value in settings]
    return settings


def reveal(settings: Any) -> Any:
    """Return a copy of settings in which every {"secret": "text"} is the text: what a handler gets to see."""
    if isinstance(settings, Mapping):
        if is_secret(settings):
            return settings[KEY]
        return {key: reveal(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [reveal(value) for value in settings]
    return settings


def keep_secrets(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the new settings with each {"secret": true} replaced by what the old ones have in its place.

    Raises `InvalidSettings` with a mistake for each that has nothing in its place.
    """
    kept, unknown = restored(old, new)
    if unknown:
        raise InvalidSettings([Mistake(path, NO_SECRET, SECRET_HINT) for path in unknown])
    return kept


def restored(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the new settings with the old secrets, and the paths of those that there was none for."""
    unknown: list[str] = []
    return _restored(old, new, "", unknown), unknown


def _restored(old: object, new: Any, path: str, unknown: list[str]) -> Any:
    if isinstance(new, Mapping):
        olds = old if isinstance(old, Mapping) else {}
        return {
            key: _secret(olds.get(KEY), path, unknown)
            if key == KEY and value is True
            else _restored(olds.get(key), value, f"{path}.{key}" if path else key, unknown)
            for key, value in new.items()
        }
    if isinstance(new, list):
        items = old if isinstance(old, list) else []
        return [
            _restored(items[at] if at < len(items) else None, value, f"{path}[{at}]", unknown)
            for at, value in enumerate(new)
        ]
    return new


def _secret(old: object, path: str, unknown: list[str]) -> object:
    if isinstance(old, str):
        return old
    unknown.append(path)
    return ""
