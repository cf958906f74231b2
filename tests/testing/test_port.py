"""The port of a simulated host: what the contract of all ports does not say about it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import CannotListenError, InvalidAddressError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.python import log
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.testing.protocols import Echo, ErrorRecorder, Recorder
from twistedudp.errors import LocalError
from twistedudp.interfaces import IDatagramPort, Unreachable
from twistedudp.testing import Fate, SimulatedNetwork

if TYPE_CHECKING:
    from twistedudp.address import Address
    from twistedudp.testing import SimulatedPort

SERVER = "192.0.2.1"
SERVER6 = "2001:db8::1"
CLIENT = "192.0.2.2"
CLIENT6 = "2001:db8::2"
ANY = "0.0.0.0"  # noqa: S104  # simulated


class PortTestCase(SynchronousTestCase):
    """Two hosts with an address of each kind."""

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork(delay=0.25)
        self.server = self.network.reactor(SERVER, SERVER6)
        self.client = self.network.reactor(CLIENT, CLIENT6)
        self.recorder = ErrorRecorder(self.client)

    def echo(self, interface: str = "", size: int = 65535) -> SimulatedPort:
        """Start an echo server on port 7."""
        return self.server.listenUDP(7, Echo(), interface, size)

    def record(self, interface: str = "", port: int = 0) -> SimulatedPort:
        """Start the recorder on the client's host."""
        return self.client.listenUDP(port, self.recorder, interface, 65535)

    def received(self) -> list[tuple[bytes, Address]]:
        """Run until nothing happens any more and return what the recorder got."""
        self.network.run_until_idle()
        return [(payload, peer) for _, payload, peer in self.recorder.received]


