"""The process that fuzzes: ``python fuzz TARGET [OPTIONS OF LIBFUZZER]``, started by scripts/fuzz.

Theory of operation: atheris puts counters into the bytecode of every module that is imported under its hook, here those
of twistedudp, and libFuzzer looks at them after each input. Since a folder is run, Python has put it in front of the
path; instead the checkout goes to the end of it, so that the installed twistedudp is what is fuzzed (see scripts/test).
The variable ``TWISTEDUDP_FUZZ_PLANT`` names a bug of ``planted.py`` to be put in.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import tracemalloc
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Run libFuzzer, which ends the process."""
    name, *options = sys.argv[1:]
    # Not by an import statement: where there is no wheel of it, mypy cannot find it either.
    atheris: Any = importlib.import_module("atheris")
    bug = os.environ.get("TWISTEDUDP_FUZZ_PLANT")
    with atheris.instrument_imports(include=["twistedudp", *(["fuzz"] if bug else [])]):
        targets = importlib.import_module("fuzz.targets")
        if bug:
            importlib.import_module("fuzz.planted").plant(bug)
    target = targets.TARGETS[name]
    targets.stop_buffering_logs()
    if target.measures_memory:
        tracemalloc.start(1)
    # libFuzzer runs itself again to merge, by the shell, and takes its own name for a command.
    command = shlex.join([sys.executable, str(HERE), name])
    atheris.Setup([command, *options], target.play)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.path[0:1] = []
    sys.path.append(str(HERE.parent))
    main()
