"""The traps between OpenSSL's memory BIO and UDP, one test or more each; the numbers are those of docs/dtls.md."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.internet.error import MessageLengthError

from tests.dtls.fakes import application_record, hello, last
from tests.dtls.world import (
    NAME,
    PORT,
    SERVER,
    Lose,
    World,
    authority,
    client_context,
    notes,
    server_context,
)
from twistedudp.dtls import DTLSContext, DTLSLimits
from twistedudp.dtls._context import check_openssl
from twistedudp.dtls._facts import PeerFacts
from twistedudp.dtls._records import LARGEST_HELLO, is_client_hello
from twistedudp.dtls._session import new_connection
from twistedudp.errors import DTLSHandshakeFailed, DTLSUnavailable

if TYPE_CHECKING:
    from twistedudp.dtls import DTLSEndpoint

RANDOM = bytes(range(32))


def poison() -> SSL.Error:
    """Return what an older OpenSSL says of another session's datagram."""
    return SSL.Error([("SSL routines", "", "record too small")])


class TrapTests(World):
    """G1 to G17."""

    def fake_session(self, **options: Any) -> tuple[DTLSEndpoint, Any, Any]:
        """Return an endpoint, its open session's Connection, and the peer that has it."""
        endpoint, _policy = self.serve_fake(**options)
        client, _ = self.fake_client()
        self.opened(client)
        (session,) = endpoint._opened.values()
        self.assertEqual(endpoint.sessions, 1)
        return endpoint, session.connection, client

    def test_g01_old_openssl_is_refused(self) -> None:
        """An OpenSSL in which strangers end sessions is not used; one line says what to install."""
        for version in (0x30000130, 0x30500030):
            with self.assertRaises(DTLSUnavailable) as caught:
                check_openssl(version)
            self.assertIn("pip install --upgrade 'cryptography>=48' pyOpenSSL", str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))
        check_openssl(0x40000000)

    def test_g01_contexts_ask(self) -> None:
        """No context is made with such an OpenSSL, whatever the version of the wheel."""
        self.patch(SSL, "OPENSSL_VERSION_NUMBER", 0x30500030)
        self.assertRaises(DTLSUnavailable, DTLSContext.client)
        self.assertRaises(DTLSUnavailable, server_context)

    def test_g01_error_of_another_session_is_survived(self) -> None:
        """An error that the second look does not confirm ends nothing, and what came with it is delivered."""
        endpoint, connection, client = self.fake_session()
        connection.fails["recv"] = [poison()]
        client.write(b"still there")
        self.settle()
        self.assertEqual(notes(client).payloads, [b"still there"])
        self.assertEqual(endpoint.stats.alarms_survived, 1)
        self.assertEqual(endpoint.sessions, 1)

    def test_g01_error_before_several_records(self) -> None:
        """The same where one datagram brings several records."""
        endpoint, connection, client = self.fake_session()
        attempt: Any = client._attempt
        connection.fails["recv"] = [poison()]
        attempt.port.write(attempt.session.seal(b"one") + attempt.session.seal(b"two"), (SERVER, PORT))
        self.settle()
        self.assertEqual(notes(client).payloads, [b"one", b"two"])
        self.assertEqual(endpoint.stats.alarms_survived, 1)

    def test_g01_error_is_believed_the_second_time(self) -> None:
        """An error that comes twice in a row ends the session."""
        endpoint, connection, client = self.fake_session()
        connection.fails["recv"] = [poison(), poison()]
        client.write(b"lost")
        self.settle()
        self.assertEqual(endpoint.sessions, 0)
        self.assertEqual(endpoint.stats.ended["broken"], 1)

    def test_g01_junk_disturbs_no_session(self) -> None:
        """Real Connections: ClientHellos that OpenSSL refuses do nothing to a session that is open."""
        endpoint = self.serve()
        client = self.opened(self.client())
        genuine = next(datagram for datagram in self.datagrams(to_server=True) if is_client_hello(datagram))
        stranger = self.stranger()
        for length in range(59, len(genuine), 3):
            stranger.send(genuine[:length])
            stranger.send(genuine[:length] + b"\xff" * (len(genuine) - length))
            client.write(b"%d" % length)
        self.settle()
        self.assertEqual(notes(client).payloads, [b"%d" % length for length in range(59, len(genuine), 3)])
        self.assertGreater(endpoint.stats.dropped["not_a_hello"], 20)
        self.assertEqual(endpoint.stats.ended, {})

    def test_g02_repeated_hello_makes_no_second_connection(self) -> None:
        """A ClientHello that is sent again meets the Connection that it made, which repeats its flight."""
        endpoint, policy = self.serve_fake()
        stranger = self.stranger()
        stranger.send(hello(RANDOM))
        self.settle()
        cookie = stranger.received[0][-32:]
        stranger.send(hello(RANDOM, cookie, 1))
        self.settle()
        made = len(policy.made)
        stranger.send(hello(RANDOM, cookie, 2))
        self.settle()
        self.assertEqual(len(policy.made), made)
        self.assertEqual(endpoint.half_open, 1)
        self.network.advance(1.0)
        self.assertEqual(stranger.received[1:], 2 * [stranger.received[1]])

    def test_g02_repeated_hello_with_real_connections(self) -> None:
        """A client whose server's flight was lost, and which says hello again, gets its session; takes 1 s (G12)."""
        endpoint = self.serve()
        first_flight = Lose(lambda datagram: len(datagram) > 300 and not first_flight.lost)
        self.network.link(self.there, self.here).add(first_flight)
        client = self.client()
        waiting = client.open(5.0)
        self.settle()
        self.assertNoResult(waiting)
        again = bytearray(self.datagrams(to_server=True)[-1])
        again[10] += 1  # the record's number, as a retransmission has it
        attempt: Any = client._attempt
        attempt.port.write(bytes(again), (SERVER, PORT))
        self.real_time(1.5, lambda: waiting.called)
        self.successResultOf(waiting)
        self.assertEqual((endpoint.stats.failed, endpoint.stats.opened), ({}, 1))
        self.assertEqual(client.stats.failed, {})

    def test_g03_flights_are_cut_between_records(self) -> None:
        """A flight larger than the MTU leaves in datagrams that fit it, and is understood."""
        large = authority().issue([NAME], padding=5000)
        endpoint = self.serve(DTLSContext.server(*large))
        self.opened(self.client())
        sizes = [len(datagram) for datagram in self.datagrams(to_server=False)]
        self.assertGreater(sum(sizes), 5500)
        self.assertLessEqual(max(sizes), endpoint.limits.mtu)

    def test_g04_datagrams_are_read_one_by_one(self) -> None:
        """A record that is cut does not take the next datagram's with it, though both come together."""
        self.serve()
        client = self.opened(self.client())
        attempt: Any = client._attempt
        cut, good = (attempt.session.seal(payload) for payload in (b"cut", b"good"))
        attempt.port.write(cut[:-5], (SERVER, PORT))
        attempt.port.write(good, (SERVER, PORT))
        self.settle()
        self.assertEqual(notes(client).payloads, [b"good"])

    def test_g04_records_of_one_datagram_are_all_read(self) -> None:
        """A peer may put several records into a datagram: they are delivered with it, not with the next."""
        self.serve()
        client = self.opened(self.client())
        attempt: Any = client._attempt
        attempt.port.write(b"".join(map(attempt.session.seal, (b"one", b"two", b"three"))), (SERVER, PORT))
        self.settle()
        self.assertEqual(notes(client).payloads, [b"one", b"two", b"three"])

    def test_g04_everything_is_read_whatever_the_protocol_does(self) -> None:
        """An exception of the wrapped protocol leaves nothing unread, neither of its datagram nor of later ones."""
        endpoint, connection, client = self.fake_session()
        notes(endpoint).fails = True
        for number in range(3):
            client.write(b"%d" % number)
        self.settle()
        self.assertEqual(notes(endpoint).payloads, [b"0", b"1", b"2"])
        self.assertEqual(connection.written, [])
        self.assertEqual(connection.not_drained, 0)
        self.assertEqual(endpoint.stats.callback_errors, 3)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 3)

    def test_g05_nothing_of_one_peer_is_left_for_the_next(self) -> None:
        """What OpenSSL would not read in one go is dropped before: it would be answered as the next peer's."""
        endpoint = self.serve()
        self.opened(self.client())
        genuine = next(datagram for datagram in self.datagrams(to_server=True) if is_client_hello(datagram))
        one, other = self.stranger(), self.stranger()
        # What the listener reads at once is junk; the ClientHello behind it would wait for the next call.
        one.send(genuine[:59] + bytes(16397 - 59) + genuine)
        other.send(genuine[:59])
        self.settle()
        self.assertEqual((one.received, other.received), ([], []))
        self.assertEqual(endpoint.stats.hellos_answered, 1)
        self.assertLess(LARGEST_HELLO, 16384)

    def test_g06_mtu_is_set_for_each_connection(self) -> None:
        """Without the MTU OpenSSL does not even begin; with it the whole of it is used."""
        connection = client_context().connection(PeerFacts())
        self.assertRaises(SSL.SysCallError, connection.do_handshake)
        connection = client_context().connection(PeerFacts())
        new = new_connection(client_context(), PeerFacts(), 1200)
        self.assertRaises(SSL.WantReadError, new.do_handshake)
        self.serve()
        client = self.opened(self.client())
        attempt: Any = client._attempt
        self.assertEqual(attempt.session.payload_limit, 1163)
        self.assertEqual(client.payload_limit, 1163)

    def test_g07_payloads_that_do_not_fit_are_refused(self) -> None:
        """OpenSSL would send them in datagrams larger than the MTU; the largest that fits passes."""
        endpoint = self.serve()
        client = self.opened(self.client())
        self.assertRaises(MessageLengthError, client.write, bytes(1164))
        client.write(bytes(1163))
        self.settle()
        self.assertEqual(notes(client).payloads, [bytes(1163)])
        (peer,) = endpoint._opened
        self.assertRaises(MessageLengthError, endpoint.write, bytes(1164), peer)
        self.assertEqual(
            [len(refused[0]) for refused in endpoint.write_batch([(bytes(1164), peer), (b"1", peer)])], [1164]
        )
        self.settle()
        self.assertEqual(notes(client).payloads[1:], [b"1"])
        self.assertLessEqual(max(map(len, self.datagrams(to_server=True))), 1200)

    def test_g08_empty_payloads_are_refused(self) -> None:
        """DTLS has no empty datagram; to write one is the caller's mistake and does the session no harm."""
        self.serve()
        client = self.client()
        self.assertRaises(MessageLengthError, client.write, b"")
        self.opened(client)
        self.assertRaises(MessageLengthError, client.write, b"")
        client.write(b"next")
        self.settle()
        self.assertEqual(notes(client).payloads, [b"next"])

    def test_g09_payloads_are_delivered_whole(self) -> None:
        """A payload comes as one, however large."""
        self.serve(mtu=16384)
        client = self.opened(self.client(mtu=16384))
        client.write(bytes(16347))
        client.write(b"small")
        self.settle()
        self.assertEqual(list(map(len, notes(client).payloads)), [16347, 5])

    def test_g10_errors_of_other_classes_are_fatal_as_well(self) -> None:
        """``SysCallError`` ends a handshake, or a session, and nothing escapes to the port."""
        endpoint, policy = self.serve_fake()
        client, _ = self.fake_client()
        self.opened(client)
        policy.made[0].fails["recv"] = 2 * [SSL.SysCallError(-1, "Unexpected EOF")]
        client.write(b"lost")
        self.settle()
        self.assertEqual(endpoint.stats.ended["broken"], 1)
        client.begin_anew()
        waiting = client.open(5.0)
        self.network.advance(0.0015)
        policy.made[-1].fails["do_handshake"] = 2 * [SSL.SysCallError(-1, "Unexpected EOF")]
        self.network.advance(0.01)
        self.assertEqual(endpoint.stats.failed["failed"], 1)
        self.assertEqual(endpoint.half_open, 0)
        self.network.advance(5)
        self.successResultOf(waiting)

    def test_g10_listener_that_fails(self) -> None:
        """A Connection that fails while it looks at a ClientHello is replaced; the next client meets a new one."""
        endpoint, policy = self.serve_fake()
        stranger = self.stranger()
        stranger.send(hello(RANDOM))
        self.settle()
        policy.made[0].fails["DTLSv1_listen"] = [SSL.SysCallError(-1, "Unexpected EOF")]
        stranger.send(hello(RANDOM))
        self.settle()
        self.assertEqual((endpoint.stats.dropped, len(stranger.received)), ({"not_a_hello": 1}, 1))
        stranger.send(hello(RANDOM, stranger.received[0][-32:]))
        self.settle()
        self.assertEqual((endpoint.half_open, len(policy.made)), (1, 2))

    def test_g10_oversized_fragment_with_real_connections(self) -> None:
        """A handshake message that claims to be huge ends the handshake, and nothing else."""
        endpoint = self.serve()
        opened = self.opened(self.client())
        lose = Lose(lambda datagram: datagram[0] == 22 and datagram[13] == 2)
        self.network.link(self.there, self.here).add(lose)
        client = self.client()
        client.open(5.0).addErrback(lambda _: None)
        self.settle()
        self.assertEqual(endpoint.half_open, 1)
        huge = b"\x16\xfe\xfd" + bytes(7) + b"\x50" + b"\0\x10" + b"\x10\xff\xff\xff\0\2\0\0\0\xff\xff\xff" + b"abcd"
        attempt: Any = client._attempt
        attempt.port.write(huge, (SERVER, PORT))
        self.settle()
        self.assertEqual(endpoint.stats.failed, {"failed": 1})
        opened.write(b"still there")
        self.settle()
        self.assertEqual(notes(opened).payloads, [b"still there"])
        client.stopListening()

    def test_g11_nothing_without_a_cookie(self) -> None:
        """A ClientHello without a cookie, or with another address's, gets one and leaves nothing."""
        endpoint, policy = self.serve_fake()
        stranger, other = self.stranger(), self.stranger()
        stranger.send(hello(RANDOM))
        self.settle()
        self.assertEqual((endpoint.half_open, len(policy.made)), (0, 1))
        cookie = stranger.received[0][-32:]
        other.send(hello(RANDOM, cookie))
        self.settle()
        self.assertEqual((endpoint.half_open, len(policy.made)), (0, 1))
        self.assertNotEqual(other.received[0][-32:], cookie)
        stranger.send(hello(bytes(32), cookie))
        self.settle()
        self.assertEqual(endpoint.half_open, 0)
        stranger.send(hello(RANDOM, cookie))
        self.settle()
        (session,) = endpoint._half_open.sessions.values()
        self.assertIs(session.connection, policy.made[0])
        self.assertEqual(endpoint.stats.hellos_answered, 3)

    def test_g12_early_timer_does_nothing(self) -> None:
        """OpenSSL goes by its own clock: a timer that comes early sends nothing and is set again, but not at once."""
        self.serve()
        lose = Lose(lambda _: True)
        self.network.link(self.there, self.here).add(lose)
        client = self.client()
        client.open(60.0).addErrback(lambda _: None)
        started = self.network.clock.seconds()
        for _ in range(50):  # virtual time goes, real time hardly does
            self.network.advance(0.05)
        self.assertAlmostEqual(self.network.clock.seconds() - started, 2.5)
        self.assertEqual(client.stats.retransmissions, 0)
        self.assertEqual(len(lose.lost), 1)
        client.stopListening()

    def test_g12_retransmissions_and_deadline(self) -> None:
        """A server repeats its flight after 1, 2, 4 and 8 s, and gives the handshake up at its own deadline."""
        endpoint, _ = self.serve_fake(handshake_timeout=20.0)
        stranger = self.stranger()
        stranger.send(hello(RANDOM))
        self.settle()
        stranger.send(hello(RANDOM, stranger.received[0][-32:]))
        seen: list[float] = []
        began = self.network.clock.seconds()
        while self.network.clock.seconds() - began < 25:
            before = len(stranger.received)
            self.network.advance(0.1)
            seen += [round(self.network.clock.seconds() - began)] * (len(stranger.received) > before)
        self.assertEqual(seen, [0, 1, 3, 7, 15])
        self.assertEqual(endpoint.stats.failed, {"deadline": 1})
        self.assertEqual(endpoint.half_open, 0)
        self.assertEqual(self.there.getDelayedCalls(), [])

    def test_g13_last_flight_is_sent_again(self) -> None:
        """A server that is through sends its last flight again when the client's comes again."""
        endpoint, _ = self.serve_fake()
        final = Lose(lambda datagram: datagram[13] == 20 and not final.lost)
        self.network.link(self.there, self.here).add(final)
        client, _ = self.fake_client()
        waiting = client.open(5.0)
        self.settle()
        self.assertNoResult(waiting)
        self.assertEqual((len(final.lost), endpoint.sessions), (1, 1))
        self.network.advance(1.1)
        self.successResultOf(waiting)

    def test_g14_only_dtls_1_2(self) -> None:
        """The version is the same from both ends of the range, and a client that knows only 1.0 gets no session."""
        endpoint = self.serve()
        client = self.opened(self.client())
        attempt: Any = client._attempt
        self.assertEqual(attempt.session.connection.get_protocol_version(), 0xFEFD)
        old = client_context()
        old._ssl.set_min_proto_version(0)
        old._ssl.set_max_proto_version(0xFEFF)
        old._ssl.set_cipher_list(b"ALL:@SECLEVEL=0")
        waiting = self.client(old).open(2.0)
        self.network.advance(3.0)
        error = self.failureResultOf(waiting, DTLSHandshakeFailed).value
        self.assertIn("DTLS 1.2", str(error))
        self.assertEqual(endpoint.stats.opened, 1)

    def test_g15_nothing_is_sent_to_a_wrong_name(self) -> None:
        """A server of the same authority with another name gets nothing, and nothing of its is delivered."""
        endpoint = self.serve()
        client = self.client(name="other.example")
        client.write(b"secret")
        self.network.advance(3.0)
        (error,) = notes(client).reasons("failed")
        self.assertEqual(error.reason, "wrong_name")
        self.assertIn("'other.example'", str(error))
        self.assertEqual((notes(endpoint).payloads, client.state), ([], "idle"))
        self.assertEqual(client.stats.not_sent["no_session"], 1)

    def test_g16_client_that_was_started_again(self) -> None:
        """A stranger's ClientHello leaves the session of its address alone; a complete handshake takes its place."""
        endpoint, _ = self.serve_fake()
        stranger = self.stranger()
        first = self._handshake(stranger, RANDOM)
        self.assertEqual(endpoint.session_number(stranger.address), first)
        other = RANDOM[::-1]
        stranger.received.clear()
        stranger.send(hello(other))
        self.settle()
        stranger.send(hello(other, stranger.received[0][-32:], 1))
        self.settle()
        self.assertEqual((endpoint.sessions, endpoint.half_open), (1, 1))
        stranger.send(application_record(RANDOM, b"of the former session"))
        self.settle()
        self.assertEqual(notes(endpoint).payloads, [b"of the former session"])
        self.assertEqual(endpoint.session_number(stranger.address), first)
        stranger.send(last(other))
        stranger.send(application_record(other, b"of the new one"))
        stranger.send(application_record(RANDOM, b"too late", 1001))
        self.settle()
        self.assertEqual(notes(endpoint).payloads[1:], [b"of the new one"])
        self.assertNotEqual(endpoint.session_number(stranger.address), first)
        self.assertEqual((endpoint.stats.replaced, endpoint.sessions, endpoint.half_open), (1, 1, 0))
        self.assertEqual(notes(endpoint).reasons("lost"), ["replaced"])
        # The record that came too late: what belongs to the handshake was not shown to the session.
        self.assertEqual(endpoint.stats.dropped, {"no_data": 1})

    def test_g17_memory_is_bounded_and_given_back(self) -> None:
        """There are at most so many sessions, and the Connection of one that is over is gone at once."""
        self.assertEqual(DTLSLimits().sessions, 2000)
        # Of 66 kB each: strangers who return cookies and then say nothing may not take 20 MiB, with what a port needs.
        self.assertLessEqual(DTLSLimits().half_open * 66_000, 10 * 2**20)
        endpoint = self.serve(sessions=2, half_open_per_host=8)
        clients = [self.client() for _ in range(3)]
        for client in clients:
            client.open(60.0).addErrback(lambda _: None)
        self.network.advance(1.0)
        self.assertEqual((endpoint.sessions, endpoint.stats.dropped["sessions_full"] > 0), (2, True))
        references = [weakref.ref(session.connection) for session in endpoint._opened.values()]
        gc.disable()
        try:
            for client in clients:
                client.stopListening()
            self.settle()
            self.assertEqual([reference() for reference in references], [None, None])
        finally:
            gc.enable()

    def _handshake(self, stranger: Any, random: bytes) -> int | None:
        stranger.send(hello(random))
        self.settle()
        stranger.send(hello(random, stranger.received[-1][-32:], 1))
        self.settle()
        stranger.send(last(random))
        self.settle()
        endpoint: Any = self.there.ports[0].protocol
        number: int | None = endpoint.session_number(stranger.address)
        return number
