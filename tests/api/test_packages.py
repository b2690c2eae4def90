"""Code that brings its own packages, through a real server."""

import asyncio
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.api.serving import Answer, Server, bundle, until
from tests.api.test_serving import process
from tests.compute.test_environments import marked_with

from penstock.compute.environments import KEEP

CODE = """
import importlib.util, sys

def tell(event, context):
    import idna
    return [idna.__version__, importlib.util.find_spec("fastapi") is None, sys.prefix]

def bare(event, context):
    return sys.prefix
"""
WAITS = """
import pathlib, time
here = pathlib.Path({folder!r})
(here / "begun").touch()
while not (here / "go").exists():
    time.sleep(0.02)
from setuptools import setup
setup(name="waits", version="1.0", py_modules=["waits"])
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "data")
    yield running
    running.close()


def deploy(server: Server, function: str, requirements: str | None, handler: str = "tell", **files: str) -> Answer:
    code = {"handlers.py": CODE, **files} | ({} if requirements is None else {"requirements.txt": requirements})
    settings = quote(json.dumps({"handler": f"handlers:{handler}"}))
    return server.put(f"/v1/functions/{function}/code?settings={settings}", bundle(code))


def call(server: Server, function: str) -> Any:
    answer = server.post(f"/v1/functions/{function}/invoke", None)
    assert answer.status == 200, answer.body
    return answer.json()


def test_code_runs_with_its_own_packages_and_no_others(server: Server) -> None:
    made = deploy(server, "one", "idna==3.7").json()["environment"]
    assert made["fresh"]
    assert made["packages"] == 1
    version, alone, prefix = call(server, "one")
    assert (version, alone) == ("3.7", True)
    assert made["digest"] in prefix
    shared = deploy(server, "two", "# the same\nidna==3.7\n").json()["environment"]
    assert shared == {**made, "fresh": False}
    assert deploy(server, "two", "idna==3.6").json()["environment"]["digest"] != made["digest"]
    assert call(server, "two")[0] == "3.6"
    first, second = server.get("/v1/functions/two/versions").json()["versions"]
    assert first["environment"] == {name: made[name] for name in ("digest", "packages", "seconds")}
    assert second["environment"]["digest"] != made["digest"]
    back = server.post("/v1/functions/two/rollback").json()
    assert back["environment"] == shared
    assert call(server, "two")[0] == "3.7"
    assert deploy(server, "bare", None, "bare").json()["environment"] is None
    assert made["digest"] not in call(server, "bare")


def test_packages_in_conflict_are_refused_and_what_was_live_stays_live(server: Server) -> None:
    assert deploy(server, "f", "idna==3.7").status == 200
    refused = deploy(server, "f", "idna==3.6\nidna==3.7")
    assert refused.code == "deploy-failed"
    assert refused.json()["detail"].startswith("The packages of 'f' cannot be installed: No solution found")
    assert "idna==3.6 and idna==3.7" in refused.json()["traceback"]
    assert call(server, "f")[0] == "3.7"
    assert len(server.get("/v1/functions/f/versions").json()["versions"]) == 1


def test_an_environment_outlives_the_server_and_is_made_again_if_it_is_gone(tmp_path: Path) -> None:
    server = Server(tmp_path / "data")
    try:
        digest = deploy(server, "f", "idna==3.7").json()["environment"]["digest"]
    finally:
        server.close()
    folder = tmp_path / "data" / "instances" / "environments" / digest
    (folder / "untouched").touch()
    server = Server(tmp_path / "data")
    try:
        assert call(server, "f")[0] == "3.7"
        assert (folder / "untouched").exists()
    finally:
        server.close()
    shutil.rmtree(folder)
    server = Server(tmp_path / "data")
    try:
        assert server.get("/v1/functions/f/versions").json()["versions"][0]["environment"] is None
        assert call(server, "f")[0] == "3.7"
        assert not (folder / "untouched").exists()
    finally:
        server.close()


def test_other_changes_go_on_while_packages_are_installed(server: Server, tmp_path: Path) -> None:
    setup = WAITS.format(folder=str(tmp_path))
    answers: list[Answer] = []

    def deploy_slowly() -> None:
        answers.append(deploy(server, "slow", "./waits\nidna==3.7", **{"waits/setup.py": setup, "waits/waits.py": ""}))

    thread = threading.Thread(target=deploy_slowly)
    thread.start()
    try:
        until((tmp_path / "begun").exists)
        assert deploy(server, "quick", None, "bare").status == 200
        server.make("p", "quick", paused=True)
        assert not answers
    finally:
        (tmp_path / "go").touch()
        thread.join()
    assert answers[0].status == 200
    assert answers[0].json()["environment"]["packages"] == 2
    assert call(server, "slow")[0] == "3.7"


def test_only_environments_of_code_that_is_neither_live_nor_pinned_go(server: Server, tmp_path: Path) -> None:
    live, pinned, left = (
        deploy(server, function, requirements).json()["environment"]["digest"]
        for function, requirements in (("live", "idna==3.7"), ("moved", "idna==3.6"), ("removed", "idna==3.5"))
    )
    server.make("stays", "moved", version=1)
    assert deploy(server, "moved", "idna==3.7").status == 200
    assert server.ask("DELETE", "/v1/functions/removed").status == 204
    home = tmp_path / "data" / "instances" / "environments"
    long_ago = time.time() - KEEP - 60
    for digest in (live, pinned, left):
        os.utime(home / digest, (long_ago, long_ago))
    asyncio.run_coroutine_threadsafe(server.running.engine.pruner.tidy(), server.loop).result()
    assert [(home / digest).exists() for digest in (live, pinned, left)] == [True, True, False]


def test_a_build_does_not_outlive_a_server_that_is_killed(tmp_path: Path) -> None:
    data, home = tmp_path / "data", tmp_path / "data" / "instances" / "environments"
    setup = WAITS.format(folder=str(tmp_path))
    body = bundle({"handlers.py": CODE, "requirements.txt": "./waits", "waits/setup.py": setup})
    settings = quote(json.dumps({"handler": "handlers:bare"}))
    with process(data) as (child, url):
        connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
        token = (data / "token").read_text().strip()
        connection.request(
            "PUT", f"/v1/functions/f/code?settings={settings}", body, {"Authorization": f"Bearer {token}"}
        )
        until((tmp_path / "begun").exists)
        child.kill()
        child.wait()
        connection.close()
    owner = (data / "instances" / "owner").read_text()
    assert marked_with(owner)
    assert list(home.glob(".unfinished-*"))
    Server(data).close()
    assert not marked_with(owner)
    assert not list(home.glob(".unfinished-*"))


def test_a_function_runs_on_the_python_that_it_asks_for(server: Server) -> None:
    asked = f"{sys.version_info.major}.{sys.version_info.minor}"
    code = "import sys\ndef handler(event, context):\n    return [sys.version, sys.prefix != sys.base_prefix]\n"
    server.put("/v1/functions/other-python", {"handler": "handlers:handler", "python": asked})
    live = server.put("/v1/functions/other-python/code", bundle({"handlers.py": code}))
    assert (live.status, live.json()["environment"]["packages"]) == (200, 0), live.body
    version, apart = server.post("/v1/functions/other-python/invoke").json()
    assert (version.startswith(asked), apart) == (True, True)
    refused = server.ask("PATCH", "/v1/functions/other-python", {"python": "3.99"})
    assert (refused.status, refused.code) == (422, "deploy-failed")
    assert "There is no Python 3.99" in refused.json()["detail"]
    assert refused.json()["detail"].endswith("Version 1 stays live.")
    (kept,) = server.get("/v1/functions/other-python/versions").json()["versions"]
    assert kept["environment"]["digest"] == live.json()["environment"]["digest"]
