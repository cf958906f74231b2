"""The server's states, each row of the table at the head of ``_endpoint.py``, with Connections that pretend."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IUDPTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyClass, verifyObject

from tests.dtls.fakes import FakePolicy, application_record, hello, last, record
from tests.dtls.world import PORT, SERVER, Notes, Stranger, World, client_context, notes, server_context
from twistedudp.dtls import DTLSClient, DTLSEndpoint, DTLSLimits
from twistedudp.dtls._failures import PeerRefused
from twistedudp.errors import DTLSConfigurationError, LocalError

RANDOM = bytes(range(32))
OTHER = RANDOM[::-1]


class StateTests(World):
    """One peer, which does each step by hand."""

    endpoint: DTLSEndpoint
    policy: FakePolicy

    def begin(self, **options: Any) -> None:
        """Serve."""
        self.endpoint, self.policy = self.serve_fake(**options)
        self.peer = self.stranger()

    def half_open(self, random: bytes = RANDOM, peer: Stranger | None = None) -> None:
        """Have a peer return its cookie."""
        peer = peer or self.peer
        peer.send(hello(random))
        self.settle()
        peer.send(hello(random, peer.received[-1][-32:], 1))
        self.settle()

    def open(self, random: bytes = RANDOM, peer: Stranger | None = None) -> None:
        """Have a peer complete its handshake."""
        self.half_open(random, peer)
        (peer or self.peer).send(last(random))
        self.settle()

    def state(self) -> tuple[int, int]:
        """Return how many sessions are open, and half open."""
        return self.endpoint.sessions, self.endpoint.half_open

    def closed_by(self, connection: Any) -> bool:
        """Tell whether the last thing sent to the peer is a close_notify."""
        return self.peer.received[-1][0] == 21 and connection.complete

    def test_nothing_to_nothing(self) -> None:
        """A ClientHello without a cookie leaves nothing, in memory or to do."""
        self.begin()
        self.peer.send(hello(RANDOM))
        self.settle()
        self.assertEqual(self.state(), (0, 0))
        self.assertEqual(self.there.getDelayedCalls(), [])
        self.assertLess(len(self.peer.received[0]), len(hello(RANDOM)))

    def test_nothing_to_shaking(self) -> None:
        """A cookie makes a handshake, which is looked at."""
        self.begin()
        self.half_open()
        self.assertEqual(self.state(), (0, 1))
        self.assertEqual(len(self.there.getDelayedCalls()), 1)

    def test_shaking_takes_another_hello(self) -> None:
        """A client that was started again takes its own former place."""
        self.begin(half_open_per_host=1)
        self.half_open()
        self.half_open(OTHER)
        self.assertEqual(self.state(), (0, 1))
        self.assertEqual(self.endpoint.stats.failed, {"restarted": 1})
        self.peer.send(last(OTHER))
        self.settle()
        self.assertEqual(self.state(), (1, 0))

    def test_shaking_keeps_its_place_without_a_cookie(self) -> None:
        """A stranger's ClientHello in a client's name, without its cookie, does not disturb its handshake."""
        self.begin()
        self.half_open()
        self.peer.send(hello(OTHER))
        self.peer.send(last(RANDOM))
        self.settle()
        self.assertEqual(self.state(), (1, 0))

    def test_shaking_to_open(self) -> None:
        """The protocol learns of the session and the name before any data."""
        self.begin()
        self.half_open()
        self.peer.send(last(RANDOM))
        self.peer.send(application_record(RANDOM, b"first"))
        self.settle()
        self.assertEqual(self.state(), (1, 0))
        self.assertEqual(notes(self.endpoint).told, [("verified", self.peer.address, "peer.example")])
        self.assertEqual(notes(self.endpoint).payloads, [b"first"])
        self.assertEqual(self.endpoint.peer_certificate_name(self.peer.address), "peer.example")
        self.assertEqual(self.endpoint.session_number(self.peer.address), 1)
        self.assertEqual(self.endpoint.stats.opened, 1)

    def test_shaking_to_nothing_by_an_error(self) -> None:
        """An alert ends the handshake; the log tells why, in one line."""
        self.begin()
        self.half_open()
        self.peer.send(record(21, 0, 9, b"\2\x28"))
        self.settle()
        self.assertEqual(self.state(), (0, 0))
        self.assertEqual(self.endpoint.stats.failed, {"refused": 1})

    def test_shaking_to_nothing_by_the_check(self) -> None:
        """A peer that is refused after the handshake is told, and its data goes nowhere."""
        self.begin()
        self.policy.name = PeerRefused("not_allowed", "not on the list")
        self.half_open()
        self.peer.send(last(RANDOM))
        self.peer.send(application_record(RANDOM, b"secret"))
        self.settle()
        self.assertEqual(self.state(), (0, 0))
        self.assertEqual(self.endpoint.stats.failed, {"not_allowed": 1})
        self.assertEqual(notes(self.endpoint).payloads, [])
        self.assertEqual(self.peer.received[-1][0], 21)

    def test_shaking_to_nothing_by_too_much(self) -> None:
        """A peer that sends 128 KiB without an end is left: OpenSSL would keep a megabyte of it for each handshake."""
        self.begin()
        self.half_open()
        for number in range(10, 121):
            self.peer.send(record(22, 0, number, bytes(1187)))
        self.settle()
        self.assertEqual((self.state(), self.endpoint.stats.failed), ((0, 0), {"failed": 1}))
        self.assertEqual(self.endpoint.stats.dropped, {"unknown_peer": 1})

    def test_open_takes_few_late_messages(self) -> None:
        """An open session gives OpenSSL 32 KiB of late handshake messages, which it keeps, and goes on without more."""
        self.begin()
        self.open()
        (session,) = self.endpoint._opened.values()
        connection: Any = session.connection
        given: list[int] = []
        write = connection.bio_write

        def count_and_write(datagram: bytes) -> int:
            given.append(len(datagram))
            return int(write(datagram))

        connection.bio_write = count_and_write
        for number in range(10, 120):
            late = record(22, 1, number, bytes(487))
            self.peer.send(late if number % 2 else record(23, 1, number, b"") + late)
        self.settle()
        self.assertGreater(sum(given), 30_000)
        self.assertLess(sum(given), 36_000)
        self.peer.send(application_record(RANDOM, b"goes on", 2000))
        self.settle()
        self.assertEqual((self.state(), notes(self.endpoint).payloads[-1]), ((1, 0), b"goes on"))

    def test_shaking_to_nothing_by_too_many_retransmissions(self) -> None:
        """OpenSSL gives up before the deadline."""
        self.begin()
        self.half_open()
        self.policy.made[0].fails["DTLSv1_handle_timeout"] = [SSL.Error([("", "", "read timeout expired")])]
        self.network.advance(1.5)
        self.assertEqual(self.state(), (0, 0))
        self.assertEqual(self.endpoint.stats.failed, {"failed": 1})

    def test_open_to_nothing_by_its_peer(self) -> None:
        """A close_notify is answered by one."""
        self.begin()
        self.open()
        self.peer.send(record(21, 1, 5000, RANDOM))
        self.settle()
        self.assertEqual(self.state(), (0, 0))
        self.assertTrue(self.closed_by(self.policy.made[0]))
        self.assertEqual(notes(self.endpoint).reasons("lost"), ["closed"])

    def test_data_before_the_end_is_delivered(self) -> None:
        """What came in one batch with the close_notify is delivered before the protocol is told of the end."""
        self.begin()
        self.open()
        order: list[str] = []
        protocol: Any = notes(self.endpoint)
        protocol.datagramReceived = lambda datagram, _: order.append(datagram.decode())
        protocol.peer_lost = lambda _, reason: order.append(reason)
        self.peer.send(application_record(RANDOM, b"data"))
        self.peer.send(record(21, 1, 5000, RANDOM))
        self.settle()
        self.assertEqual(order, ["data", "closed"])

    def test_data_of_the_former_session_is_delivered_as_its(self) -> None:
        """What the former session brought is delivered while its name is still the address's."""
        self.begin()
        self.open()
        self.half_open(OTHER)
        seen: list[tuple[bytes, str | None]] = []
        protocol: Any = notes(self.endpoint)
        name_of = self.endpoint.peer_certificate_name
        protocol.datagramReceived = lambda datagram, addr: seen.append((datagram, name_of(addr)))
        self.policy.name = "other.example"
        self.peer.send(application_record(RANDOM, b"former"))
        self.peer.send(last(OTHER))
        self.peer.send(application_record(OTHER, b"new"))
        self.settle()
        self.assertEqual(seen, [(b"former", "peer.example"), (b"new", "other.example")])

    def test_open_to_nothing_by_idleness(self) -> None:
        """Only what is genuine keeps a session; forged records do not."""
        self.begin(idle_timeout=10.0)
        self.open()
        self.network.advance(8.0)
        self.peer.send(application_record(RANDOM, b"here"))
        self.network.advance(8.0)
        self.assertEqual(self.state(), (1, 0))
        self.peer.send(application_record(OTHER, b"forged"))
        self.network.advance(3.0)
        self.assertEqual(self.state(), (0, 0))
        self.assertTrue(self.closed_by(self.policy.made[0]))
        self.assertEqual(notes(self.endpoint).reasons("lost"), ["idle"])
        self.assertEqual(self.there.getDelayedCalls(), [])

    def test_times_that_are_rounded(self) -> None:
        """A session is over at the very time that its timer is set for, however sums and differences are rounded."""
        ticks = [number / 1000 for number in range(1, 10_000)]
        for timeout in (10.0, 30.0):
            odd = next(tick for tick in ticks if (tick + timeout) - tick < timeout)
            self.setUp()
            self.begin(handshake_timeout=timeout, idle_timeout=timeout)
            self.half_open()
            (session,) = self.endpoint._half_open.sessions.values()
            session.began = odd
            self.endpoint._due(session, odd + timeout)
            self.assertEqual(self.endpoint.stats.failed, {"deadline": 1})
            self.open()
            (session,) = self.endpoint._opened.values()
            session.heard = odd
            self.endpoint._due(session, odd + timeout)
            self.assertEqual(self.endpoint.stats.ended, {"idle": 1})

    def test_hello_of_the_open_session_is_dropped(self) -> None:
        """A late copy of the ClientHello, cookie and all, begins nothing."""
        self.begin()
        self.open()
        cookie = self.peer.received[0][-32:]
        self.peer.send(hello(RANDOM, cookie, 1))
        self.settle()
        self.assertEqual(self.state(), (1, 0))
        self.assertEqual(self.endpoint.stats.dropped, {"repeated_hello": 1})

    def test_records_without_a_session(self) -> None:
        """A peer without a session is not answered, and its records meet no other session."""
        self.begin()
        self.open()
        stranger = self.stranger()
        stranger.send(application_record(RANDOM, b"stolen"))
        stranger.send(last(RANDOM))
        stranger.send(b"plaintext")
        self.settle()
        self.assertEqual((stranger.received, notes(self.endpoint).payloads), ([], []))
        self.assertEqual(self.endpoint.stats.dropped, {"unknown_peer": 2, "not_dtls": 1})

    def test_stop(self) -> None:
        """Stopping tells all peers, after the protocol's last words, and leaves nothing."""
        self.begin()
        self.open()
        self.half_open(peer=self.stranger(), random=OTHER)
        protocol: Any = notes(self.endpoint)
        write, addr = self.endpoint.write, self.peer.address
        protocol.stopProtocol = lambda: write(b"goodbye", addr)
        stopped = self.endpoint.stopListening()
        self.settle()
        assert stopped is not None
        self.successResultOf(stopped)
        self.assertEqual([datagram[0] for datagram in self.peer.received[-2:]], [23, 21])
        self.assertEqual(self.state(), (0, 0))
        self.assertEqual(self.there.getDelayedCalls(), [])
        self.assertIsNone(self.endpoint.stopListening())
        self.endpoint.write(b"late", addr)
        self.assertEqual(self.endpoint.stats.not_sent, {"no_session": 1})

    def test_write_begins_nothing(self) -> None:
        """A server does not begin a session: what is written to a stranger is counted."""
        self.begin()
        self.endpoint.write(b"hello?", self.peer.address)
        self.assertEqual(self.endpoint.write_batch([(b"hello?", self.peer.address)]), [])
        self.settle()
        self.assertEqual(self.peer.received, [])
        self.assertEqual(self.endpoint.stats.not_sent, {"no_session": 2})

    def test_write_that_breaks_the_session(self) -> None:
        """Where OpenSSL cannot seal any more the session is over, and nothing is raised."""
        self.begin()
        self.open()
        self.policy.made[0].fails["send"] = [SSL.Error([])]
        self.endpoint.write(b"lost", self.peer.address)
        self.assertEqual(self.state(), (0, 0))
        self.assertEqual(notes(self.endpoint).reasons("lost"), ["broken"])

    def test_batches(self) -> None:
        """A protocol that takes batches gets them, of all peers, in order, and with the times of arrival."""
        self.begin()
        self.open()
        batches: list[Any] = []
        protocol: Any = notes(self.endpoint)
        protocol.datagrams_received = lambda batch: batches.append((list(batch), self.endpoint.arrival_times))
        port: Any = self.there.ports[0]
        port.timestamps = True
        for number in range(3):
            self.peer.send(application_record(RANDOM, b"%d" % number, 100 + number))
        self.peer.send(application_record(OTHER, b"forged"))
        self.settle()
        ((batch, times),) = batches
        self.assertEqual(batch, [(b"%d" % number, self.peer.address) for number in range(3)])
        self.assertEqual(len(times), 3)
        self.assertEqual(self.endpoint.arrival_times, ())
        self.endpoint.write_batch([(b"a", self.peer.address), (b"b", self.peer.address)])
        self.settle()
        self.assertEqual([datagram[-1:] for datagram in self.peer.received[-2:]], [b"a", b"b"])

    def test_sessions_limit(self) -> None:
        """Nobody who has a session is put out for another; a peer of a session may begin anew."""
        self.begin(sessions=1)
        self.open()
        stranger = self.stranger()
        stranger.send(hello(OTHER))
        self.settle()
        self.assertEqual(stranger.received, [])
        self.assertEqual(self.endpoint.stats.dropped, {"sessions_full": 1})
        self.open(OTHER)
        self.assertEqual(self.endpoint.stats.replaced, 1)

    def test_handshakes_that_were_given_up(self) -> None:
        """Clients that give up say nothing; what they leave keeps others of their host out for seconds, not for 30."""
        self.begin(half_open_per_host=2)
        for random in (RANDOM, OTHER):
            self.half_open(random, self.stranger())
        self.network.advance(2.0)
        self.half_open(bytes(32), self.stranger())
        self.assertEqual(self.state(), (0, 2))
        self.assertEqual(self.endpoint.stats.failed, {"evicted": 1})

    def test_sessions_limit_of_a_host(self) -> None:
        """One host has a part of the sessions: others find room when it has none left."""
        self.begin(sessions=3, sessions_per_host=1)
        self.open()
        again, other = self.stranger(), self.stranger(self.network.reactor("192.0.2.3"))
        for stranger in (again, other):
            stranger.send(hello(OTHER))
            self.settle()
        self.assertEqual((again.received, len(other.received)), ([], 1))
        self.assertEqual(self.endpoint.stats.dropped, {"sessions_per_host": 1})
        self.endpoint.close_sessions()
        again.send(hello(OTHER))
        self.settle()
        self.assertEqual(len(again.received), 1)
        self.assertEqual(self.endpoint._opened._of_host, {})

    def test_sessions_limit_at_the_end_of_a_handshake(self) -> None:
        """Two handshakes may be under way for the last place: the second one is refused, and told."""
        self.begin(sessions=1)
        stranger = self.stranger()
        self.half_open()
        self.half_open(OTHER, stranger)
        self.peer.send(last(RANDOM))
        stranger.send(last(OTHER))
        self.settle()
        self.assertEqual(self.state(), (1, 0))
        self.assertEqual(stranger.received[-1][0], 21)

    def test_half_open_limits(self) -> None:
        """A host has few handshakes at once; of all, the oldest is put out, but not before it had its time."""
        self.begin(half_open=3, half_open_per_host=2, handshake_timeout=60.0)
        for random in (RANDOM, OTHER):
            self.half_open(random, self.stranger())
        refused = self.stranger()
        refused.send(hello(bytes(32)))
        self.settle()
        self.assertEqual((refused.received, self.state()), ([], (0, 2)))
        self.assertEqual(self.endpoint.stats.dropped, {"half_open_per_host": 1})
        hosts = [self.network.reactor(f"192.0.2.{number}") for number in (10, 11)]
        self.half_open(RANDOM, self.stranger(hosts[0]))
        late = self.stranger(hosts[1])
        late.send(hello(RANDOM))
        self.settle()
        self.assertEqual((late.received, self.endpoint.stats.dropped["half_open_full"]), ([], 1))
        self.network.advance(2.0)
        self.half_open(RANDOM, late)
        self.assertEqual(self.state(), (0, 3))
        self.assertEqual(self.endpoint.stats.failed, {"evicted": 1})
        self.network.advance(60.0)
        self.assertEqual(self.state(), (0, 0))
        self.assertEqual(self.endpoint.stats.failed, {"evicted": 1, "deadline": 3})

    def test_hello_rate(self) -> None:
        """So many ClientHellos are looked at, and more when time has passed."""
        self.begin(hello_rate=10.0, hello_burst=5)
        for number in range(20):
            self.peer.send(hello(number.to_bytes(32, "big")))
        self.settle()
        self.assertEqual(len(self.peer.received), 5)
        self.assertEqual(self.endpoint.stats.dropped, {"hello_rate": 15})
        self.network.advance(0.1)
        for number in range(20):
            self.peer.send(hello(number.to_bytes(32, "big")))
        self.settle()
        self.assertEqual(len(self.peer.received), 8)

    def test_reload(self) -> None:
        """After a reload no session begins on a Connection of before."""
        self.begin()
        self.peer.send(hello(RANDOM))
        self.settle()
        self.policy.generation += 1
        self.peer.send(hello(RANDOM, self.peer.received[-1][-32:], 1))
        self.settle()
        (session,) = self.endpoint._half_open.sessions.values()
        self.assertIs(session.connection, self.policy.made[1])

    def test_multicast(self) -> None:
        """What was sent to a group is dropped: who answers it would answer for all."""
        self.begin()
        port: Any = self.endpoint._port
        self.patch(type(port), "delivering_to_group", True)
        self.endpoint.datagramReceived(hello(RANDOM), self.peer.address)
        self.assertEqual(self.endpoint.stats.dropped, {"group": 1})

    def test_connected(self) -> None:
        """A port that has one peer needs no address."""
        self.begin()
        self.open()
        self.endpoint.connect(*self.peer.address)
        self.endpoint.writeSequence([b"to ", b"you"])
        self.settle()
        self.assertTrue(self.peer.received[-1].endswith(b"to you"))


