"""What this machine's kernel tells of itself: the range of its ports, its buffers, its packet filter.

Theory of operation: plain files below /proc, read through ``thread-self`` where they belong to a network namespace. A
file that is not there, as on other systems, is no line of evidence.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..address import Address

__all__ = ["filtering", "own_host", "port_range", "receive_default", "setting", "udp_sockets"]

_SYSTEM: Final = Path("/proc/sys")
_NETWORK: Final = Path("/proc/thread-self/net")


def setting(name: str) -> str:
    """Return a sysctl, such as ``net.core.rmem_max``; empty where there is none."""
    try:
        return " ".join((_SYSTEM / name.replace(".", "/")).read_text("ascii").split())
    except OSError:
        return ""


def port_range() -> tuple[int, int] | None:
    """Return the first and the last port that the kernel gives out by itself (net.ipv4.ip_local_port_range)."""
    fields = setting("net.ipv4.ip_local_port_range").split()
    return (int(fields[0]), int(fields[1])) if len(fields) == 2 else None


def udp_sockets(first: int, last: int) -> int | None:
    """Return how many UDP ports from the first to the last are taken; None where it is not told."""
    taken = set()
    seen = False
    for name in ("udp", "udp6"):
        try:
            lines = (_NETWORK / name).read_text("ascii").splitlines()[1:]
        except OSError:
            continue
        seen = True
        taken |= {int(line.split()[1].rpartition(":")[2], 16) for line in lines}
    return sum(first <= port <= last for port in taken) if seen else None


def receive_default() -> int | None:
    """Return the receive buffer, in the bytes that a program would ask for, of a socket that asks for none."""
    text = setting("net.core.rmem_default")
    return int(text) // 2 if text else None  # the kernel counts its own overhead in (socket(7))


def filtering() -> tuple[str, ...]:
    """Return how full the table of connections is, a line or none."""
    count, most = setting("net.netfilter.nf_conntrack_count"), setting("net.netfilter.nf_conntrack_max")
    return (f"connections tracked: {count} of {most} (net.netfilter.nf_conntrack_max)",) if count and most else ()


def own_host(peer: Address) -> str:
    """Return the address that datagrams to a peer leave from; empty where the kernel has none. Nothing is sent."""
    with _socket_for(peer) as asking:
        try:
            asking.connect(_sockaddr(peer))
        except OSError:
            return ""
        host: str = asking.getsockname()[0]
    return host


def _socket_for(peer: Address) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in peer[0] else socket.AF_INET, socket.SOCK_DGRAM)


def _sockaddr(peer: Address) -> tuple[object, ...]:
    [(*_, sockaddr)] = socket.getaddrinfo(*peer, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST)
    return tuple(sockaddr)
