import base64
import json
from typing import Any

import pytest

from penstock.runtime.apigateway import BadAnswer, answer_of, event_of
from penstock.runtime.heads import RequestHead
from penstock.runtime.results import NotJSON

NOON = 1_584_039_838.5  # 12 March 2020, 19:03:58.5


def head(
    method: str = "GET", path: bytes = b"/web/f/a", query: bytes = b"", *headers: tuple[bytes, bytes]
) -> RequestHead:
    return RequestHead(
        method, path, query, "1.1", "http", ("10.1.2.3", 4567), ("127.0.0.1", 8080), "/web/f", [], list(headers)
    )


def event(asked: RequestHead, body: bytes = b"") -> Any:
    return event_of(asked, body, "f", "0000000000000001", NOON)


def test_an_event_has_the_form_of_payload_format_2() -> None:
    asked = head(
        "POST",
        b"/web/f/my/path%20there",
        b"a=value1&a=value2&b=&c=%C3%BC",
        (b"Host", b"api.example.org:8443"),
        (b"Content-Type", b"application/json"),
        (b"X-Both", b"1"),
        (b"x-both", b"2"),
        (b"Cookie", b"one=1; two=2"),
        (b"User-Agent", b"agent"),
    )
    assert event(asked, b'{"x": 1}') == {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": "/my/path there",
        "rawQueryString": "a=value1&a=value2&b=&c=%C3%BC",
        "cookies": ["one=1", "two=2"],
        "headers": {
            "host": "api.example.org:8443",
            "content-type": "application/json",
            "x-both": "1,2",
            "user-agent": "agent",
        },
        "queryStringParameters": {"a": "value1,value2", "b": "", "c": "ü"},
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "f",
            "domainName": "api.example.org",
            "domainPrefix": "api",
            "http": {
                "method": "POST",
                "path": "/my/path there",
                "protocol": "HTTP/1.1",
                "sourceIp": "10.1.2.3",
                "userAgent": "agent",
            },
            "requestId": "0000000000000001",
            "routeKey": "$default",
            "stage": "$default",
            "time": "12/Mar/2020:19:03:58 +0000",
            "timeEpoch": 1584039838500,
        },
        "body": '{"x": 1}',
        "isBase64Encoded": False,
    }


def test_an_event_has_only_what_the_request_has() -> None:
    bare = event(head(path=b"/web/f"))
    assert bare["rawPath"] == "/"
    assert not {"body", "cookies", "queryStringParameters"} & set(bare)


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        (b"text/csv; charset=utf-8", "ü".encode(), "ü"),
        (b"application/problem+json", b"{}", "{}"),
        (b"image/svg+xml", b"<svg/>", "<svg/>"),
        (b"application/json", b"\xff", None),
        (b"image/png", b"\x89PNG", None),
        (b"application/x-www-form-urlencoded", b"a=1", None),
        (b"", b"who knows", None),
    ],
)
def test_a_body_is_text_or_base64(kind: bytes, body: bytes, text: str | None) -> None:
    given = event(head("POST", b"/web/f/", b"", (b"content-type", kind)), body)
    if text is None:
        assert given["isBase64Encoded"]
        assert base64.b64decode(given["body"]) == body
    else:
        assert (given["body"], given["isBase64Encoded"]) == (text, False)


@pytest.mark.parametrize(
    ("value", "body"), [("Hello", b"Hello"), ({"a": [1]}, b'{"a":[1]}'), (None, b"null"), ([], b"[]")]
)
def test_what_has_no_status_is_the_body_of_an_answer(value: Any, body: bytes) -> None:
    assert answer_of(value) == (200, [("content-type", "application/json")], body)


def test_an_answer_has_headers_cookies_and_bytes() -> None:
    packed = base64.b64encode(b"\x00\xff").decode()
    headers = {"Content-Type": "image/png", "X-Count": 3, "X-Yes": True, "Content-Length": 99}
    value = {
        "statusCode": "201",
        "headers": headers,
        "cookies": ["a=1; Secure", "b=2"],
        "body": packed,
        "isBase64Encoded": True,
    }
    assert answer_of(value) == (
        201,
        [
            ("content-type", "image/png"),
            ("x-count", "3"),
            ("x-yes", "true"),
            ("set-cookie", "a=1; Secure"),
            ("set-cookie", "b=2"),
        ],
        b"\x00\xff",
    )
    assert answer_of({"statusCode": 200, "multiValueHeaders": {"X-A": ["1", "2"]}, "body": "é"}) == (
        200,
        [("x-a", "1"), ("x-a", "2"), ("content-type", "text/plain; charset=utf-8")],
        "é".encode(),
    )
    assert answer_of({"statusCode": 204}) == (204, [], b"")


@pytest.mark.parametrize(
    "value",
    [
        {"statusCode": "fine"},
        {"statusCode": 42},
        {"statusCode": None},
        {"statusCode": 10**30},
        {"statusCode": 200, "body": {"no": "text"}},
        {"statusCode": 200, "body": "no base64", "isBase64Encoded": True},
        {"statusCode": 200, "headers": ["a"]},
        {"statusCode": 200, "multiValueHeaders": {"a": 5}},
        {"statusCode": 200, "cookies": 5},
    ],
)
def test_what_is_no_answer_is_told_to_its_author(value: Any) -> None:
    with pytest.raises(BadAnswer, match="The handler"):
        answer_of(value)


def test_a_body_that_is_not_json_is_told_to_its_author() -> None:
    with pytest.raises(NotJSON):
        answer_of({"a": object()})
    assert json.loads(answer_of({"a": 1.5})[2]) == {"a": 1.5}
