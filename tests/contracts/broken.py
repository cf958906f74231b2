"""Ports with one fault each: one for every test of the contract, which must find it.

Theory of operation: a test that no port can fail proves nothing. Each class here is our port with a single thing done
wrong, mostly as some real implementation does it, and :data:`BROKEN_PORTS` says which test is there to notice. They
stand over the backend in plain Python, some of whose parts they replace.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.python import log

from twistedudp.transport import DatagramPort

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from twistedudp.address import Address

__all__ = [
    "BROKEN_PORTS",
    "BlamesTheInnocent",
    "Delivers",
    "LetsTheKernelChoose",
    "ReadsOnAfterStop",
    "ReadsWithoutEnd",
    "ShowsFourMembers",
    "ShowsMappedAddresses",
    "SwapsDatagrams",
]


class WritesWithoutAddress(DatagramPort):
    """A method of the interface with another signature."""

    def write(self, packet: bytes) -> None:  # type: ignore[override]  # which is what is wrong
        """Write to the connected peer."""
        super().write(packet)


class HostIsInvented(DatagramPort):
    """``getHost`` does not look at the socket."""

    def getHost(self) -> IPv4Address:
        """Tell the same for every port."""
        return IPv4Address("UDP", "", 4242)


class TakesAnotherPort(DatagramPort):
    """A port that is taken is replaced in silence."""

    def startListening(self) -> None:
        """Listen on whatever is free."""
        try:
            super().startListening()
        except CannotListenError:
            self.port = 0
            super().startListening()


class IgnoresTheInterface(DatagramPort):
    """Listens on all interfaces, whatever was asked for."""

    def __init__(
        self, reactor: Any, port: int, protocol: Any, interface: str = "", *limits: Any, **options: Any
    ) -> None:
        super().__init__(reactor, port, protocol, "", *limits, **options)


class StartsTwice(DatagramPort):
    """Two starts for one stop."""

    def startListening(self) -> None:
        """Start, and start."""
        super().startListening()
        self.protocol.startProtocol()  # type: ignore[no-untyped-call]  # Twisted has no types there


class HidesAFailingStart(DatagramPort):
    """The caller is not told that the protocol did not start."""

    def startListening(self) -> None:
        """Drop the exception."""
        with suppress(ZeroDivisionError):
            super().startListening()


class StopsAtOnce(DatagramPort):
    """The protocol is stopped from inside its own call."""

    def stopListening(self) -> Deferred[None]:
        """Close now."""
        self.connectionLost()
        return succeed(None)


class NeverCloses(DatagramPort):
    """Stopping leaves the socket bound."""

    def stopListening(self) -> Deferred[None]:
        """Say that it is done."""
        return succeed(None)


class ForgetsTheSecondStop(DatagramPort):
    """Who stops it while it stops is never called."""

    def stopListening(self) -> Deferred[None] | None:
        """Remember the first Deferred only."""
        return Deferred() if self._waiting else super().stopListening()


class CannotStopWhileStarting(DatagramPort):
    """A stop that comes before the start is complete is lost."""

    def stopListening(self) -> Deferred[None] | None:
        """Stop only what the reactor knows."""
        return super().stopListening() if self in self.reactor.getReaders() else None


class ReadsOnAfterStop(DatagramPort):
    """The read turn does not look whether the port still listens."""

    def stopListening(self) -> Deferred[None] | None:
        """Stop all but the turn."""
        if self._life is not None:
            self._life.backend.stop = lambda: None  # type: ignore[method-assign]
        return super().stopListening()


class FailsAfterStop(DatagramPort):
    """A late write hits a socket that is gone."""

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Write to what there is not."""
        assert self._life is not None, "the socket is gone"
        super().write(packet, addr)


class LogsTwice(DatagramPort):
    """One start, two lines."""

    def startListening(self) -> None:
        """Announce it once more."""
        super().startListening()
        log.msg(f"Peer starting on {self.getHost().port}")


class Delivers(DatagramPort):
    """Does something with each datagram before the protocol gets it; each heir does it wrongly."""

    def startListening(self) -> None:
        """Get between the port and its protocol."""
        deliver = self.protocol.datagramReceived
        self.protocol.datagramReceived = lambda datagram, addr: self.deliver(deliver, datagram, addr)  # type: ignore[method-assign]
        super().startListening()

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Deliver, wrongly."""
        raise NotImplementedError


class InventsTheSender(Delivers):
    """The sender's port is wrong."""

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Deliver from elsewhere."""
        deliver(datagram, (addr[0], 9))


class DropsEmptyDatagrams(Delivers):
    """Takes ``b""`` for the end of something."""

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Deliver what is true."""
        if datagram:
            deliver(datagram, addr)


