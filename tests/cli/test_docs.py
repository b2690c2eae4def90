"""The page about the commands says what the commands are."""

import re
from pathlib import Path

import typer

from penstock.cli.exits import MEANINGS
from penstock.cli.main import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text()


def test_every_command_stands_on_the_page() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    missing = [name for name in commands if not re.search(rf"`{name}\b", PAGE)]
    for group in ("dead", "maps"):
        missing += [name for name in commands[group].commands if f"{group} {name}" not in PAGE]
    assert missing == []


def test_every_exit_code_stands_on_the_page() -> None:
    assert [
        f"| {code.value} | {meaning} |"
        for code, meaning in MEANINGS.items()
        if f"| {code.value} | {meaning} |" not in PAGE
    ] == []
