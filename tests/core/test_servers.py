"""The server's addresses and which of them is asked."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from tests.core.driver import FIRST, SECOND, START, STRANGER, THIRD
from twistedudp.core import LAN, MAX_SERVERS, RequesterSettings
from twistedudp.core._servers import Server, ServerList

if TYPE_CHECKING:
    from twistedudp.address import Address


class ServerListTestCase(SynchronousTestCase):
    """Three servers."""

    def setUp(self) -> None:
        """Know three addresses."""
        self.settings = RequesterSettings()
        self.servers = ServerList(self.settings)
        self.replace(FIRST, SECOND, THIRD)

    def replace(self, *addresses: Address, now: float = START) -> None:
        """Let the resolver answer."""
        self.servers.replace(addresses, now)

    def at(self, address: Address) -> Server:
        """Return the server at an address, which there must be."""
        server = self.servers.at(address)
        assert server is not None
        return server

    def after(self, server: Server, *avoid: Address) -> Address | None:
        """Return the address to try after another, if there is one."""
        other = self.servers.after(server, 1000, avoid)
        return None if other is None else other.address

    def preferred(self) -> Address:
        """Return the address that a new request would go to."""
        server = self.servers.preferred
        assert server is not None
        return server.address


class ServerListTests(ServerListTestCase):
    """The preferred one, and who is next."""

    def test_empty(self) -> None:
        """None is preferred while none is known."""
        servers = ServerList(self.settings)
        self.assertIsNone(servers.preferred)
        self.assertIsNone(servers.choose(START))
        self.assertEqual((len(servers), servers.stats), (0, ()))

    def test_order(self) -> None:
        """The resolver's order counts."""
        self.assertEqual(len(self.servers), 3)
        self.assertEqual(self.preferred(), FIRST)

    def test_duplicates(self) -> None:
        """An address that the resolver names twice counts once."""
        self.replace(FIRST, SECOND, FIRST)
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
            self.assertEqual(self.after(self.at(one)), following)

    def test_after_the_only_one(self) -> None:
        """Where there is no other, there is none to try."""
        self.replace(FIRST)
        self.assertIsNone(self.after(self.at(FIRST)))

    def test_after_avoids(self) -> None:
        """Addresses that refused are not tried again, nor those whose circuits are open."""
        self.assertEqual(self.after(self.at(FIRST), SECOND), THIRD)
        self.assertIsNone(self.after(self.at(FIRST), SECOND, THIRD))
        self.at(SECOND).breaker.is_open = True
        self.assertEqual(self.after(self.at(FIRST)), THIRD)
        self.assertEqual(self.after(self.at(THIRD), FIRST), None)

    def test_after_carries(self) -> None:
        """An address whose family does not carry the datagram is not tried."""
        for size, expected in ((65507, THIRD), (65508, None)):
            other = self.servers.after(self.at(SECOND), size, (FIRST,))
            self.assertEqual(other and other.address, expected)

    def test_after_takes_the_size(self) -> None:
        """A server whose address family does not carry the datagram is not tried."""
        self.assertEqual(self.servers.after(self.at(SECOND), 65508), None)
        self.assertEqual(self.servers.after(self.at(FIRST), 65508), self.at(SECOND))

    def test_after_a_former_one(self) -> None:
        """After an address that the resolver no longer names comes the preferred one."""
        gone = self.at(FIRST)
        self.replace(SECOND, THIRD)
        self.servers.failed(self.at(SECOND))
        self.assertEqual(self.after(gone), THIRD)

    def test_failed(self) -> None:
        """The preferred one's failure prefers the next, round and round."""
        for expected in (SECOND, THIRD, FIRST):
            self.servers.failed(self.at(self.preferred()))
            self.assertEqual(self.preferred(), expected)

    def test_failed_elsewhere(self) -> None:
        """The failure of one that is not preferred, or no longer known, changes nothing."""
        self.servers.failed(self.at(SECOND))
        self.servers.failed(Server(FIRST, self.settings, START))
        self.assertEqual(self.preferred(), FIRST)

    def test_answered(self) -> None:
        """One that answers is preferred from then on."""
        self.servers.answered(self.at(THIRD), START)
        self.assertEqual(self.preferred(), THIRD)
        self.servers.answered(self.at(THIRD), START)
        self.assertEqual(self.preferred(), THIRD)

    def test_answered_by_a_former_one(self) -> None:
        """One that is no longer known is not preferred."""
        gone = self.at(THIRD)
        self.replace(FIRST, SECOND)
        self.servers.answered(gone, START)
        self.assertEqual(self.preferred(), FIRST)

    def test_replace_keeps_what_was_learnt(self) -> None:
        """Round trips and preference survive a new answer of the resolver."""
        self.at(SECOND).round_trip.sampled(0.1)
        self.servers.answered(self.at(SECOND), START)
        self.replace(THIRD, SECOND)
        self.assertEqual(self.preferred(), SECOND)
        self.assertEqual(self.at(SECOND).round_trip.smoothed, 0.1)
        self.assertIsNone(self.servers.at(FIRST))

    def test_replace_without_the_preferred_one(self) -> None:
        """Where the preferred one is gone the first is preferred."""
        self.servers.answered(self.at(SECOND), START)
        self.replace(THIRD, FIRST)
        self.assertEqual(self.preferred(), THIRD)

    def test_replace_is_bounded(self) -> None:
        """Of hundreds of addresses the first 64 are kept."""
        self.replace(*((f"192.0.2.{number}", 1) for number in range(200)))
        self.assertEqual((len(self.servers), MAX_SERVERS), (64, 64))
        self.assertIsNotNone(self.servers.at(("192.0.2.63", 1)))
        self.assertIsNone(self.servers.at(("192.0.2.64", 1)))


