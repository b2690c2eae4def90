"""The protocol without I/O: however the bytes are cut, the same responses come out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.client.events import EventReader
from penstock.client.http1 import Broken, Encoder, ResponseReader, parse_address

STREAM = (
    b"HTTP/1.1 100 Continue\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Name: one\r\n\r\nhello"
    b"HTTP/1.1 204 No Content\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_cuts_do_not_matter_to_responses(cuts: list[int]) -> None:
    reader, found = ResponseReader(), []
    # A server answers one request at a time, so no piece spans two responses.
    ends = [STREAM.index(b"HTTP/1.1 204"), STREAM.rindex(b"HTTP/1.1 200"), len(STREAM)]
    places = sorted({0, *cuts, *ends})
    for start, stop in pairwise(places):
        if reader.feed(STREAM[start:stop]):
            response = reader.take()
            found.append((response.status, response.body, response.headers.get("x-name")))
    assert found == [(200, b"hello", "one"), (204, b"", None), (200, b"abcdefg", None)]
    assert reader.reusable


def test_a_body_may_end_with_the_connection() -> None:
    reader = ResponseReader()
    assert not reader.feed(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall there is")
    assert reader.end()
    assert reader.take().body == b"all there is"


def test_a_body_cut_short_is_not_complete() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    assert not reader.end()


def test_what_is_not_http() -> None:
    with pytest.raises(Broken):
        ResponseReader().feed(b"220 mail.example ESMTP\r\n")


EVENTS = b'data: {"a": 1}\n\n: alive\n\nid: 7\r\ndata: two\r\ndata: lines\r\n\r\ndata: last\n\n'


@given(st.lists(st.integers(0, len(EVENTS)), max_size=20))
def test_cuts_do_not_matter_to_events(cuts: list[int]) -> None:
    reader, places = EventReader(), sorted({0, *cuts, len(EVENTS)})
    found = [event.body for start, stop in pairwise(places) for event in reader.feed(EVENTS[start:stop])]
    assert found == [b'{"a": 1}', b"two\nlines", b"last"]


def test_addresses() -> None:
    assert parse_address("https://example.org/penstock/").prefix == "/penstock"
    assert parse_address("https://example.org").port == 443
    assert parse_address("localhost:7711").authority == "localhost:7711"
    assert parse_address("http://[::1]:7711").authority == "[::1]:7711"
    with pytest.raises(ValueError, match="not the URL"):
        parse_address("ftp://example.org")


def test_a_head_has_what_it_needs() -> None:
    encoder = Encoder(parse_address("http://h:1/base"), "t", "agent")
    head = encoder.head("POST", "/v1/x", [("Content-Type", "application/json")], 3)
    assert head.startswith(b"POST /base/v1/x HTTP/1.1\r\nHost: h:1\r\n")
    assert b"Authorization: Bearer t\r\n" in head
    assert head.endswith(b"Content-Type: application/json\r\nContent-Length: 3\r\n\r\n")
    with pytest.raises(ValueError, match="header"):
        encoder.head("GET", "/", [("X", "a\nb")], None)
