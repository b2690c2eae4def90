"""Environments: the packages that bundles ask for, each installed once and shared by all that ask for the same.

Whatever stands under its digest is whole: uv made it under another name, it was written through to the disk, and renamed.
What is gone, or whose Python is gone, is made again. A build gets nothing of the server's environment but where packages
come from; it carries the mark of its owner, and nothing that it started outlives it.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Final

from uv import find_uv_bin

from penstock.compute import processes
from penstock.compute.index import index_settings, index_words
from penstock.compute.protocol import Code, Environment, InstallFailed
from penstock.compute.requirements import Wanted, wanted_by
from penstock.compute.zygotes import KEPT_FROM_SERVER

BUILD_TIMEOUT: Final = 600.0
"""Seconds that the installation of packages may take."""

KEEP: Final = 7 * 86_400.0
"""Seconds that an environment stays which nothing in use asks for."""

MOST_CACHE: Final = 4 << 30
"""Bytes of downloads that are kept for the next build; more than that, and all of it is let go."""

_PYTHONS: Final = Path("~/.local/share/uv/python").expanduser()
"""Where `uv python install` puts them for the server's user."""

_RECORD: Final = "penstock.json"
_UNFINISHED: Final = ".unfinished-"
_SAID: Final = 16_000
_MESSAGE: Final = 1_000
_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s]+@")