class BindTests(PortTestCase):
    """Who gets which port."""

    def test_interface(self) -> None:
        """The port provides what a real one provides."""
        self.assertTrue(verifyObject(IDatagramPort, self.echo()))

    def test_port_zero(self) -> None:
        """Port 0 gives a free ephemeral port, another one each time."""
        ports = [self.record().getHost().port, self.client.listenUDP(0, Echo()).getHost().port]
        self.assertNotEqual(*ports)
        for port in ports:
            self.assertTrue(32768 <= port <= 60999, port)

    def test_port_zero_depends_on_the_seed(self) -> None:
        """Equal seeds give equal ephemeral ports, different seeds different ones."""

        def ports(seed: int) -> list[int]:
            reactor = SimulatedNetwork(seed).reactor()
            return [reactor.listenUDP(0, Echo()).getHost().port for _ in range(3)]

        self.assertEqual(ports(1), ports(1))
        self.assertNotEqual(ports(1), ports(2))

    def test_no_port_free(self) -> None:
        """When all ephemeral ports are taken, port 0 is refused as the kernel does it."""
        stub = self.client.listenUDP(1, Echo())
        for number in range(32768, 61000):
            self.client.host.bind(stub, ANY, number)
        error = self.assertRaises(CannotListenError, self.record)
        self.assertEqual(error.socketError.errno, errno.EADDRINUSE)
        self.client.host.release(stub, 60999)
        self.assertEqual(self.record().getHost().port, 60999)

    def test_get_host(self) -> None:
        """The address is the one bound to, wildcards as such; it stays known after the end."""
        self.assertEqual(self.echo().getHost(), IPv4Address("UDP", ANY, 7))
        port = self.record("::1", 9)
        self.assertEqual(port.getHost(), IPv6Address("UDP", "::1", 9))
        self.network.run_until(port.stopListening())  # type: ignore[arg-type]  # it listens: a Deferred
        self.assertEqual(port.getHost(), IPv6Address("UDP", "::1", 9))

    def test_double_bind(self) -> None:
        """A port is taken by the same address and by wildcards, not by another address, family or host."""
        conflicts = {
            "127.0.0.1": {"127.0.0.1", "", ANY, "::"},
            "": {"127.0.0.1", SERVER, "", ANY, "::"},
            "::1": {"::1", "::"},
            "::": {"127.0.0.1", SERVER, "", ANY, "::1", SERVER6, "::"},
        }
        for first, taken in conflicts.items():
            for second in ("127.0.0.1", SERVER, "", ANY, "::1", SERVER6, "::"):
                host = SimulatedNetwork().reactor(SERVER, SERVER6)
                host.listenUDP(7, Echo(), first)
                if second in taken:
                    error = self.assertRaises(CannotListenError, host.listenUDP, 7, Echo(), second)
                    self.assertEqual(error.socketError.errno, errno.EADDRINUSE, (first, second))
                else:
                    host.listenUDP(7, Echo(), second)
        self.echo()
        self.record(port=7)

    def test_stopping_frees_one_address(self) -> None:
        """Of two ports with one number on different addresses, stopping one leaves the other in its place."""
        first = self.record("127.0.0.1", 9)
        self.client.listenUDP(9, Echo(), "127.0.0.2")
        self.network.run_until(first.stopListening())  # type: ignore[arg-type]  # it listens: a Deferred
        self.assertRaises(CannotListenError, self.client.listenUDP, 9, Echo(), "127.0.0.2")
        self.client.listenUDP(9, Echo(), "127.0.0.1")

    def test_foreign_address(self) -> None:
        """An address of another host cannot be bound to; a host name is no address; nor is 65,536 a port."""
        error = self.assertRaises(CannotListenError, self.record, SERVER)
        self.assertEqual(error.socketError.errno, errno.EADDRNOTAVAIL)
        self.assertRaises(InvalidAddressError, self.record, "localhost")
        self.assertRaises(CannotListenError, self.record, port=65536)
        self.assertRaises(CannotListenError, self.record, port=-1)

    def test_starts_once(self) -> None:
        """A port that listens cannot be started again, one that has stopped can."""
        port = self.echo()
        self.assertRaises(CannotListenError, port.startListening)
        self.network.run_until(port.stopListening())  # type: ignore[arg-type]  # it listens: a Deferred
        port.startListening()
        self.assertIn("on 7", repr(port))

    def test_failing_start(self) -> None:
        """A protocol that cannot start leaves the port free, also if it had stopped the port before."""

        class Failing(DatagramProtocol):
            noisy = False

            def startProtocol(self) -> None:
                assert self.transport is not None
                self.transport.stopListening()
                raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.server.listenUDP, 7, Failing())
        self.echo()
        self.network.run_until_idle()

    def test_log_lines(self) -> None:
        """Start and end are logged in the words of Twisted's port."""
        lines: list[str] = []
        log.addObserver(observer := lambda event: lines.append(" ".join(event["message"])))
        self.addCleanup(log.removeObserver, observer)
        with_lines = self.server.listenUDP(7, type("Loud", (DatagramProtocol,), {})())
        self.network.run_until(with_lines.stopListening())  # type: ignore[arg-type]  # it listens: a Deferred
        own = [line for line in lines if "protocol" not in line]
        self.assertEqual(own, ["Loud starting on 7", "(UDP Port 7 Closed)"])
        lines.clear()
        self.network.run_until(self.echo().stopListening())  # type: ignore[arg-type]  # it listens: a Deferred
        self.assertEqual(lines, [], "a protocol that is not noisy has no lines")


