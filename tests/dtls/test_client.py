"""The client's states, each row of the table at the head of ``_client.py``, and how it tries again."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.error import CannotListenError, InvalidAddressError
from twisted.internet.protocol import DatagramProtocol

from tests.dtls.world import CLIENT, NAME, PORT, SERVER, Lose, Notes, World, notes
from twistedudp import transport
from twistedudp.dtls import DTLSClient
from twistedudp.dtls._failures import PeerRefused
from twistedudp.errors import DTLSConfigurationError, DTLSHandshakeFailed, RequestAborted
from twistedudp.interfaces import Unreachable

if TYPE_CHECKING:
    from twistedudp.address import Address


class ClientTests(World):
    """A client and a server whose Connections pretend."""

    def silence(self) -> Lose:
        """Let nothing come back."""
        lose = Lose(lambda _: True)
        self.network.link(self.there, self.here).add(lose)
        return lose

    def ports_used(self) -> int:
        """Return from how many ports the client has sent."""
        rows = [row for row in self.network.trace if row.destination == (SERVER, PORT)]
        return len({row.source for row in rows})

    def test_idle_until_asked(self) -> None:
        """A client sends nothing before it is asked to."""
        self.serve_fake()
        client, _ = self.fake_client()
        self.settle()
        self.assertEqual((client.state, self.ports_used()), ("idle", 0))
        self.assertEqual((client.getHost().host, client.getHost().port), ("0.0.0.0", 0))  # noqa: S104  # not bound
        self.assertIsNone(client.session_number())
        self.assertIsNone(client.peer_certificate_name())

    def test_write_opens(self) -> None:
        """What is written while there is no session waits for it and leaves in order; the protocol is told first."""
        endpoint, _ = self.serve_fake()
        client, policy = self.fake_client()
        client.write(b"one")
        client.write(b"two", (SERVER, PORT))
        self.assertEqual(client.state, "shaking")
        self.settle()
        self.assertEqual(client.state, "open")
        self.assertEqual(notes(endpoint).payloads, [b"one", b"two"])
        self.assertEqual(notes(client).payloads, [b"one", b"two"])
        self.assertEqual(notes(client).told, [("verified", (SERVER, PORT), "peer.example")])
        self.assertEqual(policy.made[0].server_name, NAME.encode())
        self.assertEqual(client.peer_certificate_name(), "peer.example")
        self.assertIsNone(client.peer_certificate_name(("192.0.2.9", PORT)))
        self.assertNotEqual(client.getHost().port, 0)

    def test_nothing_leaves_before_the_check(self) -> None:
        """Where the server's name does not hold, nothing that was written leaves."""
        endpoint, _ = self.serve_fake()
        client, policy = self.fake_client()
        policy.name = PeerRefused("wrong_name", "it is another")
        client.write(b"secret")
        self.network.advance(1.0)
        self.assertEqual((notes(endpoint).payloads, client.state), ([], "idle"))
        self.assertEqual(client.stats.failed, {"wrong_name": 2})
        self.assertEqual(client.stats.not_sent, {"no_session": 1})
        self.assertEqual(endpoint.sessions, 0)  # it was told
        self.network.advance(5.0)
        self.assertEqual(self.here.getDelayedCalls(), [])

    def test_finding_is_believed_the_second_time(self) -> None:
        """An alert may be forged: one attempt later all is well."""
        self.serve_fake()
        client, policy = self.fake_client()
        waiting = client.open(5.0)
        policy.made[0].fails["do_handshake"] = 2 * [SSL.Error([("", "", "ssl/tls alert unknown ca")])]
        self.settle()
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual((self.ports_used(), client.stats.failed), (2, {"refused": 1}))

    def test_other_failures_are_tried_until_the_deadline(self) -> None:
        """What only broke is begun anew, from a fresh port and with pauses, until the deadline."""
        self.serve_fake()
        client, policy = self.fake_client()
        policy.name = PeerRefused("failed", "it broke off")
        waiting = client.open(5.0)
        self.network.advance(4.9)
        self.assertNoResult(waiting)
        self.network.advance(0.2)
        error = self.failureResultOf(waiting, DTLSHandshakeFailed).value
        self.assertEqual((error.reason, error.attempts), ("failed", self.ports_used()))
        self.assertIn("it broke off", str(error))
        self.assertTrue(4 <= error.attempts <= 8, error.attempts)

    def test_silence(self) -> None:
        """A server that does not answer: fresh ports after 4 and 12 s, and a plain error at the deadline."""
        client, _ = self.fake_client()
        self.there.silent = True
        waiting = client.open(20.0)
        self.network.advance(19.9)
        self.assertEqual(self.ports_used(), 3)
        self.assertNoResult(waiting)
        self.network.advance(0.2)
        error = self.failureResultOf(waiting, DTLSHandshakeFailed).value
        self.assertEqual((error.reason, error.attempts, error.peer), ("no_answer", 3, (SERVER, PORT)))
        self.assertEqual(notes(client).reasons("failed")[0].reason, "no_answer")
        self.assertEqual((self.here.getDelayedCalls(), self.here.ports), ([], []))

    def test_refused_by_the_network(self) -> None:
        """A port where nobody listens is told at the second try, not at the deadline."""
        client, _ = self.fake_client()
        waiting = client.open(20.0)
        self.network.advance(0.5)
        error = self.failureResultOf(waiting, DTLSHandshakeFailed).value
        self.assertEqual((error.reason, error.attempts), ("unreachable", 2))
        self.assertIn("Connection refused", str(error))

    def test_forged_refusal_by_the_network(self) -> None:
        """An ICMP error that does not quote the ClientHello's random counts for nothing."""
        self.there.silent = True
        client, _ = self.fake_client()
        client.open(20.0).addErrback(lambda _: None)
        attempt: Any = client._attempt
        hello = self.datagrams(to_server=True)[0]
        for quoted in (b"", hello[:40], hello[:30] + bytes(60)):
            attempt.peer_unreachable((SERVER, PORT), object(), quoted)
        self.assertEqual(client.stats.failed, {})
        client.stopListening()

    def test_loss_of_a_payload(self) -> None:
        """With a session, an ICMP error that quotes the last datagram is told with the payload that it carried."""
        self.serve_fake()
        client, _ = self.fake_client()
        self.opened(client)
        self.there.crash()
        self.there.restart()
        client.write(b"anybody?")
        self.settle()
        ((_, peer, reason, quoted),) = [told for told in notes(client).told if told[0] == "unreachable"]
        self.assertEqual((peer, reason, quoted), ((SERVER, PORT), "Connection refused", b"anybody?"))
        self.assertEqual(client.state, "open")

    def test_forged_loss_of_a_payload(self) -> None:
        """An ICMP error that quotes no more of a record than its header and nonce, which can be guessed, is forged."""
        self.serve()
        client = self.opened(self.client())
        client.write(b"anybody?")
        attempt: Any = client._attempt
        record = self.datagrams(to_server=True)[-1]
        forged = (b"", record[:1], record[:21], record[:28], record[:21] + bytes(17))
        refused = Unreachable(errno.ECONNREFUSED, "Connection refused", 3, 3, SERVER)
        for quoted in (*forged, record[:29], record):
            attempt.peer_unreachable((SERVER, PORT), refused, quoted)
        told = [told[-1] for told in notes(client).told if told[0] == "unreachable"]
        self.assertEqual(told, [b"anybody?", b"anybody?"])

    def test_callers_have_their_own_deadlines(self) -> None:
        """Each caller waits until its own deadline, for the same handshake; one that is cancelled harms no other."""
        self.there.silent = True
        client, policy = self.fake_client()
        short, cancelled, long = client.open(1.0), client.open(3.0), client.open(6.0)
        cancelled.cancel()
        cancelled.addErrback(lambda _: None)
        self.network.advance(1.1)
        self.failureResultOf(short, DTLSHandshakeFailed)
        self.assertEqual(len(policy.made), 1)
        self.serve_fake()
        self.network.advance(4.0)
        self.assertIsNone(self.successResultOf(long))
        self.assertIsNone(self.successResultOf(client.open(1.0)))

    def test_queue(self) -> None:
        """Sixteen payloads and 16 KiB wait at most, the latest ones."""
        endpoint, _ = self.serve_fake()
        client, _ = self.fake_client()
        for number in range(20):
            client.write(b"%d" % number)
        self.settle()
        self.assertEqual(notes(endpoint).payloads, [b"%d" % number for number in range(4, 20)])
        self.assertEqual(client.stats.not_sent, {"queue_full": 4})

    def test_begin_anew(self) -> None:
        """A server that forgot the session says nothing; the client begins anew, from a fresh port."""
        self.serve_fake()
        client, _ = self.fake_client()
        self.opened(client)
        first = client.session_number()
        self.there.crash()
        self.there = self.there.restart()
        endpoint, _ = self.serve_fake()
        client.write(b"lost")
        self.network.advance(2.0)
        self.assertEqual((notes(client).payloads, endpoint.stats.dropped), ([], {"unknown_peer": 1}))
        client.begin_anew()
        self.assertEqual(client.state, "idle")
        client.write(b"again")
        self.settle()
        self.assertEqual(notes(client).payloads, [b"again"])
        self.assertNotEqual(client.session_number(), first)
        self.assertEqual(client.stats.ended, {"renewed": 1})

    def test_begin_anew_in_a_handshake(self) -> None:
        """A handshake under way is replaced at once; who waits for it goes on waiting."""
        lose = self.silence()
        self.serve_fake()
        client, _ = self.fake_client()
        waiting = client.open(5.0)
        self.settle()
        self.network.link(self.there, self.here).clear()
        client.begin_anew()
        self.settle()
        self.assertIsNone(self.successResultOf(waiting))
        self.assertEqual((len(lose.lost), self.ports_used()), (1, 2))

    def test_closed_by_the_server(self) -> None:
        """A close_notify is answered; the next write begins anew."""
        endpoint, _ = self.serve_fake()
        client, _ = self.fake_client()
        self.opened(client)
        endpoint.close_sessions()
        self.settle()
        self.assertEqual((client.state, notes(client).reasons("lost")), ("idle", ["closed"]))
        client.write(b"again")
        self.settle()
        self.assertEqual(notes(client).payloads, [b"again"])

    def test_idle_timeout(self) -> None:
        """Without anything of the server's for so long the session is closed, and no timer is left."""
        endpoint, _ = self.serve_fake()
        client, _ = self.fake_client(idle_timeout=10.0)
        self.opened(client)
        self.network.advance(8.0)
        client.write(b"here")
        self.network.advance(8.0)
        self.assertEqual(client.state, "open")
        self.network.advance(3.0)
        self.assertEqual((client.state, endpoint.sessions), ("idle", 0))
        self.assertEqual(notes(client).reasons("lost"), ["idle"])
        self.assertEqual(self.here.getDelayedCalls(), [])

    def test_idle_timeout_that_is_rounded(self) -> None:
        """It is over at the very time that the timer is set for, however sums and differences are rounded."""
        self.serve_fake()
        client, _ = self.fake_client(idle_timeout=10.0)
        self.opened(client)
        attempt: Any = client._attempt
        ticks = [number / 1000 for number in range(1, 10_000)]
        odd = attempt.session.heard = next(tick for tick in ticks if (tick + 10.0) - tick < 10.0)
        client._due(odd + 10.0)
        self.assertEqual(client.state, "idle")

    def test_stop(self) -> None:
        """Stopping tells the server, stops the protocol, fails who waits, and frees the port."""
        endpoint, _ = self.serve_fake()
        client, _ = self.fake_client()
        self.opened(client)
        stopped = client.stopListening()
        self.settle()
        self.assertIsNone(self.successResultOf(stopped))
        self.assertEqual((client.state, endpoint.sessions, self.here.ports), ("stopped", 0, []))
        self.assertIsNone(notes(client).transport)
        self.assertEqual(client.stats.ended, {"stopped": 1})
        self.failureResultOf(client.open(1.0), RequestAborted)
        client.write(b"late")
        self.assertEqual(client.stats.not_sent, {"stopped": 1})
        self.successResultOf(client.stopListening())
        self.assertEqual(self.here.getDelayedCalls(), [])

    def test_stop_in_a_handshake(self) -> None:
        """Whoever waits fails at once, and nothing is left."""
        self.silence()
        self.serve_fake()
        client, _ = self.fake_client()
        waiting = client.open(5.0)
        self.settle()
        stopped = client.stopListening()
        self.failureResultOf(waiting, RequestAborted)
        self.settle()
        self.successResultOf(stopped)
        self.assertEqual((self.here.getDelayedCalls(), self.here.ports), ([], []))

    def test_strangers_datagrams(self) -> None:
        """What does not come from the server, or is no DTLS, is dropped and counted."""
        self.serve_fake()
        client, _ = self.fake_client()
        self.opened(client)
        attempt: Any = client._attempt
        attempt.datagrams_received([(b"\x17\xfe\xfd" + bytes(20), ("192.0.2.66", 1)), (b"plain", (SERVER, PORT))])
        self.assertEqual(client.stats.dropped, {"stranger": 1, "not_dtls": 1})

    def test_errors_of_the_caller(self) -> None:
        """Other peers and names that cannot be are refused where they are given."""
        client, _ = self.fake_client()
        self.assertRaises(InvalidAddressError, client.write, b"x", ("192.0.2.66", PORT))
        self.assertRaises(RuntimeError, client.connect, "192.0.2.66", PORT)
        client.connect(SERVER, PORT)
        for name in ("", "a b", "ex/ample"):
            self.assertRaises(DTLSConfigurationError, self.client, name=name)

    def test_batches(self) -> None:
        """Several payloads leave together; those that do not fit come back with their errors."""
        endpoint, _ = self.serve_fake()
        client, _ = self.fake_client()
        self.opened(client)
        there: Address = (SERVER, PORT)
        refused = client.write_batch([(b"one", there), (b"", there), (b"two", there), (b"x", ("192.0.2.66", 1))])
        self.assertEqual([(payload, peer) for payload, peer, _ in refused], [(b"", there), (b"x", ("192.0.2.66", 1))])
        self.settle()
        self.assertEqual(notes(endpoint).payloads, [b"one", b"two"])

    def test_no_port(self) -> None:
        """Where no port can be opened the caller is told at once."""

        def listen(*_: object, **__: object) -> Any:
            error = OSError(24, "Too many open files")
            raise CannotListenError("", 0, error)  # type: ignore[no-untyped-call]  # Twisted has no types there

        client = DTLSClient(self.here, (SERVER, PORT), NAME, self.fake_client()[1], Notes(), listen=listen)
        error = self.failureResultOf(client.open(5.0), DTLSHandshakeFailed).value
        self.assertIn("no port to send from", str(error))
        self.assertEqual(client.state, "idle")

    def test_stopped_by_its_own_protocol(self) -> None:
        """A protocol that stops its transport when it is told of the session gets no data of it."""
        self.serve_fake()

        class Stops(DatagramProtocol):
            noisy = False

            def __init__(self) -> None:
                self.payloads: list[bytes] = []

            def peer_verified(self, _addr: object, _name: object) -> None:
                client.stopListening()

            def datagramReceived(self, datagram: bytes, addr: Address) -> None:
                self.payloads.append(datagram)

        stops = Stops()
        client = DTLSClient(self.here, (SERVER, PORT), NAME, self.fake_client()[1], stops)
        client.write(b"echo me")
        self.settle()
        self.assertEqual((client.state, stops.payloads, self.here.ports), ("stopped", [], []))

    def test_fresh_port_from_the_interface(self) -> None:
        """The local address is the one that was asked for."""
        self.serve_fake()
        client = DTLSClient(
            self.here, (SERVER, PORT), NAME, self.fake_client()[1], Notes(), interface=CLIENT, listen=transport.listen
        )
        self.assertEqual(client.getHost().host, CLIENT)
        self.opened(client)
        self.assertEqual(client.getHost().host, CLIENT)
