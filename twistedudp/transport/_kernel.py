"""What Linux offers a UDP socket beyond Python's ``socket`` module: numbers, and bytes in and out.

Theory of operation: Python lacks some of these constants in some of the versions that we run on, so that all of them
stand here with the header they come from; nothing else in the package writes such a number. Beside them, the three
binary layouts that travel as control messages: the address a datagram was sent to (``in_pktinfo``, ``in6_pktinfo``),
and the error that the network made of one (``sock_extended_err``). Everything here is a pure function.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ..address import unmapped
from ..interfaces import Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "HOPS_EXHAUSTED",
    "IPV6_HOPLIMIT",
    "IPV6_RECVERR",
    "IPV6_RECVHOPLIMIT",
    "IPV6_RECVPKTINFO",
    "IP_PKTINFO",
    "IP_RECVERR",
    "IP_RECVTTL",
    "IP_TTL",
    "LINUX",
    "MEMINFO_SIZE",
    "MOST_ANSWER_HOPS",
    "MSG_ERRQUEUE",
    "ORIGIN_LOCAL",
    "SO_MEMINFO",
    "SO_RCVBUFFORCE",
    "SO_RXQ_OVFL",
    "SO_TIMESTAMPNS",
    "UDP_GRO",
    "UDP_SEGMENT",
    "Ancillary",
    "QueuedError",
    "ReturnPath",
    "hop_option",
    "hops_alone",
    "parse_arrival_time",
    "parse_counter",
    "parse_drops",
    "parse_extended_error",
    "parse_hops",
    "parse_return_path",
    "parse_segment_size",
    "segment_option",
]

LINUX: Final[bool] = sys.platform.startswith("linux")
"""Whether the options below mean anything to the kernel."""

IP_PKTINFO: Final = 8
"""``linux/in.h``: both the option and the control message."""
IP_TTL: Final = 2
"""``linux/in.h``: the control message that tells, or sets, a datagram's hop limit."""
IP_RECVTTL: Final = 12
"""``linux/in.h``: the option that has the kernel tell it."""
IPV6_RECVHOPLIMIT: Final = 51
"""``linux/in6.h``: the option."""
IPV6_HOPLIMIT: Final = 52
"""``linux/in6.h``: the control message."""
IP_RECVERR: Final = 11
"""``linux/in.h``"""
IPV6_RECVERR: Final = 25
"""``linux/in6.h``"""
IPV6_RECVPKTINFO: Final = 49
"""``linux/in6.h``: the option."""
IPV6_PKTINFO: Final = 50
"""``linux/in6.h``: the control message."""
SO_RCVBUFFORCE: Final = 33
"""``asm-generic/socket.h``"""
SO_RXQ_OVFL: Final = 40
"""``asm-generic/socket.h``: both the option and the control message."""
SO_TIMESTAMPNS: Final = 35
"""``asm-generic/socket.h``: the option that has the kernel tell when each datagram arrived, and its control message."""
SO_MEMINFO: Final = 55
"""``asm-generic/socket.h``, Linux 4.12: what a socket's buffers hold, and how many datagrams did not fit."""
MEMINFO_SIZE: Final = 36
"""Bytes of what SO_MEMINFO tells (``linux/sock_diag.h``): nine numbers."""
UDP_SEGMENT: Final = 103
"""``linux/udp.h``: the control message that has the kernel cut one buffer into datagrams of equal size."""
UDP_GRO: Final = 104
"""``linux/udp.h``: the option that lets the kernel deliver such datagrams in one buffer, and its control message."""
MSG_ERRQUEUE: Final = 0x2000
"""``linux/socket.h``"""
ORIGIN_LOCAL: Final = 1
"""``linux/errqueue.h``, ``SO_EE_ORIGIN_LOCAL``: the error was made by this machine's own kernel, at the send."""

Ancillary: TypeAlias = "list[tuple[int, int, bytes]]"
"""Control messages as ``recvmsg`` and ``sendmsg`` have them: level, type, data."""

_IN_PKTINFO = struct.Struct("@i4s4s")
_IN6_PKTINFO = struct.Struct("@16sI")
_EXTENDED_ERR = struct.Struct("=IBBBxII")
_SEGMENT = struct.Struct("=H")
_SEGMENT_SIZE = struct.Struct("=i")
_COUNTER = struct.Struct("=I")
_DROPS = struct.Struct("=32xI")  # linux/sock_diag.h: SK_MEMINFO_DROPS is the ninth
_TIMESPEC = struct.Struct("@ll")
_FAMILY = struct.Struct("=H")
_HOPS = struct.Struct("=i")
_UNSPECIFIED_INTERFACE = 0
_IPV4_ANY = bytes(4)
_IPV4_FIRST_GROUP: Final = 224
"""RFC 5771: multicast addresses begin here; above are none that a host can have, but 255.255.255.255."""


MOST_ANSWER_HOPS: Final = 64
"""The hop limit of an answer to whatever came with more: the usual initial one (RFC 1700), enough for any path."""

HOPS_EXHAUSTED: Final[Ancillary] = [(socket.IPPROTO_IP, IP_TTL, bytes(4))]
"""Stands for a return path on which nothing is sent, for what came had no hop left to give; never given to the
kernel."""


class ReturnPath(NamedTuple):
    """How an answer leaves from the address that was asked."""

    ancillary: Ancillary
    """What ``sendmsg`` takes; empty where the kernel is to choose."""
    to_group: bool
    """Whether the address asked was a broadcast or multicast address, not one of this host's own."""


