"""The relay with a bad network in it, on the simulated network: nothing here opens a socket or waits."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.simulation import Echo, LogCollector, Peer
from twistedudp.errors import InvalidAddress
from twistedudp.impairment import Arrival, Datagram, EffectError, parse_effects
from twistedudp.interfaces import Unreachable
from twistedudp.relay import RelayProtocol, UDPImpairmentService
from twistedudp.testing import SimulatedNetwork

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence

    from twistedudp.address import Address
    from twistedudp.impairment import LinkEffect

SERVER = "192.0.2.1"
RELAY = "192.0.2.3"
CLIENT = "192.0.2.2"
PORT = 10000
DELAY = 0.001
"""Seconds that a datagram takes from host to host on the simulated network."""


class Client(DatagramProtocol):
    """A client; keeps what it gets.

    Attributes:
        received: Payloads and senders.
        times: When they came.
    """

    noisy = False
    transport: Any

    def __init__(self, now: Callable[[], float]) -> None:
        self.received: list[tuple[bytes, Address]] = []
        self.times: list[float] = []
        self._now = now

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Keep it."""
        self.received.append((datagram, addr))
        self.times.append(self._now())

    @property
    def payloads(self) -> list[bytes]:
        """What it got."""
        return [payload for payload, _ in self.received]


def drop(datagram: Datagram, _now: float, _rng: random.Random, /) -> Iterable[Arrival]:
    """Lose what begins with "drop"."""
    return [] if datagram.payload.startswith(b"drop") else [Arrival(datagram)]


def hold(datagram: Datagram, _now: float, _rng: random.Random, /) -> Iterable[Arrival]:
    """Hold it for half a second."""
    return [Arrival(datagram, 0.5)]


def refuse(datagram: Datagram, _now: float, _rng: random.Random, /) -> Iterable[Arrival]:
    """Answer with an ICMP error."""
    error = Unreachable(errno.ECONNREFUSED, "Connection refused", 3, 3, SERVER)
    return [Arrival(Datagram(datagram.destination, datagram.source, datagram.payload, error))]


class RelayTestCase(SynchronousTestCase):
    """A server, a relay and clients on hosts of their own.

    Attributes:
        log: What was logged.
    """

    def setUp(self) -> None:
        """Make the network and the server's host."""
        self.network = SimulatedNetwork(delay=DELAY)
        self.there = self.network.reactor(SERVER, "2001:db8::1")
        self.between = self.network.reactor(RELAY, "2001:db8::3")
        self.here = self.network.reactor(CLIENT, "2001:db8::2")
        self.log = LogCollector()
        globalLogPublisher.addObserver(self.log)
        self.addCleanup(globalLogPublisher.removeObserver, self.log)

    def serve(self, protocol: DatagramProtocol | None = None, interface: str = SERVER) -> Any:
        """Serve a protocol, by default an echo server, and return its port."""
        return self.there.listenUDP(PORT, protocol or Echo(), interface, 65535)

    def relay(
        self,
        to_server: Sequence[LinkEffect] = (),
        to_client: Sequence[LinkEffect] = (),
        *,
        server: Address = (SERVER, PORT),
        interface: str = RELAY,
        **options: Any,
    ) -> UDPImpairmentService:
        """Return a running relay with these effects."""
        service = UDPImpairmentService(
            self.between, 0, server, interface, effects=lambda: (to_server, to_client), **options
        )
        service.startService()
        self.addCleanup(self.stop, service)
        return service

    def stop(self, service: UDPImpairmentService) -> None:
        """Stop a relay and check that nothing of it is left."""
        stopping = service.stopService()
        if stopping is not None:
            self.network.run_until(stopping)
        self.network.run_until_idle()
        self.assertEqual(self.sockets(), [])

    def sockets(self) -> list[int]:
        """Return the ports that are bound on the relay's host."""
        return sorted(self.between.host._bound)

    def client(self, interface: str = CLIENT) -> Client:
        """Return a client with a port of its own."""
        client = Client(self.network.clock.seconds)
        self.here.listenUDP(0, client, interface, 65535)
        return client

    def send(self, client: Client, relay: UDPImpairmentService, *payloads: bytes) -> None:
        """Send datagrams from a client to the relay."""
        assert relay.address is not None
        for payload in payloads:
            client.transport.write(payload, relay.address)

    def stats(self, relay: UDPImpairmentService) -> Any:
        """Return the counters of a relay."""
        assert relay.protocol is not None
        return relay.protocol.stats

    def warnings(self) -> list[str]:
        """Return the texts of the warnings."""
        return [warning.partition("#warn] ")[2] or warning for warning in self.log.warnings]

    def statistics(self) -> list[str]:
        """Return the lines of statistics."""
        texts = [event.get("log_format", "").format(**event) for event in self.log.events]
        return [text for text in texts if text.startswith("statistics")]

    def inject(self, relay: UDPImpairmentService, payload: bytes, source: Address) -> None:
        """Deliver a datagram to the relay, whatever its source."""
        destination = relay.address
        assert destination is not None
        port = self.between.host.port_for(destination, source)
        assert port is not None
        port.deliver(Datagram(source, destination, payload), lambda _: None)