class WriteTests(PortTestCase):
    """Sending."""

    def test_never_inside_write(self) -> None:
        """Nothing arrives inside write(), not even without any delay on the link."""
        self.network.link(self.client, self.client).delay = 0
        port = self.record(port=9)
        port.write(b"to myself", ("127.0.0.1", 9))
        self.assertEqual(self.recorder.received, [])
        self.network.advance(0)
        self.assertEqual(self.recorder.received, [(0.0, b"to myself", ("127.0.0.1", 9))])

    def test_round_trip(self) -> None:
        """Over IPv4 and IPv6, empty and full-size datagrams come back, each after twice the link's delay."""
        for host, size in ((SERVER, 0), (SERVER, 65507), (SERVER6, 0), (SERVER6, 65527)):
            self.setUp()
            self.echo("::")
            self.record("::").write(b"x" * size, (host, 7))
            self.network.run_until_idle()
            self.assertEqual(self.recorder.received, [(0.5, b"x" * size, (host, 7))])

    def test_too_large(self) -> None:
        """What UDP cannot carry raises at the caller, and nothing is sent."""
        port = self.record("::")
        self.assertRaises(MessageLengthError, port.write, bytes(65508), (SERVER, 7))
        self.assertRaises(MessageLengthError, port.write, bytes(65528), (SERVER6, 7))
        self.assertEqual((len(self.network.trace), port.stats.datagrams_sent), (0, 0))

    def test_addresses_refused(self) -> None:
        """Host names, addresses of the other family, a missing address and impossible ports raise at the caller."""
        four, six = self.record(), self.client.listenUDP(0, Echo(), "::1")
        wrong: Any = [("x", (SERVER, 7)), (b"", (SERVER,)), (b"", SERVER), (b"", (SERVER, "7"))]
        self.assertEqual(wrong, [each[:2] for each in four.write_batch(wrong)])
        with self.assertRaisesRegex(InvalidAddressError, r"connect\(\) only accepts"):
            four.connect("localhost", 7)
        for port, addr in ((four, ("localhost", 7)), (four, (SERVER6, 7)), (six, (SERVER, 7)), (four, None)):
            self.assertRaises(InvalidAddressError, port.write, b"", addr)
        self.assertRaises(OverflowError, four.write, b"", (SERVER, 65536))
        error = self.assertRaises(OSError, four.write, b"", (SERVER, 0))
        self.assertEqual(error.errno, errno.EINVAL)
        self.assertEqual(len(self.network.trace), 0)

    def test_mapped_address(self) -> None:
        """An IPv4 peer has one spelling, also on a port that serves both families."""
        self.echo("::")
        self.record("::").write(b"x", (f"::ffff:{SERVER}", 7))
        self.assertEqual(self.received(), [(b"x", (SERVER, 7))])

    def test_any_address_is_this_host(self) -> None:
        """Sending to the wildcard address reaches this host, as in Linux."""
        self.client.listenUDP(7, Echo(), "::")
        port = self.record("::")
        port.write(b"4", (ANY, 7))
        port.write(b"6", ("::", 7))
        self.assertEqual(self.received(), [(b"4", ("127.0.0.1", 7)), (b"6", ("::1", 7))])

    def test_write_sequence(self) -> None:
        """Pieces leave as one datagram, and what is written is copied."""
        self.echo()
        self.record().writeSequence([b"a", b"", b"bc"], (SERVER, 7))
        self.assertEqual(self.received(), [(b"abc", (SERVER, 7))])

    def test_payload_is_copied(self) -> None:
        """A buffer that changes after write() does not change the datagram."""
        self.echo()
        buffer = bytearray(b"before")
        self.record().write(buffer, (SERVER, 7))  # type: ignore[arg-type]  # any buffer will do, as for a socket
        buffer[:] = b"after!"
        self.assertEqual(self.received(), [(b"before", (SERVER, 7))])

    def test_no_way_out(self) -> None:
        """What the host cannot route is counted by errno and recorded, not raised."""
        only4 = self.network.reactor("192.0.2.3")
        bound_to_loopback = only4.listenUDP(0, Echo(), "127.0.0.1")
        both = only4.listenUDP(0, Echo(), "::")
        bound_to_loopback.write(b"", (SERVER, 7))
        both.write(b"", (SERVER6, 7))
        for port in (bound_to_loopback, both):
            self.assertEqual(port.stats.send_errors, {errno.ENETUNREACH: 1})
        self.assertEqual([record.fate for record in self.network.trace], [Fate.UNROUTABLE] * 2)
        self.assertRaises(OSError, both.connect, SERVER6, 7)

    def test_counters(self) -> None:
        """What is sent and received is counted as on a real port."""
        server = self.echo()
        client = self.record()
        client.write(b"123", (SERVER, 7))
        self.received()
        for stats in (server.stats, client.stats):
            counted = (stats.datagrams_sent, stats.bytes_sent, stats.datagrams_received, stats.bytes_received)
            self.assertEqual(counted, (1, 3, 1, 3))

    def test_answer_leaves_from_the_address_asked(self) -> None:
        """A port bound to all addresses answers from the one that was asked, at once and later."""
        host = self.network.reactor("192.0.2.11", "192.0.2.12", "192.0.2.13")
        late = Recorder(host)
        late_port = host.listenUDP(8, late)
        host.listenUDP(7, Echo())
        client = self.record(CLIENT, 9)
        client.write(b"at once", ("192.0.2.12", 7))
        client.write(b"later", ("192.0.2.13", 8))
        self.network.advance(1)
        late_port.write(b"later", (CLIENT, 9))
        late_port.write(b"nobody asked", ("192.0.2.2", 10))
        self.assertEqual(self.received(), [(b"at once", ("192.0.2.12", 7)), (b"later", ("192.0.2.13", 8))])
        self.assertEqual(self.network.trace[-2].source, ("192.0.2.11", 8))

    def test_source_addresses(self) -> None:
        """To itself a host sends from the address it sends to; loopback has one source."""
        self.client.listenUDP(7, Echo(), "::")
        port = self.record("::")
        for target in (CLIENT, CLIENT6, "127.1.2.3", "::1"):
            port.write(b"", (target, 7))
        sources = [record.source[0] for record in self.network.trace]
        self.assertEqual(sources, [CLIENT, CLIENT6, "127.0.0.1", "::1"])


