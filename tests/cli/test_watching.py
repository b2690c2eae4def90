"""`deploy --watch`, as a process beside a real server."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import pytest
from tests.api.serving import Server


class Watching:
    """Run the command until it is closed, and hear what it says."""

    def __init__(self, server: Server, *words: str) -> None:
        environment = os.environ | {"PENSTOCK_URL": server.running.url, "PENSTOCK_TOKEN": server.running.token}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli.main", "deploy", *words, "--watch"], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._thread = Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def says(self, words: str) -> str:
        """Return the next line that has these words in it."""
        while words not in (line := self._lines.get(timeout=30)):
            pass
        return line

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(30)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path / "data")
    yield running
    running.close()


@pytest.mark.parametrize("one_file", [False, True])
def test_what_changes_is_deployed_until_ctrl_c(server: Server, tmp_path: Path, one_file: bool) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    code = folder / "saying.py"

    def say(words: str) -> None:
        code.write_text(f"def handler(event, context):\n    print('it says', {words!r})\n    return {words!r}\n")

    say("one")
    watching = Watching(server, "f", str(code if one_file else folder), "--handler", "saying:handler")
    try:
        watching.says("f: version 1 is live")
        assert server.post("/v1/functions/f/invoke").json() == "one"
        watching.says("it says one")
        code.write_text("import nothing_of_that_name")
        watching.says("No module named 'nothing_of_that_name'")
        assert server.post("/v1/functions/f/invoke").json() == "one"
        say("two")
        watching.says("f: version 2 is live")
        assert server.post("/v1/functions/f/invoke").json() == "two"
        watching.says("it says two")
        assert watching.interrupt() == 0
        watching.says("Stopped watching")
    finally:
        watching.close()


def test_what_cannot_be_watched(server: Server, tmp_path: Path) -> None:
    watching = Watching(server, "f", str(tmp_path / "missing"))
    try:
        watching.says("There is no")
    finally:
        watching.close()
