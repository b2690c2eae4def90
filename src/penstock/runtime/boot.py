"""Start a zygote. Run as a script by compute, with `settings.Settings` as one JSON argument.

`import penstock` must mean the server's own package here, whatever the user's environment has installed; and nothing
else that lies beside that package may become importable. A finder for that one name does it.
"""

import json
import os
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder

HERE = os.path.dirname(os.path.abspath(__file__))
HOME = os.path.dirname(os.path.dirname(HERE))


class Finder:
    """Find the server's package by its name alone."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> "ModuleSpec | None":  # noqa: ARG004
        """Return where `penstock` is; leave every other name to the finders that follow."""
        return PathFinder.find_spec(name, [HOME]) if name == "penstock" else None


def main() -> None:
    """Make `penstock` importable, and nothing else of where it lies; then be a zygote."""
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != HERE]
    sys.meta_path.insert(0, Finder)
    settings = import_module("penstock.runtime.settings").Settings(**json.loads(sys.argv[1]))
    import_module("penstock.runtime.zygote").live(settings)


if __name__ == "__main__":
    main()
