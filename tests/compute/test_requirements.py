"""What a bundle asks for, and which of these are the same."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.compute.protocol import InstallFailed
from penstock.compute.requirements import MOST_BYTES, Wanted, wanted_by

ANYWHERE = (
    "idna",
    "six==1.17.0",
    "Requests[socks,security]>=2 ; python_version < '4'",
    "idna @ https://example.invalid/idna-3.6-py3-none-any.whl",
    "tool @ git+https://example.invalid/tool@main",
    "idna==3.6 --hash=sha256:00",
    "--index-url https://example.invalid/simple",
    "--extra-index-url=https://example.invalid/simple",
    "--pre",
)
OF_THE_BUNDLE = (
    "./pkg",
    "wheels/idna-3.6-py3-none-any.whl",
    "idna-3.6-py3-none-any.whl",
    "idna @ file:///tmp/idna.whl",
    "idna @ ./wheels/idna.whl",
    "-r more.txt",
    "-c constraints.txt",
    "-e .",
    "--find-links wheels",
    "--index-url file:///srv/simple",
)


def wanted(folder: Path, text: str, bundle: str = "a", name: str = "requirements.txt") -> Wanted | None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return wanted_by(folder, bundle)


def digest(folder: Path, text: str, bundle: str = "a", name: str = "requirements.txt") -> str:
    found = wanted(folder, text, bundle, name)
    assert found is not None
    return found.digest


@pytest.mark.parametrize("text", ["", "\n\n", "# idna\n  # six"])
def test_a_file_that_names_nothing_asks_for_nothing(tmp_path: Path, text: str) -> None:
    assert wanted(tmp_path, text) is None


def test_a_bundle_without_such_a_file_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "handlers.py").write_text("import idna")
    assert wanted_by(tmp_path, "a") is None


@given(st.permutations(["idna==3.6", "six", "requests [socks] >= 2"]), st.sampled_from(["", "  # why", "\t"]))
def test_order_space_and_comments_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str
) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    plain = digest(folder, "idna==3.6\nsix\nrequests [socks] >= 2\n")
    assert digest(folder, "\n# packages\n" + "".join(f"  {line}{end}\r\n" for line in lines), "b") == plain
    assert digest(folder, "\n".join(line.replace(" ", " \\\n ") for line in lines), "b") == plain


@pytest.mark.parametrize("line", ANYWHERE)
def test_what_means_the_same_anywhere_is_shared_by_all_bundles(tmp_path: Path, line: str) -> None:
    assert digest(tmp_path, line, "a") == digest(tmp_path, line, "b")
    assert digest(tmp_path, line) != digest(tmp_path, line + "\nsix==1.16")


@pytest.mark.parametrize("line", OF_THE_BUNDLE)
def test_what_may_lead_to_files_of_the_bundle_is_its_own(tmp_path: Path, line: str) -> None:
    assert digest(tmp_path, f"six\n{line}", "a") != digest(tmp_path, f"six\n{line}", "b")


def test_the_dependencies_of_a_project_count_as_requirements_do(tmp_path: Path) -> None:
    project = '[project]\nname = "x"\nversion = "1"\ndependencies = ["six", "idna==3.6"]\n'
    assert digest(tmp_path / "p", project, name="pyproject.toml") == digest(tmp_path / "r", "idna==3.6\nsix")
    sources = project + "[tool.uv.sources]\nsix = {path = 'six'}\n"
    assert digest(tmp_path / "s", sources, "a", "pyproject.toml") != digest(
        tmp_path / "s", sources, "b", "pyproject.toml"
    )


def test_requirements_go_before_a_project_unless_they_name_nothing(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["six"]\n')
    found = wanted(tmp_path, "idna")
    assert found is not None
    assert found.file == "requirements.txt"
    found = wanted(tmp_path, "# nothing")
    assert found is not None
    assert found.file == "pyproject.toml"


@pytest.mark.parametrize("text", ["[tool.ruff]", "[project]\nname='x'", "[project]\ndependencies = []", "project = 3"])
def test_a_project_without_dependencies_asks_for_nothing(tmp_path: Path, text: str) -> None:
    assert wanted(tmp_path, text, name="pyproject.toml") is None


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("pyproject.toml", b"[project", "not TOML"),
        ("pyproject.toml", b"[project]\ndependencies = 'six'", "not a list"),
        ("requirements.txt", b"\xff\xfe", "not UTF-8"),
        ("requirements.txt", b"#" * (MOST_BYTES + 1), "more than"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, name: str, body: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(InstallFailed, match=words):
        wanted_by(tmp_path, "a")
