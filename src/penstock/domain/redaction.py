"""Secrets inside settings: hidden wherever settings are shown, kept when what was shown comes back.

The law: in `params` and `env` the value of a key named `secret` is never shown. It is written as {"secret": "text"} and
shown as {"secret": true}; writing {"secret": true} keeps the stored text. `redact(keep_secrets(old, redact(old)))` equals
`redact(old)`, and `keep_secrets(old, redact(old))` equals `old`.
"""

from collections.abc import Mapping
from typing import Any, Final

from penstock.domain.errors import InvalidSettings, Mistake

KEY: Final = "secret"
_UNKNOWN: Final = object()


def redact(settings: Any) -> Any:
    """Return a copy of settings in which every secret is {"secret": true}."""
    if isinstance(settings, Mapping):
        return {key: True if key == KEY else redact(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [redact(value) for value in settings]
    return settings


def reveal(settings: Any) -> Any:
    """Return a copy of settings in which every {"secret": "text"} is the text: what a handler gets to see."""
    if isinstance(settings, Mapping):
        if len(settings) == 1 and isinstance(settings.get(KEY), str):
            return settings[KEY]
        return {key: reveal(value) for key, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [reveal(value) for value in settings]
    return settings


def keep_secrets(old: Mapping[str, Any] | None, new: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the new settings with each {"secret": true} replaced by what the old ones have in its place.

    Raises `InvalidSettings` with a mistake for each that has nothing in its place; `path` is where the settings stand.
    """
    mistakes: list[Mistake] = []
    kept = _kept({} if old is None else old, new, path, mistakes)
    if mistakes:
        raise InvalidSettings(mistakes)
    return dict(kept)


def _kept(old: object, new: Any, path: str, mistakes: list[Mistake]) -> Any:
    if isinstance(new, Mapping):
        olds: Mapping[str, Any] = old if isinstance(old, Mapping) else {}
        kept = {}
        for key, value in new.items():
            place = f"{path}.{key}" if path else key
            if key == KEY and value is True:
                if not isinstance(olds.get(KEY), str):
                    mistakes.append(
                        Mistake(
                            path,
                            '{"secret": true} keeps the stored secret, and none is stored here',
                            'write it as {"secret": "the text"}',
                        )
                    )
                    continue
                kept[key] = olds[KEY]
            else:
                kept[key] = _kept(olds.get(key), value, place, mistakes)
        return kept
    if isinstance(new, list):
        olds_list = old if isinstance(old, list) else []
        return [
            _kept(olds_list[index] if index < len(olds_list) else None, value, f"{path}[{index}]", mistakes)
            for index, value in enumerate(new)
        ]
    return new
