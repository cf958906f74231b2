"""The reactor of a simulated host: time, names, and what it does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorTime,
    IReactorUDP,
    IResolutionReceiver,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.testing.protocols import Echo, Recorder
from twistedudp import testing
from twistedudp.testing import SimulatedNetwork, SimulatedReactor

if TYPE_CHECKING:
    from twisted.internet.interfaces import (
        IAddress,
        IHostResolution,
    )


@implementer(IResolutionReceiver)
class Receiver:
    """Notes what a look-up brings."""

    def __init__(self) -> None:
        self.events: list[object] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Note the beginning."""
        self.events.append("began")

    def addressResolved(self, address: IAddress) -> None:
        """Note an address."""
        self.events.append(address)

    def resolutionComplete(self) -> None:
        """Note the end."""
        self.events.append("complete")


class SimulatedReactorTests(SynchronousTestCase):
    """What programs find on a simulated host."""

    def test_interfaces(self) -> None:
        """It provides time, UDP and names, and no file descriptors."""
        reactor = SimulatedNetwork().reactor()
        for interface in (IReactorTime, IReactorUDP, IReactorPluggableNameResolver):
            self.assertTrue(verifyObject(interface, reactor))
        self.assertFalse(IReactorFDSet.providedBy(reactor))

    def test_made_by_hand(self) -> None:
        """SimulatedReactor(network, ...) does what network.reactor(...) does."""
        network = SimulatedNetwork()
        reactor = SimulatedReactor(network, "192.0.2.1", "2001:DB8:0::1", silent=True)
        self.assertEqual(reactor.addresses, ("192.0.2.1", "2001:db8::1"))
        self.assertTrue(reactor.silent)
        self.assertEqual(repr(reactor), "<SimulatedReactor 192.0.2.1 2001:db8::1>")

    def test_picks_addresses(self) -> None:
        """A host without addresses gets one of each kind that no other host has."""
        network = SimulatedNetwork()
        network.reactor("198.18.0.1")
        network.reactor("2001:db8::2")
        self.assertEqual(network.reactor().addresses, ("198.18.0.3", "2001:db8::3"))
        self.assertEqual(network.reactor().addresses, ("198.18.0.4", "2001:db8::4"))

    def test_refuses_addresses(self) -> None:
        """No host names, no loopback, no wildcard, no group, and no address twice, in whatever spelling."""
        network = SimulatedNetwork()
        network.reactor("2001:db8::7")
        for bad in ("example.com", "127.0.0.1", "::1", "0.0.0.0", "224.0.0.1", "2001:0db8::0:7"):  # noqa: S104  # refused
            self.assertRaises(ValueError, network.reactor, bad)

    def test_hosts_share_one_clock(self) -> None:
        """Time is the same on all hosts, and each knows only its own delayed calls."""
        network = SimulatedNetwork()
        one, two = network.reactor(), network.reactor()
        seen: list[tuple[str, float]] = []
        call = one.callLater(1, lambda: seen.append(("one", two.seconds())))
        two.callLater(2, lambda: seen.append(("two", one.seconds())))
        self.assertEqual(one.getDelayedCalls(), [call])
        network.advance(3)
        self.assertEqual(seen, [("one", 1.0), ("two", 2.0)])
        self.assertEqual(one.getDelayedCalls(), [])

    def test_ports(self) -> None:
        """The host's bound ports can be asked for, by number, until they are closed."""
        network = SimulatedNetwork()
        reactor = network.reactor()
        nine, seven = reactor.listenUDP(9, Echo()), reactor.listenUDP(7, Echo())
        self.assertEqual(reactor.ports, [seven, nine])
        nine.stopListening()
        seven.stopListening()
        network.run_until_idle()
        self.assertEqual(reactor.ports, [])

    def test_datagrams_are_no_delayed_calls(self) -> None:
        """A datagram under way is not among the reactor's delayed calls, as on a real one."""
        network = SimulatedNetwork()
        reactor = network.reactor()
        reactor.listenUDP(9, Echo()).write(b"x", ("127.0.0.1", 10))
        self.assertEqual(reactor.getDelayedCalls(), [])
        self.assertEqual(len(network.clock.getDelayedCalls()), 1)