class RelayTests(RelayTestCase):
    """There and back."""

    def test_interface(self) -> None:
        """It is a service."""
        self.assertTrue(verifyObject(IService, UDPImpairmentService(self.between, 0, (SERVER, PORT))))

    def test_there_and_back(self) -> None:
        """A reply comes from the relay's port, in the time of four hops; an empty datagram is one too."""
        self.serve()
        relay, client = self.relay(), self.client()
        self.send(client, relay, b"a", b"")
        self.network.advance(1)
        self.assertEqual(client.received, [(b"a", relay.address), (b"", relay.address)])
        self.assertEqual(client.times, [4 * DELAY] * 2)

    def test_clients_are_told_apart(self) -> None:
        """Each client has a port of its own towards the server, keeps it, and gets its own replies only."""
        server = Peer()
        self.serve(server)
        relay, first, second = self.relay(), self.client(), self.client()
        for client, payload in ((first, b"1"), (second, b"2"), (first, b"3")):
            self.send(client, relay, payload)
            self.network.advance(1)
        senders = dict(server.received)
        self.assertEqual(senders[b"1"], senders[b"3"])
        self.assertNotEqual(senders[b"1"], senders[b"2"])
        self.assertEqual({host for host, _ in senders.values()}, {RELAY})
        for number in (1, 0, 2):
            server.send(b"to %d" % number, number)
        self.network.advance(1)
        self.assertEqual((first.payloads, second.payloads), ([b"to 0", b"to 2"], [b"to 1"]))

    def test_only_from_the_server(self) -> None:
        """What others send to an upstream port reaches no client, also before the port is connected."""
        server, stranger = Peer(), Peer()
        self.serve(server)
        other = self.there.listenUDP(PORT + 1, stranger, SERVER)
        relay, client = self.relay(), self.client()
        self.send(client, relay, b"a")
        self.network.advance(1)
        upstream = server.received[0][1]
        other.write(b"forged", upstream)
        self.network.advance(1)
        session = next(iter(relay.protocol._sessions._open.values()))  # type: ignore[union-attr]  # it runs
        session.datagramReceived(b"early", (SERVER, PORT + 1))
        self.network.advance(1)
        self.assertEqual((client.received, self.stats(relay).refused_stranger), ([], 1))

    def test_ipv6_to_ipv4(self) -> None:
        """The two sides may be of different families; what the other one cannot carry is counted."""
        self.serve()
        relay, client = self.relay(interface="2001:db8::3"), self.client("2001:db8::2")
        self.send(client, relay, b"a", b"x" * 65527)
        self.network.advance(1)
        self.assertEqual(client.payloads, [b"a"])
        self.assertEqual(self.stats(relay).unsendable, 1)
        self.assertIn("a datagram of 65,527 bytes could not be sent on: ", self.warnings()[0])

    def test_ipv6_server(self) -> None:
        """A server that has IPv6 only."""
        self.serve(interface="2001:db8::1")
        relay, client = self.relay(server=("2001:DB8:0::1", PORT)), self.client()
        self.send(client, relay, b"a")
        self.network.advance(1)
        self.assertEqual(client.payloads, [b"a"])

    def test_wrong_server(self) -> None:
        """A server's address is numeric and one host's, and its port is one."""
        for host, port in ((SERVER, 0), (SERVER, 65536), ("localhost", 1), ("", 1), ("224.0.0.1", 1), ("::", 1)):
            self.assertRaises(InvalidAddress, UDPImpairmentService, self.between, 0, (host, port))
            self.assertRaises(InvalidAddress, RelayProtocol, self.between, (host, port))

    def test_spelling_of_server(self) -> None:
        """The server's address is spelled as the kernel spells it in what comes from there."""
        for host, expected in (
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("fe80::1%1", f"fe80::1%{socket.if_indextoname(1)}"),
        ):
            self.assertEqual(RelayProtocol(self.between, (host, 7)).server, (expected, 7))


