import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.domain.mistakes import nearest

MANY = {f"customer-{number:05d}": number for number in range(10_000)}


@pytest.mark.parametrize(
    "word", ["customer-0123", "customer-01x34", "customer-012345", "csutomer-01234", "Customer-01234"]
)
def test_a_typo_is_found_among_many_names(word: str) -> None:
    for known in (MANY, list(MANY), iter(MANY)):
        assert nearest(word, known) in MANY


@pytest.mark.parametrize("word", ["", "zzz", "cust", "x" * 5000])
def test_what_looks_like_nothing_finds_nothing_among_many(word: str) -> None:
    assert nearest(word, MANY) == ""


@given(st.text(alphabet="abcd-", min_size=3, max_size=8), st.integers(0, 7), st.sampled_from("abcd-"))
def test_one_replaced_letter_is_always_found_among_many(name: str, at: int, letter: str) -> None:
    at %= len(name)
    typo = name[:at] + letter + name[at + 1 :]
    found = nearest(typo, {**MANY, name: 0})
    assert found == name or typo == name
