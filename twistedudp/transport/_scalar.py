"""The backend in plain Python: one system call per datagram, on any POSIX system.

Theory of operation: :meth:`ScalarBackend.read_turn` reads and delivers until nothing waits or a bound is met, and
:meth:`ScalarBackend.send` sends at once. Both are written for the usual case: an answer to the datagram just delivered
needs no look at its address, because the tuple that the protocol writes to *is* the one it was given. A failing system
call leaves the path: :meth:`_send_failed` decides whose fault it was. The network's faults are counted as loss, the
caller's are raised where the caller made them.

:class:`Backend` is the surface that a second, compiled backend shares.
"""

from __future__ import annotations

import errno
import socket
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from twisted.internet.error import InvalidAddressError, MessageLengthError
from twisted.logger import Logger

from ..address import max_payload, unmapped
from ._addresses import is_broadcast
from ._errors import BroadcastNotAllowed, invalid_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..address import Address
    from ._addresses import SockAddr
    from ._kernel import Ancillary
    from ._routes import Route, Routes
    from ._stats import DatagramStats
    from ._unreachable import UnreachableReports

__all__ = ["DATAGRAMS_PER_TURN", "SECONDS_PER_TURN", "Backend", "Refused", "ScalarBackend"]

DATAGRAMS_PER_TURN: Final = 128
"""Datagrams read before the reactor gets its turn: enough that waking up (about 6 us) costs less than 0.1 us for each,
few enough that at 5 us each a timer waits 0.6 ms. Datagrams and not bytes, because empty ones cost as much."""

SECONDS_PER_TURN: Final = 0.004
"""Seconds after which a turn ends though fewer have been read: protocols that take long for each datagram must not add
up. A late timer of 10 ms is noticed by people and by retransmissions, so two ports may be busy at once."""

_NOT_PENDING: Final = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EPERM, errno.EINVAL})
"""Errors that a send makes itself; any other may have been waiting in the socket because of an earlier datagram."""

_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})
"""Errors of a send that say what an ICMP error would, without asking any router; the last where IPv6 is disabled."""

_NOBODY: Final[Address] = ("", 0)

Refused: TypeAlias = "tuple[bytes, Address, Exception]"
"""A datagram that cannot be sent, where it was to go, and what is wrong with it."""

_log = Logger(namespace="twistedudp.transport")


class Backend(Protocol):
    """What a port needs of a backend; the port owns the socket, the backend reads and writes it."""

    @property
    def delivering_to_group(self) -> bool:
        """True while a datagram is being delivered that was sent to a broadcast or multicast address."""

    def read_turn(self) -> None:
        """Deliver what has arrived, within the bounds of a turn. Raises nothing."""

    def send(self, datagram: bytes, addr: Address | None) -> None:
        """Send one datagram; the network's faults are counted, the caller's raised."""

    def send_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[Refused]:
        """Send several datagrams; return those that ``send`` would have raised an error for."""

    def connect(self, addr: Address) -> None:
        """Let the socket have one peer, to which ``send`` then sends without an address."""

    def stop(self) -> None:
        """Deliver nothing any more, also if a turn is just running; ``send`` goes on until the socket is closed."""


