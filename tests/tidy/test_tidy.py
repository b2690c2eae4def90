"""The repository itself, tested for tidiness."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
MOST_LINES = 500


def tracked() -> list[Path]:
    """Return the files of the project: those of git where there is a checkout, else all beside the environments."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]
    return [path for path in ROOT.rglob("*") if path.is_file() and not any(part.startswith(".") for part in path.parts)]


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in tracked():
        try:
            found.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_is_not_too_large(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_states_its_law(path: Path) -> None:
    assert path.read_text().startswith('"""')


def test_nothing_is_unfinished() -> None:
    marks = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK"]) + r")\b")
    assert [str(path) for path, text in texts() if path.suffix == ".py" and marks.search(text)] == []


def test_no_registry_host_stands_in_any_file() -> None:
    hosts = re.compile(
        "|".join([r"pypi\.(?:org|python)", r"python" + r"hosted\.org", r"npm" + r"js\.org", r"deb\.deb" + r"ian\.org"])
    )
    assert [str(path) for path, text in texts() if path != Path(__file__) and hosts.search(text)] == []


def test_requirements_are_pinned() -> None:
    lines = (ROOT / "requirements" / "dev.txt").read_text().splitlines()
    wanted = [line for line in lines if line and not line.startswith((" ", "#"))]
    assert wanted
    assert [line for line in wanted if "==" not in line] == []


def test_only_one_table_says_what_may_become_of_a_task() -> None:
    tables = [path.name for path in SOURCES if re.search(r"^TRANSITIONS", path.read_text(), re.MULTILINE)]
    assert tables == ["task.py"]


def test_every_room_of_the_heart_stands_in_the_architecture() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    folders = {"domain", "store", "compute", "engine", "sim", "artifacts"}
    rooms = [
        path for path in SOURCES if path.parent.name in folders and path.name not in {"__init__.py", "__main__.py"}
    ]
    assert [str(room) for room in rooms if f"`{room.stem}`" not in text] == []


def test_relative_links_of_the_pages_lead_somewhere() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            broken += [] if (page.parent / target).exists() else [f"{page.name}: {target}"]
    assert broken == []
