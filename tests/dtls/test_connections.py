"""What sessions expect of a Connection: one contract, for real ones and for those that only pretend."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.dtls.fakes import FakePolicy
from tests.dtls.world import client_context, counted, server_context
from twistedudp.dtls._cookies import CookieJar
from twistedudp.dtls._facts import PeerFacts
from twistedudp.dtls._records import pack
from twistedudp.dtls._session import new_connection

if TYPE_CHECKING:
    from twistedudp.dtls._session import Connection, Policy

PEER = ("192.0.2.2", 5000)


class ConnectionContract:
    """What holds for both."""

    client_policy: Policy
    server_policy: Policy

    def setUp(self) -> None:
        """Make a pair."""
        self.facts = PeerFacts(CookieJar(counted(), now=0.0))
        self.facts.peer = PEER
        self.client: Connection = new_connection(self.client_policy, PeerFacts(), 1200)
        self.server: Connection = new_connection(self.server_policy, self.facts, 1200)

    def step(self, connection: Connection, datagrams: list[bytes]) -> list[bytes]:
        """Let a Connection take datagrams in its handshake, and return what it answers."""
        for datagram in datagrams:
            connection.bio_write(datagram)
            with contextlib.suppress(SSL.WantReadError):
                connection.do_handshake()
        return self.out(connection)

    def out(self, connection: Connection) -> list[bytes]:
        """Return what it sends."""
        try:
            return pack(connection.bio_read(1 << 20), 1200)
        except SSL.WantReadError:
            return []

    def begin(self) -> bytes:
        """Return the client's first datagram."""
        test: Any = self
        test.assertRaises(SSL.WantReadError, self.client.do_handshake)
        (first,) = self.out(self.client)
        return first

    def listen(self, datagram: bytes) -> bool:
        """Have the server look at a ClientHello; tell whether its cookie is good."""
        self.facts.random = datagram[27:59]
        self.server.bio_write(datagram)
        try:
            self.server.DTLSv1_listen()
        except SSL.WantReadError:
            return False
        return True

    def shake(self) -> None:
        """Do all of it."""
        test: Any = self
        test.assertFalse(self.listen(self.begin()))
        (with_cookie,) = self.step(self.client, self.out(self.server))
        test.assertTrue(self.listen(with_cookie))
        test.assertRaises(SSL.WantReadError, self.server.do_handshake)
        flight = self.out(self.server)
        for _ in range(3):
            flight = self.step(self.client, flight)
            flight = self.step(self.server, flight)
        self.client.do_handshake()
        self.server.do_handshake()

    def test_handshake_with_cookie(self) -> None:
        """The flights go as they should, and no timer is left afterwards."""
        test: Any = self
        self.shake()
        test.assertIsNone(self.client.DTLSv1_get_timeout())
        test.assertIsNone(self.server.DTLSv1_get_timeout())

    def test_cookie_of_another_address(self) -> None:
        """A good ClientHello from another address gets another cookie."""
        test: Any = self
        test.assertFalse(self.listen(self.begin()))
        request = self.out(self.server)
        (with_cookie,) = self.step(self.client, request)
        self.facts.peer = ("192.0.2.3", 5000)
        test.assertFalse(self.listen(with_cookie))
        (other,) = self.out(self.server)
        test.assertNotEqual(other[-32:], request[0][-32:])

    def test_payloads(self) -> None:
        """A payload is one record and comes out once; then there is nothing."""
        test: Any = self
        self.shake()
        test.assertEqual(self.client.send(b"payload"), 7)
        sealed = self.client.bio_read(1 << 20)
        for expected in (b"payload", None):  # the second time it is a copy
            self.server.bio_write(sealed)
            if expected:
                test.assertEqual(self.server.recv(16384), expected)
            test.assertRaises(SSL.WantReadError, self.server.recv, 16384)
        test.assertRaises(SSL.WantReadError, self.server.bio_read, 1 << 20)

    def test_forged_record(self) -> None:
        """A record that was changed is passed over."""
        test: Any = self
        self.shake()
        self.client.send(b"payload")
        sealed = bytearray(self.client.bio_read(1 << 20))
        sealed[14] ^= 1
        self.server.bio_write(bytes(sealed))
        test.assertRaises(SSL.WantReadError, self.server.recv, 16384)

    def test_empty_payload(self) -> None:
        """To send nothing is an error, and makes no record."""
        test: Any = self
        self.shake()
        test.assertRaises(SSL.Error, self.client.send, b"")
        test.assertRaises(SSL.WantReadError, self.client.bio_read, 1 << 20)

    def test_close_notify(self) -> None:
        """The end of one side is told the other."""
        test: Any = self
        self.shake()
        self.client.shutdown()
        self.server.bio_write(self.client.bio_read(1 << 20))
        test.assertRaises(SSL.ZeroReturnError, self.server.recv, 16384)

    def test_no_close_notify_in_a_handshake(self) -> None:
        """Before the end of the handshake there is nothing to close."""
        test: Any = self
        self.begin()
        test.assertRaises(SSL.Error, self.client.shutdown)

    def test_timer(self) -> None:
        """A flight that waits for its answer has a timer of a second, and asking too early does nothing."""
        test: Any = self
        self.begin()
        wait = self.client.DTLSv1_get_timeout()
        test.assertTrue(wait is not None and 0.5 < wait <= 1.0, wait)
        test.assertFalse(self.client.DTLSv1_handle_timeout())
        test.assertRaises(SSL.WantReadError, self.client.bio_read, 1 << 20)

    def test_alert_ends_a_handshake(self) -> None:
        """A plaintext alert, which anybody can send, ends a handshake, and asking again does not help."""
        test: Any = self
        self.begin()
        self.client.bio_write(b"\x15\xfe\xfd" + bytes(8) + b"\0\2\2\x28")
        for _ in range(2):
            with test.assertRaises(SSL.Error) as caught:
                self.client.do_handshake()
            test.assertNotIsInstance(caught.exception, SSL.WantReadError)


class RealConnectionTests(ConnectionContract, SynchronousTestCase):
    """OpenSSL."""

    def setUp(self) -> None:
        """Make a pair."""
        self.client_policy, self.server_policy = client_context(), server_context()
        super().setUp()


class FakeConnectionTests(ConnectionContract, SynchronousTestCase):
    """Those of the other tests."""

    def setUp(self) -> None:
        """Make a pair."""
        ticks = itertools.count()

        def clock() -> float:
            return next(ticks) / 1e6

        self.client_policy = FakePolicy(clock, is_server=False)
        self.server_policy = FakePolicy(clock, is_server=True)
        super().setUp()
