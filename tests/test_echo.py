"""The echo protocol, on the simulated network."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase

from tests.contracts.providers import OurPorts, provider_classes
from twistedudp.address import LARGEST_PAYLOAD
from twistedudp.echo import OWN_HOSTS_REMEMBERED, EchoProtocol, EchoStats
from twistedudp.testing import Datagram, SimulatedNetwork

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twistedudp.address import Address
    from twistedudp.testing import SimulatedReactor

SERVER = "192.0.2.1"
SERVER6 = "2001:db8::1"
CLIENT = "192.0.2.2"
CLIENT6 = "2001:db8::2"
BROADCAST = "255.255.255.255"
ANY = "0.0.0.0"  # noqa: S104  # simulated
PORT = 10007


class Client(DatagramProtocol):
    """Notes what it gets."""

    noisy = False

    def __init__(self) -> None:
        self.received: list[tuple[bytes, Address]] = []

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Note a datagram."""
        self.received.append((datagram, addr))


class BareTransport:
    """A transport that cannot tell what address a datagram was sent to, as Twisted's own cannot."""

    def __init__(self) -> None:
        self.written: list[tuple[bytes, Address]] = []

    def getHost(self) -> IPv4Address:
        """Return where it is bound."""
        return IPv4Address("UDP", SERVER, PORT)

    def write(self, packet: bytes, addr: Address) -> None:
        """Note a datagram."""
        self.written.append((packet, addr))


class BatchTransport(BareTransport):
    """A transport that takes answers together.

    Attributes:
        batches: How many it took each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def write_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
        """Note some datagrams, and refuse those that no datagram can carry."""
        self.batches.append(len(datagrams))
        self.written += datagrams
        return [
            (datagram, peer, MessageLengthError(f"{len(datagram)} bytes"))
            for datagram, peer in datagrams
            if len(datagram) > LARGEST_PAYLOAD
        ]


class Shouting(EchoProtocol):
    """An echo server of somebody's own, which knows nothing of batches."""

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Answer in capitals."""
        super().datagramReceived(datagram.upper(), addr)


class Counting(EchoProtocol):
    """An echo server that notes how many datagrams it got at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Note a batch and answer it."""
        self.batches.append(len(datagrams))
        super().datagrams_received(datagrams)


class EchoTestCase(SynchronousTestCase):
    """A server's host, a client's host, and an echo protocol to put on the former."""

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork()
        self.host = self.network.reactor(SERVER, SERVER6)
        self.client_host = self.network.reactor(CLIENT, CLIENT6)
        self.echo = EchoProtocol()

    def serve(self, interface: str = SERVER, echo: EchoProtocol | None = None) -> None:
        """Put the echo protocol on its port."""
        port = self.host.listenUDP(PORT, echo or self.echo, interface, 65535)
        self.addCleanup(self.network.run_until_idle)
        self.addCleanup(port.stopListening)

    def ask(
        self, payload: bytes, to: str = SERVER, *, port: int = 40000, host: SimulatedReactor | None = None
    ) -> list[tuple[bytes, Address]]:
        """Send one datagram from a port of the client's host, and return what came back to it."""
        client = Client()
        listening = (host or self.client_host).listenUDP(port, client, "::" if ":" in to else "", 65535)
        listening.setBroadcastAllowed(True)
        listening.write(payload, (to, PORT))
        self.network.advance(1)
        listening.stopListening()
        self.network.run_until_idle()
        return client.received

    def forge(self, source: Address, to: str = SERVER) -> None:
        """Let a datagram arrive that claims to come from ``source``."""
        self.network.send(self.client_host.host, Datagram(source, (to, PORT), b"forged"))
        self.network.advance(5)


