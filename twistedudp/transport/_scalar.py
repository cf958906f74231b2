"""The backend in plain Python: one system call per datagram, on any POSIX system.

Theory of operation: :meth:`ScalarBackend.read_turn` reads and delivers until nothing waits or a bound is met, and
:meth:`ScalarBackend.send` sends at once. Both are written for the usual case: an answer to the datagram just delivered
needs no look at its address, because the tuple that the protocol writes to *is* the one it was given. A failing system
call leaves the path: :class:`SendFaults` decides whose fault it was. The network's faults are counted as loss, the
caller's are raised where the caller made them; and where the send buffer is full, the datagram waits, and others behind
it, until the socket can take more.
"""

from __future__ import annotations

import errno
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from ._addresses import peer_of
from ._arguments import CALLERS_ERRORS, check_peer
from ._errors import invalid_address
from ._faults import SendFaults
from ._kernel import HOPS_EXHAUSTED, hops_alone
from ._unreachable import ERRORS_PER_DRAIN
from ._waiting import WOULD_BLOCK, WaitingDatagrams

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from ..address import Address
    from ._addresses import SockAddr
    from ._kernel import Ancillary
    from ._routes import Route, Routes
    from ._stats import DatagramStats
    from ._unreachable import UnreachableReports

__all__ = ["DATAGRAMS_PER_TURN", "SECONDS_PER_TURN", "TRIES_PAST_ERRORS", "Refused", "ScalarBackend"]

DATAGRAMS_PER_TURN: Final = 128
"""Datagrams read before the reactor gets its turn: enough that waking up (about 6 us) costs less than 0.1 us for each,
few enough that at 5 us each a timer waits 0.6 ms. Datagrams and not bytes, because empty ones cost as much."""

SECONDS_PER_TURN: Final = 0.004
"""Seconds after which a turn ends though fewer have been read: protocols that take long for each datagram must not add
up. A late timer of 10 ms is noticed by people and by retransmissions, so two ports may be busy at once."""

_NOT_PENDING: Final = WOULD_BLOCK | {errno.ENOBUFS, errno.ENOMEM, errno.EPERM, errno.EINVAL}
"""Errors that a send makes itself; any other may have been waiting in the socket because of an earlier datagram."""

TRIES_PAST_ERRORS: Final = 3
"""How often a datagram is sent again because what failed was an earlier one's error: after one try the error is gone,
and others come in between only where very many peers refuse."""

_NOBODY: Final[Address] = ("", 0)

Refused: TypeAlias = "tuple[bytes, Address, Exception]"
"""A datagram that cannot be sent, where it was to go, and what is wrong with it."""

_Way: TypeAlias = "tuple[SockAddr | None, Ancillary]"  # None: the peer of a connected socket


def _watch_nothing(_wanted: bool) -> None:  # as PortSocket has it
    """Leave alone a socket that nobody watches."""


