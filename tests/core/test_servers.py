"""The server's addresses and which of them is asked."""

from __future__ import annotations

from itertools import pairwise

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND, STRANGER, THIRD
from twistedudp.core._servers import Server, ServerList


class ServerListTests(SynchronousTestCase):
    """The preferred one, and who is next."""

    def setUp(self) -> None:
        """Know three addresses."""
        self.servers = ServerList()
        self.servers.replace([FIRST, SECOND, THIRD])

    def at(self, address: tuple[str, int]) -> Server:
        """Return the server at an address, which there must be."""
        server = self.servers.at(address)
        assert server is not None
        return server

    def preferred(self) -> tuple[str, int]:
        """Return the address that a new request would go to."""
        server = self.servers.preferred
        assert server is not None
        return server.address

    def test_empty(self) -> None:
        """None is preferred while none is known."""
        servers = ServerList()
        self.assertIsNone(servers.preferred)
        self.assertEqual(len(servers), 0)

    def test_order(self) -> None:
        """The resolver's order counts."""
        self.assertEqual(len(self.servers), 3)
        self.assertEqual(self.preferred(), FIRST)

    def test_duplicates(self) -> None:
        """An address that the resolver names twice counts once."""
        self.servers.replace([FIRST, SECOND, FIRST])
        self.assertEqual(len(self.servers), 2)

    def test_at(self) -> None:
        """An address leads to its server, an unknown one to none."""
        self.assertEqual(self.at(SECOND).address, SECOND)
        self.assertIsNone(self.servers.at(STRANGER))

    def test_payload_limits(self) -> None:
        """IPv4 carries 65,507 bytes, IPv6 65,527."""
        self.assertEqual(self.at(FIRST).max_payload, 65507)
        self.assertEqual(self.at(SECOND).max_payload, 65527)

    def test_after_goes_round(self) -> None:
        """After the last comes the first."""
        order = [FIRST, SECOND, THIRD, FIRST]
        for one, following in pairwise(order):
            self.assertEqual(self.servers.after(self.at(one)).address, following)

    def test_after_the_only_one(self) -> None:
        """Where there is no other, it is its own successor."""
        self.servers.replace([FIRST])
        self.assertEqual(self.servers.after(self.at(FIRST)).address, FIRST)

    def test_after_a_former_one(self) -> None:
        """After an address that the resolver no longer names comes the preferred one."""
        gone = self.at(FIRST)
        self.servers.replace([SECOND, THIRD])
        self.servers.failed(self.at(SECOND))
        self.assertEqual(self.servers.after(gone).address, THIRD)

    def test_failed(self) -> None:
        """The preferred one's failure prefers the next, round and round."""
        for expected in (SECOND, THIRD, FIRST):
            self.servers.failed(self.at(self.preferred()))
            self.assertEqual(self.preferred(), expected)

    def test_failed_elsewhere(self) -> None:
        """The failure of one that is not preferred, or no longer known, changes nothing."""
        self.servers.failed(self.at(SECOND))
        self.servers.failed(Server(FIRST))
        self.assertEqual(self.preferred(), FIRST)

    def test_answered(self) -> None:
        """One that answers is preferred from then on."""
        self.servers.answered(self.at(THIRD))
        self.assertEqual(self.preferred(), THIRD)
        self.servers.answered(self.at(THIRD))
        self.assertEqual(self.preferred(), THIRD)

    def test_answered_by_a_former_one(self) -> None:
        """One that is no longer known is not preferred."""
        gone = self.at(THIRD)
        self.servers.replace([FIRST, SECOND])
        self.servers.answered(gone)
        self.assertEqual(self.preferred(), FIRST)

    def test_replace_keeps_what_was_learnt(self) -> None:
        """Round trips and preference survive a new answer of the resolver."""
        self.at(SECOND).round_trip.sampled(0.1)
        self.servers.answered(self.at(SECOND))
        self.servers.replace([THIRD, SECOND])
        self.assertEqual(self.preferred(), SECOND)
        self.assertEqual(self.at(SECOND).round_trip.smoothed, 0.1)
        self.assertIsNone(self.servers.at(FIRST))

    def test_replace_without_the_preferred_one(self) -> None:
        """Where the preferred one is gone the first is preferred."""
        self.servers.answered(self.at(SECOND))
        self.servers.replace([THIRD, FIRST])
        self.assertEqual(self.preferred(), THIRD)
