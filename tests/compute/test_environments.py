"""Environments as uv really makes them, from packages that lie in the bundle, and one or two of the index."""

import asyncio
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from tests.api.serving import until

from penstock.compute.environments import KEEP, Environments
from penstock.compute.processes import OWNER
from penstock.compute.protocol import Code, Environment, InstallFailed

MARK = "the-tests-of-environments"
PURE = """
from setuptools import setup
setup(name="pure", version="1.0", py_modules=["pure"])
"""
HANGS = """
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(3600)"]
subprocess.Popen(sleeper)
subprocess.Popen(sleeper, start_new_session=True)
print("it hangs here", file=sys.stderr, flush=True)
time.sleep(3600)
"""


class World:
    """Bundles in folders, and environments beside them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "environments"

    def bundle(self, name: str, **files: str) -> Code:
        """Make a bundle of files; a double underscore in a name is a slash, a single one a dot."""
        for key, text in files.items():
            path = self.folder / name / key.replace("__", "/").replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return Code(name)

    def run(self, body: Callable[[Environments], Awaitable[None]], timeout: float = 120.0) -> None:
        """Run a test's body as a server's life."""

        async def main() -> None:
            environments = Environments(self.home, lambda name: self.folder / name, timeout)
            environments.open(MARK)
            try:
                await body(environments)
            finally:
                await environments.close()

        asyncio.run(main())
        assert marked_with(MARK) == []
        assert unfinished(self.home) == []

    def make(self, bundle: Code) -> Environment:
        """Make the environment of a bundle, in a life of its own."""
        made: list[Environment] = []

        async def body(environments: Environments) -> None:
            environment = await environments.make(bundle)
            assert environment is not None
            made.append(environment)

        self.run(body)
        return made[0]

    def failure(self, bundle: Code, timeout: float = 120.0) -> InstallFailed:
        """Return why the environment of a bundle cannot be made."""
        raised: list[InstallFailed] = []

        async def body(environments: Environments) -> None:
            with pytest.raises(InstallFailed) as caught:
                await environments.make(bundle)
            raised.append(caught.value)
            assert environments.lacks(bundle)

        self.run(body, timeout)
        return raised[0]


def marked_with(owner: str) -> list[int]:
    """Return the processes that carry an owner's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(OWNER) == owner and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except psutil.Error:
            continue
    return found


def unfinished(home: Path) -> list[Path]:
    return list(home.glob(".unfinished-*")) if home.exists() else []


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_packages_are_installed_once_and_shared(world: World) -> None:
    first = world.bundle("first", requirements_txt="idna==3.7\nsix==1.16.0\n")
    second = world.bundle("second", requirements_txt="six==1.16.0  # the same\n\nidna==3.7")

    async def body(environments: Environments) -> None:
        assert environments.lacks(first)
        made = await asyncio.gather(*(environments.make(name) for name in (first, second, first)))
        again = await environments.make(second)
        assert again is not None
        assert again.packages == 2
        assert not again.fresh
        assert made == [replace(again, fresh=True)] * 3
        assert not environments.lacks(second)
        assert environments.folder(first) == environments.folder(second) == world.home / again.digest
        assert await environments.of([first, second, world.bundle("bare", x_py="")]) == {first: again, second: again}

    world.run(body)
    assert [path for path in world.home.iterdir() if len(path.name) == 64] == [world.home / world.make(first).digest]


def test_code_that_names_no_packages_gets_none(world: World) -> None:
    bare = world.bundle("bare", handlers_py="")

    async def body(environments: Environments) -> None:
        assert not environments.lacks(bare)
        assert environments.folder(bare) is None
        assert await environments.make(bare) is None
        await environments.tidy([bare])

    world.run(body)
    assert not world.home.exists()


def test_a_package_that_lies_in_the_bundle_is_installed_from_there(world: World) -> None:
    files = {"pure__setup_py": PURE, "pure__pure_py": "print('pure')"}
    bundle = world.bundle("code", requirements_txt="./pure\n", **files)
    for folder, _, names in os.walk(world.folder / bundle.bundle):
        for name in names:
            os.chmod(Path(folder, name), 0o444)
        os.chmod(folder, 0o555)  # as bundles are
    environment = world.make(bundle)
    assert environment.packages == 1
    assert (world.folder / bundle.bundle / "pure").is_dir()
    assert {path.name for path in (world.folder / bundle.bundle / "pure").iterdir()} == {"setup.py", "pure.py"}


@pytest.mark.parametrize(
    ("requirements", "words"),
    [
        ("idna==3.6\nidna==3.7\n", "idna==3.6 and idna==3.7"),
        ("requests==2.31.0\nurllib3==1.20\n", "requests==2.31.0 depends on urllib3"),
        ("penstock-surely-has-no-such-package\n", "penstock-surely-has-no-such-package was not found"),
        ("idna===\n", "parse requirement"),
        ("-r nowhere.txt\n", "nowhere.txt"),
    ],
)
def test_what_cannot_be_installed_is_said_in_a_line(world: World, requirements: str, words: str) -> None:
    failure = world.failure(world.bundle("code", requirements_txt=requirements))
    assert words in failure.message
    assert "\n" not in failure.message
    assert str(world.folder) not in failure.message
    assert words in failure.traceback