class EffectTests(RelayTestCase):
    """The effects, in each direction."""

    def test_directions(self) -> None:
        """The effects of one direction do not touch the other."""
        for directions, seen, answered in ((((drop,), ()), 0, 0), (((), (drop,)), 1, 0), (((), ()), 1, 1)):
            self.setUp()
            server = Peer()
            self.serve(server)
            relay, client = self.relay(*directions), self.client()
            self.send(client, relay, b"drop me")
            self.network.advance(1)
            for _ in server.received:
                server.send(b"drop me too")
            self.network.advance(1)
            self.assertEqual((len(server.received), len(client.received)), (seen, answered))
            stats = self.stats(relay)
            self.assertEqual((stats.to_server.lost, stats.to_client.lost), (1 - seen, seen - answered))
            self.stop(relay)

    def test_delay(self) -> None:
        """A delay each way adds up, exactly; one delayed call at most is pending for any number of datagrams."""
        self.serve()
        relay, client = self.relay((hold,), (hold,), session_timeout=9), self.client()
        for number in range(50):
            self.send(client, relay, b"%d" % number)
            self.network.advance(0.001)
        self.network.advance(0.1)
        self.assertEqual(len(self.network.clock.getDelayedCalls()), 1)
        self.network.advance(2)
        self.assertEqual(client.payloads, [b"%d" % number for number in range(50)])
        for number, time in enumerate(client.times):
            self.assertAlmostEqual(time, number * 0.001 + 4 * DELAY + 1.0)

    def test_one_path_for_all(self) -> None:
        """All clients share the link: an effect with a memory sees the datagrams of both, in order of time."""
        met: list[tuple[float, bytes]] = []

        def meet(datagram: Datagram, now: float, _rng: random.Random, /) -> Iterable[Arrival]:
            met.append((now, datagram.payload))
            return [Arrival(datagram)]

        self.serve()
        relay, first, second = self.relay((hold, meet)), self.client(), self.client()
        for client, payload in ((first, b"1"), (second, b"2"), (first, b"3")):
            self.send(client, relay, payload)
            self.network.advance(0.25)
        self.network.advance(1)
        self.assertEqual([payload for _, payload in met], [b"1", b"2", b"3"])
        for (now, _), expected in zip(met, (0.5, 0.75, 1.0), strict=True):
            self.assertAlmostEqual(now, expected + DELAY)

    def test_time_from_the_start(self) -> None:
        """The effects' time is 0 when the relay starts, at each start."""
        met: list[float] = []

        def meet(datagram: Datagram, now: float, _rng: random.Random, /) -> Iterable[Arrival]:
            met.append(now)
            return [Arrival(datagram)]

        self.network.advance(100)
        relay, client = self.relay((meet,)), self.client()
        for _ in range(2):
            self.send(client, relay, b"a")
            self.network.advance(5)
            self.stop(relay)
            relay.startService()
        for now in met:
            self.assertAlmostEqual(now, DELAY)
        self.assertEqual(len(met), 2)

    def test_refused(self) -> None:
        """An ICMP error that an effect makes is counted and goes nowhere."""
        self.serve()
        relay, client = self.relay((refuse,)), self.client()
        self.send(client, relay, b"a")
        self.network.advance(1)
        stats = self.stats(relay)
        self.assertEqual((stats.to_server.effects["refuse"].refused, stats.to_server.arrived), (1, 0))
        self.assertEqual((client.received, stats.sessions_opened), ([], 0))

    def test_copies(self) -> None:
        """Duplicates leave from the same port, and each is answered."""
        server = Peer()
        self.serve(server)
        relay, client = self.relay(parse_effects("duplicate=100%:10ms").make()), self.client()
        self.send(client, relay, b"a")
        self.network.advance(1)
        self.assertEqual([payload for payload, _ in server.received], [b"a", b"a"])
        self.assertEqual(len({sender for _, sender in server.received}), 1)
        self.assertEqual(self.stats(relay).to_server.effects["Duplicate"].added, 1)

    def test_nat(self) -> None:
        """A NAT that forgets: the server sees a new port; what it sends to the old one is lost, to the new one not."""
        server = Peer()
        self.serve(server)
        relay, client = self.relay(*parse_effects("nat=10s").make_pair()), self.client()
        for _ in range(2):
            self.send(client, relay, b"a", b"b")
            self.network.advance(10)
        senders = [sender for _, sender in server.received]
        self.assertEqual(senders[0], senders[1])
        self.assertEqual(senders[2], senders[3])
        self.assertNotEqual(senders[0], senders[2])
        self.send(client, relay, b"c")
        self.network.advance(1)
        server.send(b"old", 0)
        server.send(b"new", 4)
        self.network.advance(1)
        self.assertEqual(client.payloads, [b"new"])
        self.assertEqual(self.stats(relay).to_client.effects["NATInbound"].lost, 1)
        self.assertEqual(self.stats(relay).sessions_opened, 3)

    def test_seed(self) -> None:
        """Equal seeds lose the same datagrams, also after a restart; other seeds lose others."""

        def lost(seed: int, effects: Callable[[], Any]) -> tuple[list[bytes], list[bytes]]:
            self.setUp()
            self.serve()
            relay = UDPImpairmentService(self.between, 0, (SERVER, PORT), RELAY, effects=effects, seed=seed)
            results = []
            for _ in range(2):
                relay.startService()
                client = self.client()
                self.send(client, relay, *(b"%d" % number for number in range(200)))
                self.network.advance(5)
                results.append(client.payloads)
                self.stop(relay)
            return results[0], results[1]

        effects = parse_effects("loss=20%,jitter=5ms:ordered,duplicate=5%").make_pair
        first, again = lost(7, effects)
        self.assertEqual(first, again)
        self.assertEqual(lost(7, effects), (first, first))
        self.assertNotEqual(lost(8, effects)[0], first)

    def test_effect_that_raises(self) -> None:
        """An effect that fails on a datagram costs that datagram; those that wait with it go on."""

        def fail(datagram: Datagram, _now: float, _rng: random.Random, /) -> Iterable[Arrival]:
            if datagram.payload == b"bad":
                raise KeyError(datagram)
            return [Arrival(datagram)]

        self.serve()
        relay, client = self.relay((hold, fail)), self.client()
        self.send(client, relay, b"bad", b"good")
        self.assertRaises(KeyError, self.network.advance, 1)
        self.network.advance(1)
        self.assertEqual(client.payloads, [b"good"])

    def test_text(self) -> None:
        """Effects may be given as a text, with one seed in it or beside it; a wrong text is told at once."""
        seeds: list[int] = []
        for text, given in (("loss=100%,seed=7", None), ("loss=100%", 7), ("loss=100%,seed=7", 7), ("loss=100%", None)):
            service = UDPImpairmentService(self.between, 0, (SERVER, PORT), RELAY, effects=text, seed=given)
            service.startService()
            client = self.client()
            self.send(client, service, b"a")
            self.network.advance(1)
            self.assertEqual(self.stats(service).to_server.effects["Loss"].lost, 1)
            assert service.protocol is not None
            seeds.append(service.protocol._to_server.link._seed)
            self.stop(service)
        self.assertEqual(seeds, [7, 7, 7, 0])
        for text, kind in (("loss=100%,seed=8", ValueError), ("los=1%", EffectError)):
            self.assertRaises(kind, UDPImpairmentService, self.between, 0, (SERVER, PORT), effects=text, seed=7)


