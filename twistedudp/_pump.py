"""The client's pump: where the core, the local ports and the clock meet.

Theory of operation: whatever happens, a command from the application, a datagram, an ICMP error or the timer, goes into
the core, and then :meth:`RequestPump.pump` does what the core's driving contract asks for: it sends the datagrams,
arms the timer, and delivers the events, in this order, until there is nothing left. Delivering an event runs the
application's callbacks, which may come back with commands; these only mark that the pump has to go round once more.

There is one timer for all requests. It is moved only when something is due earlier than it is armed for; when it fires
too early, because what it was armed for has been answered meanwhile, it is armed again. A request that is answered
therefore costs no timer operation at all. Local ports are opened when the first datagram leaves from them: one for each
address family, and further ones for requests that need a port of their own, which are closed when these have ended.
Datagrams that have come together go into the core together, so that all of this is done once for them.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from . import transport
from ._alarm import Alarm, steady_clock
from ._rate_limit import RateLimit
from .address import is_ipv6
from .core import FIRST_RETRY_SOCKET, MAX_SERVERS, Transmit
from .errors import BroadcastNotSupported, CannotSend, InvalidAddress, LocalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort

    from .address import Address
    from .core import Requester
    from .errors import TwistedUDPError
    from .interfaces import Unreachable

__all__ = ["LocalPort", "RequestPump"]

_NO_ROUTE: Final = frozenset({errno.EAFNOSUPPORT, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})
"""Errors of a local port that say that this machine cannot reach the peer at all: one without IPv6, for example."""

_log = Logger()


class LocalPort(DatagramProtocol):
    """One of a client's own ports; it hands everything to the pump.

    Args:
        pump: The pump.
        socket: The number by which the core knows the port.
    """

    noisy = False

    def __init__(self, pump: RequestPump, socket: int) -> None:
        self._pump = pump
        self._socket = socket

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take a datagram."""
        self._pump.datagrams_received(((datagram, addr),), self._socket)

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Take all the datagrams that have come."""
        self._pump.datagrams_received(datagrams, self._socket)

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Take an ICMP error."""
        self._pump.peer_unreachable(peer, reason, quoted, self._socket)


