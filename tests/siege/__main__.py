"""Besiege servers: ``python -m tests.siege``, from the checkout's top; ``scripts/siege`` runs it."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from tests.checkout import load_module
from tests.integration.compiling import missing_compiler
from tests.integration.netns import missing_for_namespaces
from tests.siege.flood import DENIED, capacity_of, search
from tests.siege.report import as_json, floods, tables
from tests.siege.siege import TRUST, Siege, faults_of

_REPORT = load_module("benchmarks/_report.py")  # at the start, for it looks at once at what else the machine has to do


def main(arguments: list[str] | None = None) -> int:
    """Run what the arguments ask for, and return 0 if everything held, 1 if not, 2 if it cannot be run here."""
    options = _options(arguments)
    reason = missing_for_namespaces() or missing_compiler()
    if reason:
        sys.stderr.write(f"scripts/siege: {reason}\n")
        return 2
    if options.search:
        return _search(options)
    if not options.json:
        sys.stdout.write(f"{options.seconds:g} seconds of everything at once; the figures come at the end.\n\n")
        sys.stdout.flush()
    with Siege(options.seed) as siege:
        outcome = siege.run(options.seconds, options.scale)
    faults = faults_of(outcome)
    if options.json:
        sys.stdout.write(json.dumps(as_json(outcome, faults), indent=2) + "\n")
    else:
        sys.stdout.write(tables(outcome, _width()) + "\n\n")
        sys.stdout.flush()
    _write(options.markdown, "siege", tables(outcome))
    for fault in faults:
        sys.stderr.write(f"scripts/siege: {fault}\n")
    if not options.json:
        sys.stdout.write("something gave way\n" if faults else "everything held\n")
    return 1 if faults else 0


def _search(options: argparse.Namespace) -> int:
    """Look for the rates that honest clients do not stand, and print them."""
    parts, shown = [], []
    with Siege(options.seed, ("--trust", TRUST, "--deny", DENIED), dtls=False) as siege:
        for kind, server in siege.servers.items():
            capacity = capacity_of(siege.field, server)
            found = search(siege.field, server, capacity, kind, options.seconds)
            parts.append(floods(kind, capacity, found))
            shown.append(floods(kind, capacity, found, _width()))
    sys.stdout.write("\n\n".join(shown) + "\n")
    _write(options.markdown, "siege search", "\n\n".join(parts))
    return 0


def _width() -> int:
    """Return how many characters a line of the terminal has; 80 where there is none."""
    return shutil.get_terminal_size().columns


def _write(path: Path | None, place: str, text: str) -> None:
    """Put text into a Markdown file, with what it was measured on."""
    if path is not None:
        machine = _REPORT.machine_text().replace("\n", ", ")
        _REPORT.put_into(path, place, f"{machine}.\n\n{text}")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/siege", description="Attack servers from all sides at once.")
    parser.add_argument("--seconds", type=float, metavar="N", help="how long; default 120, with --search 5 for each")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="multiply every attack's rate")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="what the attacks are made from; default 1")
    parser.add_argument("--search", action="store_true", help="find the rate that honest clients do not stand, only")
    parser.add_argument("--json", action="store_true", help="print all figures for a program")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="put the tables into a Markdown file")
    options = parser.parse_args(arguments)
    if options.seconds is None:
        options.seconds = 5.0 if options.search else 120.0
    if not options.seconds > 0 or not options.scale > 0 or options.seed < 0:
        parser.error("--seconds and --scale are positive, --seed is not negative")
    return options


if __name__ == "__main__":
    sys.exit(main())
