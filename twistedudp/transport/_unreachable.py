"""ICMP errors: taken from the socket's error queue, told to the protocol.

Theory of operation: with IP_RECVERR (ip(7)) Linux queues each ICMP error about a datagram that this socket sent,
together with the datagram's destination and the start of its payload. Until the queue is read, the error also makes the
socket readable, makes one ``recv`` fail, and makes the next ``send`` to *any* peer fail without sending; so whoever
meets an error calls :meth:`UnreachableReports.drain`. What was drained waits until the port is not in the midst of
anything: the end of the read turn, or the next reactor turn if the error was met outside of one. So a protocol is never
called from inside its own ``write()``.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

from ..address import canonical
from ..interfaces import Unreachable
from . import _kernel
from ._addresses import TwoGenerations, peer_of
from ._failures import CallbackFailures

if TYPE_CHECKING:
    import socket

    from twisted.internet.interfaces import IDelayedCall

    from ..address import Address
    from ._addresses import SockAddr
    from ._stats import DatagramStats

__all__ = ["ERRORS_PER_DRAIN", "MAX_PATHS", "MAX_WAITING_REPORTS", "PATH_MTU_LASTS", "UnreachableReports"]

ERRORS_PER_DRAIN: Final = 128
"""Errors read from the queue at once: at about 4 us each, half a millisecond. What remains wakes the port again."""

MAX_WAITING_REPORTS: Final = 16384
"""Reports that may wait for their delivery, some 600 bytes each: a client may send thousands of requests in one turn to
a server that is not there. What exceeds it is counted in ``reports_dropped``: an ICMP error is but a hint."""

MAX_PATHS: Final = 1024
"""Hosts of one generation whose path MTU is remembered, some 200 bytes each: paths that are narrower than the own
interface are rare, and any host can claim to have one."""

PATH_MTU_LASTS: Final = 600.0
"""Seconds for which a path MTU learned from a router is believed, as the kernel does (net.ipv4.route.mtu_expires,
net.ipv6.route.mtu_expires; RFC 1191 section 6.3 asks for 10 minutes): routes change."""

_LEAST_MTU: Final = 552  # of IPv4; the kernel believes no less (net.ipv4.route.min_pmtu), for ICMP can be forged
_LEAST_MTU_IPV6: Final = 1280  # RFC 8200 section 5: every link carries as much

_QUOTED_SIZE: Final = 2048  # routers quote 576 bytes (RFC 1812 section 4.3.2.3), IPv6 ones 1,280 (RFC 4443 section 2.4)
_ANCILLARY_SIZE: Final = 512  # the error with its reporter takes 64 bytes, the packet information 40 more


class UnreachableReports:
    """The errors of one socket on their way to its protocol.

    Attributes:
        in_turn: Whether a read turn is running, which will call :meth:`deliver` at its end.
        connected: Whether the port is connected, so that ``connectionRefused`` is called as well.
        failures: Where exceptions of the protocol go, those on datagrams as well.
    """

    def __init__(self, handle: socket.socket, protocol: Any, stats: DatagramStats, reactor: Any) -> None:
        self.in_turn = False
        self.connected = False
        self.failures = CallbackFailures(stats)
        self._handle = handle
        self._protocol = protocol
        self._peer_unreachable = getattr(protocol, "peer_unreachable", None)
        self._stats = stats
        self._reactor = reactor
        self._waiting: list[tuple[Address, Unreachable, bytes] | None] = []
        self._delayed: IDelayedCall | None = None
        self._closed = False
        self._paths: TwoGenerations[str, tuple[int, float]] = TwoGenerations(MAX_PATHS)

    def path_mtu(self, host: str) -> int | None:
        """Return the MTU of the path to a host in bytes, as ICMP or the own kernel told it, None where neither has.

        It counts what IP carries: a UDP payload has 28 bytes less over IPv4, 48 less over IPv6.

        Args:
            host: The numeric host.
        """
        try:
            known = self._paths.get(canonical(host))
        except ValueError:  # a name, "<broadcast>"
            return None
        if known is None or known[1] < self._reactor.seconds():
            return None
        return known[0]

    def drain(self) -> int:
        """Read the error queue, up to its bound, and return how many errors it held."""
        if not _kernel.LINUX:
            return 0
        for count in range(ERRORS_PER_DRAIN):
            try:
                quoted, ancillary, _, sockaddr = self._handle.recvmsg(
                    _QUOTED_SIZE, _ANCILLARY_SIZE, _kernel.MSG_ERRQUEUE
                )
            except OSError:
                return count
            queued = _kernel.parse_extended_error(ancillary)
            if queued is not None:
                self._take(queued, sockaddr, quoted)
        return ERRORS_PER_DRAIN

    def refused(self) -> None:
        """Note that a connected socket met ECONNREFUSED without an entry in the queue, as on systems without one."""
        if self.connected:
            self._stats.unreachable += 1
            self._wait(None)

    def no_route(self, sockaddr: SockAddr, number: int, datagram: bytes) -> None:
        """Note that the own kernel has no route for a datagram: its sender need not wait for an answer.

        Args:
            sockaddr: Where it was to go.
            number: The ``errno``.
            datagram: The whole payload.
        """
        self._stats.unreachable += 1
        if self._peer_unreachable is not None:
            self._wait((peer_of(sockaddr), Unreachable(number, os.strerror(number), 0, 0, ""), datagram))

    def deliver(self) -> None:
        """Tell the protocol what waits; what comes up meanwhile waits for the next reactor turn."""
        if self._delayed is not None:
            if self._delayed.active():
                self._delayed.cancel()
            self._delayed = None
        waiting, self._waiting = self._waiting, []
        for report in waiting:
            if self._closed:
                return
            if report is None:
                self._call(self._protocol.connectionRefused)
            else:
                self._call(self._peer_unreachable, *report)
        self._arm()

    def settle(self) -> None:
        """End a read turn: deliver what it has brought."""
        self.in_turn = False
        if self._waiting:
            self.deliver()

    def close(self) -> None:
        """Drop what waits and leave nothing in the reactor."""
        self._closed = True
        self._waiting.clear()
        if self._delayed is not None and self._delayed.active():
            self._delayed.cancel()
        self._delayed = None

    def _take(self, queued: _kernel.QueuedError, sockaddr: Any, quoted: bytes) -> None:
        reason = queued.unreachable
        if reason.errno == errno.EMSGSIZE:
            # A datagram too large for the path was refused at the write already; a router's "fragmentation needed"
            # (RFC 1191), "packet too big" (RFC 4443), lowers the path MTU that the kernel keeps. Neither says that the
            # peer is unreachable.
            self._learn_mtu(canonical(peer_of(sockaddr)[0]), queued)
            return
        self._stats.unreachable += 1
        if self._peer_unreachable is not None:
            self._wait((peer_of(sockaddr), reason, quoted))
        if self.connected and reason.errno == errno.ECONNREFUSED:
            self._wait(None)

    def _learn_mtu(self, host: str, queued: _kernel.QueuedError) -> None:
        """Remember how large a packet to a host may be: what the own kernel says, or a router if that is less."""
        mtu = max(queued.mtu, _LEAST_MTU_IPV6 if ":" in host else _LEAST_MTU)
        if queued.origin == _kernel.ORIGIN_LOCAL:
            if not queued.mtu:
                return
            mtu = queued.mtu
        else:
            self._stats.path_mtu_reports += 1
            known = self.path_mtu(host)
            if known is not None and known < mtu:
                return
        self._paths.put(host, (mtu, self._reactor.seconds() + PATH_MTU_LASTS))

    def _wait(self, report: tuple[Address, Unreachable, bytes] | None) -> None:
        if len(self._waiting) >= MAX_WAITING_REPORTS:
            self._stats.reports_dropped += 1
            return
        self._waiting.append(report)
        self._arm()

    def _arm(self) -> None:
        if self._waiting and not self.in_turn and self._delayed is None and not self._closed:
            self._delayed = self._reactor.callLater(0, self.deliver)

    def _call(self, callback: Any, *arguments: object) -> None:
        try:
            callback(*arguments)
        except BaseException:  # noqa: BLE001  # the reactor would catch it too, and drop the port for it
            self.failures.caught("the protocol's report of an unreachable peer failed")
