"""The table of raw echoes."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND, STRANGER
from twistedudp.address import LARGEST_PAYLOAD
from twistedudp.core import Kind, PendingRequest
from twistedudp.core._echoes import MAX_EQUAL_ECHOES, EchoTable
from twistedudp.errors import DatagramTooLarge, TooManyRequests


class EchoTableTests(SynchronousTestCase):
    """Known by socket and bytes."""

    def setUp(self) -> None:
        """Begin with none."""
        self.table = EchoTable()

    def add(self, payload: bytes) -> PendingRequest:
        """Enter an echo that was sent to two addresses."""
        request = PendingRequest(1, payload, Kind.RAW, True, 0.0, 1.0, 1.0)
        request.socket = self.table.free_socket(payload)
        request.asked = (FIRST, SECOND)
        self.table.add(request)
        return request

    def test_sockets(self) -> None:
        """Equal payloads take sockets of their own, others share the first, and what is free is used again."""
        first, second, third = (self.add(b"a") for _ in range(3))
        self.assertEqual([first.socket, second.socket, third.socket, self.add(b"b").socket], [0, 1, 2, 0])
        self.table.remove(second)
        self.assertEqual(self.add(b"a").socket, 1)
        self.assertEqual(len(self.table), 4)

    def test_too_many_equals(self) -> None:
        """As many as there may be ports; other bytes still go."""
        for _ in range(MAX_EQUAL_ECHOES):
            self.add(b"a")
        error = self.assertRaises(TooManyRequests, self.table.free_socket, b"a")
        self.assertIn("256 echoes of these same bytes", str(error))
        self.assertEqual(self.table.free_socket(b"b"), 0)

    def test_too_large(self) -> None:
        """No datagram carries more than 65,527 bytes."""
        self.assertEqual(self.table.free_socket(bytes(LARGEST_PAYLOAD)), 0)
        error = self.assertRaises(DatagramTooLarge, self.table.free_socket, bytes(LARGEST_PAYLOAD + 1))
        self.assertEqual((error.size, error.limit), (65528, 65527))

    def test_answered(self) -> None:
        """The socket, the bytes and the peer must all be right."""
        request = self.add(b"hello")
        for peer in (FIRST, SECOND):
            self.assertIs(self.table.answered_untrusted(b"hello", peer, 0), request)
        self.assertIsNone(self.table.answered_untrusted(b"hello", STRANGER, 0))
        self.assertIsNone(self.table.answered_untrusted(b"hello", FIRST, 1))
        self.assertIsNone(self.table.answered_untrusted(b"hell", FIRST, 0))
        self.assertIsNone(self.table.answered_untrusted(b"hello!", FIRST, 0))

    def test_quoted_whole(self) -> None:
        """An ICMP error that quotes all of it, be it ever so short."""
        request = self.add(b"")
        self.assertIs(self.table.quoted_untrusted(b"", FIRST, 0), request)

    def test_quoted_cut(self) -> None:
        """Eight bytes are enough, seven are not; socket and peer must be right as well."""
        self.add(b"another payload")
        request = self.add(b"0123456789")
        self.assertIs(self.table.quoted_untrusted(b"01234567", FIRST, 0), request)
        self.assertIs(self.table.quoted_untrusted(b"012345678", SECOND, 0), request)
        self.assertIsNone(self.table.quoted_untrusted(b"0123456", FIRST, 0))
        self.assertIsNone(self.table.quoted_untrusted(b"01234567", STRANGER, 0))
        self.assertIsNone(self.table.quoted_untrusted(b"01234567", FIRST, 1))
        self.assertIsNone(self.table.quoted_untrusted(b"12345678", FIRST, 0))
        self.assertIsNone(self.table.quoted_untrusted(b"0123456789+", FIRST, 0))
