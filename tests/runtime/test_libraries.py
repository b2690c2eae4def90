"""The exceptions of real HTTP libraries, raised by real calls, are understood without a change to the user's code."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import time
from urllib.parse import parse_qs, urlsplit

import aiohttp
import botocore.config
import botocore.session
import httpx
import pytest
import requests

from penstock.runtime.throttling import throttling

BODY = b"<ErrorResponse><Error><Code>Refused</Code><Message>no</Message></Error></ErrorResponse>"


class Refusing(BaseHTTPRequestHandler):
    """Answer with the status of the path, and the Retry-After of the query."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, query = urlsplit(self.path)[2:4]
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(int(path.strip("/").split("/")[0]))
        for wait in parse_qs(query).get("wait", []):
            self.send_header("Retry-After", wait)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def with_httpx(url: str) -> None:
    httpx.get(url, trust_env=False).raise_for_status()


def with_async_httpx(url: str) -> None:
    async def call() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            (await client.get(url)).raise_for_status()

    asyncio.run(call())


def with_requests(url: str) -> None:
    with requests.Session() as session:
        session.trust_env = False
        session.get(url).raise_for_status()


def with_aiohttp(url: str) -> None:
    async def call() -> None:
        async with aiohttp.ClientSession(raise_for_status=True) as session, session.get(url):
            pass

    asyncio.run(call())


def with_urllib(url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    opener.open(url).close()


def with_botocore(url: str) -> None:
    session = botocore.session.get_session()
    parts = urlsplit(url)
    once = botocore.config.Config(retries={"max_attempts": 0}, proxies={})
    client = session.create_client(
        "sts", "eu-central-1", endpoint_url=f"{parts.scheme}://{parts.netloc}", aws_access_key_id="a",
        aws_secret_access_key="b", config=once,
    )  # fmt: skip
    client.meta.events.register("before-send.sts", lambda request, **_: setattr(request, "url", url))
    try:
        client.get_caller_identity()
    finally:
        client.close()


CALLS = [with_httpx, with_async_httpx, with_requests, with_aiohttp, with_urllib, with_botocore]


def failure(call: Callable[[str], None], url: str) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - each library has its own
        call(url)
    if isinstance(raised.value, urllib.error.HTTPError):
        raised.value.close()  # it is the response
    return raised.value


@pytest.mark.parametrize("call", CALLS)
def test_try_later_is_understood(call: Callable[[str], None], url: str) -> None:
    for path, wait in (("/429", None), ("/429?wait=7", 7.0), ("/503?wait=2", 2.0)):
        found = throttling(failure(call, url + path))
        assert found is not None, path
        assert found.retry_after == wait


@pytest.mark.parametrize("call", CALLS)
def test_a_date_is_understood(call: Callable[[str], None], url: str) -> None:
    found = throttling(failure(call, f"{url}/429?wait={formatdate(time() + 600, usegmt=True).replace(' ', '+')}"))
    assert found is not None
    assert found.retry_after is not None
    assert 500 < found.retry_after <= 600


@pytest.mark.parametrize("call", CALLS)
def test_other_failures_are_ordinary_errors(call: Callable[[str], None], url: str) -> None:
    for path in ("/503", "/500?wait=7", "/404"):
        assert throttling(failure(call, url + path)) is None
