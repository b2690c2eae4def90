"""Environments of the peers: `.venv-peers/NAME` from `benchmarks/requirements/NAME.txt`, made anew when that file changes."""

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.services import ENVIRONMENTS, NotHere

REQUIREMENTS = Path(__file__).parent / "requirements"


def environment(name: str) -> Path:
    """Return the Python of an environment, making it if need be. Raises NotHere with pip's words if that fails."""
    home, wanted = ENVIRONMENTS / name, (REQUIREMENTS / f"{name}.txt").read_text()
    python, made = home / "bin" / "python", home / "made-from.txt"
    if made.is_file() and made.read_text() == wanted:
        return python
    print(f"making the environment {home} ...", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(home))
    # The files name all that is needed; what pip would add to them is not.
    _run(str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
         "-r", str(REQUIREMENTS / f"{name}.txt"))  # fmt: skip
    made.write_text(wanted)
    return python


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"{' '.join(argv[:4])} failed: {done.stderr.strip()[-500:]}")