class ScalarBackend:  # budget: four of them are copies of what the port's parts hold, for the path of each datagram
    """Reads and writes a socket with ``recvfrom`` or ``recvmsg``, ``sendto`` or ``sendmsg``.

    Args:
        handle: The bound socket.
        protocol: The ``DatagramProtocol``.
        stats: What to count in.
        routes: How to receive, and the ways to the peers.
        reports: Where the error queue is read.
        size_limit: Bytes of the largest datagram to deliver.
        watch_writable: Called with True when datagrams wait for room in the send buffer, and with False when none does
            any more.
        timestamps: Whether the kernel tells when each datagram arrived.
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
        watch_writable: Callable[[bool], None] = _watch_nothing,
        timestamps: bool = False,
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
        self._timestamps = timestamps
        self._faults = SendFaults(handle, stats, reports)
        self._waiting: WaitingDatagrams[_Way] = WaitingDatagrams(stats, watch_writable)
        self._detour = False
        self._counted = stats.datagrams_sent - stats.sent_together
        if timestamps:
            routes.take_times()

    @property
    def arrival_times(self) -> Sequence[int]:
        """When the datagram being delivered arrived, in nanoseconds since the epoch; empty if not asked for."""
        return (self._routes.arrived,) if self._timestamps and self._peer is not _NOBODY else ()

    @property
    def delivering_to_group(self) -> bool:
        """True while a datagram is being delivered that was sent to a broadcast or multicast address."""
        return self._peer is not _NOBODY and self._routes.to_group

    def read_turn(self) -> None:
        """Send what waited for room, then deliver what has arrived, within the bounds of a turn."""
        if self._waiting:
            self.send_waiting()
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
                stats.system_calls += 1
                if left == DATAGRAMS_PER_TURN:  # woken, but not by a datagram: it was an error
                    self._reports.drain()
                break
            except OSError as error:
                self._receive_failed(error)
            else:
                length = len(datagram)
                if length > limit:
                    stats.truncated += 1
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
                self._cut_short()
                break
        self._peer = _NOBODY
        self._count_turn(DATAGRAMS_PER_TURN - left, delivered, octets)
        self._reports.settle()

    def send_waiting(self) -> None:
        """Send what waited for room in the send buffer."""
        self._waiting.flush(self._send_one_waiting)
        self._detour = bool(self._waiting) or self._connected is not None

    def send(self, datagram: bytes, addr: Address | None) -> None:
        """Send one datagram at once; the peer may be None on a connected port.

        Raises:
            twisted.internet.error.MessageLengthError: UDP cannot carry a datagram of this size.
            twisted.internet.error.InvalidAddressError: The host is not numeric or not reachable from this kind of port,
                or the port is connected to another.
            BroadcastNotAllowed: A broadcast address, without ``setBroadcastAllowed(True)``.
            OSError: ``EINVAL`` for UDP port 0 and for a link-local address without its scope.
            OverflowError: A port above 65,535.
        """
        if self._detour:
            self._send_with_care(datagram, addr)
            return
        routes = self._routes
        known = routes.known.young.get
        route = routes.current if addr is self._peer else known(addr) or self._way_to(addr)  # type: ignore[arg-type]  # None is not in it
        try:
            if route is None:
                self._handle.sendto(datagram, addr)  # type: ignore[arg-type]  # it is the peer's, never None
            elif route[1]:
                if route[1] is HOPS_EXHAUSTED:
                    self._stats.hops_exhausted += 1
                    return
                self._handle.sendmsg((datagram,), route[1], 0, route[0])
            else:
                self._handle.sendto(datagram, route[0])
        except OSError as error:
            self._stats.system_calls += 1
            self._send_failed(error, datagram, addr, (addr, []) if route is None else route)
        else:
            stats = self._stats
            stats.datagrams_sent += 1
            stats.bytes_sent += len(datagram)

    def send_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[Refused]:
        """Send several datagrams, in order; return those the caller made wrong, with what :meth:`send` raised."""
        refused: list[Refused] = []
        for datagram, addr in datagrams:
            try:
                self.send(datagram, addr)
            except CALLERS_ERRORS as error:  # noqa: PERF203  # its own
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
            self._faults.raise_broadcast(error, sockaddr)
            raise
        self._connected = addr
        self._detour = True
        self._reports.connected = True

    def refresh_stats(self) -> None:
        """Bring up to date what the kernel counts, and what is counted together."""
        stats = self._stats
        alone = stats.datagrams_sent - stats.sent_together
        stats.system_calls += alone - self._counted  # that each took one need not be noted for each
        self._counted = alone
        self._routes.drops.refresh()

    def close(self) -> None:
        """Send what still waits if the kernel takes it, count the rest as dropped."""
        self._waiting.close(self._send_one_waiting)
        self.refresh_stats()

    def stop(self) -> None:
        """Deliver nothing any more; a running turn ends with the present datagram."""
        self._delivers = False
        self._reports.close()

    def _count_turn(self, calls: int, delivered: int, octets: int) -> None:
        """Count the datagrams of a turn together."""
        stats = self._stats
        stats.system_calls += calls
        stats.batches += delivered
        stats.datagrams_received += delivered
        stats.bytes_received += octets

    def _cut_short(self) -> None:
        """Count a turn that ended because of a bound; it is then that the kernel may drop something."""
        self._stats.turns_cut_short += 1
        self._routes.drops.refresh()

    def _set_peer(self, peer: Address | None) -> None:
        """Begin to deliver a datagram of this peer's, or end it."""
        self._peer = _NOBODY if peer is None else peer

    def _callback_failed(self) -> None:
        self._reports.failures.caught("the protocol failed on a datagram")

    def _receive_failed(self, error: OSError) -> None:
        """Deal with an error that came instead of a datagram: what it is about stands in the error queue."""
        number = error.errno or 0
        self._stats.count_receive_error(number)
        if not self._reports.drain() and number == errno.ECONNREFUSED:
            self._reports.refused()

    def _send_with_care(self, datagram: bytes, addr: Address | None) -> None:
        """Send on a connected socket, or behind others that wait."""
        way: _Way
        if self._connected is not None:
            if addr is not None and addr != self._connected:
                reason = f"this port is connected to {self._connected}: write to that, or to None"
                raise invalid_address(addr, reason)
            way = (None, [])
        else:
            route = self._routes.current if addr is self._peer else self._way_to(addr)
            way = (addr, []) if route is None else route
        if way[1] is HOPS_EXHAUSTED:
            self._stats.hops_exhausted += 1
            return
        if self._waiting:
            self._faults.check_size(datagram, self._host_of(way))
            if way[0] is not None and not 0 <= way[0][1] <= 65535:
                raise OverflowError(f"{way[0][1]} is not a UDP port: it must be 0 to 65535")
            self._waiting.put(datagram, way)
            return
        error = self._try(datagram, *way)
        if error is None:
            self._count_sent(datagram)
        else:
            self._send_failed(error, datagram, addr, way)

    def _way_to(self, addr: Address | None) -> Route:
        if addr is None:
            raise invalid_address("", "write() needs an address on a port that is not connected")
        check_peer(addr)
        return self._routes.to(addr)

    def _send_failed(self, error: OSError, datagram: bytes, addr: Address | None, way: _Way) -> None:
        """Send once more where the error was not this datagram's, else decide whose fault it is."""
        remaining = self._try_again(error, datagram, addr, way)
        if remaining is None:
            self._count_sent(datagram)
        elif remaining.errno in WOULD_BLOCK:
            self._waiting.put(datagram, way)
            self._detour = True
        else:
            host = self._host_of(way)
            self._faults.raise_callers(remaining, datagram, way[0], host, answers=self._is_answer(addr))
            self._faults.count_loss(remaining, datagram, way[0])

    def _send_one_waiting(self, datagram: bytes, way: _Way) -> bool:
        """Send a datagram that waited; return False if it still has to. Whoever wrote it is told nothing any more."""
        try:
            error = self._try(datagram, *way)
        except OverflowError as impossible:  # the number of an interface
            error = OSError(errno.EINVAL, str(impossible))
        if error is not None:
            error = self._try_again(error, datagram, None, way)
        if error is None:
            self._count_sent(datagram)
        elif error.errno in WOULD_BLOCK:
            return False
        else:
            self._faults.count_loss(error, datagram, way[0])
        return True

    def _host_of(self, way: _Way) -> str:
        """Return the numeric host that a datagram goes to."""
        return (self._connected or _NOBODY)[0] if way[0] is None else peer_of(way[0])[0]

    def _try_again(self, error: OSError, datagram: bytes, addr: Address | None, way: _Way) -> OSError | None:
        """Send a datagram again if what failed was not its own fault; return what is wrong with it, if anything."""
        sockaddr, back = way
        if error.errno == errno.EINVAL and back and sockaddr is not None:
            # The address that the peer asked may be gone from this host by now.
            self._routes.forget(peer_of(sockaddr) if addr is None else addr)
            return self._try(datagram, sockaddr, hops_alone(back))
        remaining: OSError | None = error
        cleared = 0
        for _ in range(TRIES_PAST_ERRORS):
            if remaining is None or remaining.errno in _NOT_PENDING:
                break
            # Reading the queue puts the next error into the socket, and failing takes it out: after as many as are read
            # at once there may be more, and only another try gets past them.
            if cleared < ERRORS_PER_DRAIN:
                cleared = self._clear_pending(remaining)
                if not cleared:
                    break
            remaining = self._try(datagram, sockaddr, back)
        return remaining

    def _clear_pending(self, error: OSError) -> int:
        """Take the errors of earlier datagrams out of the socket; return how many there were."""
        cleared = self._reports.drain()
        if not cleared and error.errno == errno.ECONNREFUSED:
            self._reports.refused()  # never the present datagram's: its ICMP error cannot be back yet
            return 1
        return cleared

    def _try(self, datagram: bytes, sockaddr: SockAddr | None, back: Ancillary) -> OSError | None:
        """Send, and return the error if it fails."""
        try:
            if sockaddr is None:
                self._handle.send(datagram)
            elif back:
                self._handle.sendmsg((datagram,), back, 0, sockaddr)
            else:
                self._handle.sendto(datagram, sockaddr)
        except OSError as error:
            self._stats.system_calls += 1
            return error
        return None

    def _count_sent(self, datagram: bytes) -> None:
        self._stats.datagrams_sent += 1
        self._stats.bytes_sent += len(datagram)

    def _is_answer(self, addr: Address | None) -> bool:
        """Tell whether a peer is the one whose datagram is being delivered."""
        return addr is self._peer