class SessionTests(RelayTestCase):
    """Upstream ports: how long, how many, and where there are none."""

    def test_expiry(self) -> None:
        """An idle client's port is closed after the time; use in either direction keeps it open."""
        server = Peer()
        self.serve(server)
        relay, client = self.relay(session_timeout=10.0), self.client()
        self.send(client, relay, b"a")
        self.network.advance(9)
        self.send(client, relay, b"b")
        self.network.advance(9)
        server.send(b"c")
        self.network.advance(9)
        self.assertEqual(len(self.sockets()), 2)
        self.network.advance(1.1)
        self.assertEqual(len(self.sockets()), 1)
        self.assertEqual((self.stats(relay).sessions_expired, self.network.clock.getDelayedCalls()), (1, []))
        self.send(client, relay, b"d")
        self.network.advance(1)
        self.assertEqual(self.stats(relay).sessions_opened, 2)

    def test_eviction(self) -> None:
        """With too many clients the one that has been idle the longest loses its port; the others keep theirs."""
        server = Peer()
        self.serve(server)
        relay = self.relay(max_sessions=3)
        clients = [self.client() for _ in range(4)]
        for number in (0, 1, 2, 0, 3, 0, 2, 3):
            self.send(clients[number], relay, b"%d" % number)
            self.network.advance(1)
        senders: dict[bytes, set[Address]] = {}
        for payload, sender in server.received:
            senders.setdefault(payload, set()).add(sender)
        self.assertEqual({payload: len(ports) for payload, ports in senders.items()}, dict.fromkeys(senders, 1))
        self.assertEqual((self.stats(relay).sessions_evicted, self.stats(relay).sessions_opened), (1, 4))
        server.send(b"too late", 1)
        server.send(b"in time", 0)
        self.network.advance(1)
        self.assertEqual((clients[1].payloads, clients[0].payloads), ([], [b"in time"]))

    def test_thousand_clients(self) -> None:
        """A thousand clients at once, of whom 100 may have a port: there are never more, and all are served in turn."""
        self.serve()
        relay = self.relay(max_sessions=100)
        clients = [self.client() for _ in range(1000)]
        for client in clients:
            self.send(client, relay, b"a")
            self.network.advance(4 * DELAY)
            self.assertLessEqual(len(self.sockets()), 102)
        self.assertEqual({len(client.received) for client in clients}, {1})
        self.assertEqual(self.stats(relay).sessions_evicted, 900)

    def test_no_route(self) -> None:
        """A port that cannot be had is counted and logged, once a minute at most, and the relay goes on."""
        lonely = self.network.reactor("192.0.2.77")
        service = UDPImpairmentService(lonely, 7000, ("2001:db8::1", PORT), "192.0.2.77")
        service.startService()
        client = self.client()
        for _ in range(3):
            self.send(client, service, b"a")
            self.network.advance(1)
        stats = self.stats(service)
        self.assertEqual((stats.sessions_failed, stats.unsendable, len(self.warnings())), (3, 3, 1))
        self.assertIn("no socket to [2001:db8::1]:10000 can be had", self.warnings()[0])
        self.network.advance(60)
        self.send(client, service, b"a")
        self.network.advance(1)
        self.assertIn("(2 warnings before this one were left out)", self.warnings()[1])
        self.network.run_until(service.stopService())  # type: ignore[arg-type]  # it runs
        self.assertEqual(list(lonely.host._bound), [])

    def test_no_server(self) -> None:
        """Nobody listens: the ICMP errors are counted, logged once, and end no session; the client is not told."""
        relay, client = self.relay(), self.client()
        told: list[object] = []
        client.peer_unreachable = told.append  # type: ignore[attr-defined]  # a port looks for it by name
        for _ in range(3):
            self.send(client, relay, b"a")
            self.network.advance(1)
        self.serve()
        self.send(client, relay, b"a")
        self.network.advance(1)
        self.assertEqual((client.payloads, told), ([b"a"], []))
        self.assertEqual((self.stats(relay).server_unreachable, self.stats(relay).sessions_opened), (3, 1))
        self.assertEqual(len(self.warnings()), 1)
        self.assertIn("the server 192.0.2.1:10000 cannot be reached: Connection refused", self.warnings()[0])

    def test_client_gone(self) -> None:
        """ICMP errors of clients are counted."""
        server = Peer()
        self.serve(server)
        relay, client = self.relay(), self.client()
        self.send(client, relay, b"a")
        self.network.advance(1)
        self.network.run_until(client.transport.stopListening())
        server.send(b"b")
        self.network.advance(1)
        self.assertEqual((self.stats(relay).client_unreachable, self.warnings()), (1, []))