class RequestPump:
    """Drive a :class:`Requester` on a reactor.

    Args:
        reactor: Provides IReactorTime, and ports as :func:`twistedudp.transport.listen` wants them.
        requester: The core.
        interface: The local address to send from; empty for what the kernel chooses.
        deliver: Called with each request that has got its outcome.

    Attributes:
        requester: The core.
        now: Returns the time that the core goes by, in seconds.
    """

    def __init__(self, reactor: Any, requester: Requester, interface: str, deliver: Any) -> None:
        self.requester = requester
        self._reactor = reactor
        self._interface = interface
        self._deliver = deliver
        self._ports: dict[tuple[int, bool], IListeningPort] = {}
        self._usual: dict[Address, Callable[[bytes, Address], None]] = {}
        self._closing: set[Deferred[Any]] = set()
        self._pumping = False
        self.now = steady_clock(reactor)
        self._alarm = Alarm(reactor, self.now, self._due)
        self._log_limit = RateLimit(1, 60.0, self.now)

    def servers_resolved(self, addresses: Sequence[Address]) -> None:
        """Learn the servers' addresses."""
        self.requester.servers_resolved(addresses, now=self.now())
        self.pump()

    def resolution_failed(self, error: TwistedUDPError) -> None:
        """Learn that no server has an address."""
        self.requester.resolution_failed(error)
        self.pump()

    def wanted(self, seconds: float | None) -> None:
        """Learn that something is about to be sent, and for how many seconds it can wait; nothing is to be done."""

    def explained(self, error: TwistedUDPError) -> TwistedUDPError:
        """Return what to tell the caller of a request that failed: what the core says."""
        return error

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]], socket: int) -> None:
        """Feed datagrams to the core."""
        receive = self.requester.datagram_received
        now = self.now()
        for datagram, peer in datagrams:
            receive(datagram, peer, socket, now=now)
        self.pump()

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes, socket: int) -> None:
        """Feed an ICMP error to the core."""
        self.requester.peer_unreachable(peer, reason.reason, quoted, socket, now=self.now())
        self.pump()

    def pump(self) -> None:
        """Do what the core asks for, until it asks for nothing more."""
        if self._pumping:
            return  # an event's receiver has come back with a command: the loop below goes round once more
        self._pumping = True
        requester = self.requester
        try:
            while True:
                while self._send_all():  # sending may fail at once, and the next address be tried
                    pass
                self._alarm.at(requester.next_deadline())
                events = requester.events()
                if not events:
                    break
                for request in events:
                    self._deliver(request)
        finally:
            self._pumping = False
        for socket in requester.unused_sockets():
            self._close(socket)

    def stop(self) -> Deferred[Any]:
        """Close the ports and the timer; the requests must have got their outcomes before.

        Returns:
            A Deferred that fires when the ports are free.
        """
        self._alarm.cancel()
        for transmit in self.requester.transmits():  # of a callback's commands, if it is a callback that stops
            self._send(*transmit)
        self._usual.clear()
        for port in list(self._ports):
            self._close_port(port)
        return gatherResults(list(self._closing), consumeErrors=True)

    def _due(self, now: float) -> None:
        self.requester.deadline_reached(now=now)
        self.pump()

    def _send_all(self) -> bool:
        """Send what the core wants to be sent; tell whether that was anything."""
        datagrams = self.requester.datagrams()
        others = () if datagrams else self.requester.transmits()
        if others:
            datagrams = [transmit[:2] for transmit in others if not transmit.socket]
        for payload, peer in datagrams if len(datagrams) < 2 else self._send_batch(datagrams):
            self._send(payload, peer, 0)
        for transmit in others:
            if transmit.socket:
                self._send(*transmit)
        return bool(datagrams or others)

    def _send_batch(self, datagrams: list[tuple[bytes, Address]]) -> list[tuple[bytes, Address]]:
        """Send together what leaves from the usual port of one address family; return what is to be sent one by one."""
        first = datagrams[0][1]
        ipv6 = ":" in first[0]
        port: Any = self._ports.get((0, ipv6))
        if port is None or not hasattr(port, "write_batch"):
            return datagrams
        others: list[tuple[bytes, Address]] = []
        if [peer for _, peer in datagrams if peer is not first]:  # to more than one server, which is rare
            others = [datagram for datagram in datagrams if (":" in datagram[1][0]) is not ipv6]
            datagrams = [datagram for datagram in datagrams if (":" in datagram[1][0]) is ipv6]
        for payload, peer, error in port.write_batch(datagrams):
            self._not_sent(payload, peer, 0, error)
        return others

    def _send(self, payload: bytes, peer: Address, socket: int) -> None:
        try:
            write = self._usual.get(peer) if socket == 0 else None
            if write is None:
                write = self._way_to(peer, socket)
            write(payload, peer)
        except (OSError, CannotListenError, MessageLengthError, InvalidAddressError, LocalError) as error:
            self._not_sent(payload, peer, socket, error)

    def _not_sent(self, payload: bytes, peer: Address, socket: int, error: Exception) -> None:
        """Learn why a datagram could not be sent."""
        stats = self.requester.stats
        stats.not_sent += 1
        fault = self._fault_of_caller(error, peer)
        number = getattr(getattr(error, "socketError", error), "errno", None)
        failed = stats.failed
        if fault is not None:
            self.requester.send_failed(Transmit(payload, peer, socket), fault, now=self.now())
            told = stats.failed > failed  # nobody waits for what became of a notification
        elif number in _NO_ROUTE:
            self.requester.peer_unreachable(peer, os.strerror(number), payload, socket, now=self.now())
            told = True
        else:  # it counts as lost, and is sent again when its time comes
            told = False
        if not told and self._log_limit.allowed():
            _log.warn("a datagram could not be sent: {error}", error=error)

    def _fault_of_caller(self, error: Exception, peer: Address) -> LocalError | None:
        """Return what to tell the caller, where sending the same datagram again can only fail again."""
        if isinstance(error, InvalidAddressError):
            return InvalidAddress(f"{peer[0]!r}: {error.message}")
        if isinstance(error, OSError) and error.errno == errno.EACCES:  # which nothing but a netmask tells before
            return BroadcastNotSupported(peer[0])
        if isinstance(error, CannotListenError) and getattr(error.socketError, "errno", 0) == errno.EADDRNOTAVAIL:
            return CannotSend(self._interface)
        return error if isinstance(error, LocalError) else None  # there is no backend such as is asked for

    def _way_to(self, peer: Address, socket: int) -> Callable[[bytes, Address], None]:
        """Return what writes to a peer from a local socket, which is opened if need be."""
        ipv6 = ":" in peer[0]
        port: Any = self._ports.get((socket, ipv6))
        if port is None:
            try:
                port = self._open(socket, ipv6)
            except CannotListenError:  # too many open files, for example
                port = self._ports.get((0, ipv6)) if socket >= FIRST_RETRY_SOCKET else None
                if port is None:
                    raise
                self.requester.stats.retry_ports_short += 1
        write: Callable[[bytes, Address], None] = port.write
        if socket == 0:
            if len(self._usual) >= MAX_SERVERS:  # names resolve to others in the long run
                self._usual.clear()
            self._usual[peer] = write
        return write

    def _open(self, socket: int, ipv6: bool) -> IListeningPort:
        protocol = LocalPort(self, socket)
        wildcard = "::" if ipv6 else ""
        interface = self._interface if is_ipv6(self._interface) is ipv6 else wildcard
        port = transport.listen(self._reactor, 0, protocol, interface, return_path=False)
        self._ports[socket, ipv6] = port
        return port

    def _close(self, socket: int) -> None:
        for port in ((socket, False), (socket, True)):
            if port in self._ports:
                self._close_port(port)

    def _close_port(self, port: tuple[int, bool]) -> None:
        closed = maybeDeferred(self._ports.pop(port).stopListening)
        self._closing.add(closed)

        def forget(result: object) -> object:
            self._closing.discard(closed)
            return result

        closed.addBoth(forget)
