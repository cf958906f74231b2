"""A UDP port of a simulated host.

Theory of operation: to its protocol it behaves like :class:`twistedudp.transport.DatagramPort` on Linux, and the same
contract tests run on both: datagrams arrive in a later turn, one too large for the port is dropped and counted, answers
from a wildcard bind leave from the address that was asked, ICMP errors are told to a protocol that wants to know and
close nothing. Where the real port would make a system call, this one asks its :class:`Host` and its network.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import MessageLengthError
from twisted.logger import Logger
from twisted.python import log
from zope.interface import implementer

from ..address import max_payload
from ..errors import LocalError
from ..impairment._link import Datagram
from ..interfaces import IDatagramPort
from ..transport._addresses import TwoGenerations, family_of
from ..transport._arguments import CALLERS_ERRORS, check_peer
from ..transport._errors import BroadcastNotAllowed, cannot_listen, invalid_address
from ..transport._life import prefix_of
from ..transport._stats import DatagramStats
from ._admission import SimulatedAdmission
from ._host import ANY_IPV4, ANY_IPV6, BROADCAST, canonical, is_group, is_ipv6, is_loopback
from ._multicast import Reach, SimulatedMulticast, checked_number, os_error
from ._trace import Fate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from twisted.internet.protocol import DatagramProtocol

    from ..address import Address
    from ..interfaces import Unreachable
    from ._reactor import SimulatedReactor

__all__ = ["SimulatedPort"]

_TO_MYSELF: Final = {ANY_IPV4: "127.0.0.1", ANY_IPV6: "::1"}
"""Sending to "any address" reaches this host itself, as Linux has it."""

_log = Logger()


@implementer(IDatagramPort)
class SimulatedPort(SimulatedMulticast, SimulatedAdmission):  # budget: it is a port, a socket and a receive buffer
    """A bound port; made by :meth:`SimulatedReactor.listenUDP`.

    Args:
        reactor: The host's reactor.
        port: The port number; 0 for a free one.
        protocol: Who gets the datagrams.
        interface: A numeric address of the host, or ``""`` for all of IPv4.
        max_datagram_size: Bytes; larger datagrams are counted and dropped.

    Attributes:
        bound_address: The address bound to, or a wildcard; ``""`` while not listening.
        stats: The port's counters, as those of the real port.
        backend: ``"simulated"``.
        timestamps: Whether :attr:`arrival_times` are told; ``listen(timestamps=True)`` sets it.

    Raises:
        twisted.internet.error.InvalidAddressError: The interface is not a numeric address.
    """

    def __init__(
        self,
        reactor: SimulatedReactor,
        port: int,
        protocol: DatagramProtocol,
        interface: str,
        max_datagram_size: int,
    ) -> None:
        if interface and family_of(interface) is None:
            raise invalid_address(interface, "not an IPv4 or IPv6 address.")
        super().__init__()
        self.protocol = protocol
        self.max_datagram_size = max_datagram_size
        self.bound_address = ""
        self.stats = DatagramStats()
        self.backend = "simulated"
        self.timestamps = False
        self._reactor = reactor
        self._asked_for = (interface, port)
        self._host: Address = (interface or ANY_IPV4, port)
        self._delivering: Datagram | None = None
        self._peer: Address | None = None
        self._broadcast_allowed = False
        self._stopping: list[Deferred[None]] | None = None
        self._asked: TwoGenerations[Address, str] = TwoGenerations()
        self._arrived: list[tuple[bytes, Address, Callable[[Fate], None]]] = []
        self._in_delivery = 0

    def __repr__(self) -> str:
        where = f"on {self._host[1]}" if self.bound_address else "not listening"
        return f"<SimulatedPort {type(self.protocol).__qualname__} {where}>"

    # -- IListeningPort

    def startListening(self) -> None:
        """Bind and start the protocol; see ``IListeningPort.startListening``.

        Raises:
            twisted.internet.error.CannotListenError: The port is taken, the address is not this host's, the port
                listens already, or the host has crashed since its reactor was made.
        """
        interface, port = self._asked_for
        if self._reactor.crashed:
            raise cannot_listen(interface, port, "this host has crashed; use the reactor that restart() returns")
        if self.bound_address:
            raise cannot_listen(interface, port, "this port object listens already")
        address = canonical(interface) if interface else ANY_IPV4
        try:
            number = self._reactor.host.bind(self, address, port)
        except (OSError, OverflowError) as error:
            raise cannot_listen(interface, port, error) from error
        self.bound_address = address
        self._host = address, number
        if getattr(self.protocol, "noisy", True):
            log.msg(f"{prefix_of(self.protocol)} starting on {number}")
        try:
            self.protocol.makeConnection(self)
        except BaseException:
            self._release()
            raise

    def stopListening(self) -> Deferred[None] | None:
        """Stop; see ``IListeningPort.stopListening``.

        Returns:
            A Deferred that fires with ``None`` in a later turn, when the port is free and the protocol has been
            stopped; ``None`` if the port is not listening.
        """
        if not self.bound_address:
            return None
        if self._stopping is None:
            self._stopping = []
            self._reactor.callLater(0, self._close)
        stopped: Deferred[None] = Deferred()
        self._stopping.append(stopped)
        return stopped

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address that the port is bound to; after its end, the one that it was bound to."""
        host, number = self._host
        return IPv6Address("UDP", host, number) if is_ipv6(host) else IPv4Address("UDP", host, number)

    # -- IUDPTransport

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Send a datagram; it arrives, if at all, in a later turn.

        Args:
            packet: The payload; may be empty.
            addr: The numeric host and the port; ``None`` if the port is connected.

        Raises:
            twisted.internet.error.MessageLengthError: UDP cannot carry so much in one datagram.
            twisted.internet.error.InvalidAddressError: A host name, an address of the other family, or not the peer to
                which the port is connected.
            twistedudp.transport.BroadcastNotAllowed: A broadcast address, without ``setBroadcastAllowed(True)``.
            OSError: ``EINVAL`` for UDP port 0.
            OverflowError: A port above 65,535.
            TypeError: ``packet`` is not bytes.
        """
        if not self.bound_address:
            self.stats.written_after_stop += 1
            return
        destination = self._destination(addr)
        if len(packet) > max_payload(destination[0]):
            raise MessageLengthError(f"message too long: {len(packet):,} bytes")
        if destination[0] == BROADCAST and not self._broadcast_allowed:
            raise BroadcastNotAllowed(BROADCAST)
        self._send(destination, bytes(memoryview(packet)))

    def write_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
        """Send several datagrams; otherwise as :meth:`write`.

        Returns:
            Those that the caller made wrong, each with its peer and with what :meth:`write` would have raised.
        """
        refused: list[tuple[bytes, Address, Exception]] = []
        for datagram, addr in datagrams:
            try:
                self.write(datagram, addr)
            except CALLERS_ERRORS as error:  # noqa: PERF203  # its own
                refused.append((datagram, addr, error))
        return refused

    def writeSequence(self, seq: Iterable[bytes], addr: Address | None = None) -> None:
        """Send one datagram made of several pieces; see :meth:`write`."""
        self.write(b"".join(seq), addr)

    def connect(self, host: str, port: int) -> None:
        """Send to this peer only, and take datagrams from it only; see ``IUDPTransport.connect``.

        Raises:
            RuntimeError: The port is connected already.
            twisted.internet.error.InvalidAddressError: Not a numeric address, or one of the other family.
            twistedudp.errors.LocalError: The port does not listen.
            OSError: There is no route to it.
        """
        self._check_listening()
        if self._peer is not None:
            raise RuntimeError("already connected, reconnecting is not currently supported")
        peer = (self._checked_host(host, "connect"), checked_number(port))
        source = self._reactor.host.source_for(peer[0], self.bound_address)
        if source is None:
            raise os_error(errno.ENETUNREACH)
        self._peer = peer
        # As in Linux: connecting a wildcard bind settles which of the host's addresses it has.
        self.bound_address = source
        self._host = source, self._host[1]

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Set whether the port may send to 255.255.255.255; off at first."""
        self._check_listening()
        self._broadcast_allowed = bool(enabled)

    def getBroadcastAllowed(self) -> bool:
        """Tell whether the port may send to 255.255.255.255."""
        self._check_listening()
        return self._broadcast_allowed

    @property
    def delivering_to_group(self) -> bool:
        """True while a datagram is being delivered that was sent to a broadcast or multicast address."""
        return self._delivering is not None and is_group(self._delivering.destination[0])

    @property
    def arrival_times(self) -> Sequence[int]:
        """When the datagrams being delivered arrived, in nanoseconds of virtual time; see the real port."""
        return (round(self._reactor.seconds() * 1e9),) * self._in_delivery if self.timestamps else ()

    def path_mtu(self, host: str) -> int | None:  # noqa: ARG002  # IDatagramPort has it
        """Return None: ICMP errors of the simulated network do not say how much would have passed."""
        return None

    # -- what the host and the network call

    @property
    def reading(self) -> bool:
        """Whether the port takes datagrams: from its start until it is being stopped."""
        return self._stopping is None

    def takes_from(self, peer: Address) -> bool:
        """Tell whether the port takes what comes from this peer: a connected port has one peer only."""
        return self._peer in (None, peer)

    def deliver(self, datagram: Datagram, settle: Callable[[Fate], None]) -> None:
        """Hand a datagram to the protocol: at once, or with what else comes in this instant if it takes batches.

        Args:
            datagram: What has arrived.
            settle: To be called with what becomes of it.
        """
        to_group = is_group(datagram.destination[0])
        asked = self.bound_address in (ANY_IPV4, ANY_IPV6) and not to_group
        if to_group or (asked and self._asked.get(datagram.source) not in (None, datagram.destination[0])):
            self._deliver_arrived()  # what came before is answered from the address that it had asked
            if not self.reading:
                settle(Fate.UNHEARD)
                return
        if asked:
            self._asked.put(datagram.source, datagram.destination[0])
            self.stats.routes_forgotten = self._asked.forgotten
        if not to_group and hasattr(self.protocol, "datagrams_received"):
            if not self._arrived:
                self._reactor.network.clock.callLater(0, self._deliver_arrived)
            self._arrived.append((datagram.payload, datagram.source, settle))
            return
        settle(Fate.DELIVERED)
        self.stats.turns += 1
        self.stats.datagrams_received += 1
        self.stats.bytes_received += len(datagram.payload)
        self._delivering = datagram
        self._in_delivery = 1
        self._call(self.protocol.datagramReceived, datagram.payload, datagram.source)
        self._in_delivery = 0
        self._delivering = None

    def _deliver_arrived(self) -> None:
        """Hand the datagrams of this instant to the protocol, unless the port has been stopped since."""
        arrived, self._arrived = self._arrived, []
        heard = bool(self.bound_address) and self.reading
        for _, _, settle in arrived:
            settle(Fate.DELIVERED if heard else Fate.UNHEARD)
        if arrived and heard:
            self.stats.turns += 1
            self.stats.datagrams_received += len(arrived)
            self.stats.bytes_received += sum(len(payload) for payload, _, _ in arrived)
            batch = [(payload, peer) for payload, peer, _ in arrived]
            self.stats.batches += 1
            self._in_delivery = len(batch)
            self._call(self.protocol.datagrams_received, batch)  # type: ignore[attr-defined]  # it takes batches
            self._in_delivery = 0

    def vanish(self) -> None:
        """Be gone at once, as in a crash: the protocol is not told, and Deferreds of stopListening() never fire."""
        self.bound_address = ""
        self._stopping = None

    def unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Tell the protocol of an ICMP error."""
        if reason.errno == errno.EMSGSIZE:  # as a real port: it does not say that the peer is unreachable
            self.stats.path_mtu_reports += 1
            return
        self.stats.unreachable += 1
        if hasattr(self.protocol, "peer_unreachable"):
            self._call(self.protocol.peer_unreachable, peer, reason, quoted)
        if self._peer is not None and self.reading:
            self._call(self.protocol.connectionRefused)

    # -- details

    def _close(self) -> None:
        if not self.bound_address:  # its start failed after it had stopped itself
            return
        if getattr(self.protocol, "noisy", True):
            log.msg(f"(UDP Port {self._host[1]} Closed)")
        try:  # before the port is free, as the real port does: a last datagram may be sent
            self.protocol.doStop()  # type: ignore[no-untyped-call]  # Twisted has not annotated it
        finally:
            self._release()

    def _release(self) -> None:
        self.end_admission()
        self._reactor.host.release(self, self._host[1])
        self.bound_address = ""
        waiting, self._stopping = self._stopping or [], None
        for stopped in waiting:
            stopped.callback(None)

    def _check_listening(self) -> None:
        if not self.bound_address:
            raise LocalError("this UDP port does not listen; call listen() for a new one")

    def _destination(self, addr: Address | None) -> Address:
        if self._peer is not None:
            if addr is not None and (self._checked_host(addr[0]), addr[1]) != self._peer:
                raise invalid_address(addr[0], f"this port is connected to {self._peer}: write to that, or to None")
            return self._peer
        if addr is None:
            raise invalid_address("", "write() needs an address on a port that is not connected")
        check_peer(addr)
        answering = self._delivering is not None and addr == self._delivering.source
        # To answer what came with source port 0, which anybody can send, is no mistake of the protocol's.
        return self._checked_host(addr[0]), addr[1] if answering else checked_number(addr[1])

    def _checked_host(self, host: str, caller: str = "write") -> str:
        if host == "<broadcast>":
            host = BROADCAST
        if family_of(host) is None:
            raise invalid_address(host, f"{caller}() only accepts IP addresses, not hostnames")
        host = canonical(host)
        if is_ipv6(host) and not is_ipv6(self.bound_address):
            raise invalid_address(host, "IPv4 port write() called with IPv6 address")
        if not is_ipv6(host) and is_ipv6(self.bound_address) and self.bound_address != ANY_IPV6:
            raise invalid_address(host, "IPv6 port write() called with IPv4 or broadcast address")
        return _TO_MYSELF.get(host, host)

    def _send(self, destination: Address, payload: bytes) -> None:
        host, to_group = self._reactor.host, is_group(destination[0])
        reach = self.reach(destination[0]) if to_group else Reach("", here=True, elsewhere=True)
        source: str | None = self._asked.get(destination) or self._source_for(destination[0], reach.source)
        datagram = Datagram((source or self.bound_address, self._host[1]), destination, payload)
        if source is None or destination[1] == 0:
            self.stats.count_send_error(errno.EINVAL if source else errno.ENETUNREACH)
            self._reactor.network.unsent(host, datagram, Fate.UNROUTABLE)
            return
        self.stats.datagrams_sent += 1
        self.stats.bytes_sent += len(payload)
        self._reactor.network.send(host, datagram, here=reach.here, elsewhere=reach.elsewhere)

    def _source_for(self, destination: str, chosen: str) -> str | None:
        """Return the address that a datagram leaves from: the chosen one if the port is bound to none."""
        if chosen and (self.bound_address in (ANY_IPV4, ANY_IPV6) or is_loopback(chosen)):
            return chosen
        return self._reactor.host.source_for(destination, self.bound_address)

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception:  # noqa: BLE001  # a protocol's mistake is logged and the port goes on, as on a real port
            self.stats.callback_errors += 1
            _log.failure("{callback} failed", callback=getattr(callback, "__qualname__", repr(callback)))
