"""The interfaces by which twistedudp and other code meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.interfaces import IListeningPort, IMulticastTransport, IUDPTransport
from zope.interface import Attribute, Interface

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.defer import Deferred

    from .address import Address

__all__ = ["IBatchReceiver", "IDatagramPlugin", "IDatagramPort", "IDrainable", "IUnreachableReceiver", "Unreachable"]


class Unreachable(NamedTuple):
    """Why a datagram that was sent did not arrive, as far as the network told (an ICMP error, or a local one)."""

    errno: int
    """The ``errno`` that the kernel made of it, such as ``ECONNREFUSED``."""
    reason: str
    """The same in words, such as ``"Connection refused"``."""
    icmp_type: int
    """The ICMP or ICMPv6 type; 0 where the error is the own kernel's."""
    icmp_code: int
    reporter: str
    """The numeric host that sent the ICMP error, a router or the peer; empty where not known."""


class IUnreachableReceiver(Interface):
    """What a ``DatagramProtocol`` may provide beside its own methods, to learn of ICMP errors.

    A port looks for the method, not for the interface, so that a plain class needs no decorator.
    """

    def peer_unreachable(peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """A datagram sent to ``peer`` was refused on its way.

        ICMP errors are hints and can be forged (RFC 8085 section 5.2): act only on one that quotes what you sent.

        Args:
            peer: Where the datagram was sent to.
            reason: What the network said.
            quoted: The payload that the error quotes, perhaps cut short by the router.
        """


class IBatchReceiver(Interface):
    """What a ``DatagramProtocol`` may provide beside its own methods, to get together what has come together.

    It spares work that need not be done for each datagram, and answers written at the end of a batch leave together, so
    that their receiver wakes up once. A port looks for the method, not for the interface. Ports that know nothing of it
    call ``datagramReceived``, and so do ours for datagrams that were sent to a broadcast or multicast address.
    """

    def datagrams_received(datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Some datagrams have come.

        Args:
            datagrams: Their payloads and senders, in the order in which they came; at least one. How many depends on
                how long the last batches took: a batch is to end within 4 ms.
        """


class IDrainable(Interface):
    """What a ``DatagramProtocol`` may provide beside its own methods, so that a stop does not cut its work short.

    :meth:`twistedudp.UDPServerService.drain` looks for the method, not for the interface. A protocol without it has
    nothing that runs between two datagrams, and is stopped at once.
    """

    def drain() -> Deferred[None]:
        """Begin no new work from now on, until the port stops.

        Returns:
            A Deferred that fires when the work that had begun is done; it must not fail.
        """


# IUDPTransport is named because IMulticastTransport does not include it in Twisted 24.7.
class IDatagramPort(IListeningPort, IMulticastTransport, IUDPTransport):  # type: ignore[misc]  # they disagree on getHost
    """What :func:`twistedudp.listen` returns where the reactor has file descriptors."""

    stats = Attribute("The port's counters, a :class:`twistedudp.transport.DatagramStats`.")
    admission_stats = Attribute(
        "What admission has refused, a :class:`twistedudp.admission.AdmissionStats`; None where everybody is let in."
    )
    backend = Attribute("The name of what reads and writes the socket: mmsg or scalar; in simulations simulated.")
    delivering_to_group = Attribute(
        "True while a datagram is being delivered that was sent to a broadcast or multicast address."
    )
    arrival_times = Attribute(
        "When the datagrams being delivered arrived, in nanoseconds since the epoch, one each; empty at other times and"
        " on ports without timestamps=True."
    )

    def path_mtu(host: str) -> int | None:
        """Return the largest packet that reaches a host whole, in bytes with its IP header, None if not known."""

    def write_batch(datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
        """Send several datagrams at once, in order.

        Returns:
            Those that the caller made wrong, each with its peer and with what ``write`` would have raised.
        """


class IDatagramPlugin(Interface):
    """What a file in ``twisted/plugins`` holds to offer a protocol to ``twistd udpecho --protocol NAME``."""

    name = Attribute("The name by which users choose it, unique among the installed plugins.")
    target = Attribute(
        "'module:Class' of a DatagramProtocol or an RPCMethods; imported only when chosen, after --uid took effect."
    )
    description = Attribute("One line that --list-protocols shows.")