class Environments:
    """Keep environments in a directory, each as `<digest>/`. `bundle_path` says where a bundle is unpacked.

    `timeout` is how long (seconds) making one may take.
    """

    def __init__(self, directory: Path, bundle_path: Callable[[str], Path], timeout: float = BUILD_TIMEOUT) -> None:
        self._timeout = timeout
        self._directory = directory
        self._bundle_path = bundle_path
        self._owner = ""
        self._numbers = count(-1, -1)  # instances have positive ones
        self._wanted: dict[Code, Wanted | None] = {}
        self._builds: dict[str, asyncio.Task[Environment]] = {}

    def open(self, owner: str) -> None:
        """Begin, with the mark of the owner's processes: remove what an earlier server left unfinished."""
        self._owner = owner
        for path in self._directory.glob(f"{_UNFINISHED}*"):
            _erase(path)

    async def close(self) -> None:
        """Break off what is being built."""
        builds = list(self._builds.values())
        for build in builds:
            build.cancel()
        await asyncio.gather(*builds, return_exceptions=True)

    def lacks(self, code: Code) -> bool:
        """Say whether code asks for an environment that is not there. Raises `InstallFailed` if that is not clear."""
        wanted = self._look(code)
        return wanted is not None and not self._is_there(wanted.digest)

    def folder(self, code: Code) -> Path | None:
        """Return the folder of the environment that code runs in; None if it asks for none. It counts as used now."""
        wanted = self._look(code)
        if wanted is None:
            return None
        folder = self._directory / wanted.digest
        with contextlib.suppress(OSError):
            os.utime(folder)
        return folder

    async def make(self, code: Code) -> Environment | None:
        """Install what code asks for, unless it is there; who asks meanwhile waits for the same. Raises `InstallFailed`."""
        wanted = await asyncio.to_thread(self._look, code)
        if wanted is None:
            return None
        if self._is_there(wanted.digest):
            self.folder(code)
            return self._read(wanted.digest)
        build = self._builds.get(wanted.digest)
        if build is None:
            build = self._builds[wanted.digest] = asyncio.get_running_loop().create_task(
                self._build(wanted, code.bundle)
            )
            build.add_done_callback(lambda done: self._ended(wanted.digest, done))
        try:
            return await asyncio.shield(build)
        except asyncio.CancelledError:
            if build.cancelled():
                raise InstallFailed("The server stops: the installation of packages was broken off.") from None
            raise

    async def of(self, codes: Collection[Code]) -> Mapping[Code, Environment]:
        """Return the environments of code, as far as they are there."""
        return await asyncio.to_thread(self._of, codes)

    async def tidy(self, codes: Collection[Code]) -> None:
        """Delete what none of this code asks for and was not used for `KEEP` seconds, and too large a cache."""
        if self._directory.is_dir():
            used = {wanted.digest for wanted in await asyncio.to_thread(self._known, codes) if wanted is not None}
            unwanted = self._take_out(used)
            for path in unwanted:
                await asyncio.to_thread(_erase, path)
            if not self._builds and await asyncio.to_thread(_size, self._cache) > MOST_CACHE and not self._builds:
                await asyncio.to_thread(_erase, self._put_aside(self._cache))

    # what there is ------------------------------------------------------------------------------------------------------
    @property
    def _cache(self) -> Path:
        return self._directory / "cache"

    def _look(self, code: Code) -> Wanted | None:
        if code not in self._wanted:
            self._wanted[code] = wanted_by(self._bundle_path(code.bundle), code.bundle, code.python)
        return self._wanted[code]

    def _known(self, codes: Collection[Code]) -> list[Wanted | None]:
        found = []
        for code in codes:
            with contextlib.suppress(InstallFailed):  # then there is nothing to keep for it
                found.append(self._look(code))
        return found

    def _of(self, codes: Collection[Code]) -> dict[Code, Environment]:
        found = {}
        for code in codes:
            with contextlib.suppress(InstallFailed):
                wanted = self._look(code)
                if wanted is not None and self._is_there(wanted.digest):
                    found[code] = self._read(wanted.digest)
        return found

    def _is_there(self, digest: str) -> bool:
        folder = self._directory / digest
        return (folder / _RECORD).exists() and (folder / "bin" / "python").exists()

    def _read(self, digest: str) -> Environment:
        record = json.loads((self._directory / digest / _RECORD).read_text())
        return Environment(digest, record["packages"], record["seconds"])

    def _take_out(self, used: Collection[str]) -> list[Path]:
        """Give those that are used a new date, and those that were not for long another name; return these."""
        old = time.time() - KEEP
        unwanted = []
        for folder in self._directory.iterdir():
            if folder.name in used:
                os.utime(folder)
            elif re.fullmatch("[0-9a-f]{64}", folder.name) and folder.stat().st_mtime < old:
                unwanted.append(self._put_aside(folder))
        return unwanted

    def _put_aside(self, folder: Path) -> Path:
        place = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._directory))
        folder.rename(place / "folder")
        return place

    # builds -------------------------------------------------------------------------------------------------------------
    def _ended(self, digest: str, build: asyncio.Task[Environment]) -> None:
        del self._builds[digest]
        if not build.cancelled():
            build.exception()  # it may be that nobody waits for it any more

    async def _build(self, wanted: Wanted, bundle: str) -> Environment:
        began = time.monotonic()
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self._directory))
            try:
                code = await asyncio.to_thread(self._lay_out, place, wanted, bundle)
                await self._fill(place, code, wanted)
                seconds = round(time.monotonic() - began, 3)
                return await asyncio.to_thread(self._finish, place, wanted, seconds)
            finally:
                await asyncio.to_thread(_erase, place)
        except OSError as error:
            raise InstallFailed(f"No environment can be made: {error}.") from error

    def _lay_out(self, place: Path, wanted: Wanted, bundle: str) -> Path:
        """Return where the code is for a build: in a copy, if the build may have to write there."""
        (place / "tmp").mkdir()
        folder = self._bundle_path(bundle)
        if not wanted.own:
            return folder
        shutil.copytree(folder, place / "code", symlinks=True)
        for made, _, _ in os.walk(place / "code"):
            os.chmod(made, 0o755)
        return place / "code"

    async def _fill(self, place: Path, code: Path, wanted: Wanted) -> None:
        """Let uv install what is wanted, for a Python that is on this machine."""
        folder, file, python = place / "environment", code / wanted.file, wanted.python
        pip = ["pip", "install", "--no-editable", *index_words(os.environ), "-r", str(file)]
        try:
            async with asyncio.timeout(self._timeout):
                venv = ["venv", "--relocatable", "--python", python or sys.executable, str(folder)]
                await (self._run(place, code, venv) if python is None else self._find(place, code, venv, python))
                if wanted.file:
                    await self._run(place, code, [*pip, "--python", str(folder / "bin" / "python")])
        except TimeoutError:
            words = (
                f"The packages in {file.name} were not installed within {self._timeout:g} s, and that was broken off."
            )
            raise InstallFailed(words, _said(place)) from None

    async def _find(self, place: Path, where: Path, venv: list[str], python: str) -> None:
        """Make an environment for a Python, which must be on this machine. Raises `InstallFailed` with those that are."""
        try:
            await self._run(place, where, venv)
        except InstallFailed as error:
            said = error.traceback
            await self._run(place, where, ["python", "list", "--only-installed"])
            found = sorted(set(re.findall(r"^[a-z]+-(3\.\d+\.\d+)", _said(place), re.MULTILINE)))
            raise InstallFailed(
                f"There is no Python {python} on the server's machine. There are: {', '.join(found) or 'none'}. Name one of "
                "them as `python`, or install it there: uv finds those in PATH and those that `uv python install` made.",
                said,
            ) from None

    async def _run(self, place: Path, where: Path, words: list[str]) -> None:
        """Run uv, and end whatever it leaves behind. Raises `InstallFailed` with its words."""
        number = next(self._numbers)
        with (place / "output").open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                find_uv_bin(), *words, cwd=where, env=self._environment(place, number), stdin=asyncio.subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            await asyncio.to_thread(processes.end_left_by, self._owner, {number: process.pid})
        if code:
            said = _said(place)
            raise InstallFailed(_in_short(said), said)

    def _environment(self, place: Path, number: int) -> dict[str, str]:
        """Return the environment of a build: where packages come from, and nothing more of the server's than instances get."""
        return {
            **{name: os.environ[name] for name in KEPT_FROM_SERVER if name in os.environ},
            **index_settings(os.environ),
            "HOME": str(place / "tmp"),
            "TMPDIR": str(place / "tmp"),
            "UV_CACHE_DIR": str(self._cache),
            "UV_NO_CONFIG": "1",
            "UV_PYTHON_INSTALL_DIR": os.environ.get("UV_PYTHON_INSTALL_DIR") or str(_PYTHONS),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "UV_COMPILE_BYTECODE": "1",  # functions cannot write there
            "NO_COLOR": "1",
            processes.OWNER: self._owner,
            processes.INSTANCE: str(number),
        }

    def _finish(self, place: Path, wanted: Wanted, seconds: float) -> Environment:
        made, final = place / "environment", self._directory / wanted.digest
        packages = len(list(made.glob("lib/python*/site-packages/*.dist-info")))
        record = {"packages": packages, "seconds": seconds, "made_from": wanted.file}
        (made / _RECORD).write_text(json.dumps(record))
        _write_through(made)
        if final.exists():  # what is left of one that somebody, or a new Python, has broken
            final.rename(place / "broken")
        made.rename(final)
        _sync(self._directory)
        return replace(self._read(wanted.digest), fresh=True)


def _said(place: Path) -> str:
    """Return the end of what uv said last."""
    with (place / "output").open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - _SAID))
        said = file.read().decode("utf-8", "replace")
    return _PASSWORD.sub("***@", said.replace(f"{place}/", ""))


def _in_short(said: str) -> str:
    """Return the reason in what uv said, in one line: an error and its causes, without what a build printed."""
    reasons: list[str] = []
    for line in re.split(r"\n\s*(?:\n|\[stderr\]|\[stdout\])", said[said.find("error: ") :])[0].splitlines():
        start = re.match(r"\s*(?:error|cause): (.*)", line)
        if start is not None:
            reasons.append(start[1])
        elif reasons:
            reasons[-1] += f" {line.strip()}"
    short = ": ".join(reason.rstrip(".") for reason in reasons) or "uv gave no reason"
    return f"{short[:_MESSAGE]}."


def _write_through(folder: Path) -> None:
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            if not os.path.islink(os.path.join(path, name)):
                _sync(Path(path, name))
        _sync(Path(path))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _size(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(path, name)).st_size
    return total


def _erase(path: Path) -> None:
    """Delete a folder, with what a package has made read-only in it."""
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    processes.wipe(path)
