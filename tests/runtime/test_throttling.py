import time
import urllib.error
from email.message import Message
from email.utils import formatdate
from types import SimpleNamespace
from typing import Any

import pytest

from penstock.runtime.errors import Throttled
from penstock.runtime.frames import LONGEST_NAME, End
from penstock.runtime.results import encode_exception
from penstock.runtime.throttling import throttling
from penstock.runtime.wire import Decoder, encode_end


class Carries(Exception):
    """Carry attributes as an HTTP library's exception does."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__("no")
        self.__dict__.update(attributes)


def wait_of(error: BaseException) -> float | None:
    found = throttling(error)
    assert found is not None
    return found.retry_after


def response(status: int, wait: str | None = None) -> Carries:
    headers = {} if wait is None else {"retry-after": wait}
    return Carries(response=SimpleNamespace(status_code=status, headers=headers))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Throttled(), "downstream asks to try later"),
        (Throttled(retry_after=2.5), "downstream asks to wait 2.5 s"),
        (Throttled(retry_after="soon"), "downstream asks to try later"),  # type: ignore[arg-type]
        (Throttled("the quota is used up", retry_after=3), "the quota is used up"),
    ],
)
def test_it_says_what_downstream_asks(error: Throttled, said: str) -> None:
    assert str(error) == said


def test_what_the_user_raises_keeps_its_wait_and_its_limit() -> None:
    found = throttling(Throttled(retry_after=3, limit="provider"))
    assert found is not None
    assert (found.retry_after, found.limit) == (3.0, "provider")


@pytest.mark.parametrize("wait", [-1, float("nan"), float("inf"), "soon"])
def test_a_wait_that_makes_no_sense_is_none(wait: Any) -> None:
    assert wait_of(Throttled(retry_after=wait)) is None


@pytest.mark.parametrize("limit", ["x" * 70_000, "\ud800", "provider \ud800" * 50_000])
def test_a_limit_that_cannot_be_one_is_told_all_the_same(limit: str) -> None:
    result = encode_exception(Throttled("later", limit=limit))
    assert len(result.limit) <= LONGEST_NAME + 1
    (frame,) = Decoder().feed(encode_end(1, *result[:1], 0.0, 0.0, None, result.limit, len(result.body), result.body))
    assert isinstance(frame, End)
    assert frame.limit == result.limit


def test_httpx_and_requests() -> None:
    assert wait_of(response(429, "7")) == 7.0
    assert wait_of(response(429)) is None
    assert wait_of(response(503, "2.5")) == 2.5


@pytest.mark.parametrize(
    "error", [response(503), response(500, "7"), response(200), response(503, "later"), ValueError("429")]
)
def test_other_answers_are_ordinary_errors(error: BaseException) -> None:
    assert throttling(error) is None


def test_aiohttp() -> None:
    assert wait_of(Carries(status=429, headers={"Retry-After": "4"})) == 4.0


def test_urllib() -> None:
    headers = Message()
    headers["Retry-After"] = "5"
    with urllib.error.HTTPError("http://localhost/", 429, "Too Many Requests", headers, None) as error:
        assert wait_of(error) == 5.0


def test_botocore() -> None:
    details = {"HTTPStatusCode": 429, "HTTPHeaders": {"retry-after": "6"}}
    assert wait_of(Carries(response={"Error": {}, "ResponseMetadata": details})) == 6.0


def test_a_date_is_a_wait_until_then_and_one_in_the_past_none_at_all() -> None:
    wait = wait_of(response(429, formatdate(time.time() + 3600, usegmt=True)))
    assert wait is not None
    assert 3000 < wait <= 3600
    assert wait_of(response(429, "Wed, 21 Oct 2015 07:28:00 GMT")) == 0.0


def test_a_group_is_throttled_if_all_in_it_are() -> None:
    both = ExceptionGroup("two", [Throttled(retry_after=1), response(429, "9")])
    assert wait_of(both) == 9.0
    assert throttling(ExceptionGroup("mixed", [Throttled(retry_after=1), ValueError()])) is None


def test_an_exception_whose_attributes_fail_is_an_ordinary_one() -> None:
    class Hostile(Exception):
        @property
        def response(self) -> Any:
            raise RuntimeError("no")

    assert throttling(Hostile()) is None