class ChoiceTests(ServerListTestCase):
    """Which server a new request goes to."""

    def choose(self, now: float = START) -> Address | None:
        """Return the address of the server chosen."""
        server = self.servers.choose(now)
        return None if server is None else server.address

    def open(self, address: Address, retry_at: float) -> None:
        """Open the circuit of a server."""
        breaker = self.at(address).breaker
        breaker.is_open, breaker.retry_at = True, retry_at

    def test_preferred(self) -> None:
        """It is the preferred one, wherever that stands in the list."""
        self.assertEqual(self.choose(), FIRST)
        self.servers.answered(self.at(THIRD), START)
        self.assertEqual(self.choose(), THIRD)

    def test_preferred_leaves(self) -> None:
        """A server that has answered and is no longer among the addresses gives way to the first of these."""
        self.at(THIRD).round_trip.sampled(0.1)
        self.servers.answered(self.at(THIRD), START)
        self.replace(SECOND, FIRST)
        self.assertEqual(self.choose(), SECOND)

    def test_open_circuits_are_passed_over(self) -> None:
        """The next one in the round whose circuit is closed, or due for a look; none where there is no such one."""
        self.servers.answered(self.at(SECOND), START)
        for address, following in ((SECOND, THIRD), (THIRD, FIRST), (FIRST, None)):
            self.open(address, START + 3.0)
            self.assertEqual(self.choose(), following)
        self.open(FIRST, START + 2.0)
        self.assertEqual(self.servers.retry_in(START + 0.5), 1.5)
        self.assertEqual(self.choose(START + 1.999), None)
        self.assertEqual(self.choose(START + 2.0), FIRST)
        self.assertEqual(self.servers.retry_in(START + 9.0), 0.0)

    def test_expiry(self) -> None:
        """What is known of a server that has not answered for long is forgotten; what is in flight is not."""
        server = self.at(FIRST)
        server.round_trip.sampled(0.5)
        server.window.size = 100.0
        server.window.in_flight = 1
        self.open(FIRST, START + 1e9)
        for now in (START + 600.0, START + 600.5):  # not older than 600 s, then still in use
            self.servers.choose(now)
            self.assertEqual((server.round_trip.smoothed, server.window.size), (0.5, 100.0))
        server.window.in_flight = 0
        self.assertEqual(self.choose(START + 600.5), FIRST)
        stats = server.stats
        self.assertEqual((stats.round_trip, stats.timeout, stats.window, stats.circuit_open), (None, None, 4, False))

    def test_answers_keep(self) -> None:
        """The age counts from the last answer."""
        server = self.at(FIRST)
        server.round_trip.sampled(0.5)
        self.servers.answered(server, START + 500.0)
        self.servers.choose(START + 1100.0)
        self.assertEqual(server.round_trip.smoothed, 0.5)
        self.servers.choose(START + 1100.1)
        self.assertIsNone(server.round_trip.smoothed)

    def test_stats(self) -> None:
        """All that is known of each address, in order."""
        server = self.at(SECOND)
        server.round_trip.sampled(0.5)
        server.window.in_flight = 3
        self.open(SECOND, START)
        first, second, third = self.servers.stats
        self.assertEqual(second, (SECOND, 0.5, 0.25, 1.5, 4, 3, True))
        self.assertEqual(first, (FIRST, None, 0.0, None, 4, 0, False))
        self.assertEqual(third.address, THIRD)

    def test_settings(self) -> None:
        """Each server has the policy, the window and the breaker that were asked for."""
        settings = RequesterSettings(policy=LAN, window=7, breaker_threshold=1, breaker_cooldown=9.0)
        server = Server(FIRST, settings, START)
        server.round_trip.sampled(0.0001)
        self.assertEqual((server.round_trip.timeout, server.window.size), (0.05, 7))
        server.breaker.ran_out(START)
        self.assertEqual((server.breaker.is_open, server.breaker.retry_at), (True, START + 9.0))

    def test_an_answer_closes_the_circuit(self) -> None:
        """Of the server that answered, not of the others."""
        for address in (FIRST, SECOND):
            self.at(address).breaker.failures = 5
            self.open(address, START)
        self.servers.answered(self.at(FIRST), START)
        self.assertEqual([peer.circuit_open for peer in self.servers.stats], [False, True, False])
