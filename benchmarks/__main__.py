"""Run every benchmark program, one after the other, and write what they found to `docs/benchmarks.md`.

    python -m benchmarks [--only NAME …] [--quick]

Each program is a process of its own and prints one line of JSON; a program that fails does not stop the others, but makes
the exit code 1. With `--only` or `--quick` the page is printed and not written.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks.harness import ROOT, program_stops
from benchmarks.table import Line, page

PROGRAMS = (
    "limits",
    "adaptive",
    "tokens",
    "keys",
    "pipelines",
    "blocked",
    "admission",
    "fairness",
    "scale",
    "throughput",
    "latency",
    "invoke",
    "burst",
    "coldstart",
    "web",
    "prewarming",
    "idle",
    "update",
    "store",
    "instances",
    "realwork",
    "waiting",
    "timeouts",
    "memory",
)
PAGE = ROOT / "docs" / "benchmarks.md"


def main() -> int:
    """Run the programs; return 1 if one of them failed."""
    there = [name for name in PROGRAMS if Path(__file__).with_name(f"{name}.py").is_file()]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Penstock and its peers.")
    parser.add_argument("--only", nargs="+", choices=there, metavar="NAME", help=f"of {', '.join(there)}")
    parser.add_argument("--quick", action="store_true", help="measure less, to see that it works")
    options = parser.parse_args()
    program_stops()
    lines = [_run(name, options.quick) for name in options.only or there]
    text = page(lines)
    print(text)
    if not (options.only or options.quick):
        PAGE.write_text(text)
        print(f"Written to {PAGE.relative_to(ROOT)}.", file=sys.stderr)
    return int(any("error" in line for line in lines))


def _run(name: str, quick: bool) -> Line:
    """Return what a program printed; {"benchmark", "error"} if it failed."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    argv = [sys.executable, "-m", f"benchmarks.{name}", *(["--quick"] if quick else [])]
    with subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        try:
            out, _ = child.communicate()
        except BaseException:
            child.terminate()  # it ends what it has started
            raise
    try:
        line: Line = json.loads(out)
        line["benchmark"], line["figures"]
    except (ValueError, KeyError, TypeError):
        return {
            "benchmark": name,
            "error": f"the program ended with {child.returncode} and printed {out.strip()[:200]!r}",
        }
    print(out.strip(), file=sys.stderr, flush=True)
    return line


if __name__ == "__main__":
    raise SystemExit(main())
