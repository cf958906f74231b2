"""Small protocols that the tests of the simulated network run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.protocol import DatagramProtocol

if TYPE_CHECKING:
    from twistedudp.address import Address
    from twistedudp.interfaces import Unreachable
    from twistedudp.testing import SimulatedReactor


class Echo(DatagramProtocol):
    """Sends everything back."""

    noisy = False

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Answer at once."""
        assert self.transport is not None
        self.transport.write(datagram, addr)


class Recorder(DatagramProtocol):
    """Notes what it gets and when."""

    noisy = False

    def __init__(self, reactor: SimulatedReactor) -> None:
        self.reactor = reactor
        self.received: list[tuple[float, bytes, Address]] = []
        self.stopped = 0

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note a datagram."""
        self.received.append((self.reactor.seconds(), datagram, addr))

    def stopProtocol(self) -> None:
        """Count the stop."""
        self.stopped += 1


class ErrorRecorder(Recorder):
    """Notes ICMP errors as well."""

    def __init__(self, reactor: SimulatedReactor) -> None:
        super().__init__(reactor)
        self.errors: list[tuple[float, Address, Unreachable, bytes]] = []
        self.refusals = 0

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Note an ICMP error."""
        self.errors.append((self.reactor.seconds(), peer, reason, quoted))

    def connectionRefused(self) -> None:
        """Count what a connected port tells."""
        self.refusals += 1
