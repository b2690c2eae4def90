"""Environments of the peers, in `.venv-peers/NAME`, made anew when the file that they are made from changes; and running them.

`benchmarks/requirements/NAME.txt` makes a Python environment, `benchmarks/requirements/NAME/package.json` one of npm packages.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from benchmarks.services import ENVIRONMENTS, NotHere

REQUIREMENTS = Path(__file__).parent / "requirements"


def environment(name: str) -> Path:
    """Return the Python of an environment, making it if need be. Raises NotHere with pip's words if that fails."""
    wanted = REQUIREMENTS / f"{name}.txt"

    def make(home: Path) -> None:
        _run(sys.executable, "-m", "venv", str(home))
        # The files name all that is needed; what pip would add to them is not.
        _run(str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
             "-r", str(wanted))  # fmt: skip

    return _made(name, wanted, make) / "bin" / "python"


def packages(name: str) -> Path:
    """Return the folder of an environment of npm packages, making it if need be.

    Raises NotHere if node or npm are missing, or with npm's words if it fails.
    """
    wanted = REQUIREMENTS / name / "package.json"
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise NotHere("there is no node or no npm on this machine")

    def make(home: Path) -> None:
        home.mkdir(parents=True)
        shutil.copy(wanted, home)
        _run(npm, "install", "--prefix", str(home), "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund",
             "--no-update-notifier")  # fmt: skip

    return _made(name, wanted, make)


def run_peer(module: str, needs: Sequence[str], *arguments: str) -> dict[str, Any]:
    """Return what a program of `benchmarks/peers` prints, run by the Python of the last environment that it needs.

    Raises NotHere with the reason if it cannot run.
    """
    python = sys.executable
    for name in needs:
        if (REQUIREMENTS / name).is_dir():
            packages(name)
        else:
            python = str(environment(name))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BENCH_RE")}
    argv = [python, "-m", f"benchmarks.peers.{module}", *arguments]
    with subprocess.Popen(
        argv, cwd=ROOT, env=clean, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            out, told = child.communicate()
        except BaseException:
            child.terminate()  # it ends what it has started
            raise
    if child.returncode:
        raise NotHere(told.strip().splitlines()[-1] if told.strip() else f"it ended with {child.returncode}")
    line: dict[str, Any] = json.loads(next(text for text in reversed(out.splitlines()) if text.startswith("{")))
    return line  # some print more than that


def _made(name: str, wanted: Path, make: Callable[[Path], None]) -> Path:
    home = ENVIRONMENTS / name
    made_from = home / "made-from.txt"
    if not made_from.is_file() or made_from.read_text() != wanted.read_text():
        print(f"making the environment {home} ...", file=sys.stderr)
        shutil.rmtree(home, ignore_errors=True)
        make(home)
        made_from.write_text(wanted.read_text())
    return home


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"{' '.join(argv[:4])} failed: {done.stderr.strip()[-500:]}")
