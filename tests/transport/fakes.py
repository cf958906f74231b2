"""A socket that does what a test says, and the bytes in which Linux tells of errors and addresses."""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Any

from twisted.internet.protocol import DatagramProtocol

from twistedudp.transport import _kernel

PEER = ("192.0.2.7", 4242)
OTHER = ("192.0.2.8", 4242)


def os_error(number: int) -> OSError:
    """Return the exception that a system call raises."""
    return OSError(number, os.strerror(number))


def would_block() -> OSError:
    """Return the exception of a socket that has nothing."""
    return os_error(errno.EAGAIN)


def pktinfo(local: str, addressed: str | None = None) -> tuple[int, int, bytes]:
    """Return the control message of an IPv4 datagram: to which address it went."""
    data = struct.pack("@i4s4s", 3, socket.inet_aton(local), socket.inet_aton(addressed or local))
    return socket.IPPROTO_IP, _kernel.IP_PKTINFO, data


def pktinfo6(addressed: str, interface: int = 3) -> tuple[int, int, bytes]:
    """Return the control message of an IPv6 datagram: to which address it went."""
    data = struct.pack("@16sI", socket.inet_pton(socket.AF_INET6, addressed), interface)
    return socket.IPPROTO_IPV6, _kernel.IPV6_PKTINFO, data


def drop_count(count: int) -> tuple[int, int, bytes]:
    """Return the control message that tells how many datagrams did not fit."""
    return socket.SOL_SOCKET, _kernel.SO_RXQ_OVFL, struct.pack("=I", count)


def arrived(nanoseconds: int) -> tuple[int, int, bytes]:
    """Return the control message that tells when a datagram arrived."""
    return socket.SOL_SOCKET, _kernel.SO_TIMESTAMPNS, struct.pack("@ll", *divmod(nanoseconds, 1_000_000_000))


def together(size: int) -> tuple[int, int, bytes]:
    """Return the control message of a buffer with several datagrams."""
    return socket.IPPROTO_UDP, _kernel.UDP_GRO, struct.pack("=i", size)


def icmp_error(
    number: int = errno.ECONNREFUSED,
    *,
    origin: int = 2,
    icmp: tuple[int, int] = (3, 3),
    info: int = 0,
    reporter: bytes = b"",
) -> tuple[int, int, bytes]:
    """Return the control message of an entry of an IPv4 error queue."""
    data = struct.pack("=IBBBxII", number, origin, *icmp, info, 0) + reporter
    return socket.IPPROTO_IP, _kernel.IP_RECVERR, data


def reporter4(host: str) -> bytes:
    """Return a ``sockaddr_in``."""
    return struct.pack("=HH", socket.AF_INET, 0) + socket.inet_aton(host) + bytes(8)


def reporter6(host: str) -> bytes:
    """Return a ``sockaddr_in6``."""
    return struct.pack("=HHI", socket.AF_INET6, 0, 0) + socket.inet_pton(socket.AF_INET6, host) + bytes(4)


class FakeSocket:
    """A socket with scripted input.

    Attributes:
        arrivals: What ``recvfrom`` and ``recvmsg`` return next, exceptions are raised; then it would block.
        queue: What the error queue holds: payload, control messages, address.
        outcomes: What the next sends raise, None for success; then all succeed.
        sent: What was sent: payload, control messages, address (None on a connected socket).
        drains: How often the error queue was asked.
        drops: What SO_MEMINFO tells, None if it is not known here.
    """

    def __init__(self, family: socket.AddressFamily = socket.AF_INET) -> None:
        self.family = family
        self.arrivals: list[Any] = []
        self.queue: list[tuple[bytes, list[tuple[int, int, bytes]], Any]] = []
        self.outcomes: list[Exception | None] = []
        self.sent: list[tuple[bytes, list[tuple[int, int, bytes]], Any]] = []
        self.drains = 0
        self.broadcast = 0
        self.drops: int | None = 0
        self.connected: Any = None
        self.connect_error: OSError | None = None

    def recvfrom(self, size: int) -> Any:
        """Return the next arrival, cut as the kernel cuts."""
        if not self.arrivals:
            raise would_block()
        arrival = self.arrivals.pop(0)
        if isinstance(arrival, BaseException):
            raise arrival
        return (arrival[0][:size], *arrival[1:])

    def recvmsg(self, size: int, _: int, flags: int = 0) -> Any:
        """Return the next arrival with its control messages, or the next of the error queue."""
        if flags & _kernel.MSG_ERRQUEUE:
            self.drains += 1
            if not self.queue:
                raise would_block()
            quoted, ancillary, sockaddr = self.queue.pop(0)
            return quoted, ancillary, flags, sockaddr
        datagram, ancillary, sockaddr = self.recvfrom(size)
        return datagram, ancillary, 0, sockaddr

    def send(self, datagram: bytes) -> None:
        """Send on a connected socket."""
        self._send(datagram, [], None)

    def sendto(self, datagram: bytes, sockaddr: Any) -> None:
        """Send to an address."""
        self._send(datagram, [], sockaddr)

    def sendmsg(self, pieces: Any, ancillary: Any, _: int, sockaddr: Any) -> None:
        """Send to an address, with control messages."""
        self._send(b"".join(pieces), ancillary, sockaddr)

    def connect(self, sockaddr: Any) -> None:
        """Connect."""
        if self.connect_error is not None:
            raise self.connect_error
        self.connected = sockaddr

    def getsockopt(self, _level: int, option: int, size: int = 0) -> int | bytes:
        """Return SO_MEMINFO or SO_BROADCAST, the only ones that are asked for."""
        if option != _kernel.SO_MEMINFO:
            return self.broadcast
        if self.drops is None:
            raise os_error(errno.ENOPROTOOPT)
        return struct.pack("=9I", *range(8), self.drops)[:size]

    def _send(self, datagram: bytes, ancillary: Any, sockaddr: Any) -> None:
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if outcome is not None:
            raise outcome
        self.sent.append((datagram, ancillary, sockaddr))


class Notes(DatagramProtocol):
    """A protocol that notes what it is told."""

    noisy = False

    def __init__(self) -> None:
        self.notes: list[tuple[Any, ...]] = []
        self.does: Any = lambda *_: None

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Note a datagram, then do what the test wants."""
        self.notes.append((datagram, addr))
        self.does(datagram, addr)

    def connectionRefused(self) -> None:
        """Note a refusal."""
        self.notes.append(("refused",))


class NotesAll(Notes):
    """Notes ICMP errors as well."""

    def peer_unreachable(self, peer: Any, reason: Any, quoted: bytes) -> None:
        """Note an ICMP error."""
        self.notes.append(("unreachable", peer, reason.errno, quoted))
        self.does(quoted, peer)
