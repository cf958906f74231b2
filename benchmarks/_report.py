"""What a benchmark ran on, and how its figures are written down: a table for people, JSON for programs."""

from __future__ import annotations

import json
import os
import platform
import statistics
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["machine", "machine_text", "spread", "write_json"]

_PACKAGES: Final = ("twistedudp", "Twisted", "msgpack", "msgspec", "rpcudp", "u-msgpack-python", "aiocoap")


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, kernel, Python, and the packages' versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
    }


def machine_text() -> str:
    """Return the same in a few words."""
    here = machine()
    packages = ", ".join(f"{name} {found}" for name, found in here["packages"].items())
    return f"{here['processor']}, {here['cores']} cores, {here['kernel']}, {here['python']}\n{packages}"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return a median with the least and the greatest value."""
    middle = f"{statistics.median(values):,.{digits}f}"
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})" if len(values) > 1 else middle


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a benchmark's figures, with the machine's."""
    path.write_text(json.dumps({"machine": machine(), **content}, indent=2) + "\n", encoding="utf-8")


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
