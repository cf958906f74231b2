"""The UDP sockets at a port of this machine, watched for a moment.

Theory of operation: a datagram in a receive queue is nothing wrong: it may have come just now. So the kernel's tables
are looked at several times within half a second. A queue that was ever empty is one that its process reads; one that
never was is one that it does not read, or not fast enough. In the same way counters of lost datagrams say little, for
they count since the socket was opened or the machine started; what they have grown by meanwhile does.

``/proc/net/snmp`` and ``snmp6`` count for the network namespace as a whole (RFC 4113, ``net/ipv4/proc.c``).
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ..transport._holder import PROC, listed_sockets, socket_processes
from ._local_diag import ask_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from ..transport._holder import ListedSocket, Process
    from ._local_diag import SocketDetails

__all__ = [
    "COUNTERS",
    "LOOKS",
    "PAUSE",
    "Observation",
    "WatchedSocket",
    "parse_snmp",
    "process_facts",
    "read_limit",
    "watch_port",
]

LOOKS: Final = 6
"""How often the tables are looked at."""

PAUSE: Final = 0.1
"""Seconds between two looks."""

COUNTERS: Final = {
    "RcvbufErrors": "a full receive buffer",
    "MemErrors": "no memory left for UDP sockets (sysctl net.ipv4.udp_mem)",
    "InCsumErrors": "a wrong checksum",
}
"""The counters that tell why datagrams that arrived were not delivered."""

_UDP_OF_IPV6 = re.compile(r"^Udp6(\w+)\s+(\d{1,20})\s*$", re.MULTILINE | re.ASCII)
_STATUS = re.compile(r"^(State|Uid):\s+(\S+)(?:\s+(\S+))?", re.MULTILINE | re.ASCII)


@dataclass(frozen=True)
class WatchedSocket:
    """One socket, as it was at the last look and in between.

    Attributes:
        listed: What the kernel's table said last.
        queued: Bytes in the receive queue at each look.
        dropped: Datagrams that it lost between the first look and the last.
        details: What else the kernel tells of it; None where it does not.
        processes: Who has it open, as far as this user may see.
    """

    listed: ListedSocket
    queued: tuple[int, ...]
    dropped: int
    details: SocketDetails | None = None
    processes: tuple[Process, ...] = ()

    @property
    def never_empty(self) -> bool:
        """Whether datagrams were waiting at each look."""
        return len(self.queued) > 1 and min(self.queued) > 0

    @property
    def growing(self) -> bool:
        """Whether its queue has only grown."""
        return self.queued[-1] > self.queued[0] and all(
            after >= before for before, after in zip(self.queued, self.queued[1:], strict=False)
        )

    @property
    def receive_buffer(self) -> int | None:
        """Bytes of the kernel's accounting that its queue may hold; None where it is not known."""
        return self.details.receive_buffer if self.details is not None else None


@dataclass(frozen=True)
class Observation:
    """What was seen of a port.

    Attributes:
        port: Which.
        sockets: Those that were there at the last look.
        seconds: From the first look to the last.
        grown: By how much the counters of this network namespace grew meanwhile, IPv4 and IPv6 together.
        readable: Whether there are such tables at all.
    """

    port: int
    sockets: tuple[WatchedSocket, ...]
    seconds: float = 0.0
    grown: Mapping[str, int] = field(default_factory=dict)
    readable: bool = True


def watch_port(
    port: int,
    *,
    proc: Path = PROC,
    looks: int = LOOKS,
    pause: float = PAUSE,
    sleep: Callable[[float], object] = time.sleep,
    ask: Callable[[int], dict[int, SocketDetails]] = ask_kernel,
) -> Observation:
    """Look at the sockets at a UDP port several times; it blocks meanwhile.

    Args:
        port: The port.
        proc: Where the proc file system is mounted.
        looks: How often to look, at least twice.
        pause: Seconds between two looks.
        sleep: What waits that long.
        ask: What tells of the sockets at a port beyond the tables.
    """
    if not (proc / "net" / "udp").exists():
        return Observation(port, (), readable=False)
    before = _counters(proc)
    seen = _look(port, proc)
    for _ in range(looks - 1):
        sleep(pause)
        # One that was closed meanwhile is forgotten.
        seen = {inode: seen.get(inode, []) + now for inode, now in _look(port, proc).items()}
    after = _counters(proc)
    details = ask(port) if seen else {}
    processes = socket_processes(seen, proc)
    watched = [_watched(looked, details.get(inode), processes.get(inode, ())) for inode, looked in seen.items()]
    grown = {name: max(count - before.get(name, 0), 0) for name, count in after.items()}
    return Observation(port, tuple(watched), (looks - 1) * pause, grown)


def _watched(
    looked: Sequence[ListedSocket], details: SocketDetails | None, processes: Iterable[Process]
) -> WatchedSocket:
    return WatchedSocket(
        listed=looked[-1],
        queued=tuple(listed.queued for listed in looked),
        dropped=(looked[-1].drops - looked[0].drops) & 0xFFFFFFFF,
        details=details,
        processes=tuple(processes),
    )


def _look(port: int, proc: Path) -> dict[int, list[ListedSocket]]:
    return {listed.inode: [listed] for listed in listed_sockets(proc) if listed.port == port}


def _counters(proc: Path) -> dict[str, int]:
    return parse_snmp(_text(proc / "net" / "snmp"), _text(proc / "net" / "snmp6"))


def parse_snmp(snmp: str, snmp6: str) -> dict[str, int]:
    """Return the counters of UDP, IPv4 and IPv6 together, such as ``RcvbufErrors``.

    Args:
        snmp: The text of ``/proc/net/snmp``: a line of names and a line of numbers for each protocol.
        snmp6: The text of ``/proc/net/snmp6``: a name and a number on each line.
    """
    counters: dict[str, int] = {}
    lines = [line.split() for line in snmp.splitlines() if line.startswith("Udp: ")]
    for names, numbers in zip(lines[::2], lines[1::2], strict=False):
        for name, number in zip(names[1:], numbers[1:], strict=False):
            counters[name] = counters.get(name, 0) + _number(number)
    for name, number in _UDP_OF_IPV6.findall(snmp6):
        counters[name] = counters.get(name, 0) + int(number)
    return counters


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 20 else 0


def process_facts(pid: int, proc: Path = PROC) -> tuple[int | None, str]:
    """Return a process's effective user and its state, a letter such as ``S`` or ``T`` (proc(5)).

    Args:
        pid: The process.
        proc: Where the proc file system is mounted.

    Returns:
        None and an empty text where it is not known.
    """
    found = {name: (first, second) for name, first, second in _STATUS.findall(_text(proc / str(pid) / "status"))}
    user = found.get("Uid", ("", ""))[1]
    return (_number(user) if user.isdecimal() else None), found.get("State", ("", ""))[0]


def read_limit(name: str, proc: Path = PROC) -> int | None:
    """Return a kernel setting such as ``net/core/rmem_max``, in bytes; None where it cannot be read."""
    text = _text(proc / "sys" / name).strip()
    return _number(text) if text.isdecimal() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
