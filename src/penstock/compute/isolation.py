"""Find out which walls this machine gives to functions, and put them together for one.

The machine is asked once, when the server starts, by a program that tries each wall in a process of its own. A level takes
the walls that there are; what a function asks for by name is there, or it does not run.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import penstock
from penstock.compute.protocol import Blueprint, Isolation, Level, NotIsolated
from penstock.runtime.sandbox import SECCOMP, STANDARD, STRICT, Sandbox

LEVELS: Final[dict[Level, tuple[str, ...]]] = {"off": (), "standard": STANDARD, "strict": STRICT}

_HOME: Final = str(Path(penstock.__file__).parent.parent)
_PROBE: Final = (
    "import json, sys; sys.path.insert(0, sys.argv[1]); from penstock.runtime import kernel, sandbox; "
    "kernel.renounce(); print(json.dumps(sandbox.parts()))"
)
_PATIENCE: Final = 30.0


class Walls:
    """Know what the machine has. `private` is the folder of the server that functions must not see into."""

    def __init__(self, private: Path) -> None:
        self._private = str(private.resolve())
        self._missing: dict[str, str] = {}

    def probe(self) -> None:
        """Ask the machine; takes some hundredths of a second."""
        try:
            asked = subprocess.run(
                [sys.executable, "-I", "-c", _PROBE, _HOME],
                capture_output=True, text=True, check=True, timeout=_PATIENCE, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            self._missing = json.loads(asked.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            self._missing = dict.fromkeys(STRICT, f"it could not be tried: {error}")

    def isolation(self, level: Level) -> Isolation:
        """Return what the machine gives a level."""
        wanted = LEVELS[level]
        return Isolation(
            level,
            by=tuple(part for part in wanted if part not in self._missing),
            missing={part: self._missing[part] for part in wanted if part in self._missing},
        )

    def around(self, blueprint: Blueprint, home: Path, shown: tuple[Path, ...], groups: str) -> dict[str, Any] | None:
        """Return the fields of the sandbox for a zygote that lives in `home`; None if it has none.

        It may make control groups whose paths begin with `groups`, if that is not empty.

        Raises `NotIsolated` if the machine lacks what must not be missing.
        """
        if blueprint.sandbox == "off":
            return None
        isolation = self.isolation(blueprint.sandbox)
        if blueprint.sandbox == "strict" and isolation.missing:
            raise NotIsolated(_refusal(blueprint, "sandbox: strict", isolation.missing))
        if not blueprint.network and SECCOMP in isolation.missing:
            raise NotIsolated(_refusal(blueprint, "network: false", {SECCOMP: isolation.missing[SECCOMP]}))
        sandbox = Sandbox(
            blueprint.sandbox,
            isolation.by,
            self._private,
            str(home),
            tuple(str(path) for path in shown),
            (*blueprint.writable, str(Path(groups).parent)) if groups else blueprint.writable,
            blueprint.network,
        )
        return sandbox._asdict()


def _refusal(blueprint: Blueprint, wanted: str, needed: Mapping[str, str]) -> str:
    lacks = "; ".join(f"{part} ({reason})" for part, reason in needed.items())
    return (
        f"'{blueprint.function}' asks for {wanted}, and this machine does not give all that it takes. Missing: {lacks}. "
        "So its code is not run. Give the server what is missing, or ask for less."
    )
