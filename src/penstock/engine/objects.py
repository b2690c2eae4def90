"""The configuration in memory, packed: a hundred bytes for each object that nobody looks at."""

from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any

import msgspec

from penstock.domain.settings import Kind, Settings
from penstock.store.protocol import StoredObject

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[dict[str, Any], float, float]).decode


class Objects(MutableMapping[str, StoredObject]):
    """Hold the objects of one kind by name. What is taken out is a copy: changing it changes nothing here."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self._packed: dict[str, bytes] = {}

    def __getitem__(self, name: str) -> StoredObject:
        settings, created, updated = _decode(self._packed[name])
        return StoredObject(self._kind, name, settings, created, updated)

    def __setitem__(self, name: str, stored: StoredObject) -> None:
        self._packed[name] = _encode((stored.settings, stored.created, stored.updated))

    def __delitem__(self, name: str) -> None:
        del self._packed[name]

    def __contains__(self, name: object) -> bool:
        return name in self._packed

    def __iter__(self) -> Iterator[str]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)


class SettingsByName(Mapping[str, Settings]):
    """Show the settings of objects, unpacking one when it is looked at."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def __getitem__(self, name: str) -> Settings:
        return self._objects[name].settings

    def __contains__(self, name: object) -> bool:
        return name in self._objects

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects)

    def __len__(self) -> int:
        return len(self._objects)


class SettingsByKey(Mapping[tuple[Kind, str], Settings]):
    """Show the settings of objects of all kinds, unpacking one when it is looked at."""

    def __init__(self, objects: Mapping[Kind, Objects]) -> None:
        self._objects = objects

    def __getitem__(self, key: tuple[Kind, str]) -> Settings:
        kind, name = key
        return self._objects[kind][name].settings

    def __iter__(self) -> Iterator[tuple[Kind, str]]:
        return ((kind, name) for kind, objects in self._objects.items() for name in objects)

    def __len__(self) -> int:
        return sum(map(len, self._objects.values()))
