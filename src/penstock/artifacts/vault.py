"""The vault: seals secrets with a key that lies beside the database, or elsewhere, but never in it.

AES-256 in GCM, a fresh nonce for each text; what is sealed says by which key (the first eight digits of the key's SHA-256).
The first key seals, all of them open. A key is on the disk before anything that it sealed.
"""

import base64
import binascii
import errno
import hashlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from penstock.domain.errors import Conflict, DiskFull, PenstockError

KEY: Final = "PENSTOCK_SECRETS_KEY"
"""The environment variable that holds the key (several, separated by commas: the first one seals)."""

KEY_FILE: Final = "PENSTOCK_SECRETS_KEY_FILE"
"""The environment variable that names the file of the key, one a line."""

LOST: Final = "PENSTOCK_SECRETS_LOST"
"""The environment variable that lets a server start without the key: with `empty`, secrets that it sealed are empty texts."""

_NONCE: Final = 12
_BOUND_TO: Final = b"penstock secret 1"

log = logging.getLogger(__name__)


class FileVault:
    """Keep keys in a file, which is made when the first secret is; or take them from the environment (`keys`)."""

    def __init__(self, file: Path, keys: str | None = None, *, lost: str = "") -> None:
        self._file = file
        self._given = keys is not None
        self._lost = lost
        self._keys = _read(keys.replace(",", "\n"), KEY) if keys is not None else _read_file(file)
        self._sealers = {_name(key): AESGCM(key) for key in self._keys}

    @property
    def current(self) -> str:
        """Return what texts begin with that are sealed by the present key, "" if there is none yet."""
        return f"{_name(self._keys[0])}." if self._keys else ""

    def seal(self, text: str) -> str:
        """Return a text that only the key opens; the first one makes the key."""
        if not self._keys:
            self._keep([_new()])
        nonce, name = os.urandom(_NONCE), _name(self._keys[0])
        sealed = nonce + self._sealers[name].encrypt(nonce, text.encode(), _BOUND_TO)
        return f"{name}.{base64.urlsafe_b64encode(sealed).decode()}"

    def open(self, sealed: str) -> str:
        """Return the text. Raises `PenstockError`, which says what to do, if the key is not there."""
        name, _, text = sealed.partition(".")
        sealer = self._sealers.get(name)
        if sealer is None:
            return self._without(name)
        raw = base64.urlsafe_b64decode(text)
        try:
            return sealer.decrypt(raw[:_NONCE], raw[_NONCE:], _BOUND_TO).decode()
        except InvalidTag as error:
            raise PenstockError(
                f"A secret in the database was damaged, or was sealed by another key that is called {name} too. Restore the "
                "database from a backup, or make the secret empty by starting once with " + f"{LOST}=empty."
            ) from error

    def _without(self, name: str) -> str:
        if self._lost == "empty":
            log.warning("A secret was made empty: the key %s, which sealed it, is lost. Set it anew.", name)
            return ""
        there = ", ".join(self._sealers) or "none"
        where = f"the variable {KEY}" if self._given else f"the file {self._file}"
        raise PenstockError(
            f"The secrets in the database were sealed with the key {name}, and {where} does not have it (it has: {there}). "
            f"Nothing was changed. Put the key back there, or name it with {KEY} or {KEY_FILE}; a backup of the data "
            f"directory may have it. If it is lost, start once with {LOST}=empty: every secret is empty then, and has to be "
            "set anew."
        )

    # rotation ---------------------------------------------------------------------------------------------------------
    def renew(self) -> None:
        """Seal with a new key from now on. Raises `Conflict` if the key is not the server's to make."""
        if self._given:
            raise Conflict(
                f"The key comes from the variable {KEY}, so the server cannot make another one. Start it with "
                f"{KEY}=NEW,OLD: everything is sealed with the first one then, and the second can go afterwards."
            )
        self._keep([_new(), *self._keys])

    def forget(self) -> None:
        """Let go of the keys before the present one: nothing is sealed with them any more."""
        if self._keys:
            _write(self._file, self._keys[:1])

    def _keep(self, keys: list[bytes]) -> None:
        try:
            _write(self._file, keys)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                raise DiskFull(f"The disk has no room for the key of the secrets, {self._file}.") from error
            raise PenstockError(
                f"The key of the secrets cannot be written to {self._file}: {error.strerror}. No secret is kept without it."
            ) from error
        self._sealers = {_name(key): AESGCM(key) for key in keys}
        self._keys = keys


def vault_of(data: Path, environment: Mapping[str, str]) -> FileVault:
    """Return the vault of a data directory. Raises `PenstockError` if there is a key that is none."""
    named = environment.get(KEY_FILE)
    file = Path(named) if named else data / "secrets.key"
    return FileVault(file, environment.get(KEY) or None, lost=environment.get(LOST, ""))


def _new() -> bytes:
    return AESGCM.generate_key(256)


def _name(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:8]


def _read_file(file: Path) -> list[bytes]:
    try:
        text = file.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise PenstockError(
            f"The key of the secrets, {file}, cannot be read: {error.strerror}. Let the server's user read it."
        ) from error
    return _read(text, str(file))


def _read(text: str, where: str) -> list[bytes]:
    """Return the keys in a text, one a line. Raises `PenstockError`."""
    keys = []
    for line in filter(None, map(str.strip, text.splitlines())):
        try:
            key = base64.urlsafe_b64decode(line)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != 32:
            raise PenstockError(
                f"{where} has something that is no key: a key is 32 random bytes in URL-safe base64 (44 characters). "
                "Make one with: python -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"
            )
        keys.append(key)
    return keys


def _write(file: Path, keys: list[bytes]) -> None:
    """Write keys through to the disk, as a whole or not at all, readable by their owner only."""
    draft = file.with_name(file.name + ".new")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.writelines(base64.urlsafe_b64encode(key) + b"\n" for key in keys)
        out.flush()
        os.fsync(out.fileno())
    draft.rename(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
