"""A NAT that forgets."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.impairment.links import ASK, ASK6, BROADCAST, CLIENT, REFUSAL, SERVER, TRIALS, likely, rng
from twistedudp.impairment import Arrival, Datagram, EffectError, NATRebinding
from twistedudp.impairment._nat import MAX_MAPPINGS
from twistedudp.interfaces import Unreachable

OTHER = ("192.0.2.2", 40001)


class NATTestCase(SynchronousTestCase):
    """A NAT between CLIENT and SERVER."""

    def setUp(self) -> None:
        """Make the source of ports."""
        self.rng = rng()

    def out(self, nat: NATRebinding, datagram: Datagram = ASK, now: float = 0.0) -> tuple[str, int]:
        """Send a datagram out; return the source that it has outside, and check that nothing else has changed."""
        (arrival,) = nat(datagram, now, self.rng)
        self.assertEqual(arrival, Arrival(datagram._replace(source=arrival.datagram.source)))
        return arrival.datagram.source

    def back(self, nat: NATRebinding, outside: tuple[str, int], now: float = 0.0) -> tuple[str, int] | None:
        """Send a reply to an outside address; return the inside address that gets it."""
        reply = Datagram(SERVER, outside, b"answer")
        for arrival in nat.inbound(reply, now, self.rng):
            self.assertEqual(arrival, Arrival(reply._replace(destination=arrival.datagram.destination)))
            return arrival.datagram.destination
        return None


class MappingTests(NATTestCase):
    """While a mapping lives."""

    def test_port_only(self) -> None:
        """The host stays; the port is another one, above the well-known ones, and the reply gets back."""
        nat = NATRebinding()
        host, port = outside = self.out(nat)
        self.assertEqual(host, CLIENT[0])
        self.assertNotEqual(outside, CLIENT)
        self.assertIn(port, range(1024, 65536))
        self.assertEqual(self.back(nat, outside), CLIENT)

    def test_stays(self) -> None:
        """The mapping is the same for each datagram and each destination."""
        nat = NATRebinding()
        outside = self.out(nat)
        self.assertEqual(self.out(nat, now=1e6), outside)
        self.assertEqual(self.out(nat, ASK._replace(destination=("192.0.2.77", 53))), outside)
        self.assertEqual((len(nat), nat.rebound), (1, 0))

    def test_each_its_own(self) -> None:
        """Two clients have two outside addresses, and each gets its own replies."""
        nat = NATRebinding()
        outsides = {inside: self.out(nat, ASK._replace(source=inside)) for inside in (CLIENT, OTHER)}
        self.assertEqual(len(set(outsides.values())), 2)
        for inside, outside in outsides.items():
            self.assertEqual(self.back(nat, outside), inside)

    def test_ports_are_spread(self) -> None:
        """Ports are drawn evenly from the whole range."""
        ports = [NATRebinding()(ASK, 0.0, self.rng) for _ in range(TRIALS)]
        drawn = [arrival.datagram.source[1] for (arrival,) in ports]
        self.assertTrue(likely(sum(port < 1024 + 64512 // 4 for port in drawn), TRIALS, 0.25))
        self.assertGreaterEqual(min(drawn), 1024)

    def test_unknown(self) -> None:
        """What comes for no mapping, as for the inside address itself, is lost."""
        nat = NATRebinding()
        self.out(nat)
        self.assertIsNone(self.back(nat, CLIENT))
        self.assertIsNone(self.back(nat, OTHER))

    def test_group(self) -> None:
        """A broadcast from the outside passes as it is."""
        self.assertEqual(list(NATRebinding().inbound(BROADCAST, 0.0, self.rng)), [Arrival(BROADCAST)])

    def test_host(self) -> None:
        """With an address of its own, the NAT gives that; the other family changes the port only."""
        nat = NATRebinding(host="203.0.113.1")
        outside = self.out(nat)
        self.assertEqual(outside[0], "203.0.113.1")
        self.assertEqual(self.back(nat, outside), CLIENT)
        self.assertEqual(self.out(nat, ASK6)[0], ASK6.source[0])
        self.assertEqual(self.out(NATRebinding(host="2001:DB8::0:7"), ASK6)[0], "2001:db8::7")

    def test_taken_ports(self) -> None:
        """No outside address is given twice, nor one that is an inside address."""
        nat = NATRebinding()

        class Stuck:
            """Draws ports that are taken."""

            ports = iter([CLIENT[1], 5000, CLIENT[1], 5000, OTHER[1], 6000])

            def choice(self, _ports: range) -> int:
                """Return the next one."""
                return next(self.ports)

        stuck = Stuck()
        found = [
            next(iter(nat(ASK._replace(source=inside), 0.0, stuck))).datagram.source[1]  # type: ignore[arg-type]  # a fake
            for inside in (CLIENT, OTHER)
        ]
        self.assertEqual(found, [5000, 6000])

    def test_bound(self) -> None:
        """One mapping more than there may be: the one that was used least lately dies, and is counted."""
        nat = NATRebinding()
        insides = [(f"10.0.{number >> 8}.{number & 255}", 5000) for number in range(MAX_MAPPINGS + 1)]
        outsides = [self.out(nat, ASK._replace(source=inside)) for inside in insides[:-1]]
        self.out(nat, ASK._replace(source=insides[0]))
        self.assertEqual(nat.evicted, 0)
        self.out(nat, ASK._replace(source=insides[-1]))
        self.assertEqual((len(nat), len(nat._inside), nat.evicted, nat.rebound), (MAX_MAPPINGS, MAX_MAPPINGS, 1, 0))
        self.assertEqual(self.back(nat, outsides[0]), insides[0])
        self.assertIsNone(self.back(nat, outsides[1]))

    def test_arguments(self) -> None:
        """An interval must be above 0, and a host one host's numeric address."""
        self.assertEqual(self.assertRaises(EffectError, NATRebinding, 0).parameter, "interval")
        for host in ("example.com", "224.0.0.1", "0.0.0.0", "::", "fe80::1%a\nb", 5):  # noqa: S104  # refused
            error = self.assertRaises(EffectError, NATRebinding, host=host)
            self.assertEqual(error.parameter, "host")