class TransportTests(World):
    """What both sides are to a protocol."""

    def test_interface(self) -> None:
        """Both are an IUDPTransport."""
        for role in (DTLSEndpoint, DTLSClient):
            self.assertTrue(verifyClass(IUDPTransport, role))
        endpoint, _ = self.serve_fake()
        client, _ = self.fake_client()
        for one in (endpoint, client):
            self.assertTrue(verifyObject(IUDPTransport, one))
            self.assertTrue(one.proves_addresses)
            self.assertFalse(one.delivering_to_group)
            self.assertFalse(one.getBroadcastAllowed())
            one.setBroadcastAllowed(False)
            self.assertRaises(LocalError, one.setBroadcastAllowed, True)
            self.assertEqual(one.payload_limit, 1163)
            self.assertEqual(one.arrival_times, ())
        self.assertEqual((endpoint.getHost().host, endpoint.getHost().port), (SERVER, PORT))

    def test_role(self) -> None:
        """A context of the other side is refused."""
        with self.assertRaises(DTLSConfigurationError):
            DTLSEndpoint(Stranger(), client_context(), reactor=self.there)
        with self.assertRaises(DTLSConfigurationError):
            self.client(server_context())

    def test_plain_port(self) -> None:
        """It stands on a port as Twisted's own as well, which knows no batches, no times and no groups."""
        sent: list[tuple[bytes, Any]] = []

        class Port:
            def write(self, datagram: bytes, addr: Any) -> None:
                sent.append((datagram, addr))

        policy = FakePolicy(self.now, is_server=True)
        endpoint = DTLSEndpoint(Notes(echoes=True), policy, reactor=self.there)
        port: Any = Port()
        endpoint.makeConnection(port)
        peer = ("192.0.2.2", 5)
        endpoint.datagramReceived(hello(RANDOM), peer)
        endpoint.datagramReceived(hello(RANDOM, sent[0][0][-32:], 1), peer)
        endpoint.datagramReceived(last(RANDOM), peer)
        endpoint.datagramReceived(application_record(RANDOM, b"first"), peer)
        endpoint.write_batch([(b"second", peer), (b"third", peer)])
        self.assertEqual(notes(endpoint).payloads, [b"first"])
        for payload, (datagram, addr) in zip((b"first", b"second", b"third"), sent[-3:], strict=True):
            self.assertEqual(addr, peer)
            self.assertTrue(datagram.endswith(payload))
        endpoint.doStop()  # type: ignore[no-untyped-call]  # Twisted has no types there
        self.assertEqual(sent[-1][0][0], 21)


class LimitTests(SynchronousTestCase):
    """The bounds are checked where they are given."""

    def test_refused(self) -> None:
        """What cannot work is refused, with its name."""
        wrong: list[dict[str, Any]] = [
            {"mtu": 256}, {"mtu": 16385}, {"sessions": 0}, {"sessions_per_host": 0}, {"half_open": 0},
            {"half_open_per_host": 0}, {"hello_burst": 0},
            {"hello_rate": 0.0}, {"handshake_timeout": 0.0}, {"idle_timeout": -1.0},
            {"half_open_patience": float("nan")},
        ]  # fmt: skip
        for options in wrong:
            with self.assertRaises(DTLSConfigurationError) as caught:
                DTLSLimits(**options)
            self.assertIn(next(iter(options)), str(caught.exception))