class RefusedTests(RelayTestCase):
    """What is not relayed."""

    def test_port_zero(self) -> None:
        """From source port 0: nobody could be answered."""
        server = Peer()
        self.serve(server)
        relay = self.relay()
        self.inject(relay, b"a", (CLIENT, 0))
        self.network.advance(1)
        self.assertEqual((server.received, self.stats(relay).refused_port_zero), ([], 1))

    def test_loop(self) -> None:
        """A relay whose server is the relay itself: the datagram goes round once and no further."""
        relay = UDPImpairmentService(self.between, 7000, (RELAY, 7000), RELAY)
        relay.startService()
        client = self.client()
        self.send(client, relay, b"a")
        self.network.advance(100)
        stats = self.stats(relay)
        self.assertEqual((stats.refused_own, stats.to_server.sent, stats.sessions_opened), (1, 1, 1))
        self.stop(relay)


class StopTests(RelayTestCase):
    """The end, and a new beginning."""

    def test_datagrams_under_way(self) -> None:
        """Stopped with datagrams under way in both directions: all ports free, no timer left, nothing sent any more."""
        server = Peer()
        self.serve(server)
        relay, client = self.relay((hold,), (hold,)), self.client()
        self.send(client, relay, b"a")
        self.network.advance(0.6)
        server.send(b"b")
        self.send(client, relay, b"c")
        self.network.advance(0.1)
        self.assertEqual(len(self.network.clock.getDelayedCalls()), 1)
        stopping = relay.stopService()
        assert stopping is not None
        self.network.run_until(stopping)
        self.assertEqual((self.sockets(), self.network.clock.getDelayedCalls()), ([], []))
        self.network.advance(5)
        self.assertEqual((len(server.received), client.received), (1, []))
        self.assertIn("under way: 2;", self.statistics()[0])
        assert relay.protocol is not None
        self.assertIn("under way: 0;", relay.protocol.describe())

    def test_not_running(self) -> None:
        """Stopping what does not run is nothing; statistics of it neither."""
        relay = UDPImpairmentService(self.between, 0, (SERVER, PORT), RELAY)
        self.assertIs(relay.stopService(), None)
        relay.log_statistics()
        self.assertEqual(self.statistics(), [])

    def test_protocol_alone(self) -> None:
        """The protocol on a port of the user's: when that stops, everything has been closed."""
        self.serve()
        protocol = RelayProtocol(self.between, (SERVER, PORT), ((hold,), ()), clock=self.between.seconds)
        port = self.between.listenUDP(7000, protocol, RELAY)
        client = self.client()
        client.transport.write(b"a", (RELAY, 7000))
        self.network.advance(0.6)
        client.transport.write(b"b", (RELAY, 7000))
        self.network.advance(0.1)
        self.assertEqual(client.payloads, [b"a"])
        self.network.run_until(maybeDeferred(port.stopListening))
        self.network.run_until_idle()
        self.assertEqual(self.sockets(), [])


