"""The echo servers that ``benchmarks/echo`` compares: their names, how each is started, and why it may be missing."""

from __future__ import annotations

import inspect
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from _echo_build import GO, NODE, build_c, build_go

import twistedudp
from twistedudp.transport._backend import choose_backend

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CONTESTANTS", "Contestant", "Programs", "build", "command", "without_backend"]

_HERE: Final = Path(__file__).resolve().parent


class Contestant(NamedTuple):
    """One row of the tables."""

    name: str
    label: str
    kind: str = "python"
    """What it is written in: ``c``, ``python``, ``go`` or ``node``."""
    way: str = ""
    """Of the C floors, the way in which it reads and writes."""
    ours: bool = False
    """Whether it counts what it did, and can be asked for it."""

    def missing(self) -> str:
        """Return why it cannot take part here, and what to do about it; empty if it can."""
        if self.kind == "go":
            return "" if shutil.which(GO) else "Go is not installed (Debian: apt install golang-go)"
        if self.kind == "node":
            return "" if shutil.which(NODE) else "Node is not installed (Debian: apt install nodejs)"
        if self.name == "uvloop":
            return "" if find_spec("uvloop") else "it is not installed: pip install uvloop"
        if self.name == "udpecho" and find_spec("twisted.plugins.twistedudp_plugin") is None:
            return "twistd does not know udpecho, for twistedudp is not installed: pip install ."
        return without_backend(self.name.partition("-")[0]) if self.ours and self.name != "udpecho" else ""


def without_backend(name: str) -> str:
    """Return why a backend of ours cannot be measured; empty if it can."""
    if "backend" not in inspect.signature(twistedudp.listen).parameters:
        return "this twistedudp has no choice of backends"
    try:
        choose_backend(name)
    except twistedudp.errors.LocalError as error:
        return f"{error}; install twistedudp again where there is a C compiler: pip install --force-reinstall ."
    return ""


CONTESTANTS: Final = (
    Contestant("c-segment", "C, mmsg and UDP_SEGMENT", "c", "segment"),
    Contestant("c-mmsg", "C, recvmmsg/sendmmsg", "c", "mmsg"),
    Contestant("c-recvfrom", "C, recvfrom/sendto", "c", "recvfrom"),
    Contestant("mmsg", "ours, compiled", ours=True),
    Contestant("mmsg-wildcard", "ours, compiled, 0.0.0.0", ours=True),
    Contestant("udpecho", "ours, twistd udpecho", ours=True),
    Contestant("scalar", "ours, scalar", ours=True),
    Contestant("scalar-wildcard", "ours, scalar, 0.0.0.0", ours=True),
    Contestant("twisted", "Twisted's own port"),
    Contestant("tutorial", "Python, recvfrom/sendto"),
    Contestant("asyncio", "asyncio"),
    Contestant("uvloop", "uvloop"),
    Contestant("go", "Go", "go"),
    Contestant("node", "Node", "node"),
)
"""In the order of the tables."""


class Programs(NamedTuple):
    """What was built: the paths of the programs, empty for what is not needed."""

    load: str
    floor: str = ""
    go: str = ""


def build(folder: Path, contestants: Sequence[Contestant]) -> Programs:
    """Build what these contestants need, and the load generator.

    Raises:
        NotUsable: Something cannot be built.
    """
    kinds = {contestant.kind for contestant in contestants}
    return Programs(
        build_c("echo_load", folder),
        build_c("echo_floor", folder) if "c" in kinds else "",
        build_go(folder) if "go" in kinds else "",
    )


def command(contestant: Contestant, programs: Programs, address: str) -> list[str]:
    """Return what starts a contestant's server on an address."""
    if contestant.kind == "c":
        return [programs.floor, contestant.way, address]
    if contestant.kind == "go":
        return [programs.go, address]
    if contestant.kind == "node":
        return [NODE, str(_HERE / "echo.js"), address]
    return [sys.executable, str(_HERE / "_echo_serve.py"), contestant.name, address]
