"""The programs of ``benchmarks/echo`` that are not Python, built from their sources here in a temporary directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

__all__ = ["FLAGS", "GO", "NODE", "NotUsable", "build_c", "build_go", "compiler"]

FLAGS: Final = ("-O2", "-Wall", "-Wextra", "-Werror")
GO: Final = "go"
NODE: Final = "node"

_HERE: Final = Path(__file__).resolve().parent
_LIMIT: Final = 300.0
"""Seconds for one program: Go builds its standard library as well the first time."""


class NotUsable(Exception):
    """Something that the benchmark needs is not there; the text says what, and what to do, in one line."""


def compiler() -> str:
    """Return the C compiler: what CC names, or cc, or gcc.

    Raises:
        NotUsable: There is none, or this is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise NotUsable("it needs Linux: the load generator and the floors use recvmmsg, sendmmsg and UDP_SEGMENT")
    named = os.environ.get("CC", "")
    for command in (named,) if named else ("cc", "gcc"):
        if found := shutil.which(command):
            return found
    missing = f"the C compiler {named!r} that CC names is not there" if named else "there is no C compiler"
    raise NotUsable(
        f"{missing}; the load generator is built from source: install gcc (Debian: apt install gcc libc6-dev)"
    )


def build_c(name: str, folder: Path) -> str:
    """Build a C program and return its path.

    Args:
        name: Its source beside this module, without the suffix.
        folder: Where to put it.

    Raises:
        NotUsable: It cannot be built.
    """
    made = str(folder / name)
    _run(name, [compiler(), *FLAGS, "-o", made, str(_HERE / f"{name}.c")], {})
    return made


def build_go(folder: Path) -> str:
    """Build Go's server without a network and return its path.

    Raises:
        NotUsable: It cannot be built.
    """
    made = str(folder / "echo_go")
    variables = {"GOPROXY": "off", "GOFLAGS": "", "GO111MODULE": "off", "GOTOOLCHAIN": "local"}
    if not os.environ.get("HOME"):
        variables["GOCACHE"] = str(folder / "go-build")
    _run("echo.go", [GO, "build", "-o", made, str(_HERE / "echo.go")], variables)
    return made


def _run(name: str, command: list[str], variables: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=_LIMIT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotUsable(f"{name} cannot be built: {error}") from None
    if done.returncode:
        # A compiler's first line with "error" says what is wrong; what follows are consequences.
        lines = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or [""]
        raise NotUsable(f"{name} cannot be built by {command[0]}: {lines[0]}")
