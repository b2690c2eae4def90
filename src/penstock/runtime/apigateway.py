"""Web requests as events of Amazon API Gateway, and what handlers return to these as answers.

The form is that of HTTP APIs: "payload format version 2.0" in "AWS Lambda proxy integrations for HTTP APIs", API Gateway
Developer Guide. What belongs to an AWS account is made up.
"""

import base64
import binascii
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from penstock.runtime.heads import RequestHead, unpack_request
from penstock.runtime.results import Result, encode_value
from penstock.runtime.serving import Execution
from penstock.runtime.threads import Threads
from penstock.runtime.wsgi import Wsgi

MAX_BODY: Final = 10 * 1024 * 1024
"""The longest body of a request, in bytes: API Gateway's."""

ROUTE: Final = "$default"
_TEXTS: Final = {"application/json", "application/javascript", "application/xml"}

Answer = tuple[int, "list[tuple[str, str]]", bytes]


_thread = threading.local()


class BadAnswer(Exception):
    """Report what a handler returned that is no answer."""


class Gateway(Wsgi):
    """Call a handler of events with web requests; other events reach it as they are."""

    def call_with_event(self, execution: Execution) -> Result:
        """Call the handler with an event that somebody sent."""
        return Threads.call(self, execution)

    def app(self, execution: Execution) -> Callable[..., Any]:
        """Return a WSGI app that answers one request by calling the handler."""

        def answer(environ: "dict[str, Any]", start_response: Callable[..., Any]) -> "list[bytes]":
            assert execution.visit is not None
            head = unpack_request(execution.visit.head)
            body = environ["wsgi.input"].read(MAX_BODY + 1)
            if len(body) > MAX_BODY:
                start_response("413 ", [("content-type", "text/plain"), ("connection", "close")])
                return [b"The body is longer than 10 MiB, the most that fits into an event.\n"]
            context = self.context(execution)
            event = event_of(head, body, self.place.function, context.aws_request_id, time.time())
            _set_loop()
            status, headers, content = answer_of(self.handler(event, context))
            start_response(f"{status} ", [*headers, ("content-length", str(len(content)))])
            return [content]

        return answer


def _set_loop() -> None:
    """Give this thread an event loop, if the user's code has imported asyncio: AWS Lambda calls handlers in the main thread.

    Adapters such as Mangum ask for the loop that they find there.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and not hasattr(_thread, "loop"):
        _thread.loop = asyncio.new_event_loop()
        asyncio.set_event_loop(_thread.loop)


def event_of(head: RequestHead, body: bytes, function: str, request: str, wall: float) -> "dict[str, Any]":
    """Return the event that a request stands for, `wall` being its moment in seconds since 1970."""
    headers: dict[str, str] = {}
    cookies: list[str] = []
    for raw_name, raw_value in head.headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        if name == "cookie":
            cookies += [one.strip() for one in value.split(";")]
        else:
            headers[name] = f"{headers[name]},{value}" if name in headers else value
    path = unquote(head.path[len(head.root) :].decode("latin-1")) or "/"
    query = head.query.decode("latin-1")
    host = headers.get("host", head.server[0]).partition(":")[0]
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": ROUTE,
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": function,
            "domainName": host,
            "domainPrefix": host.partition(".")[0],
            "http": {
                "method": head.method,
                "path": path,
                "protocol": f"HTTP/{head.version}",
                "sourceIp": head.client[0],
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": request,
            "routeKey": ROUTE,
            "stage": ROUTE,
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(wall)),
            "timeEpoch": int(wall * 1000),
        },
        "isBase64Encoded": False,
    }
    if cookies:
        event["cookies"] = cookies
    parameters: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    if parameters:
        event["queryStringParameters"] = parameters
    if body:
        event["body"], event["isBase64Encoded"] = _text_of(body, headers.get("content-type", ""))
    return event


def _text_of(body: bytes, kind: str) -> "tuple[str, bool]":
    """Return a body as text, and whether it is base64: what is not known to be text is."""
    kind = kind.partition(";")[0].strip().lower()
    if kind in _TEXTS or kind.startswith("text/") or kind.endswith(("+json", "+xml")):
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), True


def answer_of(value: Any) -> Answer:
    """Return status, headers and body of what a handler returned. Raises `BadAnswer`, `NotJSON`.

    A mapping with a `statusCode` is a whole answer; anything else is the body of one: text as it is, other values as JSON.
    """
    if not isinstance(value, dict) or "statusCode" not in value:
        body = value.encode() if isinstance(value, str) else encode_value(value)
        return 200, [("content-type", "application/json")], body
    content = _body_of(value)
    headers = _headers_of(value)
    if content and not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", "text/plain; charset=utf-8"))
    return _status_of(value["statusCode"]), headers, content


def _status_of(status: Any) -> int:
    number = int(status) if isinstance(status, int) or (isinstance(status, str) and status.isdecimal()) else 0
    if not 200 <= number <= 599:
        raise BadAnswer(f"The handler returned the statusCode {status!r}. It must be a number from 200 to 599.")
    return number


def _headers_of(value: "dict[str, Any]") -> "list[tuple[str, str]]":
    headers: Any = value.get("headers") or {}
    several: Any = value.get("multiValueHeaders") or {}
    cookies: Any = value.get("cookies") or []
    lists = [cookies, *several.values()] if isinstance(several, dict) else [None]
    if not isinstance(headers, dict) or not all(isinstance(one, (list, tuple)) for one in lists):
        raise BadAnswer(
            "The handler returned headers that are no mapping, multiValueHeaders that are no mapping of lists, or cookies "
            "that are no list."
        )
    found = [(str(name).lower(), _written(one)) for name, one in headers.items()]
    found += [(str(name).lower(), _written(one)) for name, each in several.items() for one in each]
    found += [("set-cookie", str(one)) for one in cookies]
    return [header for header in found if header[0] != "content-length"]


def _written(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def _body_of(value: "dict[str, Any]") -> bytes:
    body = value.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        raise BadAnswer(
            f"The handler returned a body that is {type(body).__name__}. It must be text: json.dumps(…) makes it of a value, "
            "and base64 with isBase64Encoded of bytes."
        )
    if not value.get("isBase64Encoded"):
        return body.encode()
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadAnswer(f"The handler said isBase64Encoded of a body that is not base64: {error}.") from None
