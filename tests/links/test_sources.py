"""Functions that are deployed from folders: real folders, a real server."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.api.serving import Server, until

from penstock.client.bundle import pack
from penstock.links.folder import WatchedFolder

ROOT = os.geteuid() == 0


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with code that says "one"."""
    folder = tmp_path / "code"
    folder.mkdir()
    say(folder, "one")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def server(data: Path) -> Iterator[Server]:
    running = Server(data)
    yield running
    running.close()


def say(folder: Path, words: str) -> None:
    (folder / "saying.py").write_text(f"def handler(event, context):\n    return {words!r}\n")


def put(server: Server, folder: Path, **settings: Any) -> None:
    answer = server.put("/v1/functions/f", {"handler": "saying:handler", "source": str(folder), **settings})
    assert answer.status in {200, 201}, answer.body


def show(server: Server) -> Any:
    return server.get("/v1/functions/f").json()


def says(server: Server) -> Any:
    return server.post("/v1/functions/f/invoke").json()


def live(server: Server, number: int) -> None:
    until(lambda: show(server)["live"] == number)


def fails(server: Server, words: str) -> None:
    until(lambda: words in (show(server)["source"]["error"] or ""))


def test_a_folder_is_deployed_when_it_is_named_and_whenever_it_changes(server: Server, code: Path) -> None:
    put(server, code)
    live(server, 1)
    assert says(server) == "one"
    say(code, "two")
    live(server, 2)
    assert says(server) == "two"
    (code / "inner").mkdir()
    (code / "inner" / "more.py").write_text("WORDS = 'three'")
    (code / "saying.py").write_text("from inner.more import WORDS\ndef handler(event, context):\n    return WORDS\n")
    until(lambda: says(server) == "three")
    (code / "inner" / "more.py").write_text("WORDS = 'four'")
    until(lambda: says(server) == "four")
    source = show(server)["source"]
    assert (source["path"], source["error"]) == (str(code), None)
    assert source["at"] is not None


def test_many_changes_at_once_are_one_deploy_and_none_that_changes_nothing_is_one(server: Server, code: Path) -> None:
    put(server, code)
    live(server, 1)
    for number in range(50):
        (code / f"module{number}.py").write_text("")
    say(code, "two")
    live(server, 2)
    say(code, "two")
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "saying.pyc").write_bytes(b"")
    say(code, "three")
    live(server, 3)
    assert len(server.get("/v1/functions/f/versions").json()["versions"]) == 3


def test_code_that_does_not_import_stays_out_and_the_next_change_tries_again(server: Server, code: Path) -> None:
    put(server, code)
    live(server, 1)
    (code / "saying.py").write_text("import nothing_of_that_name")
    fails(server, "nothing_of_that_name")
    assert says(server) == "one"
    say(code, "three")
    until(lambda: says(server) == "three")
    until(lambda: show(server)["source"]["error"] is None)


def test_a_folder_may_come_and_go(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "far" / "away" / "code"
    put(server, folder)
    fails(server, "no folder")
    folder.mkdir(parents=True)
    fails(server, "no code")
    say(folder, "one")
    live(server, 1)
    shutil.rmtree(tmp_path / "far")
    fails(server, "no folder")
    assert says(server) == "one"
    other = tmp_path / "other"
    (other / "away" / "code").mkdir(parents=True)
    say(other / "away" / "code", "two")
    other.rename(tmp_path / "far")
    live(server, 2)
    assert says(server) == "two"


def test_a_link_that_is_turned_is_a_change(server: Server, tmp_path: Path) -> None:
    for words in ("one", "two"):
        (tmp_path / words / "code").mkdir(parents=True)
        say(tmp_path / words / "code", words)
    (tmp_path / "current").symlink_to("one")
    put(server, tmp_path / "current" / "code")
    live(server, 1)
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "current")
    live(server, 2)
    assert says(server) == "two"
    say(tmp_path / "two" / "code", "three")
    live(server, 3)


