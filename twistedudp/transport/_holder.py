"""Which sockets and processes hold a UDP port: what an operator wants to know when a port is taken.

Theory of operation: Linux lists the sockets of a network namespace in ``/proc/net/udp`` and ``/proc/net/udp6``, with an
inode each, and what a process has open in ``/proc/PID/fd``, where a socket is a link that names its inode. The tables
are readable to all, other users' processes are not: then nothing can be told. A line of a table that cannot be
understood is left out, for a kernel may add columns.
"""

from __future__ import annotations

import re
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from ..address import unmapped

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

__all__ = ["PROC", "ListedSocket", "Process", "listed_sockets", "parse_socket_table", "port_holder", "socket_processes"]

PROC: Final = Path("/proc")
"""Where the proc file system is mounted."""

_SOCKET_LINK = re.compile(r"socket:\[(\d{1,20})\]", re.ASCII)

_END = r"([0-9A-F]{8}|[0-9A-F]{32}):([0-9A-F]{4})"
_LINE = re.compile(
    rf"\s*\d+: {_END} {_END} ([0-9A-F]{{2}}) [0-9A-F]{{8}}:([0-9A-F]{{8}}) \S+ \S+\s+(\d{{1,10}})\s+\d+"
    r"\s+(\d{1,20})\s+\d+\s+\S+(?:\s+(\d{1,10}))?",
    re.ASCII,
)
"""``udp4_format_sock`` and ``__ip6_dgram_sock_seq_show`` of Linux; the tables of TCP begin in the same way."""


class ListedSocket(NamedTuple):
    """A socket as a table of the kernel has it."""

    host: str
    """The numeric address it is bound to; IPv4-mapped IPv6 as IPv4, no scope."""
    port: int
    peer: tuple[str, int]
    """What it is connected to; port 0 where it is not."""
    state: int
    """For UDP 7 (not connected) or 1; 10 is a listener of TCP (``net/tcp_states.h``)."""
    queued: int
    """Bytes of the kernel's accounting that wait in the receive queue."""
    uid: int
    """The user who opened it."""
    inode: int
    drops: int
    """Datagrams that it has lost since it was opened; 0 in tables of TCP."""
    family: socket.AddressFamily

    @property
    def connected(self) -> bool:
        """Whether it takes datagrams from one peer only."""
        return self.peer[1] != 0


class Process(NamedTuple):
    """A process that has a socket open."""

    pid: int
    name: str
    """Its command name (``/proc/PID/comm``), which it may have set to anything."""


def port_holder(port: int, host: str = "", *, proc: Path = PROC) -> str | None:
    """Return who holds a UDP port, as ``"name (pid 1234)"``; several are separated by commas.

    Args:
        port: The UDP port.
        host: The numeric address that is wanted on it; a socket bound to quite another address is no obstacle and is
            not named. ``""`` means all addresses.
        proc: Where the proc file system is mounted.

    Returns:
        None where it cannot be told: the port is free, the process is another user's, or there is no such table.
    """
    wanted = unmapped(host.partition("%")[0])
    in_the_way = {
        listed.inode for listed in listed_sockets(proc) if listed.port == port and _collide(listed.host, wanted)
    }
    holders = sorted({process for having in socket_processes(in_the_way, proc).values() for process in having})
    return ", ".join(f"{name} (pid {pid})" for pid, name in holders) or None


def listed_sockets(proc: Path = PROC, tables: Collection[str] = ("udp", "udp6")) -> list[ListedSocket]:
    """Return the sockets of this network namespace; none where there are no such tables.

    Args:
        proc: Where the proc file system is mounted, or the directory of a process whose namespace is meant.
        tables: Which of the tables in ``net``.
    """
    listed = []
    for table in tables:
        try:
            text = (proc / "net" / table).read_text(encoding="ascii", errors="replace")
        except OSError:  # no IPv6 in this kernel, or no proc file system
            continue
        listed += parse_socket_table(text)
    return listed


def parse_socket_table(text: str) -> list[ListedSocket]:
    """Return the sockets of one table, such as ``/proc/net/udp``; what cannot be understood is left out."""
    return [_parsed(found) for found in map(_LINE.match, text.splitlines()) if found is not None]


def _parsed(found: re.Match[str]) -> ListedSocket:
    local, local_port, remote, remote_port, state, queued, uid, inode, drops = found.groups()
    return ListedSocket(
        host=_unpack(local),
        port=int(local_port, 16),
        peer=(_unpack(remote), int(remote_port, 16)),
        state=int(state, 16),
        queued=int(queued, 16),
        uid=int(uid),
        inode=int(inode),
        drops=int(drops or 0),
        family=socket.AF_INET if len(local) == 8 else socket.AF_INET6,
    )


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


def socket_processes(inodes: Collection[int], proc: Path = PROC) -> dict[int, list[Process]]:
    """Return for each of the sockets, by inode, the processes that have it open, as far as this user may see them.

    Args:
        inodes: Those of the sockets.
        proc: Where the proc file system is mounted.
    """
    found: dict[int, list[Process]] = {}
    try:
        directories = [directory for directory in proc.iterdir() if directory.name.isdecimal()] if inodes else []
    except OSError:  # no proc file system
        directories = []
    for directory in sorted(directories, key=lambda directory: int(directory.name)):
        held = set(_open_sockets(directory)).intersection(inodes)
        if held:
            try:
                name = (directory / "comm").read_text(encoding="utf-8", errors="replace").strip()
            except OSError:  # it has just ended, and holds nothing any more
                continue
            for inode in held:
                found.setdefault(inode, []).append(Process(int(directory.name), name))
    return found


def _open_sockets(directory: Path) -> Iterator[int]:
    with suppress(OSError):  # another user's process, or one that has just ended
        for entry in (directory / "fd").iterdir():
            with suppress(OSError):  # closed since it was listed
                link = _SOCKET_LINK.fullmatch(str(entry.readlink()))
                if link is not None:
                    yield int(link[1])
