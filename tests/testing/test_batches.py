"""Protocols that take several datagrams at once, on a simulated port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.error import InvalidAddressError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.testing.protocols import Recorder
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address
    from twistedudp.testing import SimulatedPort

SERVER = "192.0.2.1"
OTHER = "192.0.2.3"


class Batches(DatagramProtocol):
    """Notes each batch, and answers it as a whole."""

    noisy = False

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.refused: list[tuple[bytes, Address, Exception]] = []
        self.stops = False

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note one that came alone."""
        self.batches.append([b"alone:" + datagram])

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Note a batch and send it back."""
        port: Any = self.transport
        self.batches.append([datagram for datagram, _ in datagrams])
        self.refused += port.write_batch(datagrams)
        if self.stops:
            port.stopListening()


class BatchTests(SynchronousTestCase):
    """A server with two addresses, and a client that records."""

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork()
        self.there = self.network.reactor(SERVER, OTHER)
        self.here = self.network.reactor("192.0.2.2")
        self.protocol = Batches()
        self.port = self.there.listenUDP(7, self.protocol, "", 65535)
        self.recorder = Recorder(self.here)
        self.asking: SimulatedPort = self.here.listenUDP(0, self.recorder)

    def test_one_instant(self) -> None:
        """What comes in one instant is delivered together, in order; what comes later is another batch."""
        for payload in (b"1", b"2", b"3"):
            self.asking.write(payload, (SERVER, 7))
        self.network.advance(0.1)
        self.asking.write(b"4", (SERVER, 7))
        self.network.run_until_idle()
        self.assertEqual(self.protocol.batches, [[b"1", b"2", b"3"], [b"4"]])
        self.assertEqual([payload for _, payload, _ in self.recorder.received], [b"1", b"2", b"3", b"4"])
        self.assertEqual((self.port.stats.turns, self.port.stats.datagrams_received), (2, 4))

    def test_no_time_passes(self) -> None:
        """They are delivered at the very time of their arrival."""
        self.asking.write(b"1", (SERVER, 7))
        self.network.run_until_idle()
        [(time, _, _)] = self.recorder.received
        self.assertAlmostEqual(time, 0.002)

    def test_address_asked(self) -> None:
        """Each answer leaves from the address that was asked, also if one client asks two in one instant."""
        for payload, host in ((b"1", SERVER), (b"2", OTHER), (b"3", SERVER)):
            self.asking.write(payload, (host, 7))
        self.network.run_until_idle()
        self.assertEqual(
            [(payload, peer[0]) for _, payload, peer in self.recorder.received],
            [(b"1", SERVER), (b"2", OTHER), (b"3", SERVER)],
        )

    def test_groups_apart(self) -> None:
        """What was sent to the broadcast address comes alone, in its place."""
        self.asking.setBroadcastAllowed(True)
        for payload, host in ((b"1", SERVER), (b"2", "255.255.255.255"), (b"3", SERVER)):
            self.asking.write(payload, (host, 7))
        self.network.run_until_idle()
        self.assertEqual(self.protocol.batches, [[b"1"], [b"alone:2"], [b"3"]])

    def test_stop(self) -> None:
        """After a stop, or a crash in the instant of the arrival, nothing more is delivered."""
        self.protocol.stops = True
        for payload, host in ((b"1", SERVER), (b"2", OTHER)):
            self.asking.write(payload, (host, 7))
        self.network.run_until_idle()
        self.assertEqual(self.protocol.batches, [[b"1"]])
        self.port = self.there.listenUDP(7, self.protocol, "", 65535)
        self.asking.write(b"3", (SERVER, 7))
        self.network.clock.step()
        self.there.crash()
        self.network.run_until_idle()
        self.assertEqual(self.protocol.batches, [[b"1"]])

    def test_caller_at_fault(self) -> None:
        """What cannot be sent comes back with its error, and the others leave."""
        refused = self.asking.write_batch(
            [(b"1", (SERVER, 7)), (b"2", ("localhost", 7)), (bytes(65508), (SERVER, 7)), (b"4", (SERVER, 7))]
        )
        self.assertEqual(
            [(len(payload), type(error)) for payload, _, error in refused],
            [(1, InvalidAddressError), (65508, MessageLengthError)],
        )
        self.network.run_until_idle()
        self.assertEqual(self.protocol.batches, [[b"1", b"4"]])

    def test_ordinary_protocols(self) -> None:
        """A protocol without the method gets them one by one, as ever."""
        other = Recorder(self.there)
        self.there.listenUDP(8, other)
        for payload in (b"1", b"2"):
            self.asking.write(payload, (SERVER, 8))
        self.network.run_until_idle()
        self.assertEqual([payload for _, payload, _ in other.received], [b"1", b"2"])