def test_a_package_whose_setup_fails_is_named_with_what_it_said(world: World) -> None:
    bundle = world.bundle("code", requirements_txt="./bad\n", bad__setup_py="raise RuntimeError('boom')")
    failure = world.failure(bundle)
    assert "build" in failure.message
    assert "RuntimeError: boom" in failure.traceback


def test_a_build_that_hangs_is_ended_with_all_that_it_started(world: World) -> None:
    bundle = world.bundle("code", requirements_txt="./hangs\n", hangs__setup_py=HANGS)
    failure = world.failure(bundle, timeout=3.0)
    assert "not installed within 3 s" in failure.message


def test_a_stop_breaks_a_build_off(world: World) -> None:
    bundle = world.bundle("code", requirements_txt="./hangs\n", hangs__setup_py=HANGS)

    async def body(environments: Environments) -> None:
        making = asyncio.create_task(environments.make(bundle))
        await asyncio.to_thread(until, lambda: marked_with(MARK))
        await environments.close()
        with pytest.raises(InstallFailed, match="The server stops"):
            await making

    world.run(body)


def test_a_build_knows_nothing_of_the_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENSTOCK_TOKEN", "the token")
    tells = "import os\nraise RuntimeError(sorted(os.environ))"
    failure = world.failure(world.bundle("code", requirements_txt="./tells\n", tells__setup_py=tells))
    assert "'HOME'" in failure.traceback
    assert "TOKEN" not in failure.traceback
    assert f"'{OWNER}'" in failure.traceback  # so that it is found, should the server be killed meanwhile


def test_what_a_killed_server_left_half_made_is_made_again(world: World) -> None:
    bundle = world.bundle("code", requirements_txt="six==1.16.0\n")
    made = world.make(bundle)
    folder = world.home / made.digest
    half = world.home / ".unfinished-x" / "environment"
    shutil.copytree(folder, half, symlinks=True)
    (folder / "bin" / "python").unlink()  # its Python is gone
    assert world.make(bundle).fresh
    (folder / "penstock.json").unlink()  # half of it was deleted by hand
    assert world.make(bundle).fresh
    shutil.rmtree(folder)
    assert world.make(bundle).fresh
    assert not world.make(bundle).fresh


def test_only_what_nothing_uses_goes_and_only_after_long(world: World) -> None:
    kept, left, recent = (world.bundle(name, requirements_txt=f"# six\n{name}") for name in ("idna", "six", "toml"))
    kept_at, left_at, recent_at = (world.home / world.make(name).digest for name in (kept, left, recent))
    long_ago = time.time() - KEEP - 60
    for folder in (kept_at, left_at):
        os.utime(folder, (long_ago, long_ago))

    async def body(environments: Environments) -> None:
        await environments.tidy([kept])

    world.run(body)
    assert [kept_at.exists(), left_at.exists(), recent_at.exists()] == [True, False, True]
    assert kept_at.stat().st_mtime > long_ago + 60


def test_too_many_downloads_are_let_go(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = world.bundle("code", requirements_txt="six\n")
    folder = world.home / world.make(bundle).digest

    async def body(environments: Environments) -> None:
        await environments.tidy([bundle])
        assert (world.home / "cache").exists()
        monkeypatch.setattr("penstock.compute.environments.MOST_CACHE", 1000)
        await environments.tidy([bundle])
        assert not (world.home / "cache").exists()

    world.run(body)
    assert list(folder.glob("lib/python*/site-packages/six.py"))


# another Python -------------------------------------------------------------------------------------------------------
def test_code_gets_the_python_that_it_asks_for_with_and_without_packages(world: World) -> None:
    asked = f"{sys.version_info.major}.{sys.version_info.minor}"
    bare, with_packages = world.bundle("bare", tasks_py=""), world.bundle("a", requirements_txt="six==1.16.0\n")

    async def body(environments: Environments) -> None:
        alone = await environments.make(bare._replace(python=asked))
        both = await environments.make(with_packages._replace(python=asked))
        plain = await environments.make(with_packages)
        assert alone is not None
        assert both is not None
        assert plain is not None
        assert (alone.packages, both.packages) == (0, 1)
        assert len({alone.digest, both.digest, plain.digest}) == 3
        python = world.home / alone.digest / "bin" / "python"
        code = [str(python), "-c", "import sys; print(sys.version)"]
        said = await asyncio.to_thread(subprocess.check_output, code, text=True)
        assert said.startswith(asked)
        assert await environments.make(bare) is None

    world.run(body)


def test_a_python_that_is_not_there_is_said_with_those_that_are(world: World) -> None:
    bundle = world.bundle("a", requirements_txt="six==1.16.0\n")
    failed = world.failure(bundle._replace(python="3.99"))
    assert "There is no Python 3.99 on the server's machine" in failed.message
    assert ".".join(map(str, sys.version_info[:3])) in failed.message
