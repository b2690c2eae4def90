"""Where packages come from: what pip is set up for."""

from pathlib import Path

import pytest

from penstock.compute.index import index_settings, index_words

INDEX = "https://index.invalid/simple"
OTHER = "https://other.invalid/simple"


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has nothing set up but what a test adds."""
    return {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path / "xdg"), "PIP_CERT": "", "PIP_INDEX_URL": ""}


def settings_of(machine: dict[str, str]) -> dict[str, str]:
    """Without what this machine's own files say, which nothing can hide but a file of the test's own."""
    return index_settings({"PIP_CONFIG_FILE": "/dev/null", **machine})


def test_the_variables_of_pip_become_those_of_uv(machine: dict[str, str]) -> None:
    machine |= {"PIP_INDEX_URL": INDEX, "PIP_EXTRA_INDEX_URL": f"{OTHER}\n{INDEX}", "PIP_FIND_LINKS": "/a /b"}
    machine |= {"PIP_CERT": "/certs.pem", "PIP_TRUSTED_HOST": "one two", "PIP_DEFAULT_TIMEOUT": "60"}
    assert settings_of(machine) == {
        "UV_DEFAULT_INDEX": INDEX,
        "UV_INDEX": f"{OTHER} {INDEX}",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/a,/b",
        "SSL_CERT_FILE": "/certs.pem",
        "UV_INSECURE_HOST": "one two",
        "UV_HTTP_TIMEOUT": "60",
    }


def test_the_files_of_pip_count_in_their_order(machine: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip" / "pip.conf").write_text(f"[global]\nindex_url = {OTHER}\nno-index = true\n")
    (tmp_path / ".config" / "pip").mkdir(parents=True)
    (tmp_path / ".config" / "pip" / "pip.conf").write_text(f"[install]\nindex-url = {INDEX}\n")
    del machine["PIP_INDEX_URL"]
    assert index_settings(machine)["UV_DEFAULT_INDEX"] == INDEX
    assert index_words(machine) == ["--no-index"]
    named = tmp_path / "named.conf"
    named.write_text(f"[global]\nindex-url = {OTHER}\n")
    machine["PIP_CONFIG_FILE"] = str(named)
    assert index_settings(machine)["UV_DEFAULT_INDEX"] == OTHER
    machine["PIP_INDEX_URL"] = "https://third.invalid/simple"
    assert index_settings(machine)["UV_DEFAULT_INDEX"] == "https://third.invalid/simple"


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_what_uv_is_told_goes_before_what_pip_is(machine: dict[str, str], name: str) -> None:
    assert settings_of(machine | {"PIP_INDEX_URL": INDEX, name: OTHER}) == {name: OTHER}


def test_which_index_goes_first_can_be_said(machine: dict[str, str]) -> None:
    machine |= {"PIP_EXTRA_INDEX_URL": OTHER, "UV_INDEX_STRATEGY": "first-index"}
    assert settings_of(machine) == {"UV_INDEX": OTHER, "UV_INDEX_STRATEGY": "first-index"}


def test_a_broken_file_of_pip_is_passed_over(machine: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "broken.conf").write_text("index-url\n[")
    assert index_words(machine | {"PIP_CONFIG_FILE": str(tmp_path / "broken.conf")}) == []


def test_nothing_else_of_the_servers_environment_passes(machine: dict[str, str]) -> None:
    secrets = {"PENSTOCK_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "s", "UV_PUBLISH_TOKEN": "p", "PATH": "/bin"}
    kept = {"HTTPS_PROXY": "http://proxy.invalid", "UV_INDEX_STRATEGY": "unsafe-best-match"}
    assert settings_of(machine | secrets | kept) == kept
