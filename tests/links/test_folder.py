"""A watched folder: what is a change of it, and what is none."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from penstock.links.folder import WatchedFolder

CHANGES: dict[str, Callable[[Path], object]] = {
    "a file is made": lambda folder: (folder / "new").touch(),
    "a file is written": lambda folder: (folder / "file").write_text("other"),
    "a file goes": lambda folder: (folder / "file").unlink(),
    "a file may run": lambda folder: (folder / "file").chmod(0o755),
    "a file moves in": lambda folder: (folder.parent / "beside").rename(folder / "new"),
    "a file moves out": lambda folder: (folder / "file").rename(folder.parent / "new"),
    "something below": lambda folder: (folder / "inner" / "file").touch(),
    "what is ignored changes": lambda folder: (folder / ".penstockignore").write_text("*.md"),
    "the folder goes": lambda folder: folder.rename(folder.parent / "gone"),
}
NOTHING: dict[str, Callable[[Path], object]] = {
    "beside it": lambda folder: (folder.parent / "new").touch(),
    "a cache": lambda folder: (folder / "__pycache__").mkdir(),
    "version control": lambda folder: (folder / ".git" / "HEAD").write_text("other"),
    "what is ignored": lambda folder: (folder / "notes.txt").touch(),
    "it is read": lambda folder: (folder / "file").read_text(),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "code"
    for one in (made, made / "inner", made / ".git"):
        one.mkdir()
    (made / "file").write_text("text")
    (made / ".git" / "HEAD").write_text("text")
    (made / ".penstockignore").write_text("*.txt\n")
    (tmp_path / "beside").touch()
    return made


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_heard_of(folder: Path, change: Callable[[Path], object]) -> None:
    async def body() -> None:
        watched = WatchedFolder(folder)
        watched.begin()
        change(folder)
        await asyncio.wait_for(watched.changed(), 10)
        assert await watched.settled()
        assert not watched.has_changed()
        watched.close()

    asyncio.run(body())


@pytest.mark.parametrize("change", NOTHING.values(), ids=NOTHING)
def test_nothing_is_heard_of_what_does_not_matter(folder: Path, change: Callable[[Path], object]) -> None:
    watched = WatchedFolder(folder)
    watched.begin()
    change(folder)
    assert not watched.has_changed()
    (folder / "file").touch()
    (folder / "new").touch()
    assert watched.has_changed()
    watched.close()