class StatisticsTests(RelayTestCase):
    """The counters as a line."""

    def test_line(self) -> None:
        """What each direction received and sent, and which effect did what; rare things only where they happened."""
        self.serve()
        relay, client = self.relay((drop, *parse_effects("duplicate=100%").make())), self.client()
        relay.log_statistics()
        self.send(client, relay, b"drop this", b"a", b"b")
        self.network.advance(1)
        self.inject(relay, b"a", (CLIENT, 0))
        relay.log_statistics()
        before = (
            "statistics: to server: 0 received, 0 sent, 0 lost; to client: 0 received, 0 sent, 0 lost; under way: 0; "
            "sessions: 0 open, 0 opened"
        )
        after = (
            "statistics: to server: 3 received, 4 sent, 1 lost (drop 1), 2 added (Duplicate 2); "
            "to client: 4 received, 4 sent, 0 lost; under way: 0; sessions: 1 open, 1 opened, 1 from port 0"
        )
        self.assertEqual(self.statistics(), [before, after])

    def test_bounded(self) -> None:
        """More under way than fits is dropped, and the line says so."""
        self.serve()
        relay, client = self.relay((hold,)), self.client()
        relay.protocol._in_flight._max_datagrams = 5  # type: ignore[union-attr]  # it runs
        self.send(client, relay, *(b"%d" % number for number in range(8)))
        self.network.advance(5)
        self.assertEqual(len(client.received), 5)
        assert relay.protocol is not None
        self.assertIn(
            "8 received, 5 sent, 0 lost, 3 dropped because too many were under way", relay.protocol.describe()
        )
