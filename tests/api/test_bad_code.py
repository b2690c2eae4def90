"""Code that cannot be taken: each ends with a clear word, what was live stays live, and neighbours go on."""

import os
import stat
import zipfile
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tests.api.serving import Server, bundle
from tests.api.test_live import call, code, live, make

from penstock.client import Client
from penstock.client.bundle import pack
from penstock.engine import versions


def put(server: Server, name: str, body: bytes) -> Any:
    return server.put(f"/v1/functions/{name}/code", body)


def with_entry(name: str, content: bytes = b"x", mode: int = 0o100644) -> bytes:
    body = BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("handlers.py", "def handler(event, context):\n    return 'bad'\n")
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        archive.writestr(entry, content, zipfile.ZIP_DEFLATED)
    return body.getvalue()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"print('not a zip')", 400),
        (b"", 400),
        (with_entry("../outside.py"), 400),
        (with_entry("/etc/passwd"), 400),
        (with_entry("link", b"/etc/passwd", stat.S_IFLNK | 0o777), 400),
        (with_entry("link", b"../../..", stat.S_IFLNK | 0o777), 400),
        (with_entry("zeros", bytes(64 << 20)), 413),
        (bundle({"handlers.py": "this is not python"}), 422),
        (bundle({"handlers.py": "\x00\x01\x02"}), 422),
        (bundle({"readme.txt": "no code here"}), 422),
        (bundle({"handlers.py": "handler = 7"}), 422),
        (bundle({"handlers.py": "raise SystemExit(0)"}), 422),
        (bundle({"handlers.py": "import os; os._exit(0)"}), 422),
        (bundle({"handlers.py": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"}), 422),
    ],
)
def test_what_cannot_be_taken_is_refused_and_what_was_live_stays(
    server: Server, name: str, body: bytes, status: int
) -> None:
    make(server, name, "good")
    refused = put(server, name, body)
    assert (refused.status, bool(refused.code)) == (status, True)
    assert (live(server, name), call(server, name)) == (1, "good")


def test_an_import_that_hangs_is_ended_and_others_go_on(server: Server, name: str) -> None:
    make(server, name, "good")
    make(server, f"{name}-other", "other")
    with mock.patch.object(versions, "PREPARE_TIMEOUT", 0.5):
        refused = put(server, name, bundle({"handlers.py": "while True: pass"}))
    assert (refused.status, refused.code) == (422, "deploy-failed")
    assert "Version 1 stays live." in refused.json()["detail"]
    assert (call(server, name), call(server, f"{name}-other")) == ("good", "other")


def test_an_import_that_starts_threads_works_and_says_what_it_costs(server: Server, name: str) -> None:
    text = (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(3600,), daemon=True).start()\n"
        "def handler(event, context):\n    return threading.active_count() > 1\n"
    )
    server.put(f"/v1/functions/{name}", {"handler": "handlers:handler"})
    assert put(server, name, bundle({"handlers.py": text})).status == 200
    assert call(server, name) is True


def test_deploys_at_once_go_live_one_after_the_other(server: Server, name: str) -> None:
    make(server, name, "first")
    answers = [f"at once {number}" for number in range(6)]
    with ThreadPoolExecutor(6) as threads:
        deployed = list(threads.map(lambda answer: put(server, name, code(answer)), answers))
    assert [one.status for one in deployed] == [200] * 6
    assert sorted(one.json()["version"] for one in deployed) == list(range(2, 8))
    last = max(range(6), key=lambda at: deployed[at].json()["version"])
    assert (live(server, name), call(server, name)) == (7, answers[last])


def test_a_folder_with_links_out_of_it_and_too_many_files(server: Server, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "handlers.py").write_text("def handler(event, context):\n    return 'folder'\n")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("outside")
    (folder / "elsewhere").symlink_to(outside)
    with zipfile.ZipFile(BytesIO(pack(folder))) as archive:
        assert archive.namelist() == ["handlers.py"]
    many = folder / "many"
    many.mkdir()
    for number in range(100_000):
        os.close(os.open(many / str(number), os.O_CREAT | os.O_WRONLY))
    with Client(server.running.url, server.running.token) as client, pytest.raises(ValueError, match="20,000 files"):
        client.function(name).deploy(folder, handler="handlers:handler")
    (folder / ".penstockignore").write_text("many/\n")
    with Client(server.running.url, server.running.token) as client:
        client.function(name).deploy(folder, handler="handlers:handler")
        assert client.function(name).invoke() == "folder"


def test_a_deploy_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    server = Server(tmp_path)
    try:
        make(server, "f", "good")
        before = sorted(path.name for path in (tmp_path / "bundles").iterdir())
        with mock.patch("penstock.artifacts.unpack.os.fsync", side_effect=OSError(28, "No space left on device")):
            refused = put(server, "f", code("new"))
        assert (refused.status, refused.code) == (507, "disk-full")
        assert sorted(path.name for path in (tmp_path / "bundles").iterdir()) == before
        assert (live(server, "f"), call(server, "f")) == (1, "good")
        assert put(server, "f", code("new")).status == 200
    finally:
        server.close()
