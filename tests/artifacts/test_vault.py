"""The vault: what is sealed opens, keys change, and a key that is lost is said so."""

import base64
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.artifacts.vault import KEY, KEY_FILE, LOST, FileVault, vault_of
from penstock.domain.errors import Conflict, PenstockError


def key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_opens_and_never_looks_the_same(text: str) -> None:
    vault = FileVault(Path("/nowhere"), key())
    first, second = vault.seal(text), vault.seal(text)
    assert (vault.open(first), vault.open(second)) == (text, text)
    assert first != second


def test_the_key_is_made_with_the_first_secret_and_is_its_owners_alone(tmp_path: Path) -> None:
    vault = vault_of(tmp_path, {})
    assert vault.current == ""
    assert list(tmp_path.iterdir()) == []
    sealed = vault.seal("hush")
    assert (tmp_path / "secrets.key").stat().st_mode & 0o777 == 0o600
    assert vault_of(tmp_path, {}).open(sealed) == "hush"


def test_the_key_can_live_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    one = vault_of(tmp_path, {KEY_FILE: str(elsewhere)})
    sealed = one.seal("hush")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]
    given_key = elsewhere.read_text().strip()
    assert vault_of(tmp_path / "other", {KEY: given_key}).open(sealed) == "hush"
    assert vault_of(tmp_path / "other", {KEY: f"{key()}, {given_key}"}).open(sealed) == "hush"


def test_rotation_seals_with_a_new_key_and_forgets_the_old_one(tmp_path: Path) -> None:
    vault = vault_of(tmp_path, {})
    sealed = vault.seal("hush")
    vault.renew()
    assert not sealed.startswith(vault.current)
    assert vault_of(tmp_path, {}).open(sealed) == "hush"
    again = vault.seal("hush")
    vault.forget()
    assert vault.open(sealed) == "hush"
    assert vault_of(tmp_path, {}).open(again) == "hush"
    with pytest.raises(PenstockError, match="does not have it"):
        vault_of(tmp_path, {}).open(sealed)
    with pytest.raises(Conflict, match="NEW,OLD"):
        vault_of(tmp_path, {KEY: key()}).renew()


def test_a_lost_key_is_said_and_can_be_got_over(tmp_path: Path) -> None:
    sealed = vault_of(tmp_path, {}).seal("hush")
    (tmp_path / "secrets.key").unlink()
    for environment in ({}, {KEY: key()}):
        with pytest.raises(PenstockError, match="Put the key back"):
            vault_of(tmp_path, environment).open(sealed)
    assert vault_of(tmp_path, {LOST: "empty"}).open(sealed) == ""


@pytest.mark.parametrize("text", ["short", "é" * 44, base64.urlsafe_b64encode(b"x" * 31).decode()])
def test_what_is_no_key_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PenstockError, match="no key"):
        vault_of(tmp_path, {KEY: text})


def test_a_damaged_secret_is_not_taken_for_another(tmp_path: Path) -> None:
    vault = vault_of(tmp_path, {})
    name, _, body = vault.seal("hush").partition(".")
    raw = bytearray(base64.urlsafe_b64decode(body))
    raw[-1] ^= 1
    with pytest.raises(PenstockError, match="damaged"):
        vault.open(f"{name}.{base64.urlsafe_b64encode(raw).decode()}")


def test_a_key_that_cannot_be_written_seals_nothing(tmp_path: Path) -> None:
    with pytest.raises(PenstockError, match="cannot be written"):
        vault_of(tmp_path / "missing", {}).seal("hush")