class QueuedError(NamedTuple):
    """One entry of a socket's error queue."""

    origin: int
    """``ORIGIN_LOCAL``, or who else made it (``linux/errqueue.h``)."""
    unreachable: Unreachable
    mtu: int
    """Where the datagram was too large (EMSGSIZE), the MTU in bytes as whoever reports it says (``ee_info``)."""


def parse_counter(data: bytes) -> int:
    """Return how many datagrams the socket had lost to a full receive buffer (the control message SO_RXQ_OVFL)."""
    return int(_COUNTER.unpack(data)[0])


def parse_drops(data: bytes) -> int | None:
    """Return how many datagrams the socket has lost to a full receive buffer (SO_MEMINFO), None if it is not told."""
    return int(_DROPS.unpack(data)[0]) if len(data) == MEMINFO_SIZE else None


def parse_arrival_time(data: bytes) -> int:
    """Return when a datagram arrived, in nanoseconds since the epoch (the control message SO_TIMESTAMPNS)."""
    seconds, nanoseconds = _TIMESPEC.unpack(data)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def segment_option(size: int) -> tuple[int, int, bytes]:
    """Return the control message by which ``sendmsg`` cuts a buffer into datagrams of ``size`` bytes (UDP_SEGMENT)."""
    return socket.IPPROTO_UDP, UDP_SEGMENT, _SEGMENT.pack(size)


def parse_segment_size(data: bytes) -> int:
    """Return the size in bytes of each of the datagrams that one buffer holds (the control message UDP_GRO)."""
    return int(_SEGMENT_SIZE.unpack(data)[0])


def parse_hops(data: bytes) -> int:
    """Return a datagram's hop limit (the control messages IP_TTL and IPV6_HOPLIMIT)."""
    return int(_HOPS.unpack(data)[0])


def hop_option(hops: int, *, ipv6: bool) -> tuple[int, int, bytes]:
    """Return the control message by which ``sendmsg`` sets a datagram's hop limit."""
    if ipv6:
        return socket.IPPROTO_IPV6, IPV6_HOPLIMIT, _HOPS.pack(hops)
    return socket.IPPROTO_IP, IP_TTL, _HOPS.pack(hops)


def hops_alone(ancillary: Ancillary) -> Ancillary:
    """Return of the control messages of an answer those that do not name the address to send from."""
    return [message for message in ancillary if message[1] in (IP_TTL, IPV6_HOPLIMIT)]


def parse_return_path(asked: bytes) -> ReturnPath:
    """Turn the bytes of the control message IP_PKTINFO or IPV6_PKTINFO into the way back."""
    if len(asked) == _IN_PKTINFO.size:
        _, local, addressed = _IN_PKTINFO.unpack(asked)
        if local == _IPV4_ANY:  # it came before the socket had the option: only the header's destination is told
            if addressed[0] >= _IPV4_FIRST_GROUP:
                return ReturnPath([], to_group=True)
            local = addressed
        back = _IN_PKTINFO.pack(_UNSPECIFIED_INTERFACE, local, _IPV4_ANY)
        # ipi_spec_dst is the host's own address that received it (ip(7)); it differs from the header's destination
        # only where that is a broadcast or multicast address.
        return ReturnPath([(socket.IPPROTO_IP, IP_PKTINFO, back)], local != addressed)
    if len(asked) == _IN6_PKTINFO.size:
        addressed, interface = _IN6_PKTINFO.unpack(asked)
        if addressed[0] == 0xFF:  # RFC 4291 section 2.7: multicast, which cannot be a source
            return ReturnPath([], to_group=True)
        link_local = addressed[0] == 0xFE and addressed[1] & 0xC0 == 0x80  # RFC 4291 section 2.5.6
        # Only a link-local source needs its interface; any other may leave by whatever route leads to the peer.
        back = _IN6_PKTINFO.pack(addressed, interface if link_local else _UNSPECIFIED_INTERFACE)
        return ReturnPath([(socket.IPPROTO_IPV6, IPV6_PKTINFO, back)], to_group=False)
    return ReturnPath([], to_group=False)


def parse_extended_error(ancillary: Iterable[tuple[int, int, bytes]]) -> QueuedError | None:
    """Turn the control messages of an error queue entry into what happened, None if they do not tell."""
    for level, kind, data in ancillary:
        if (level == socket.IPPROTO_IP and kind == IP_RECVERR) or (
            level == socket.IPPROTO_IPV6 and kind == IPV6_RECVERR
        ):
            if len(data) < _EXTENDED_ERR.size:
                return None
            number, origin, icmp_type, icmp_code, info, _ = _EXTENDED_ERR.unpack_from(data)
            if origin <= ORIGIN_LOCAL:
                icmp_type = icmp_code = 0
            reporter = _host_of(data[_EXTENDED_ERR.size :])
            unreachable = Unreachable(number, os.strerror(number), icmp_type, icmp_code, reporter)
            return QueuedError(origin, unreachable, info if number == errno.EMSGSIZE else 0)
    return None


def _host_of(sockaddr: bytes) -> str:
    """Return the numeric host of a raw ``sockaddr_in`` or ``sockaddr_in6``, empty for anything else."""
    family = _FAMILY.unpack_from(sockaddr)[0] if len(sockaddr) >= _FAMILY.size else socket.AF_UNSPEC
    if family == socket.AF_INET and len(sockaddr) >= 8:
        return socket.inet_ntop(socket.AF_INET, sockaddr[4:8])
    if family == socket.AF_INET6 and len(sockaddr) >= 24:
        return unmapped(socket.inet_ntop(socket.AF_INET6, sockaddr[8:24]))
    return ""