class CutsDatagrams(Delivers):
    """Reads with a buffer of 8 kB."""

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Deliver the beginning."""
        deliver(datagram[:8192], addr)


class ShowsFourMembers(Delivers):
    """Hands on IPv6 addresses as the kernel has them."""

    def deliver(self, deliver: Callable[..., None], datagram: bytes, addr: Address) -> None:
        """Deliver with flow label and scope."""
        deliver(datagram, (*addr, 0, 0) if ":" in addr[0] else addr)


class ShowsMappedAddresses(Delivers):
    """Hands on IPv4 addresses of a dual-stack socket as the kernel has them."""

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Deliver from ``::ffff:...``."""
        deliver(datagram, (f"::ffff:{addr[0]}", addr[1]))


class SwapsDatagrams(Delivers):
    """Every second datagram overtakes the first."""

    held: tuple[bytes, Address] | None = None

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Deliver in pairs, the later one first."""
        if self.held is None:
            self.held = datagram, addr
        else:
            deliver(datagram, addr)
            deliver(*self.held)
            self.held = None


class HidesExceptions(Delivers):
    """The protocol's failures are in no log."""

    def deliver(self, deliver: Callable[[bytes, Address], None], datagram: bytes, addr: Address) -> None:
        """Deliver and look away."""
        with suppress(ZeroDivisionError):
            deliver(datagram, addr)


class SwapsBatches(DatagramPort):
    """Delivers each batch from its end."""

    def startListening(self) -> None:
        """Get between the backend and the protocol."""
        protocol: Any = self.protocol
        deliver = getattr(protocol, "datagrams_received", None)
        if deliver is not None:
            protocol.datagrams_received = lambda datagrams: deliver(datagrams[::-1])
        super().startListening()


class AnswersTheFirst(DatagramPort):
    """Sends every answer of a batch to the peer of its first datagram."""

    def startListening(self) -> None:
        """Note who that is."""
        protocol: Any = self.protocol
        deliver = getattr(protocol, "datagrams_received", None)
        self.first: Address | None = None

        def note_the_first(datagrams: Any) -> None:
            self.first = datagrams[0][1]
            deliver(datagrams)  # type: ignore[misc]  # there is one, or this would not be called
            self.first = None

        if deliver is not None:
            protocol.datagrams_received = note_the_first
        super().startListening()

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Write to another."""
        super().write(packet, addr if self.first is None else self.first)


class HidesExceptionsOfBatches(DatagramPort):
    """The protocol's failures on batches are in no log."""

    def startListening(self) -> None:
        """Get between the backend and the protocol."""
        protocol: Any = self.protocol
        deliver = getattr(protocol, "datagrams_received", None)

        def look_away(datagrams: Any) -> None:
            with suppress(ZeroDivisionError):
                deliver(datagrams)  # type: ignore[misc]  # as above

        if deliver is not None:
            protocol.datagrams_received = look_away
        super().startListening()


class IgnoresTheLimit(DatagramPort):
    """Delivers what is larger than it should take."""

    def __init__(self, reactor: Any, port: int, protocol: Any, interface: str = "", *_: Any, **options: Any) -> None:
        super().__init__(reactor, port, protocol, interface, **options)


class WritesPieces(DatagramPort):
    """Takes a sequence for a stream."""

    def writeSequence(self, seq: Iterable[bytes], addr: Address | None = None) -> None:
        """Write a datagram for each piece."""
        for piece in seq:
            self.write(piece, addr)


class ReadsWithoutEnd(DatagramPort):
    """Reads as long as something waits."""

    def doRead(self) -> None:
        """Read many turns in one."""
        for _ in range(50):
            super().doRead()


class WritesToOneFamily(DatagramPort):
    """A dual-stack port that does not know what it can."""

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Refuse IPv4."""
        if self.interface == "::" and addr is not None and ":" not in addr[0]:
            raise InvalidAddressError(addr[0], "IPv4")  # type: ignore[no-untyped-call]  # Twisted has no types there
        super().write(packet, addr)


class LetsTheKernelChoose(DatagramPort):
    """Answers leave from whatever address the route suggests."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, return_path=False, **options)


class KnowsNoGroups(DatagramPort):
    """A broadcast is like any datagram."""

    delivering_to_group = False


class HidesTheCallersFaults(DatagramPort):
    """What cannot be sent is dropped in silence."""

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Raise nothing."""
        with suppress(OSError, InvalidAddressError, MessageLengthError):
            super().write(packet, addr)


class AlwaysBroadcasts(DatagramPort):
    """Sets SO_BROADCAST for the user's convenience."""

    def startListening(self) -> None:
        """Allow what was not asked for."""
        super().startListening()
        self.setBroadcastAllowed(enabled=True)