class AnsweringTests(EchoTestCase):
    """What goes back."""

    def test_sizes_ipv4(self) -> None:
        """Every size that UDP over IPv4 carries goes back byte for byte, empty datagrams too."""
        self.serve()
        for size in (0, 1, 1472, 8193, 65507):
            payload = bytes(index * 7 % 256 for index in range(size))
            self.assertEqual(self.ask(payload), [(payload, (SERVER, PORT))])
        self.assertEqual(self.echo.stats, EchoStats(echoed=5))

    def test_largest_ipv6(self) -> None:
        """IPv6 carries 65,527 bytes."""
        self.serve("::")
        payload = b"\xa5" * 65527
        self.assertEqual(self.ask(payload, SERVER6), [(payload, (SERVER6, PORT))])

    def test_stock_transport(self) -> None:
        """On a transport that cannot tell groups, everything but groups works."""
        transport = BareTransport()
        self.echo.makeConnection(transport)  # type: ignore[arg-type]  # it has what EchoProtocol uses
        self.echo.datagramReceived(b"x", (CLIENT, 40000))
        self.echo.datagramReceived(b"y", (SERVER, PORT))
        self.assertEqual(transport.written, [(b"x", (CLIENT, 40000))])

    def test_second_start(self) -> None:
        """A protocol that is started again on another port refuses that port's address, not the old one."""
        self.echo.noisy = False
        first = self.host.listenUDP(PORT + 1, self.echo, SERVER)
        first.stopListening()
        self.network.run_until_idle()
        self.serve()
        self.forge((SERVER, PORT))
        self.assertEqual(self.echo.stats, EchoStats(refused_own_address=1))


class RefusingTests(EchoTestCase):
    """What is never answered, and that each reason is counted."""

    def test_port_zero(self) -> None:
        """Nobody can be reached at port 0, not even where privileged ports are answered."""
        for echo in (self.echo, EchoProtocol(answer_privileged_ports=True)):
            transport = BareTransport()
            echo.makeConnection(transport)  # type: ignore[arg-type]  # it has what EchoProtocol uses
            echo.datagramReceived(b"x", (CLIENT, 0))
            echo.datagramReceived(b"x", ("127.0.0.1", 0))
            self.assertEqual((transport.written, echo.stats), ([], EchoStats(refused_port_zero=2)))

    def test_own_address(self) -> None:
        """One forged datagram from the server's own address starts no loop."""
        self.serve()
        self.forge((SERVER, PORT))
        self.assertEqual(self.echo.stats, EchoStats(refused_own_address=1))
        self.assertEqual(len(self.network.trace), 1)

    def test_own_port_of_another_host(self) -> None:
        """A client may use our port number on its own host."""
        self.serve()
        self.assertEqual(self.ask(b"x", port=PORT), [(b"x", (SERVER, PORT))])

    def test_own_address_on_wildcard(self) -> None:
        """A server on all addresses knows loopback, and each address that it can bind to, as its own."""
        self.echo._can_be_bound = lambda host: host == SERVER  # type: ignore[method-assign]  # the kernel's part
        self.serve(ANY)
        self.forge(("127.0.0.1", PORT))
        self.forge(("127.9.9.9", PORT))
        self.forge((SERVER, PORT))
        self.assertEqual(self.echo.stats, EchoStats(refused_own_address=3))
        self.assertEqual(self.ask(b"x", port=PORT), [(b"x", (SERVER, PORT))])

    def test_own_address_on_dual_stack(self) -> None:
        """On ``::`` an own IPv4 address is recognised in its IPv4-mapped spelling too."""
        asked: list[str] = []

        def can_be_bound(host: str) -> bool:
            asked.append(host)
            return True

        self.echo._can_be_bound = can_be_bound  # type: ignore[method-assign]  # the kernel's part
        self.serve("::")
        self.echo.datagramReceived(b"x", (f"::ffff:{SERVER}", PORT))
        self.assertEqual((asked, self.echo.stats), ([SERVER], EchoStats(refused_own_address=1)))

    def test_own_hosts_are_remembered_for_a_while(self) -> None:
        """The kernel is asked once per host, and again after a bounded number of datagrams."""
        asked: list[str] = []

        def can_be_bound(host: str) -> bool:
            asked.append(host)
            return False

        self.echo._can_be_bound = can_be_bound  # type: ignore[method-assign]  # the kernel's part
        self.serve(ANY)
        for _ in range(OWN_HOSTS_REMEMBERED):
            self.echo.datagramReceived(b"", (CLIENT, PORT))
        self.assertEqual(asked, [CLIENT])
        self.echo.datagramReceived(b"", (CLIENT, PORT))
        self.assertEqual(asked, [CLIENT, CLIENT])
        for number in range(2 * OWN_HOSTS_REMEMBERED):
            self.echo.datagramReceived(b"", (f"198.18.{number // 256}.{number % 256}", PORT))
        self.assertLessEqual(len(self.echo._own_hosts), OWN_HOSTS_REMEMBERED)
        self.network.run_until_idle()

    def test_privileged_port(self) -> None:
        """Ports below 1024 of other machines are where other echo servers stand; 1024 itself is not."""
        self.serve()
        self.assertEqual(self.ask(b"x", port=1023), [])
        self.assertEqual(self.ask(b"x", port=7), [])
        self.assertEqual(self.ask(b"x", port=1024), [(b"x", (SERVER, PORT))])
        self.assertEqual(self.echo.stats, EchoStats(echoed=1, refused_privileged_port=2))

    def test_privileged_port_of_loopback(self) -> None:
        """On loopback only root itself has such ports: answered."""
        self.serve(ANY)
        self.assertEqual(self.ask(b"x", "127.0.0.1", port=7, host=self.host), [(b"x", ("127.0.0.1", PORT))])

    def test_privileged_ports_lifted(self) -> None:
        """The operator may decide otherwise."""
        self.serve(echo=EchoProtocol(answer_privileged_ports=True))
        self.assertEqual(self.ask(b"x", port=7), [(b"x", (SERVER, PORT))])

    def test_group(self) -> None:
        """A datagram to a broadcast address is not answered, and the next one to the server's own is."""
        self.serve(ANY)
        self.assertEqual(self.ask(b"all", BROADCAST), [])
        self.assertEqual(self.ask(b"one"), [(b"one", (SERVER, PORT))])
        self.assertEqual(self.echo.stats, EchoStats(echoed=1, refused_group=1))