class ReceiveTests(PortTestCase):
    """Receiving."""

    def test_too_large_for_the_port(self) -> None:
        """What is larger than the port accepts is dropped and counted, never cut; what just fits is delivered."""
        server = self.echo(size=100)
        client = self.record()
        client.write(b"y" * 101, (SERVER, 7))
        client.write(b"x" * 100, (SERVER, 7))
        self.assertEqual(self.received(), [(b"x" * 100, (SERVER, 7))])
        self.assertEqual((server.stats.truncated, server.stats.datagrams_received), (1, 1))
        self.assertEqual(self.network.trace[0].fate, Fate.TOO_LARGE)

    def test_failing_protocol(self) -> None:
        """An exception in the protocol is logged and counted, and the port goes on."""

        class Failing(Recorder):
            def datagramReceived(self, datagram: bytes, addr: Address) -> None:
                super().datagramReceived(datagram, addr)
                raise ZeroDivisionError

        protocol = Failing(self.server)
        server = self.server.listenUDP(7, protocol)
        client = self.record()
        client.write(b"1", (SERVER, 7))
        client.write(b"2", (SERVER, 7))
        self.network.run_until_idle()
        self.assertEqual(len(protocol.received), 2)
        self.assertEqual(server.stats.callback_errors, 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_broadcast(self) -> None:
        """A broadcast needs leave, reaches wildcard binds of every host, and the port says that it was one."""
        told: list[tuple[str, bool]] = []

        class Listener(Recorder):
            def datagramReceived(self, datagram: bytes, addr: Address) -> None:
                told.append((self.reactor.addresses[0], self.transport.delivering_to_group))  # type: ignore[union-attr]  # ours

        self.server.listenUDP(7, Listener(self.server))
        third = self.network.reactor("192.0.2.3")
        third.listenUDP(7, Listener(third), "192.0.2.3")
        fourth = self.network.reactor("192.0.2.4")
        port = fourth.listenUDP(7, Listener(fourth), "::")
        client = self.record()
        error = self.assertRaises(PermissionError, client.write, b"", ("255.255.255.255", 7))
        self.assertEqual(error.errno, errno.EACCES)
        self.assertFalse(client.getBroadcastAllowed())
        client.setBroadcastAllowed(True)
        self.assertTrue(client.getBroadcastAllowed())
        client.write(b"", ("192.0.2.4", 7))
        client.write(b"", ("<broadcast>", 7))
        self.network.run_until_idle()
        self.assertEqual(told, [("192.0.2.4", False), (SERVER, True), ("192.0.2.4", True)])
        self.assertFalse(port.delivering_to_group)
        self.assertEqual(self.recorder.errors, [])

    def test_answer_to_a_broadcast(self) -> None:
        """The answer to a broadcast leaves from the host's own address."""
        self.echo()
        client = self.record()
        client.setBroadcastAllowed(True)
        client.write(b"who?", ("255.255.255.255", 7))
        self.assertEqual(self.received(), [(b"who?", (SERVER, 7))])

    def test_multicast_without_members(self) -> None:
        """A multicast to a group without members goes nowhere, and causes no ICMP error."""
        self.echo("::")
        client = self.record("::")
        client.write(b"", ("224.0.0.1", 7))
        client.write(b"", ("ff02::1", 7))
        self.assertEqual(self.received(), [])
        self.assertEqual({record.fate for record in self.network.trace}, {Fate.UNHEARD})
        self.assertEqual(self.recorder.errors, [])


class UnreachableTests(PortTestCase):
    """Nobody listens."""

    def test_refused(self) -> None:
        """The sender's protocol hears of it, one way there and one way back later, with what it sent."""
        self.record().write(b"anybody?", (SERVER, 7))
        self.network.run_until_idle()
        reason = Unreachable(errno.ECONNREFUSED, "Connection refused", 3, 3, SERVER)
        self.assertEqual(self.recorder.errors, [(0.5, (SERVER, 7), reason, b"anybody?")])
        self.assertEqual(self.recorder.refusals, 0)

    def test_refused_ipv6(self) -> None:
        """ICMPv6 has another type and code for the same."""
        self.record("::").write(b"anybody?", (SERVER6, 7))
        self.network.run_until_idle()
        reason = Unreachable(errno.ECONNREFUSED, "Connection refused", 1, 4, SERVER6)
        self.assertEqual(self.recorder.errors, [(0.5, (SERVER6, 7), reason, b"anybody?")])

    def test_quote_is_cut(self) -> None:
        """An ICMP error quotes as much as fits its packet: 520 bytes of payload, 1,184 with IPv6."""
        port = self.record("::")
        for host in (SERVER, SERVER6):
            port.write(bytes(5000), (host, 7))
        self.network.run_until_idle()
        self.assertEqual([len(quoted) for *_, quoted in self.recorder.errors], [520, 1184])

    def test_silent_host(self) -> None:
        """A silent host tells nobody; that can be switched at any time, and its open ports still answer."""
        port = self.record()
        self.server.silent = True
        port.write(b"", (SERVER, 7))
        self.network.run_until_idle()
        self.assertEqual(self.recorder.errors, [])
        self.assertEqual(self.network.trace[0].fate, Fate.UNHEARD)
        self.echo()
        port.write(b"x", (SERVER, 7))
        self.assertEqual(self.received(), [(b"x", (SERVER, 7))])
        self.server.silent = False
        port.write(b"", (SERVER, 8))
        self.network.run_until_idle()
        self.assertEqual(len(self.recorder.errors), 1)

    def test_no_such_host(self) -> None:
        """What goes to an address that nobody has vanishes."""
        port = self.record()
        port.write(b"", ("192.0.2.99", 7))
        self.network.run_until_idle()
        self.assertEqual([record.fate for record in self.network.trace], [Fate.NO_HOST])
        self.assertEqual(port.stats.datagrams_sent, 1)

    def test_protocol_without_the_method(self) -> None:
        """A protocol that does not care is not told, and the port counts."""
        protocol = Recorder(self.client)
        port = self.client.listenUDP(0, protocol)
        port.write(b"", (SERVER, 7))
        self.network.run_until_idle()
        self.assertEqual(port.stats.unreachable, 1)

    def test_sender_is_gone(self) -> None:
        """An ICMP error to a port that is closed meanwhile goes unheard, and causes no other."""
        port = self.record()
        port.write(b"", (SERVER, 7))
        port.stopListening()
        self.network.run_until_idle()
        self.assertEqual(self.recorder.errors, [])
        self.assertEqual([record.fate for record in self.network.trace], [Fate.REFUSED, Fate.UNHEARD])

    def test_failing_protocol(self) -> None:
        """An exception in peer_unreachable is logged and counted, and closes nothing."""

        class Failing(ErrorRecorder):
            def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
                raise ZeroDivisionError

        protocol = Failing(self.client)
        port = self.client.listenUDP(0, protocol)
        port.connect(SERVER, 7)
        port.write(b"")
        self.network.run_until_idle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((port.stats.callback_errors, protocol.refusals, protocol.stopped), (1, 1, 0))

    def test_stopped_while_being_told(self) -> None:
        """A protocol that stops its port when it is told hears nothing more."""

        class Stopping(ErrorRecorder):
            def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
                assert self.transport is not None
                self.transport.stopListening()

        protocol = Stopping(self.client)
        port = self.client.listenUDP(0, protocol)
        port.connect(SERVER, 7)
        port.write(b"")
        self.network.run_until_idle()
        self.assertEqual((protocol.refusals, protocol.stopped), (0, 1))


class ConnectTests(PortTestCase):
    """A connected port has one peer."""

    def test_talks_to_one_peer(self) -> None:
        """It writes without an address, or with its peer's, and refuses any other."""
        self.echo()
        port = self.record()
        port.connect(SERVER, 7)
        port.write(b"1")
        port.write(b"2", (SERVER, 7))
        self.assertRaises(InvalidAddressError, port.write, b"3", (SERVER, 8))
        self.assertEqual(self.received(), [(b"1", (SERVER, 7)), (b"2", (SERVER, 7))])
        self.assertEqual(port.getHost().host, CLIENT)

    def test_refuses_others(self) -> None:
        """Datagrams of others are refused by the host, as if nobody listened."""
        port = self.record(port=9)
        port.connect(SERVER, 7)
        other = ErrorRecorder(self.server)
        self.server.listenUDP(8, other).write(b"", (CLIENT, 9))
        self.assertEqual(self.received(), [])
        self.assertEqual(len(other.errors), 1)

    def test_settles_the_address(self) -> None:
        """Connecting a wildcard bind leaves it the one address from which it reaches its peer."""
        host = self.network.reactor("192.0.2.21", "192.0.2.22")
        recorder = Recorder(host)
        host.listenUDP(9, recorder).connect(CLIENT, 9)
        peer = self.record(port=9)
        peer.write(b"to the one", ("192.0.2.21", 9))
        peer.write(b"to the other", ("192.0.2.22", 9))
        self.network.run_until_idle()
        self.assertEqual([payload for _, payload, _ in recorder.received], [b"to the one"])
        self.assertEqual(len(self.recorder.errors), 1)

    def test_connection_refused(self) -> None:
        """An ICMP error is told in both ways, and the port goes on."""
        port = self.record()
        port.connect(SERVER, 7)
        for _ in range(3):
            port.write(b"")
            self.network.run_until_idle()
        self.assertEqual((self.recorder.refusals, len(self.recorder.errors), self.recorder.stopped), (3, 3, 0))

    def test_refuses_to_connect(self) -> None:
        """Not to a host name, not to port 0, not twice, not when it is closed."""
        port = self.record()
        self.assertRaises(InvalidAddressError, port.connect, "localhost", 7)
        self.assertRaises(OSError, port.connect, SERVER, 0)
        port.connect(SERVER, 7)
        self.assertRaises(RuntimeError, port.connect, SERVER, 8)
        self.network.run_until(port.stopListening())  # type: ignore[arg-type]  # it listens: a Deferred
        self.assertRaises(LocalError, port.connect, SERVER, 7)


class StopTests(PortTestCase):
    """The end of a port."""

    def test_deferred(self) -> None:
        """Each call's Deferred fires in a later turn, when the protocol has stopped and the port is free."""
        port = self.record(port=9)
        first, second = port.stopListening(), port.stopListening()
        assert first is not None
        assert second is not None
        self.assertNoResult(first)
        self.assertEqual(self.recorder.stopped, 0)
        first.addCallback(lambda _: self.client.listenUDP(9, Echo()))
        self.network.advance(0)
        self.assertEqual(self.recorder.stopped, 1)
        self.successResultOf(first)
        self.assertIsNone(self.successResultOf(second))
        self.assertIsNone(port.stopListening())
        self.assertIn("not listening", repr(port))

    def test_reads_nothing_more(self) -> None:
        """From stopListening on nothing is delivered, though the port is still taken until the next turn."""
        self.network.link(self.client, self.client).delay = 0
        port = self.record(port=9)
        port.write(b"", ("127.0.0.1", 9))
        port.stopListening()
        self.assertEqual(self.received(), [])
        self.assertEqual(self.network.trace[0].fate, Fate.UNHEARD)

    def test_last_datagram(self) -> None:
        """Until the port is closed, a last datagram can be sent: after stopListening and in stopProtocol."""

        class Polite(Recorder):
            def startProtocol(self) -> None:
                self.port = self.transport

            def stopProtocol(self) -> None:
                assert self.port is not None
                self.port.write(b"bye", (CLIENT, 9))

        self.record(port=9)
        port = self.server.listenUDP(7, Polite(self.server))
        port.stopListening()
        port.write(b"stopping", (CLIENT, 9))
        self.assertEqual(self.received(), [(b"stopping", (SERVER, 7)), (b"bye", (SERVER, 7))])

    def test_write_after_stop(self) -> None:
        """A datagram written to a closed port is ignored and counted."""
        port = self.record()
        self.network.run_until(port.stopListening())  # type: ignore[arg-type]  # it listens: a Deferred
        port.write(b"", (SERVER, 7))
        self.assertEqual((port.stats.written_after_stop, len(self.network.trace)), (1, 0))
        self.assertRaises(LocalError, port.setBroadcastAllowed, True)
        self.assertRaises(LocalError, port.getBroadcastAllowed)

    def test_failing_stop(self) -> None:
        """A protocol that fails when it is stopped leaves the port free all the same."""

        class Failing(Recorder):
            def stopProtocol(self) -> None:
                raise ZeroDivisionError

        stopped = self.server.listenUDP(7, Failing(self.server)).stopListening()
        assert stopped is not None
        self.assertRaises(ZeroDivisionError, self.network.advance, 0)
        self.assertIsNone(self.successResultOf(stopped))
        self.echo()
