"""Heads come out as they went in, and nothing that would end one early goes in."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.runtime.heads import (
    BadHead,
    RequestHead,
    pack_answer,
    pack_headers,
    pack_request,
    unpack_answer,
    unpack_headers,
    unpack_request,
)

PLAIN = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=20)
LINES = st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"").replace(b"\r", b"").replace(b"\0", b""))
HEADERS = st.lists(st.tuples(LINES.filter(bool), LINES), max_size=6)
PEERS = st.tuples(PLAIN, st.integers(0, 65535))
REQUESTS = st.builds(
    RequestHead, PLAIN, LINES, LINES, PLAIN, st.sampled_from(["http", "https", "ws", "wss"]), PEERS, PEERS, PLAIN,
    st.lists(PLAIN, max_size=3), HEADERS,
)  # fmt: skip


@given(REQUESTS)
def test_a_request_comes_out_as_it_went_in(head: RequestHead) -> None:
    assert unpack_request(pack_request(head)) == head


@given(HEADERS, st.integers(100, 599), st.binary(max_size=50))
def test_an_answer_comes_out_as_it_went_in(headers: list[tuple[bytes, bytes]], status: int, body: bytes) -> None:
    assert unpack_headers(pack_headers(headers)) == headers
    assert unpack_answer(pack_answer(status, headers, body)) == (status, headers, body)


@pytest.mark.parametrize("header", [(b"a", b"1\n2"), (b"a\n", b"1"), (b"a", b"\r"), (b"a", b"\0"), (b"", b"1")])
def test_a_header_that_would_end_early_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(BadHead):
        pack_headers([(b"x", b"y"), header])


@given(st.binary(max_size=60))
def test_what_is_no_answer_is_refused_and_never_raises_anything_else(noise: bytes) -> None:
    with contextlib.suppress(BadHead):
        unpack_answer(noise)