class BatchTests(EchoTestCase):
    """What has come together is answered together, and nothing else is different."""

    def start(self, transport: BareTransport, echo: EchoProtocol | None = None) -> EchoProtocol:
        """Put an echo protocol on a transport."""
        echo = echo or self.echo
        echo.noisy = False
        echo.makeConnection(transport)  # type: ignore[arg-type]  # it has what EchoProtocol uses
        return echo

    def test_together(self) -> None:
        """All answers of a batch leave at once, in its order, and are counted."""
        transport = BatchTransport()
        batch = [(str(number).encode(), (CLIENT, 40000 + number % 3)) for number in range(20)]
        self.start(transport).datagrams_received(batch)
        self.assertEqual((transport.written, transport.batches), (batch, [20]))
        self.assertEqual(self.echo.stats, EchoStats(echoed=20))

    def test_refusals(self) -> None:
        """What is not answered is left out, wherever it stands in the batch, and counted by its reason."""
        transport = BatchTransport()
        good = [(b"a", (CLIENT, 1024)), (b"b", ("127.0.0.1", 7)), (b"c", (CLIENT, PORT)), (b"d", (CLIENT6, 65535))]
        bad = [(b"w", (CLIENT, 0)), (b"x", (CLIENT, 1023)), (b"y", (SERVER, PORT)), (b"z", ("127.0.0.1", 0))]
        self.start(transport).datagrams_received([bad[0], good[0], bad[1], *good[1:3], *bad[2:], good[3]])
        self.assertEqual((transport.written, transport.batches), (good, [4]))
        expected = EchoStats(echoed=4, refused_port_zero=2, refused_own_address=1, refused_privileged_port=1)
        self.assertEqual(self.echo.stats, expected)

    def test_same_as_one_by_one(self) -> None:
        """For each sender a batch decides as a datagram alone does, with each setting."""
        senders = [(host, port) for host in (SERVER, CLIENT, "127.0.0.1") for port in (0, 7, 1023, 1024, PORT)]
        for lifted in (False, True):
            alone, together = BatchTransport(), BatchTransport()
            one = self.start(alone, EchoProtocol(lifted))
            other = self.start(together, EchoProtocol(lifted))
            for sender in senders:
                one.datagramReceived(b"x", sender)
            other.datagrams_received([(b"x", sender) for sender in senders])
            self.assertEqual((together.written, other.stats), (alone.written, one.stats))

    def test_nothing_left(self) -> None:
        """Where no datagram of a batch may be answered, nothing is written."""
        transport = BatchTransport()
        self.start(transport).datagrams_received([(b"x", (CLIENT, 0)), (b"y", (SERVER, PORT))])
        self.assertEqual(transport.batches, [])
        self.assertEqual(self.echo.stats, EchoStats(refused_port_zero=1, refused_own_address=1))

    def test_not_written(self) -> None:
        """What the port does not take is not counted as echoed, and the port is told why, as after a write()."""
        transport = BatchTransport()
        batch = [(b"x", (CLIENT, 40000)), (bytes(LARGEST_PAYLOAD + 1), (CLIENT, 40000)), (b"y", (CLIENT, 40000))]
        self.start(transport)
        self.assertRaises(MessageLengthError, self.echo.datagrams_received, batch)
        self.assertEqual(self.echo.stats, EchoStats(echoed=2))

    def test_port_without_batches(self) -> None:
        """Where answers cannot leave together they leave one by one."""
        transport = BareTransport()
        batch = [(b"x", (CLIENT, 40000)), (b"y", (CLIENT, 40001))]
        self.start(transport).datagrams_received([*batch, (b"z", (CLIENT, 0))])
        self.assertEqual(transport.written, batch)
        self.assertEqual(self.echo.stats, EchoStats(echoed=2, refused_port_zero=1))

    def test_subclass(self) -> None:
        """A protocol derived from this one, with a datagramReceived of its own, gets each datagram by that."""
        transport = BatchTransport()
        self.start(transport, Shouting()).datagrams_received([(b"x", (CLIENT, 40000)), (b"y", (CLIENT, 40001))])
        self.assertEqual(transport.written, [(b"X", (CLIENT, 40000)), (b"Y", (CLIENT, 40001))])

    def test_simulated(self) -> None:
        """On the simulated port what comes in one instant is echoed, and refused, as one batch."""
        self.serve(ANY)
        client = Client()
        listening = self.client_host.listenUDP(40000, client, "", 65535)
        sent = [str(number).encode() for number in range(10)]
        for payload in sent:
            listening.write(payload, (SERVER, PORT))
            self.network.send(self.client_host.host, Datagram((CLIENT, 7), (SERVER, PORT), payload))
        self.network.advance(1)
        self.assertEqual(client.received, [(payload, (SERVER, PORT)) for payload in sent])
        self.assertEqual(self.echo.stats, EchoStats(echoed=10, refused_privileged_port=10))
        listening.stopListening()
        self.network.run_until_idle()


