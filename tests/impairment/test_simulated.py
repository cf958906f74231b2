"""Effects on the simulated network: what protocols see of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.testing.protocols import Echo, ErrorRecorder
from twistedudp.impairment import (
    MTU,
    Corrupt,
    Jitter,
    Loss,
    NATRebinding,
    Partition,
    PortUnreachable,
    Rate,
    Reorder,
    parse_effects,
)
from twistedudp.testing import Fate, SimulatedNetwork

SERVER = "192.0.2.1"
CLIENT = "192.0.2.2"
NAT = "203.0.113.1"


class PeerRecorder(Echo):
    """An echo server that notes who asked."""

    def __init__(self) -> None:
        self.peers: list[tuple[str, int]] = []

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """Note the peer, and answer."""
        self.peers.append(addr)
        super().datagramReceived(datagram, addr)


class SimulatedTestCase(SynchronousTestCase):
    """A client and an echo server, a tenth of a second apart."""

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork(seed=3, delay=0.1)
        self.server = self.network.reactor(SERVER)
        self.client = self.network.reactor(CLIENT)
        self.echo = PeerRecorder()
        self.server.listenUDP(7, self.echo)
        self.recorder = ErrorRecorder(self.client)
        self.port = self.client.listenUDP(9, self.recorder)
        self.there = self.network.link(self.client, self.server)
        self.back = self.network.link(self.server, self.client)

    def answers(self, *payloads: bytes) -> list[bytes]:
        """Ask the echo server these, and return the answers."""
        del self.recorder.received[:]
        for payload in payloads:
            self.port.write(payload, (SERVER, 7))
        self.network.run_until_idle()
        return [payload for _, payload, _ in self.recorder.received]


class EffectTests(SimulatedTestCase):
    """Each in its place."""

    def test_partition_by_hand(self) -> None:
        """One partition on both links cuts the pair off, and the trace names it."""
        partition = Partition()
        for link in (self.there, self.back):
            link.add(partition)
        self.assertEqual(self.answers(b"1"), [b"1"])
        partition.cut()
        self.assertEqual(self.answers(b"2"), [])
        self.assertEqual((self.network.trace[-1].fate, self.network.trace[-1].cause), (Fate.LOST, "Partition"))
        partition.heal()
        self.assertEqual(self.answers(b"3"), [b"3"])

    def test_port_unreachable(self) -> None:
        """The sender hears of it by an ICMP error along the opposite link, which counts as any other."""
        self.there.add(PortUnreachable(1))
        self.assertEqual(self.answers(b"anybody?"), [])
        ((time, peer, reason, quoted),) = self.recorder.errors
        self.assertEqual((time, peer, quoted), (0.1, (SERVER, 7), b"anybody?"))
        self.assertEqual((reason.icmp_type, reason.icmp_code, reason.reporter), (3, 3, SERVER))
        self.assertEqual([record.fate for record in self.network.trace], [Fate.REFUSED, Fate.DELIVERED])

    def test_refusal_is_lost(self) -> None:
        """An ICMP error that the opposite link loses is not heard."""
        self.there.add(PortUnreachable(1))
        self.back.add(Loss(1))
        self.answers(b"anybody?")
        self.assertEqual(self.recorder.errors, [])
        self.assertEqual([record.fate for record in self.network.trace], [Fate.REFUSED, Fate.LOST])

    def test_mtu(self) -> None:
        """What is too large is lost, and an ICMP error made, if wanted."""
        self.there.add(MTU(128, icmp=True))
        self.assertEqual(self.answers(bytes(101), bytes(100)), [bytes(100)])
        errors = [record.error for record in self.network.trace if record.error]
        self.assertEqual([(error.icmp_type, error.icmp_code, error.reporter) for error in errors], [(3, 4, "")])

    def test_corrupt(self) -> None:
        """What arrives differs in one bit."""
        self.there.add(Corrupt(1))
        (answer,) = self.answers(bytes(8))
        self.assertEqual(int.from_bytes(answer, "big").bit_count(), 1)

    def test_reorder(self) -> None:
        """The one that is held back arrives last of those that are sent at once."""
        self.there.add(Reorder(0.5, hold=0.05))
        asked = [bytes([number]) for number in range(10)]
        answers = self.answers(*asked)
        self.assertEqual(sorted(answers), asked)
        self.assertNotEqual(answers, asked)

    def test_order_is_kept(self) -> None:
        """Through ordered jitter and a slow line, a thousand datagrams stay in order to the last."""
        self.there.add(Jitter(0.5, keep_order=True))
        self.there.add(Rate(1e6, queue_seconds=60))
        self.back.add(Jitter(0.5, keep_order=True))
        answers = []
        for number in range(1000):
            self.port.write(number.to_bytes(2, "big"), (SERVER, 7))
            self.network.advance(0.0001)
        self.network.run_until_idle()
        answers = [int.from_bytes(payload, "big") for _, payload, _ in self.recorder.received]
        self.assertEqual(answers, list(range(1000)))

    def test_rate(self) -> None:
        """A slow line spaces datagrams that were sent at once."""
        self.there.add(Rate(8000, queue_seconds=60))
        self.answers(*[bytes(972)] * 3)
        self.assertEqual([round(time, 6) for time, *_ in self.recorder.received], [1.2, 2.2, 3.2])


class NATTests(SimulatedTestCase):
    """A NAT between client and server."""

    def test_port_only(self) -> None:
        """The server sees another port of the same host, the client sees nothing; after a rebinding yet another."""
        nat = NATRebinding()
        self.there.add(nat)
        self.back.add(nat.inbound)
        self.assertEqual(self.answers(b"1", b"2"), [b"1", b"2"])
        nat.rebind()
        self.assertEqual(self.answers(b"3"), [b"3"])
        first, second, third = self.echo.peers
        self.assertEqual(first, second)
        self.assertEqual({host for host, _ in self.echo.peers}, {CLIENT})
        self.assertEqual(len({9, first[1], third[1]}), 3)
        self.assertEqual({peer for *_, peer in self.recorder.received}, {(SERVER, 7)})

    def test_dead_mapping(self) -> None:
        """An answer that comes after the mapping has died is lost."""
        nat = NATRebinding(interval=0.15)
        self.there.add(nat)
        self.back.add(nat.inbound)
        self.assertEqual(self.answers(b"1"), [b"1"])
        self.back.delay = 0.01
        self.there.delay = 0.2
        self.assertEqual(self.answers(b"2"), [])
        self.assertEqual((self.network.trace[-1].fate, self.network.trace[-1].cause), (Fate.LOST, "NATInbound"))

    def test_with_a_host(self) -> None:
        """A NAT with an address of its own stands on the link to that host, and on its way back to the client."""
        outside = self.network.reactor(NAT)
        nat = NATRebinding(host=NAT)
        self.there.add(nat)
        self.network.link(self.server, outside).add(nat.inbound)
        self.assertEqual(self.answers(b"1"), [b"1"])
        nat.rebind()
        self.assertEqual(self.answers(b"2"), [b"2"])
        self.assertEqual({host for host, _ in self.echo.peers}, {NAT})
        self.assertEqual(len(set(self.echo.peers)), 2)

    def test_refusals(self) -> None:
        """ICMP errors find their way through the NAT in both directions, wherever they were made."""
        nat = NATRebinding()
        self.there.add(nat)
        self.back.add(nat.inbound)
        self.answers(b"1")
        self.port.write(b"anybody?", (SERVER, 8))
        self.network.run_until_idle()
        self.assertEqual([(peer, quoted) for _, peer, _, quoted in self.recorder.errors], [((SERVER, 8), b"anybody?")])
        for _ in range(2):
            self.there.add(PortUnreachable(1))
            self.answers(b"2")
            self.there.clear()
            self.there.add(PortUnreachable(1))
            self.there.add(nat)
        self.assertEqual([peer for _, peer, *_ in self.recorder.errors[1:]], [(SERVER, 7)] * 2)

    def test_refused_by_the_client(self) -> None:
        """A server that answers where nobody listens any more learns the outside address that it has answered."""
        nat = NATRebinding()
        self.there.add(nat)
        self.back.add(nat.inbound)
        listening = ErrorRecorder(self.server)
        port = self.server.listenUDP(8, listening)
        self.port.write(b"ask", (SERVER, 8))
        self.network.run_until_idle()
        ((_, _, outside),) = listening.received
        self.port.stopListening()
        self.network.run_until_idle()
        port.write(b"answer", outside)
        self.network.run_until_idle()
        self.assertEqual([(peer, quoted) for _, peer, _, quoted in listening.errors], [(outside, b"answer")])


class TextTests(SynchronousTestCase):
    """Effects from a text, on both directions of a link."""

    TEXT = (
        "nat=700ms,loss=5%,burst=5%:4,delay=20ms±5ms,duplicate=5%:10ms,reorder=5%,corrupt=5%,truncate=5%,mtu=1280,"
        "rate=1mbit:64kB,partition=100ms/900ms@1s,unreachable=1%,jitter=1ms:ordered"
    )

    def run_text(self, text: str, seed: int) -> SimulatedNetwork:
        """Ask an echo server 500 times through these effects."""
        network = SimulatedNetwork(seed)
        server, client = network.reactor(), network.reactor()
        server.listenUDP(7, Echo())
        there, back = parse_effects(text).make_pair()
        for effect in there:
            network.link(client, server).add(effect)
        for effect in back:
            network.link(server, client).add(effect)
        port = client.listenUDP(0, ErrorRecorder(client))
        for number in range(500):
            port.write(bytes([number & 255]) * (number * 3), (server.addresses[0], 7))
            network.advance(0.01)
        network.run_until_idle()
        return network

    def test_all_together(self) -> None:
        """All effects in one row work, and each of those that lose something does."""
        network = self.run_text(self.TEXT, 1)
        causes = {record.cause for record in network.trace if record.fate in (Fate.LOST, Fate.REFUSED)}
        self.assertLessEqual({"Loss", "BurstLoss", "MTU", "Partition", "PortUnreachable", "NATInbound"}, causes)
        self.assertGreater(len(network.trace.select(fate=Fate.DELIVERED)), 300)

    def test_seeds(self) -> None:
        """Equal seeds give equal traces, others do not."""
        digests = [self.run_text(self.TEXT, seed).trace.digest() for seed in (1, 1, 2)]
        self.assertEqual([digests.index(digest) for digest in digests], [0, 0, 2])
