"""Which address of a server ``udpecho ping`` probes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation import PORT, SERVER, SERVER6, Echo, SimulatedTestCase
from twistedudp.cli._ping_peer import MOST_ADDRESSES, addresses_of, answering_one
from twistedudp.errors import BroadcastNotSupported, HostNotFound, InvalidAddress, RequestTimedOut

if TYPE_CHECKING:
    from twistedudp.address import Address

NOBODY = "192.0.2.77"


class AddressesTests(SimulatedTestCase):
    """A name's addresses."""

    names = {  # noqa: RUF012  # never changed
        "both.example": (SERVER6, SERVER),
        "four.example": (SERVER,),
        "twice.example": (SERVER, SERVER),
        "pool.example": tuple(f"192.0.2.{number}" for number in range(10, 30)),
    }

    def test_order(self) -> None:
        """They keep the resolver's order, and -4 or -6 chooses among them."""
        self.assertEqual(self.result_of("both.example"), [(SERVER6, PORT), (SERVER, PORT)])
        self.assertEqual(self.result_of("both.example", "ipv4"), [(SERVER, PORT)])
        self.assertEqual(self.result_of("twice.example"), [(SERVER, PORT)])
        self.assertEqual(len(self.result_of("pool.example")), MOST_ADDRESSES)

    def result_of(self, host: str, family: str | None = None) -> list[Address]:
        """Look a host up."""
        return self.network.run_until(addresses_of(self.here, host, PORT, family))  # type: ignore[arg-type]  # a text

    def test_numeric(self) -> None:
        """A numeric host is its own answer, also in another spelling."""
        self.assertEqual(self.result_of("2001:DB8:0::1"), [(SERVER6, PORT)])

    def test_unknown(self) -> None:
        """A name that does not resolve is told, and so is one that lacks the family that was asked for."""
        with self.assertRaisesRegex(HostNotFound, "'no.example' does not resolve; "):
            self.result_of("no.example")
        with self.assertRaisesRegex(HostNotFound, r"'four.example' does not resolve \(no ipv6 address\)"):
            self.result_of("four.example", "ipv6")

    def test_silent_name_server(self) -> None:
        """A name server that does not answer is given up."""
        self.network.lookup_delay = 100.0
        with self.assertRaises(RequestTimedOut) as caught:
            self.result_of("both.example")
        self.assertEqual((caught.exception.attempts, caught.exception.elapsed), (0, 10.0))
        self.network.advance(100.0)

    def test_impossible(self) -> None:
        """An address that no server can have is refused before anything is looked up."""
        with self.assertRaises(BroadcastNotSupported):
            self.result_of("239.1.2.3")
        with self.assertRaises(InvalidAddress):
            self.result_of("0.0.0.0")  # noqa: S104  # that is what is refused


class AnsweringTests(SimulatedTestCase):
    """The one that answers."""

    def chosen(self, *hosts: str) -> str:
        """Return which of several hosts is taken, and check that nothing is left behind."""
        host, port = self.network.run_until(answering_one(self.here, [(host, PORT) for host in hosts]))
        self.assertEqual(port, PORT)
        self.network.advance(1.0)
        self.assertEqual(self.here.ports, [])
        return host

    def test_one(self) -> None:
        """One address alone is not tried: it is the one whatever happens there."""
        self.assertEqual(self.chosen(NOBODY), NOBODY)
        self.assertEqual(self.sent(), [])

    def test_first_refuses(self) -> None:
        """Where the first refuses, the one that answers is taken, at once."""
        self.serve(Echo(), interface="0.0.0.0")  # noqa: S104  # a simulated network
        self.assertEqual(self.chosen(SERVER6, SERVER), SERVER)
        self.assertLess(len(self.sent()), 4)

    def test_first_is_silent(self) -> None:
        """Where the first is silent, likewise."""
        self.serve(Echo())
        self.assertEqual(self.chosen(NOBODY, SERVER6), SERVER6)

    def test_slow(self) -> None:
        """A server that answers slowly is one that answers; that another's probes are lost meanwhile says nothing."""
        self.serve(Echo())
        self.network.impair(self.here, self.there, "delay=300ms")
        self.assertEqual(self.chosen(NOBODY, SERVER), SERVER)

    def test_all_refuse(self) -> None:
        """Where all refuse, the first is taken without waiting for a timeout."""
        started = self.network.clock.seconds()
        self.network.run_until(answering_one(self.here, [(SERVER6, PORT), (SERVER, PORT)]))
        self.assertLess(self.network.clock.seconds() - started, 0.1)
        self.assertEqual(self.chosen(SERVER6, SERVER), SERVER6)

    def test_all_silent(self) -> None:
        """Where none says anything, the first is taken after a moment."""
        self.assertEqual(self.chosen(NOBODY, "192.0.2.78"), NOBODY)

    def test_lost_probe(self) -> None:
        """One lost probe does not hide a server."""
        self.serve(Echo())
        self.network.impair(self.here, self.there, "partition=0s-50ms")
        self.assertEqual(self.chosen(NOBODY, SERVER), SERVER)
