"""What a benchmark ran on, and how its figures are written down: a table for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["machine", "machine_text", "markdown_row", "put_into", "spread", "write_json"]

_PACKAGES: Final = ("twistedudp", "Twisted", "msgpack", "msgspec", "rpcudp", "u-msgpack-python", "aiocoap", "uvloop")
_PROGRAMS: Final = {
    "gcc": ("gcc", "-dumpfullversion"),
    "Go": ("go", "env", "GOVERSION"),
    "Node": ("node", "--version"),
}
"""What tells the versions of what the contestants are built with or run in."""
_PATIENCE: Final = 30.0
"""Seconds for one of these, which takes milliseconds."""


_LOAD: Final = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
"""How much else the machine had to do in the minute before the benchmark began: much of it spoils all figures."""


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, kernel, Python, and the packages' versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": _LOAD,
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "programs": {name: found for name in _PROGRAMS if (found := _program_version(name))},
    }


def machine_text() -> str:
    """Return the same in a few words."""
    here = machine()
    packages = ", ".join(f"{name} {found}" for name, found in {**here["packages"], **here["programs"]}.items())
    load = "" if _LOAD is None else f", load average {_LOAD:.1f} at the start"
    return f"{here['processor']}, {here['cores']} cores, {here['kernel']}, {here['python']}{load}\n{packages}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return a median with the least and the greatest value."""
    middle = f"{statistics.median(values):,.{digits}f}"
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})" if len(values) > 1 else middle


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a benchmark's figures, with the machine's."""
    path.write_text(json.dumps({"machine": machine(), **content}, indent=2) + "\n", encoding="utf-8")


def markdown_row(*cells: str, heading: bool = False) -> list[str]:
    """Return the lines of one row of a Markdown table: two for its heading, otherwise one."""
    row = f"| {' | '.join(cells)} |"
    return [row, "|---" * len(cells) + "|"] if heading else [row]


def put_into(path: Path, name: str, text: str) -> None:
    """Put tables into a Markdown file: between the comments that mark their place, or at its end.

    Args:
        path: The file; it is made if it is not there.
        name: What the place is called: it begins behind ``<!-- figures: NAME -->`` and ends at ``<!-- end: NAME -->``.
        text: The tables.
    """
    begin, end = f"<!-- figures: {name} -->", f"<!-- end: {name} -->"
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    head, found, rest = before.partition(begin)
    _, ended, tail = rest.partition(end)
    if not (found and ended):
        head, tail = f"{before.rstrip()}\n\n" if before.strip() else "", "\n"
    path.write_text(f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}", encoding="utf-8")


@cache
def _program_version(name: str) -> str:
    command = _PROGRAMS[name]
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    return done.stdout.strip().lstrip("vgo") if not done.returncode else ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """Return the processor's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
