from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.client.scripted import ScriptedServer
from typer.testing import CliRunner, Result

from penstock.cli.main import app


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Run every command in an empty folder, with no server of the developer's in reach."""
    for name in ("PENSTOCK_URL", "PENSTOCK_TOKEN", "PENSTOCK_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    yield scripted
    scripted.close()


@pytest.fixture
def run(server: ScriptedServer) -> Callable[..., Result]:
    """Run a command line against the scripted server."""

    def run_command(*words: str, typed: str | bytes | None = None, **options: Any) -> Result:
        return CliRunner().invoke(app, ["--url", server.url, "--token", "t", *words], input=typed, **options)

    return run_command
