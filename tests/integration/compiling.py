"""C programs of tests, built from source when they are wanted.

Theory of operation: Python cannot send as fast as a port can read, so the tests that need a flood have it written in C.
A program is compiled once in a process, with warnings as errors, into a directory that is gone when the process ends.
"""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

__all__ = ["compiled", "missing_compiler"]

_SOURCES: Final = Path(__file__).parent
_PATIENCE: Final = 60.0  # seconds for a compiler that needs a tenth of one


def missing_compiler() -> str:
    """Return why no program can be built here, as the reason of a skipped test; empty if it can."""
    return "" if shutil.which("cc") else "there is no C compiler (Debian: gcc and libc6-dev)"


@functools.cache
def compiled(name: str) -> Path:
    """Return a program, built from ``name.c`` beside this file.

    Raises:
        AssertionError: It does not compile without a warning.
    """
    folder = Path(tempfile.mkdtemp(prefix="twistedudp-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = folder / name
    done = subprocess.run(
        ["cc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, _SOURCES / f"{name}.c"],  # noqa: S607  # whichever the user's is
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{name}.c does not compile:\n{done.stderr}")
    return program
