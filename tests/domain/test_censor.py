"""The law of the censor: no secret is left, in plain text or in JSON."""

import json

from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.censor import LEAST, censor_of, secrets_of

secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=LEAST, max_size=30).filter(
    lambda text: len(text.strip()) >= LEAST and text not in "[secret key]"
)
around = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(secrets, around, around)
def test_no_secret_is_left_in_text(secret: str, before: str, after: str) -> None:
    censor = censor_of([("key", secret)])
    assert censor is not None
    assert secret not in censor.text(before + secret + after).replace("[secret key]", "\0")


@given(secrets, around, around, st.booleans())
def test_no_secret_is_left_in_json_and_it_stays_json(secret: str, before: str, after: str, ascii_only: bool) -> None:
    censor = censor_of([("key", secret)])
    assert censor is not None
    body = json.dumps({"message": before + secret + after}, ensure_ascii=ascii_only).encode()
    said = json.loads(censor.json(body))["message"]
    assert secret not in said.replace("[secret key]", "\0")


def test_the_longest_secret_is_named_and_each_line_of_a_long_one_goes() -> None:
    censor = censor_of([("short", "abcdef"), ("long", "abcdefghi"), ("pem", "-----BEGIN\nMIIEow\nxyz\n-----END")])
    assert censor is not None
    assert censor.text("abcdefghi abcdef") == "[secret long] [secret short]"
    assert censor.text("> MIIEow <\n-----END") == "> [secret pem] <\n[secret pem]"
    assert censor.text("xyz") == "xyz"


def test_what_is_too_short_is_left_and_costs_nothing() -> None:
    assert censor_of([("pin", "12345"), ("blank", "          ")]) is None


def test_secrets_are_named_by_their_place() -> None:
    settings = {"a": {"secret": "one"}, "b": [{"c": {"secret": "two"}}], "secret": "three", "d": {"secret": True}}
    assert list(secrets_of(settings)) == [("a", "one"), ("b[0].c", "two"), ("secret", "three")]
