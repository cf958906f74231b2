"""ICMP errors that quote several datagrams in a row, as they do where these shared a buffer (UDP_SEGMENT)."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, REFUSED, SECOND, Client
from twistedudp.core import RequesterSettings
from twistedudp.errors import PeerUnreachable


class QuoteTests(SynchronousTestCase):
    """Three calls whose datagrams left together."""

    def setUp(self) -> None:
        """Make them."""
        self.client = Client(FIRST, settings=RequesterSettings(window=8))
        self.calls = [self.client.call(number) for number in range(3)]
        self.buffer = b"".join(call.payload for call in self.calls)

    def refuse(self, quoted: bytes, peer: tuple[str, int] = FIRST) -> list[int]:
        """Let an error come in; return which of the calls have failed."""
        self.client.requester.peer_unreachable(peer, REFUSED, quoted, now=self.client.now)
        events = self.client.requester.events()
        for event in events:
            self.assertIsInstance(event.error, PeerUnreachable)
        return [self.calls.index(event) for event in events]

    def test_all_quoted(self) -> None:
        """Each call that is quoted fails."""
        self.assertEqual([0, 1, 2], self.refuse(self.buffer))
        self.assertEqual(3, self.client.requester.stats.refused)

    def test_cut(self) -> None:
        """The last one quoted may be cut short; what is not quoted at all goes on waiting."""
        first = len(self.calls[0].payload)
        self.assertEqual([0, 1], self.refuse(self.buffer[: first + 7]))
        self.assertEqual(1, len(self.client.requester))

    def test_cut_to_nothing(self) -> None:
        """A rest too short to be known by is no matter."""
        first = len(self.calls[0].payload)
        self.assertEqual([0], self.refuse(self.buffer[: first + 2]))

    def test_another_follows(self) -> None:
        """What follows and is no waiting call ends it, and is no error."""
        self.assertEqual([1], self.refuse(self.calls[1].payload + b"rest" + self.calls[0].payload))
        self.assertEqual({}, self.client.rejected)

    def test_another_peer(self) -> None:
        """Quoted as sent to somebody who was not asked, none fails."""
        self.assertEqual([], self.refuse(self.buffer, SECOND))
        self.assertEqual({"unmatched_icmp": 1}, self.client.rejected)

    def test_payload_must_agree(self) -> None:
        """A right message id before a wrong rest is no quote."""
        payload = self.calls[0].payload
        self.assertEqual([], self.refuse(payload[:-1] + b"!" + self.buffer[len(payload) :]))
