"""Functions that are deployed from a bucket: a real server that speaks S3 (moto's), a real server of ours."""

import io
import os
import zipfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import pytest
from moto.server import ThreadedMotoServer
from tests.api.serving import Server, until

from penstock.domain.errors import InvalidSettings
from penstock.domain.settings import function_spec, redact, validate_one
from penstock.links import bucket, sources
from penstock.links.sources import MOST_WAIT, wait_after

_numbers = count(1)
KEYS = {"access_key": "key", "secret_key": {"secret": "not-shown-anywhere"}, "region": "eu-central-1"}


class Objects:
    """A bucket of its own."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint, self.name = endpoint, f"code-{next(_numbers)}"
        self._client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="eu-central-1", aws_access_key_id="k", aws_secret_access_key="s"
        )

    def make(self) -> None:
        self._client.create_bucket(Bucket=self.name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})

    def put(self, key: str, body: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=body)

    def remove(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def settings(self, key: str, **others: Any) -> dict[str, Any]:
        source = {"url": f"s3://{self.name}/{key}", "endpoint": self.endpoint, "every": "1s", **KEYS, **others}
        return {"handler": "saying:handler", "source": {name: value for name, value in source.items() if value}}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    speaks = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    speaks.start()
    host, port = speaks.get_host_and_port()
    yield f"http://{host}:{port}"
    speaks.stop()


@pytest.fixture
def objects(endpoint: str) -> Objects:
    made = Objects(endpoint)
    made.make()
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def server(data: Path) -> Iterator[Server]:
    with mock.patch.object(sources, "REST", 0.05):
        running = Server(data)
        yield running
        running.close()


def code(words: str) -> bytes:
    return f"def handler(event, context):\n    return {words!r}\n".encode()


def zipped(words: str) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("saying.py", code(words))
    return body.getvalue()


def show(server: Server) -> Any:
    return server.get("/v1/functions/f").json()


def live(server: Server, number: int) -> None:
    until(lambda: show(server)["live"] == number and show(server)["source"]["error"] is None)


def says(server: Server) -> Any:
    return server.post("/v1/functions/f/invoke").json()


def error(server: Server) -> str:
    until(lambda: show(server)["source"]["error"])
    return str(show(server)["source"]["error"])


def test_a_changed_object_in_a_folder_is_deployed(server: Server, objects: Objects) -> None:
    objects.put("team/f/saying.py", b"from parts.words import WORDS\ndef handler(event, context):\n    return WORDS\n")
    objects.put("team/f/parts/words.py", b"WORDS = 'one'")
    objects.put("team/f/.penstockignore", b"*.csv\n")
    objects.put("team/f/large.csv", b"1,2,3")
    objects.put("team/other/saying.py", code("other"))
    assert server.put("/v1/functions/f", objects.settings("team/f")).status == 201
    live(server, 1)
    assert says(server) == "one"
    objects.put("team/f/parts/words.py", b"WORDS = 'two'")
    live(server, 2)
    assert says(server) == "two"
    assert show(server)["source"]["path"] == f"s3://{objects.name}/team/f"


def test_a_changed_zip_is_deployed_and_a_restart_takes_it_not_again(data: Path, objects: Objects) -> None:
    objects.put("f.zip", zipped("one"))
    with mock.patch.object(sources, "REST", 0.05):
        server = Server(data)
        try:
            server.put("/v1/functions/f", objects.settings("f.zip"))
            live(server, 1)
            objects.put("f.zip", zipped("two"))
            live(server, 2)
            assert server.post("/v1/functions/f/rollback").json()["version"] == 1
        finally:
            server.close()
        server = Server(data)
        try:
            objects.put("f.zip", zipped("three"))
            live(server, 3)
            assert says(server) == "three"
        finally:
            server.close()


def test_a_rollback_holds_while_the_bucket_stays_as_it_is(server: Server, objects: Objects) -> None:
    objects.put("f.zip", zipped("one"))
    server.put("/v1/functions/f", objects.settings("f.zip"))
    live(server, 1)
    objects.put("f.zip", zipped("two"))
    live(server, 2)
    server.post("/v1/functions/f/rollback")
    objects.put("g.zip", zipped("g"))
    server.put("/v1/functions/g", objects.settings("g.zip"))
    until(lambda: server.get("/v1/functions/g").json()["live"] == 1)
    assert show(server)["live"] == 1


def test_code_that_does_not_import_stays_out_until_it_is_mended(server: Server, objects: Objects) -> None:
    objects.put("f/saying.py", code("one"))
    server.put("/v1/functions/f", objects.settings("f/"))
    live(server, 1)
    objects.put("f/saying.py", b"import nothing_of_that_name")
    assert "nothing_of_that_name" in error(server)
    assert says(server) == "one"
    objects.put("f/saying.py", code("two"))
    live(server, 2)


def test_what_is_wrong_is_said_and_mended_by_itself(server: Server, endpoint: str) -> None:
    late = Objects(endpoint)
    server.put("/v1/functions/f", late.settings("f"))
    assert f"s3://{late.name}/f cannot be read" in error(server)
    late.make()
    until(lambda: "There is nothing in" in error(server))
    late.put("f/saying.py", code("one"))
    live(server, 1)


@pytest.mark.parametrize("key", ["f/../../etc/passwd", "f//double", "f/./dot"])
def test_names_that_lead_elsewhere_are_refused(server: Server, objects: Objects, key: str) -> None:
    objects.put("f/saying.py", code("one"))
    objects.put(key, b"x")
    server.put("/v1/functions/f", objects.settings("f"))
    assert error(server)
    assert show(server)["live"] is None


def test_too_much_and_what_is_no_zip_is_refused(server: Server, objects: Objects) -> None:
    with mock.patch.object(bucket, "MOST_BYTES", 10):
        objects.put("f/saying.py", code("one"))
        server.put("/v1/functions/f", objects.settings("f"))
        assert "holds over" in error(server)
    objects.put("g.zip", b"no zip")
    server.put("/v1/functions/f", objects.settings("g.zip"))
    until(lambda: "no zip" in (show(server)["source"]["error"] or ""))


def test_keys_are_never_shown_and_those_of_the_server_are_used(server: Server, objects: Objects) -> None:
    objects.put("f.zip", zipped("one"))
    server.put("/v1/functions/f", objects.settings("f.zip"))
    live(server, 1)
    shown = server.get("/v1/functions/f").body + server.get("/v1/changes?limit=1000").body
    assert b"not-shown-anywhere" not in shown
    assert show(server)["settings"]["source"]["secret_key"] == {"secret": True}
    assert server.put("/v1/functions/f", show(server)["settings"]).status == 200
    others = {"AWS_ACCESS_KEY_ID": "env-key", "AWS_SECRET_ACCESS_KEY": "env-secret", "AWS_REGION": "eu-central-1"}
    with mock.patch.dict(os.environ, others):
        objects.put("f.zip", zipped("two"))
        server.put("/v1/functions/f", objects.settings("f.zip", access_key="", secret_key=None, region=None))
        live(server, 2)


def test_a_server_without_the_package_says_what_to_install(server: Server, objects: Objects) -> None:
    with mock.patch.dict("sys.modules", {"obstore": None, "obstore.store": None, "obstore.exceptions": None}):
        server.put("/v1/functions/f", objects.settings("f.zip"))
        assert "pip install 'penstock[s3]'" in error(server)


@pytest.mark.parametrize(
    "source",
    [
        "s3:bucket", "s3://", "s3://B/x", "s3://a", {}, {"url": "/srv/code", "every": "1m"},
        {"url": "s3://code", "every": "1ms"},
        {"url": "s3://code", "access_key": "a"}, {"url": "s3://code", "access_key": "a", "secret_key": "plain"},
        {"url": "s3://code", "access_key": "a", "secret_key": {"secret": True}},
        {"url": "s3://code", "endpoint": "ftp://x"},
        {"url": "s3://code", "endpoint": "http://user:word@x"}, {"url": "s3://code", "other": 1}, ["s3://code"], 7, "code",
    ],
)  # fmt: skip
def test_what_a_source_cannot_be(source: Any) -> None:
    with pytest.raises(InvalidSettings):
        validate_one("function", "f", {"handler": "a:b", "source": source}, {})


def test_a_bucket_that_is_away_for_weeks_is_still_asked() -> None:
    assert wait_after(0, 30.0) == 30.0
    assert wait_after(1, 30.0) == 60.0
    assert wait_after(100_000, 1.0) == MOST_WAIT
    assert wait_after(100_000, 86_400.0) == 86_400.0


def test_a_source_is_stored_in_one_spelling() -> None:
    written = {"url": "s3://code/f", "every": 60, "access_key": "a", "secret_key": {"secret": "b"}}
    stored = validate_one("function", "f", {"handler": "a:b", "source": written}, {})
    assert stored["source"] == {**written, "every": "1m"}
    again = validate_one("function", "f", redact(stored), {"function": {"f": stored}})
    assert again == stored
    for place in ("s3://code/f", "/srv/code"):
        assert validate_one("function", "f", {"handler": "a:b", "source": {"url": place}}, {})["source"] == place
    spec = function_spec("f", stored).source
    assert spec is not None
    assert (spec.every, spec.secret_key, spec.is_bucket) == (60.0, "b", True)
