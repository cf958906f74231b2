"""Run seeds of the simulation: ``python -m tests.simulated SEED``, or ``FIRST-LAST``, from the checkout's top."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext

from twisted.logger import globalLogBeginner

from tests.simulated.mutants import MUTANTS, mutated
from tests.simulated.run import simulate
from tests.simulated.seeds import run_here, run_spread, to_json


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments ask for, and return 0 if everything held."""
    parser = argparse.ArgumentParser(prog="simulate", description="Run the whole-system simulation.")
    parser.add_argument("seeds", metavar="SEED", help="a seed, whose ladder diagram is drawn; or several, FIRST-LAST")
    parser.add_argument("--mutant", choices=MUTANTS, default="", help="with this known bug in place")
    parser.add_argument("--processes", type=int, metavar="N", help="for several seeds; default: one per processor")
    parser.add_argument("--json", action="store_true", help="print the summary of several seeds for a program")
    options = parser.parse_args(arguments)
    # Twisted would print what methods raise on purpose.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    first, _, last = options.seeds.partition("-")
    if not last:
        return _replay(int(first), options.mutant)
    seeds = range(int(first), int(last) + 1)
    if options.json:
        sys.stdout.write(to_json(run_here(seeds)))
        return 0
    started = time.monotonic()
    if options.mutant:
        summary = run_here(seeds, mutant=options.mutant, until_failure=True)
    else:
        summary = run_spread(seeds[0], seeds[-1], processes=options.processes)
    sys.stdout.write("\n".join([*summary.reports, f"{summary}"]))
    sys.stdout.write(f"{time.monotonic() - started:.0f} s\n")
    return 1 if summary.failed else 0


def _replay(seed: int, mutant: str) -> int:
    with mutated(mutant) if mutant else nullcontext():
        outcome = simulate(seed, ladder=True)
    sys.stdout.write(f"{outcome.ladder}\ndigest {outcome.digest}\n")
    sys.stdout.write(f"seed {seed}: {outcome.violation or 'everything holds'}\n")
    return 1 if outcome.violation else 0


if __name__ == "__main__":
    sys.exit(main())
