"""The law of sealing: what is stored comes back as it was written, and no secret can be read in it."""

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from tests.domain import written

from penstock.artifacts.vault import FileVault
from penstock.domain.censor import secrets_of
from penstock.store.sealing import seal, unseal

VAULT = FileVault(Path("/nowhere"), "A" * 43 + "=")


@given(written.params)
def test_settings_come_back_and_their_secrets_cannot_be_read(params: dict[str, Any]) -> None:
    settings = {"function": "f", "params": params}
    stored = seal(settings, VAULT)
    assert unseal(stored, VAULT) == unseal(stored.encode(), VAULT) == json.loads(json.dumps(settings))
    assert list(secrets_of(json.loads(stored))) == []
    assert '"secret":"' not in stored


@given(written.params)
def test_sealing_what_was_opened_changes_nothing_that_is_read(params: dict[str, Any]) -> None:
    again = seal(unseal(seal(params, VAULT), VAULT), VAULT)
    assert unseal(again, VAULT) == unseal(seal(params, VAULT), VAULT)


def test_without_a_vault_settings_are_stored_as_they_are() -> None:
    settings = {"params": {"key": {"secret": "text"}}}
    assert unseal(seal(settings, None), None) == json.loads(seal(settings, None)) == settings