class ScalarBackend:
    """Reads and writes a socket with ``recvfrom`` or ``recvmsg``, ``sendto`` or ``sendmsg``.

    Args:
        handle: The bound socket.
        protocol: The ``DatagramProtocol``.
        stats: What to count in.
        routes: How to receive, and the ways to the peers.
        reports: Where the error queue is read.
        size_limit: Bytes of the largest datagram to deliver.
        clock: Returns monotonic seconds; only the length of a turn is measured with it.
    """

    def __init__(
        self,
        handle: socket.socket,
        protocol: Any,
        stats: DatagramStats,
        routes: Routes,
        reports: UnreachableReports,
        *,
        size_limit: int,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._handle = handle
        self._protocol = protocol
        self._stats = stats
        self._routes = routes
        self._reports = reports
        self._size_limit = size_limit
        self._clock = clock
        self._peer = _NOBODY
        self._connected: Address | None = None
        self._delivers = True

    @property
    def delivering_to_group(self) -> bool:
        """True while a datagram is being delivered that was sent to a broadcast or multicast address."""
        return self._peer is not _NOBODY and self._routes.to_group

    def read_turn(self) -> None:
        """Deliver what has arrived, within the bounds of a turn."""
        stats, protocol, receive, clock = self._stats, self._protocol, self._routes.receive, self._clock
        limit = self._size_limit
        size = limit + 1  # one byte more than allowed tells a datagram that is too large from one that just fits
        stats.turns += 1
        self._reports.in_turn = True
        delivered = octets = 0
        left = DATAGRAMS_PER_TURN
        ends = clock() + SECONDS_PER_TURN
        while self._delivers:
            try:
                datagram, peer = receive(size)
            except BlockingIOError:
                if left == DATAGRAMS_PER_TURN:  # woken, but not by a datagram: it was an error
                    self._reports.drain()
                break
            except OSError as error:
                self._receive_failed(error)
            else:
                length = len(datagram)
                if length > limit:
                    stats.oversize_dropped += 1
                else:
                    delivered += 1
                    octets += length
                    self._peer = peer
                    try:
                        protocol.datagramReceived(datagram, peer)
                    except BaseException:  # noqa: BLE001  # the reactor would catch it too, and drop the port for it
                        self._callback_failed()
            left -= 1
            if not left or clock() >= ends:
                stats.turns_cut_short += 1
                break
        self._peer = _NOBODY
        stats.datagrams_received += delivered
        stats.bytes_received += octets
        self._reports.settle()

    def send(self, datagram: bytes, addr: Address | None) -> None:
        """Send one datagram at once.

        Args:
            datagram: The payload.
            addr: The peer; may be None on a connected port.

        Raises:
            twisted.internet.error.MessageLengthError: UDP cannot carry a datagram of this size.
            twisted.internet.error.InvalidAddressError: The host is not numeric or not reachable from this kind of port,
                or the port is connected to another.
            BroadcastNotAllowed: A broadcast address, without ``setBroadcastAllowed(True)``.
            OSError: ``EINVAL`` for UDP port 0 and for a link-local address without its scope.
            OverflowError: A port above 65,535.
        """
        if self._connected is not None:
            self._send_connected(datagram, addr)
            return
        routes = self._routes
        known = routes.known.young.get
        route = routes.current if addr is self._peer else known(addr) or self._way_to(addr)  # type: ignore[arg-type]  # None is not in it
        try:
            if route is None:
                self._handle.sendto(datagram, addr)  # type: ignore[arg-type]  # it is the peer's, never None
            elif route[1]:
                self._handle.sendmsg((datagram,), route[1], 0, route[0])
            else:
                self._handle.sendto(datagram, route[0])
        except OSError as error:
            self._send_failed(error, datagram, addr, route)
        else:
            stats = self._stats
            stats.datagrams_sent += 1
            stats.bytes_sent += len(datagram)

    def send_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[Refused]:
        """Send several datagrams at once, in order.

        Returns:
            Those that the caller made wrong, with what :meth:`send` raised for each.
        """
        refused: list[Refused] = []
        for datagram, addr in datagrams:
            try:
                self.send(datagram, addr)
            except (OSError, MessageLengthError, InvalidAddressError, OverflowError) as error:  # noqa: PERF203  # its own
                refused.append((datagram, addr, error))
        return refused

    def connect(self, addr: Address) -> None:
        """Let the socket have one peer.

        Raises:
            RuntimeError: It has one already.
            twisted.internet.error.InvalidAddressError: The host is not numeric or not one for this socket.
            OSError: There is no route to it.
        """
        if self._connected is not None:
            raise RuntimeError("already connected, reconnecting is not currently supported")
        sockaddr, _ = self._routes.to(addr)
        try:
            self._handle.connect(sockaddr)
        except PermissionError as error:
            if self._is_broadcast(sockaddr):
                raise BroadcastNotAllowed(unmapped(sockaddr[0])) from error
            raise
        self._connected = addr
        self._reports.connected = True

    def stop(self) -> None:
        """Deliver nothing any more; a running turn ends with the present datagram."""
        self._delivers = False
        self._reports.close()

    def _set_peer(self, peer: Address | None) -> None:
        """Begin to deliver a datagram of this peer's, or end it."""
        self._peer = _NOBODY if peer is None else peer

    def _callback_failed(self) -> None:
        self._stats.callback_errors += 1
        _log.failure("the protocol failed on a datagram")

    def _receive_failed(self, error: OSError) -> None:
        """Deal with an error that came instead of a datagram: what it is about stands in the error queue."""
        number = error.errno or 0
        self._stats.count_receive_error(number)
        if not self._reports.drain() and number == errno.ECONNREFUSED:
            self._reports.refused()

    def _send_connected(self, datagram: bytes, addr: Address | None) -> None:
        if addr is not None and addr != self._connected:
            raise invalid_address(addr, f"this port is connected to {self._connected}: write to that, or to None")
        try:
            self._handle.send(datagram)
        except OSError as error:
            self._send_failed(error, datagram, None, None)
        else:
            self._count_sent(datagram)

    def _way_to(self, addr: Address | None) -> Route:
        if addr is None:
            raise invalid_address("", "write() needs an address on a port that is not connected")
        return self._routes.to(addr)

    def _send_failed(self, error: OSError, datagram: bytes, addr: Address | None, route: Route | None) -> None:
        """Send once more where the error was not this datagram's, else decide whose fault it is."""
        sockaddr, back = (addr, []) if route is None else route
        remaining: OSError | None = error
        if error.errno not in _NOT_PENDING:
            if self._clear_pending(error):
                remaining = self._send_again(datagram, sockaddr, back)
        elif error.errno == errno.EINVAL and back and addr is not None:
            # The address that the peer asked may be gone from this host by now.
            self._routes.forget(addr)
            remaining = self._send_again(datagram, sockaddr, [])
        if remaining is None:
            self._count_sent(datagram)
        else:
            self._judge(remaining, datagram, addr, sockaddr)

    def _clear_pending(self, error: OSError) -> bool:
        """Take the errors of earlier datagrams out of the socket; tell whether there were any."""
        if self._reports.drain():
            return True
        if error.errno == errno.ECONNREFUSED:  # never the present datagram's: its ICMP error cannot be back yet
            self._reports.refused()
            return True
        return False

    def _send_again(self, datagram: bytes, sockaddr: SockAddr | None, back: Ancillary) -> OSError | None:
        try:
            if sockaddr is None:
                self._handle.send(datagram)
            elif back:
                self._handle.sendmsg((datagram,), back, 0, sockaddr)
            else:
                self._handle.sendto(datagram, sockaddr)
        except OSError as error:
            return error
        return None

    def _count_sent(self, datagram: bytes) -> None:
        self._stats.datagrams_sent += 1
        self._stats.bytes_sent += len(datagram)

    def _judge(self, error: OSError, datagram: bytes, addr: Address | None, sockaddr: SockAddr | None) -> None:
        """Raise the caller's faults and count the network's."""
        number = error.errno or 0
        if number == errno.EMSGSIZE:
            most = max_payload(unmapped(sockaddr[0]) if sockaddr is not None else "")
            raise MessageLengthError(
                f"message too long: {len(datagram):,} bytes, a UDP datagram carries at most {most:,}"
            ) from error
        if number == errno.EACCES and sockaddr is not None and self._is_broadcast(sockaddr):
            raise BroadcastNotAllowed(unmapped(sockaddr[0])) from error
        # An answer to a datagram that came with source port 0, which anybody can send, is no mistake of the protocol's.
        if number == errno.EINVAL and not self._is_answer(addr):
            if sockaddr is not None and sockaddr[1] == 0:
                raise OSError(number, f"{unmapped(sockaddr[0])}: nobody can listen on UDP port 0") from error
            raise error
        self._stats.count_send_error(number)
        if number in _NO_ROUTE and sockaddr is not None:
            self._reports.no_route(sockaddr, number, datagram)

    def _is_answer(self, addr: Address | None) -> bool:
        """Tell whether a peer is the one whose datagram is being delivered."""
        return addr is self._peer

    def _is_broadcast(self, sockaddr: SockAddr) -> bool:
        """Tell a missing setBroadcastAllowed from a route or a firewall that forbids: EACCES means either."""
        host = unmapped(sockaddr[0])
        allowed = self._handle.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST)
        return not allowed and is_broadcast(host)
