"""Run seeded simulations: `python -m penstock.sim --seed 1 --rounds 200`.

Each round is a world of its own, drawn from its seed. The first one that breaks a law is told with its scenario, the end
of its trace and the command that runs it again; the exit code is then 1.
"""

import argparse
import sys
import time
from collections import Counter

from penstock.sim.simulate import simulate


def main(arguments: list[str] | None = None) -> int:
    """Run the rounds that the command line asks for; return the exit code."""
    options = _parser().parse_args(arguments)
    began = time.perf_counter()
    totals: Counter[str] = Counter()
    failed = 0
    for seed in range(options.seed, options.seed + options.rounds):
        report = simulate(seed)
        totals.update(report.counts)
        if options.verbose:
            print(report.line(), flush=True)
        if report.breaches:
            failed += 1
            print(report.tell(options.lines), flush=True)
            if not options.keep_going:
                break
    seconds = time.perf_counter() - began
    print(_summary(totals, failed, seconds))
    return 1 if failed else 0


def _summary(totals: Counter[str], failed: int, seconds: float) -> str:
    rounds = totals.pop("rounds")
    what = ", ".join(f"{count:,} {name}" for name, count in totals.items())
    verdict = f"{failed} rounds broke a law" if failed else "no law was broken"
    return f"{rounds} rounds in {seconds:.1f} s: {verdict}; {what}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m penstock.sim", description="Run seeded simulations of the real engine."
    )
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--rounds", type=int, default=200, help="how many seeds, one after the other")
    parser.add_argument("--lines", type=int, default=60, help="how many lines of a trace to show")
    parser.add_argument("--verbose", action="store_true", help="show a line for every round")
    parser.add_argument("--keep-going", action="store_true", help="go on after a round that broke a law")
    return parser


if __name__ == "__main__":
    sys.exit(main())