class ResolverTests(SynchronousTestCase):
    """Names come from the network's table."""

    def setUp(self) -> None:
        """Make a network that knows one name."""
        self.network = SimulatedNetwork(names={"server.example": ["2001:db8::1", "192.0.2.1"]})
        self.reactor = self.network.reactor()
        self.receiver = Receiver()

    def resolve(self, name: str, **options: object) -> list[object]:
        """Look a name up and return what came."""
        self.reactor.nameResolver.resolveHostName(self.receiver, name, **options)  # type: ignore[arg-type]  # passed on
        self.network.run_until_idle()
        return self.receiver.events

    def test_all_addresses_in_order(self) -> None:
        """A name gives its addresses in the table's order, whatever its case and with a final dot."""
        self.assertEqual(
            self.resolve("Server.Example.", portNumber=7, transportSemantics="UDP"),
            ["began", IPv6Address("UDP", "2001:db8::1", 7), IPv4Address("UDP", "192.0.2.1", 7), "complete"],
        )

    def test_address_types(self) -> None:
        """Only the types asked for are given."""
        self.assertEqual(
            self.resolve("server.example", addressTypes=[IPv4Address]),
            ["began", IPv4Address("TCP", "192.0.2.1", 0), "complete"],
        )

    def test_unknown_name(self) -> None:
        """A name that is not in the table completes without an address."""
        self.assertEqual(self.resolve("nowhere.example"), ["began", "complete"])

    def test_localhost(self) -> None:
        """Localhost is both loopback addresses, unless the table says otherwise."""
        self.assertEqual(
            self.resolve("localhost")[1:-1], [IPv6Address("TCP", "::1", 0), IPv4Address("TCP", "127.0.0.1", 0)]
        )
        self.network.names["localhost"] = ()
        self.receiver.events.clear()
        self.assertEqual(self.resolve("localhost"), ["began", "complete"])

    def test_numeric(self) -> None:
        """An address resolves to itself."""
        self.assertEqual(self.resolve("192.0.2.9"), ["began", IPv4Address("TCP", "192.0.2.9", 0), "complete"])

    def test_never_at_once(self) -> None:
        """The answer takes the look-up's delay, and a turn at least."""
        self.reactor.nameResolver.resolveHostName(self.receiver, "nowhere.example")
        self.assertEqual(self.receiver.events, ["began"])
        self.network.lookup_delay = 3.0
        slow = Receiver()
        self.reactor.nameResolver.resolveHostName(slow, "server.example")
        self.network.advance(2.9)
        self.assertEqual((self.receiver.events, slow.events), (["began", "complete"], ["began"]))
        self.network.advance(0.1)
        self.assertEqual(slow.events[-1], "complete")

    def test_cancel(self) -> None:
        """A cancelled look-up brings nothing and leaves nothing; cancelling again is harmless, also afterwards."""
        resolution = self.reactor.nameResolver.resolveHostName(self.receiver, "server.example")
        resolution.cancel()
        resolution.cancel()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.network.run_until_idle()
        self.assertEqual(self.receiver.events, ["began"])
        done = self.reactor.nameResolver.resolveHostName(self.receiver, "server.example")
        self.network.run_until_idle()
        done.cancel()
        self.assertEqual(done.name, "server.example")

    def test_install(self) -> None:
        """Another resolver can be installed, and the one before is returned."""
        before = self.reactor.nameResolver
        other = self.network.reactor().nameResolver
        self.assertIs(self.reactor.installNameResolver(other), before)
        self.assertIs(self.reactor.nameResolver, other)


class RunTests(SynchronousTestCase):
    """Driving the network."""

    def test_listening_port(self) -> None:
        """The stock arguments of listenUDP do, the size as Twisted's default."""
        reactor = SimulatedNetwork().reactor()
        self.assertEqual(reactor.listenUDP(7, Recorder(reactor)).max_datagram_size, 8192)


class PackageTests(SynchronousTestCase):
    """The names of the package."""

    def test_all(self) -> None:
        """Each public name leads to an object that knows itself by it, and dir() lists it; others are an error."""
        for name in testing.__all__:
            self.assertEqual(getattr(testing, name).__name__, name)
        self.assertLessEqual(set(testing.__all__), set(dir(testing)))
        self.assertEqual(set(testing.__all__), set(testing._HOMES))
        with self.assertRaisesRegex(AttributeError, "has no attribute 'Network'"):
            testing.Network  # noqa: B018  # looking it up is the test