class RebindingTests(NATTestCase):
    """When a mapping dies."""

    def test_interval(self) -> None:
        """It dies by its age, however much it is used; the next datagram out makes another."""
        nat = NATRebinding(interval=30.0)
        first = self.out(nat, now=10.0)
        self.assertEqual(self.out(nat, now=39.9), first)
        self.assertEqual(self.back(nat, first, 39.9), CLIENT)
        self.assertIsNone(self.back(nat, first, 40.0))
        second = self.out(nat, now=40.0)
        self.assertNotEqual(second, first)
        self.assertEqual(self.back(nat, second, 69.9), CLIENT)
        self.assertIsNone(self.back(nat, first, 41.0))
        self.assertEqual((nat.rebound, len(nat), len(nat._inside)), (1, 1, 1))

    def test_on_demand(self) -> None:
        """All mappings die when told to."""
        nat = NATRebinding()
        outsides = {inside: self.out(nat, ASK._replace(source=inside)) for inside in (CLIENT, OTHER)}
        nat.rebind()
        self.assertEqual([self.back(nat, outside) for outside in outsides.values()], [None, None])
        again = self.out(nat)
        self.assertEqual(self.back(nat, again), CLIENT)
        self.assertEqual(nat.rebound, 1)

    def test_another_port(self) -> None:
        """The new port is never the old one, whatever is drawn."""

        class Repeating:
            """Draws each port twice."""

            ports = iter([5000, 5000, 6000])

            def choice(self, _ports: range) -> int:
                """Return the next one."""
                return next(self.ports)

        nat = NATRebinding()
        self.rng = Repeating()  # type: ignore[assignment]  # as far as it is used
        self.assertEqual(self.out(nat)[1], 5000)
        nat.rebind()
        self.assertEqual(self.out(nat)[1], 6000)


class ErrorTests(NATTestCase):
    """ICMP errors pass a NAT translated."""

    def refusal(self, destination: tuple[str, int]) -> Datagram:
        """Return an ICMP error on the way to an address."""
        return REFUSAL._replace(destination=destination)

    def unheard(self, source: tuple[str, int]) -> Datagram:
        """Return an ICMP error about what the server has sent to an address."""
        return Datagram(source, SERVER, b"answer", Unreachable(111, "Connection refused", 3, 3, source[0]))

    def test_inbound(self) -> None:
        """One about what the client sent gets to the client while its mapping lives."""
        nat = NATRebinding()
        outside = self.out(nat)
        arrivals = list(nat.inbound(self.refusal(outside), 0.0, self.rng))
        self.assertEqual(arrivals, [Arrival(self.refusal(CLIENT))])
        nat.rebind()
        self.assertEqual(list(nat.inbound(self.refusal(outside), 0.0, self.rng)), [])

    def test_made_inside(self) -> None:
        """One that an effect has made before the NAT bears the inside address, and passes."""
        nat = NATRebinding()
        self.assertEqual(list(nat.inbound(self.refusal(CLIENT), 0.0, self.rng)), [])
        self.out(nat)
        arrivals = list(nat.inbound(self.refusal(CLIENT), 0.0, self.rng))
        self.assertEqual(arrivals, [Arrival(self.refusal(CLIENT))])

    def test_outbound(self) -> None:
        """One about what the server sent says the outside address; without a living mapping it is lost."""
        nat = NATRebinding()
        self.assertEqual(list(nat(self.unheard(CLIENT), 0.0, self.rng)), [])
        outside = self.out(nat)
        error = self.unheard(CLIENT)
        self.assertEqual(list(nat(error, 0.0, self.rng)), [Arrival(error._replace(source=outside))])
        nat.rebind()
        self.assertEqual(list(nat(error, 0.0, self.rng)), [])
        self.assertEqual(nat.rebound, 0)

    def test_made_outside(self) -> None:
        """One that an effect has made behind the NAT bears the outside address, and passes."""
        nat = NATRebinding()
        error = self.unheard(self.out(nat))
        self.assertEqual(list(nat(error, 0.0, self.rng)), [Arrival(error)])

    def test_no_use(self) -> None:
        """An ICMP error is no use of a mapping: it does not keep it from giving way."""
        nat = NATRebinding()
        insides = [(f"10.0.{number >> 8}.{number & 255}", 5000) for number in range(MAX_MAPPINGS + 1)]
        outsides = [self.out(nat, ASK._replace(source=inside)) for inside in insides[:-1]]
        list(nat(self.unheard(insides[0]), 0.0, self.rng))
        self.out(nat, ASK._replace(source=insides[-1]))
        self.assertIsNone(self.back(nat, outsides[0]))
