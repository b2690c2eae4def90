"""Code to zips: what is in them, and that equal code gives equal bytes."""

import io
import os
import zipfile
from pathlib import Path

import pytest

from penstock.client import pack


def members(bundle: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_a_file_stands_at_the_root(tmp_path: Path) -> None:
    write(tmp_path, {"tasks.py": "x = 1"})
    assert members(pack(tmp_path / "tasks.py")) == {"tasks.py": b"x = 1"}


def test_a_folder_without_what_is_not_code(tmp_path: Path) -> None:
    code = {"tasks.py": "", "lib/__init__.py": "", "data/words.txt": "one"}
    rest = {
        ".git/HEAD": "", "__pycache__/tasks.pyc": "", "lib/__pycache__/x.pyc": "", ".venv/bin/python": "", ".venv-peers/x": "",
        "lib/old.pyc": "", ".penstock/token": "secret", "penstock.yaml": "secret",
    }  # fmt: skip
    assert sorted(members(pack(write(tmp_path, code | rest)))) == sorted(code)


def test_penstockignore(tmp_path: Path) -> None:
    listed = "# what is not deployed\n*.md\n\n/top.txt\ndata/raw/*\nbuild/\n"
    kept = {"tasks.py": "", "lib/top.txt": "", "data/small.csv": "", "notes/build": "a file, not a folder"}
    left = {
        "README.md": "",
        "lib/x.md": "",
        "top.txt": "",
        "data/raw/big.csv": "",
        "build/x.py": "",
        "lib/build/y.py": "",
    }
    assert sorted(members(pack(write(tmp_path, {".penstockignore": listed} | kept | left)))) == sorted(kept)


def test_a_pattern_that_is_not_understood_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"tasks.py": "", ".penstockignore": "*.txt\n!keep.txt\n"})
    with pytest.raises(ValueError, match=r":2:.*!keep"):
        pack(tmp_path)


def test_equal_code_gives_equal_bytes(tmp_path: Path) -> None:
    files = {"b.py": "b", "a.py": "a", "lib/c.py": "c"}
    first = write(tmp_path / "first", files)
    second = write(tmp_path / "second", dict(reversed(files.items())))
    os.utime(second / "a.py", (1, 1))
    (second / "b.py").chmod(0o600)
    zipped = tmp_path / "code.zip"
    zipped.write_bytes(pack(first))
    assert pack(first) == pack(second) == pack(zipped)
    (second / "a.py").write_text("another")
    assert pack(first) != pack(second)


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "not.zip").write_text("not a zip")
    with pytest.raises(ValueError, match="no files"):
        pack(tmp_path / "empty")
    with pytest.raises(ValueError, match="not a zip"):
        pack(tmp_path / "not.zip")
    with pytest.raises(FileNotFoundError):
        pack(tmp_path / "missing.py")
