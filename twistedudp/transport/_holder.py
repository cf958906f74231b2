"""Which process holds a UDP port: what an operator wants to know when a port is taken.

Theory of operation: Linux lists the sockets of a network namespace in ``/proc/net/udp`` and ``/proc/net/udp6``, with an
inode each, and what a process has open in ``/proc/PID/fd``, where a socket is a link that names its inode. The tables
are readable to all, other users' processes are not: then nothing can be told.
"""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..address import unmapped

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["port_holder"]

_PROC = Path("/proc")
_SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")


def port_holder(port: int, host: str = "", *, proc: Path = _PROC) -> str | None:
    """Return who holds a UDP port, as ``"name (pid 1234)"``; several are separated by commas.

    Args:
        port: The UDP port.
        host: The numeric address that is wanted on it; a socket bound to quite another address is no obstacle and is
            not named. ``""`` means all addresses.
        proc: Where the proc file system is mounted.

    Returns:
        None where it cannot be told: the port is free, the process is another user's, or there is no such table.
    """
    try:
        inodes = set(_inodes(proc, port, unmapped(host.partition("%")[0])))
        holders = sorted(_processes(proc, inodes)) if inodes else []
    except (OSError, ValueError, IndexError):
        return None
    return ", ".join(f"{name} (pid {pid})" for pid, name in holders) or None


def _inodes(proc: Path, port: int, host: str) -> Iterator[str]:
    """Yield the inodes of the sockets that stand in the way of ``host`` and ``port``."""
    for table in ("udp", "udp6"):
        path = proc / "net" / table
        if not path.exists():  # no IPv6 in this kernel
            continue
        for line in path.read_text(encoding="ascii").splitlines()[1:]:
            columns = line.split()
            packed, _, port_digits = columns[1].partition(":")
            if int(port_digits, 16) == port and _collide(_unpack(packed), host):
                yield columns[9]


def _unpack(digits: str) -> str:
    """Return the host of a table's column: 32-bit words, each in this machine's byte order (``%08X``)."""
    words = (int(digits[start : start + 8], 16) for start in range(0, len(digits), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    return unmapped(socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed))


def _collide(held: str, wanted: str) -> bool:
    """Tell whether a socket bound to ``held`` keeps another from binding ``wanted``."""
    if wanted == "::" or held == "::":  # a wildcard of IPv6 serves IPv4 as well
        return True
    if (":" in held) != (":" in wanted):
        return False
    return held in {wanted, "0.0.0.0"} or wanted in {"", "0.0.0.0"}  # noqa: S104  # compared with, not bound to


def _processes(proc: Path, inodes: set[str]) -> Iterator[tuple[int, str]]:
    """Yield the processes that have one of the sockets open, and their command names."""
    for directory in proc.iterdir():
        if directory.name.isdigit() and _has_open(directory, inodes):
            yield int(directory.name), (directory / "comm").read_text(encoding="utf-8", errors="replace").strip()


def _has_open(directory: Path, inodes: set[str]) -> bool:
    try:
        for entry in (directory / "fd").iterdir():
            link = _SOCKET_LINK.fullmatch(str(entry.readlink()))
            if link is not None and link[1] in inodes:
                return True
    except OSError:  # another user's process, or one that has just ended
        pass
    return False