class ConnectsByWord(DatagramPort):
    """``connect`` remembers an address, and the kernel is not told."""

    word: Address | None = None

    def connect(self, host: str, port: int) -> None:
        """Remember, whatever it is and however often."""
        self.word = host, port

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Write to where the caller says, or to what is remembered."""
        super().write(packet, addr or self.word)


class DiesOfICMP(DatagramPort):
    """The first refusal closes the port, as EPOLLERR does with a reactor's usual sockets."""

    def startListening(self) -> None:
        """Close on an error."""
        refused = self.protocol.connectionRefused  # type: ignore[attr-defined]  # AbstractDatagramProtocol lacks it

        def close(*_: object) -> None:
            refused()
            self.stopListening()

        self.protocol.peer_unreachable = close  # type: ignore[attr-defined]  # as above
        self.protocol.connectionRefused = close  # type: ignore[attr-defined]  # as above
        super().startListening()


class BlamesTheInnocent(DatagramPort):
    """A pending error of another peer costs the present datagram."""

    def startListening(self) -> None:
        """Do not try again."""
        super().startListening()
        assert self._life is not None
        self._life.backend._clear_pending = lambda _: False  # type: ignore[attr-defined]


class TellsNothing(DatagramPort):
    """Refusals are counted only."""

    def startListening(self) -> None:
        """Keep them from the protocol."""
        self.protocol.peer_unreachable = lambda *_: None  # type: ignore[attr-defined]
        super().startListening()


BROKEN_PORTS: Final[Mapping[str, type[DatagramPort]]] = {
    "test_interfaces": WritesWithoutAddress,
    "test_port_zero": HostIsInvented,
    "test_host_ipv4": HostIsInvented,
    "test_host_ipv6": HostIsInvented,
    "test_host_of_all_interfaces": HostIsInvented,
    "test_port_taken": TakesAnotherPort,
    "test_foreign_address": IgnoresTheInterface,
    "test_interface_is_a_name": IgnoresTheInterface,
    "test_start": StartsTwice,
    "test_failing_start_protocol": HidesAFailingStart,
    "test_stop": StopsAtOnce,
    "test_stop_frees_the_port": NeverCloses,
    "test_stop_twice": ForgetsTheSecondStop,
    "test_stop_inside_start_protocol": CannotStopWhileStarting,
    "test_stop_inside_datagram_received": ReadsOnAfterStop,
    "test_write_after_stop": FailsAfterStop,
    "test_log_lines": LogsTwice,
    "test_datagram": InventsTheSender,
    "test_empty_datagram": DropsEmptyDatagrams,
    "test_8193_bytes": CutsDatagrams,
    "test_20000_bytes": CutsDatagrams,
    "test_largest_datagram": CutsDatagrams,
    "test_ipv6": ShowsFourMembers,
    "test_larger_than_the_limit": IgnoresTheLimit,
    "test_order": SwapsDatagrams,
    "test_write_sequence": WritesPieces,
    "test_many_empty_datagrams": ReadsWithoutEnd,
    "test_exception_in_datagram_received": HidesExceptions,
    "test_dual_stack_shows_ipv4": ShowsMappedAddresses,
    "test_dual_stack_writes_ipv4": WritesToOneFamily,
    "test_answer_from_the_address_asked": LetsTheKernelChoose,
    "test_later_answer_from_the_address_asked": LetsTheKernelChoose,
    "test_delivering_to_group": KnowsNoGroups,
    "test_too_large": HidesTheCallersFaults,
    "test_hostname": HidesTheCallersFaults,
    "test_other_family": HidesTheCallersFaults,
    "test_port_zero_as_destination": HidesTheCallersFaults,
    "test_address_needed": HidesTheCallersFaults,
    "test_broadcast_needs_leave": AlwaysBroadcasts,
    "test_connected": ConnectsByWord,
    "test_connected_writes_to_its_peer_only": ConnectsByWord,
    "test_connect_twice": ConnectsByWord,
    "test_connect_to_a_name": ConnectsByWord,
    "test_survives_refusal": DiesOfICMP,
    "test_refusal_costs_no_other_datagram": BlamesTheInnocent,
    "test_unreachable_is_told": TellsNothing,
    "test_connected_survives_refusal": DiesOfICMP,
    "test_batches": SwapsBatches,
    "test_answers_in_a_batch": AnswersTheFirst,
    "test_exception_in_a_batch": HidesExceptionsOfBatches,
}
"""For each of these tests a port that it must refuse."""
