"""Whether a port is held in another network namespace of this machine, such as a container's.

Theory of operation: sockets show in the tables of their own network namespace only, and each process has its own
view of these at ``/proc/PID/net``. So one process of each other namespace is looked at, as far as this user may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..transport._holder import PROC, listed_sockets, socket_processes

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["holders_elsewhere"]

MOST_NAMESPACES: Final = 64
"""Namespaces that are looked into: a machine with as many containers takes a tenth of a second."""


def holders_elsewhere(port: int, proc: Path = PROC) -> list[str]:
    """Return who holds a UDP port in other network namespaces, a line each.

    Args:
        port: The port.
        proc: Where the proc file system is mounted.
    """
    lines = []
    for pid in _one_of_each(proc):
        inodes = {listed.inode for listed in listed_sockets(proc / str(pid)) if listed.port == port}
        having = sorted({process for found in socket_processes(inodes, proc).values() for process in found})
        if inodes:
            who = ", ".join(f"{process.name} (pid {process.pid})" for process in having) or "a process"
            lines.append(
                f"but in another network namespace, perhaps a container's, {who} holds UDP port {port}: "
                "it is reached there only, or through a forwarded port"
            )
    return lines


def _one_of_each(proc: Path) -> list[int]:
    """Return a process of each network namespace that can be seen, without this process's own."""
    own = _namespace(proc / "self")
    found: dict[str, int] = {}
    try:
        pids = sorted(int(directory.name) for directory in proc.iterdir() if directory.name.isdecimal())
    except OSError:
        pids = []
    for pid in pids:
        namespace = _namespace(proc / str(pid))
        if own and namespace and namespace != own:
            found.setdefault(namespace, pid)
        if len(found) >= MOST_NAMESPACES:
            break
    return list(found.values())


def _namespace(process: Path) -> str:
    try:
        return str((process / "ns" / "net").readlink())
    except OSError:  # another user's process, or one that has just ended
        return ""
