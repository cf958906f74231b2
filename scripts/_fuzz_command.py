"""The command line of scripts/fuzz, which is no module itself since the folder ``fuzz`` has its name.

Theory of operation: as scripts/demo; the rest is in _fuzz.py, and what is fuzzed in fuzz/.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from _environment import ROOT, EnvironmentNotUsable, prepare, run_with

CORPORA: Final = ROOT / "fuzz" / "corpus"


def main() -> int:
    """Prepare the environment and become the program that fuzzes."""
    options = _options()
    if not options.installed:
        try:
            python = prepare(("fuzz", "dtls"))
        except EnvironmentNotUsable as error:
            print(f"scripts/fuzz: {error}", file=sys.stderr)
            return 2
        run_with(python, str(ROOT / "scripts" / "fuzz"), "--installed", *sys.argv[1:])
    import _fuzz  # noqa: PLC0415  # it needs what the environment has

    try:
        return _fuzz.run(options)
    except _fuzz.FuzzingNotPossible as error:
        print(f"scripts/fuzz: {error}", file=sys.stderr)
        return 2


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Search for inputs that break an invariant.")
    targets = sorted(path.name for path in CORPORA.iterdir())
    parser.add_argument("target", nargs="?", metavar="TARGET", help=f"one of {', '.join(targets)}; default: each")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--seconds", type=_positive, default=60, metavar="N", help="seconds for each target (default %(default)s)"
    )
    what.add_argument(
        "--short", action="store_true", help="a fixed number of executions from a fixed seed; keep nothing"
    )
    what.add_argument("--replay", metavar="INPUT", help="tell what one input does: a file, or its bytes in hexadecimal")
    what.add_argument("--minimise", action="store_true", help="rebuild the corpus from the fewest inputs")
    parser.add_argument("--corpus", type=Path, default=CORPORA, metavar="DIR", help="another folder of corpora")
    parser.add_argument("--installed", action="store_true", help="install nothing: fuzz what this Python has installed")
    options = parser.parse_args()
    if options.target is not None and options.target not in targets:
        # Not by "choices", which prints a usage of several lines before it.
        print(f"scripts/fuzz: there is no target {options.target!r}, there are {', '.join(targets)}", file=sys.stderr)
        sys.exit(2)
    if options.replay is not None and options.target is None:
        print("scripts/fuzz: name the target whose input it is: scripts/fuzz TARGET --replay INPUT", file=sys.stderr)
        sys.exit(2)
    if not options.corpus.is_dir():
        print(f"scripts/fuzz: there is no folder {options.corpus}: make it, the corpora grow in it", file=sys.stderr)
        sys.exit(2)
    options.corpus = options.corpus.resolve()
    options.targets = targets if options.target is None else [options.target]
    return options


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10**7):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, such as 600")
    return int(text)