def test_a_rollback_holds_over_a_restart_until_the_folder_changes(code: Path, data: Path) -> None:
    server = Server(data)
    put(server, code)
    live(server, 1)
    say(code, "two")
    live(server, 2)
    assert server.post("/v1/functions/f/rollback").json()["version"] == 1
    assert show(server)["settings"]["source"] == str(code)
    (code / "saying.py").touch()
    server.close()
    server = Server(data)
    assert show(server)["live"] == 1
    say(code, "three")
    live(server, 3)
    server.close()
    say(code, "four")
    server = Server(data)
    try:
        live(server, 4)
        assert says(server) == "four"
    finally:
        server.close()


def test_naming_a_folder_makes_no_version_by_itself(server: Server, code: Path) -> None:
    server.put("/v1/functions/f", {"handler": "saying:handler"})
    assert server.put("/v1/functions/f/code", pack(code)).json()["version"] == 1
    assert server.ask("PATCH", "/v1/functions/f", {"source": f"{code}/"}).json()["source"]["path"] == str(code)
    until(lambda: show(server)["source"]["at"])
    say(code, "two")
    live(server, 2)
    assert server.ask("PATCH", "/v1/functions/f", {"source": None}).json()["live"] == 2
    until(lambda: show(server)["source"] is None)
    versions = server.get("/v1/functions/f/versions").json()["versions"]
    assert len(versions) == 2


def test_what_cannot_be_packed_is_told_and_mended_by_the_next_change(server: Server, code: Path) -> None:
    put(server, code)
    live(server, 1)
    (code / ".penstockignore").write_text("!nothing\n")
    say(code, "two")
    fails(server, "not understood")
    (code / ".penstockignore").write_text("large\n")
    live(server, 2)
    large = code / "data"
    large.touch()
    os.truncate(large, 300 << 20)
    fails(server, "over 256 MiB")
    large.rename(code / "large")
    until(lambda: show(server)["source"]["error"] is None)


@pytest.mark.skipif(ROOT, reason="root may read everything")
def test_what_may_not_be_read_is_told_and_taken_when_it_may(server: Server, code: Path) -> None:
    inner = code / "inner"
    inner.mkdir()
    inner.chmod(0)
    put(server, code)
    fails(server, "cannot be read")
    inner.chmod(0o700)
    live(server, 1)


def test_a_source_is_the_whole_path_of_a_folder(server: Server) -> None:
    for wrong in ("code", "./code", "/srv/../code", "/", 7, "/srv/\x00"):
        answer = server.put("/v1/functions/f", {"handler": "saying:handler", "source": wrong})
        assert (answer.status, answer.code) == (422, "invalid-settings")


def test_a_function_that_is_removed_is_watched_no_more(server: Server, code: Path) -> None:
    put(server, code)
    live(server, 1)
    assert server.ask("DELETE", "/v1/functions/f").status == 204
    say(code, "two")
    put(server, code)
    live(server, 1)
    assert says(server) == "two"


def test_naming_a_folder_anew_deploys_what_is_there_changed_or_not(server: Server, code: Path) -> None:
    put(server, code)
    live(server, 1)
    assert server.ask("DELETE", "/v1/functions/f").status == 204
    put(server, code)
    live(server, 1)
    assert says(server) == "one"
    assert server.ask("PATCH", "/v1/functions/f", {"source": None}).json()["source"] is None
    say(code, "by hand")
    assert server.put("/v1/functions/f/code", pack(code)).json()["version"] == 2
    say(code, "one")
    server.ask("PATCH", "/v1/functions/f", {"source": str(code)})
    live(server, 3)
    assert says(server) == "one"


def test_a_folder_that_is_still_looked_through_is_not_closed(
    server: Server, code: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its descriptor could be another folder's by then."""
    looks, go_on, order = threading.Event(), threading.Event(), list[str]()

    def begin(_: WatchedFolder) -> None:
        looks.set()
        assert go_on.wait(30)
        order.append("looked")

    def close(watched: WatchedFolder) -> None:
        order.append("closed")
        watched._inotify.close()

    monkeypatch.setattr(WatchedFolder, "begin", begin)
    monkeypatch.setattr(WatchedFolder, "close", close)
    put(server, code)
    assert looks.wait(30)
    assert server.ask("DELETE", "/v1/functions/f").status == 204
    for _ in range(30):  # whatever the removal brings about has happened by then
        assert server.get("/v1/functions").json()["functions"] == []
    go_on.set()
    until(lambda: len(order) == 2)
    assert order == ["looked", "closed"]