class RealBatchTests(SynchronousTestCase):
    """The same on the kernel's sockets, by each backend and on each reactor."""

    def exchange(self, provider: Any) -> None:
        """Let datagrams of several peers wait for the port, one of them sent by itself, and look at what comes back."""
        self.addCleanup(provider.close)
        echo = Counting()
        port = provider.listen(echo)
        self.addCleanup(port.connectionLost)
        own = ("127.0.0.1", port.getHost().port)
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
        for client in clients:
            self.addCleanup(client.close)
            client.settimeout(5)
        sent = [[b"%d of %d" % (turn, number) for turn in range(16)] for number in range(3)]
        port.write(b"from itself", own)
        for turn in range(16):
            for client, payloads in zip(clients, sent, strict=True):
                client.sendto(payloads[turn], own)
        self.assertTrue(provider.run_until(lambda: echo.stats.echoed == 48 and echo.stats.refused_own_address))
        for client, payloads in zip(clients, sent, strict=True):
            self.assertEqual([client.recvfrom(100) for _ in payloads], [(payload, own) for payload in payloads])
        self.assertEqual(echo.stats, EchoStats(echoed=48, refused_own_address=1))
        self.assertEqual(sum(echo.batches), 49)
        self.assertGreater(max(echo.batches), 1)

    def test_ports(self) -> None:
        """Every peer gets its own datagrams back, in order, and what the server sent to itself goes no further."""
        for made in provider_classes():
            if issubclass(made, OurPorts):
                self.exchange(made())
