"""What every test of the contract stands on: protocols that note what happens to them, and a case with a provider.

Theory of operation: a test asks its :class:`ContractCase` for ports, which come from the provider, writes, and waits
for a condition. :meth:`ContractCase.send_all` sends as fast as the receiving port has room, and so no test depends on
the size of a receive buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.contracts.providers import PortProvider
    from twistedudp.address import Address
    from twistedudp.interfaces import Unreachable

__all__ = ["BatchPeer", "ContractCase", "Peer", "address_of", "echo"]


_SPACE_FOR_A_DATAGRAM = 1500
"""Bytes that an empty datagram takes in a receive buffer, at most: 768 in Linux 6, more in others."""


class Peer(DatagramProtocol):
    """A protocol that notes all that its port does to it, and does what a test wants on a datagram."""

    noisy = False

    def __init__(self, on_datagram: Callable[[Peer, bytes, Address], object] | None = None) -> None:
        self.on_datagram = on_datagram
        self.on_start: Callable[[], object] = lambda: None
        self.on_stop: Callable[[], object] = lambda: None
        self.received: list[tuple[bytes, Address]] = []
        self.unreachable: list[tuple[Address, Unreachable, bytes]] = []
        self.refused = 0
        self.started = 0
        self.stopped = 0

    def startProtocol(self) -> None:
        """Count the start, and do what the test wants."""
        self.started += 1
        self.on_start()

    def stopProtocol(self) -> None:
        """Count the stop, and do what the test wants."""
        self.stopped += 1
        self.on_stop()

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note the datagram and do what the test wants."""
        self.received.append((datagram, addr))
        if self.on_datagram is not None:
            self.on_datagram(self, datagram, addr)

    def connectionRefused(self) -> None:
        """Count the refusal."""
        self.refused += 1

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Note the ICMP error."""
        self.unreachable.append((peer, reason, quoted))

    @property
    def port(self) -> Any:
        """The port, once it is there."""
        return self.transport

    @property
    def payloads(self) -> list[bytes]:
        """What came, without from where."""
        return [datagram for datagram, _ in self.received]

    @property
    def peers(self) -> list[Address]:
        """Where it came from."""
        return [addr for _, addr in self.received]


class BatchPeer(Peer):
    """A protocol that takes several datagrams at once, if its port gives it several."""

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Note them, and do what the test wants with each."""
        for datagram, addr in datagrams:
            self.datagramReceived(datagram, addr)


def echo(peer: Peer, datagram: bytes, addr: Address) -> None:
    """Answer at once."""
    peer.port.write(datagram, addr)


class ContractCase(SynchronousTestCase):
    """What the tests of the contract use."""

    provider_class: ClassVar[type[PortProvider]]

    def setUp(self) -> None:
        """Make a provider."""
        self.provider = self.provider_class()
        self.addCleanup(self.provider.close)
        self.addCleanup(self._stop_all)
        self._ports: list[Any] = []

    def listen(self, protocol: DatagramProtocol, interface: str = "127.0.0.1", port: int = 0, **options: Any) -> Any:
        """Make a port that is stopped when the test ends."""
        listening = self.provider.listen(protocol, interface, port, **options)
        self._ports.append(listening)
        return listening

    def pair(self, interface: str = "127.0.0.1", **options: Any) -> tuple[Any, Peer, Any, Peer]:
        """Make a receiving port and a sending one."""
        receiver, sender = Peer(), Peer()
        return self.listen(receiver, interface, **options), receiver, self.listen(sender, interface), sender

    def wait(self, condition: Callable[[], bool], complaint: str) -> None:
        """Let things happen until a condition holds, which it must."""
        self.assertTrue(self.provider.run_until(condition), complaint)

    def send_all(
        self,
        port: Any,
        receiver: Peer,
        datagrams: Iterable[tuple[Any, bytes]],
        answered: Sequence[Peer] = (),
    ) -> None:
        """Send datagrams to a port, each from a sending port, and wait until all have been delivered.

        Args:
            port: Where they go, at the address that each sending port is bound to.
            receiver: The protocol on it.
            datagrams: Whence each of them comes, and its payload.
            answered: Protocols on sending ports, which together get as many answers.
        """

        def arrived() -> bool:
            return len(receiver.received) >= due and sum(len(each.received) for each in answered) >= due_answers

        room = self.provider.room(port)
        due = len(receiver.received)
        due_answers = sum(len(each.received) for each in answered)
        waiting = 0
        for sending, payload in datagrams:
            size = _SPACE_FOR_A_DATAGRAM + 2 * len(payload)
            if waiting + size > room:
                self.wait(arrived, "not all datagrams or answers arrived")
                waiting = 0
            waiting += size
            sending.write(payload, address_of(port, sending.getHost().host))
            due += 1
            due_answers += bool(answered)
        self.wait(arrived, "not all datagrams or answers arrived")

    def stop(self, port: Any) -> None:
        """Stop a port and wait until it is closed."""
        stopping = port.stopListening()
        if stopping is not None:
            fired: list[object] = []
            stopping.addBoth(fired.append)
            self.wait(lambda: bool(fired), "stopListening's Deferred never fired")

    def nobody(self, interface: str = "127.0.0.1") -> Address:
        """Return an address that refuses datagrams and that nobody else can take: its port hears itself only."""
        port = self.listen(Peer(), interface)
        address = address_of(port, interface)
        port.connect(*address)
        return address

    def free_port(self, interface: str = "127.0.0.1") -> int:
        """Return a port on which nobody listens."""
        port = self.listen(Peer(), interface)
        number: int = port.getHost().port
        self.stop(port)
        return number

    def _stop_all(self) -> None:
        for port in self._ports:
            self.stop(port)


def address_of(port: Any, host: str = "127.0.0.1") -> Address:
    """Return where a port is written to, on a host given."""
    return host, port.getHost().port
