"""Where a client's servers are: what is looked up when, and what is kept when a name server fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twistedudp._lookup import FIRST_ANSWER_WAITS, LOOKUP_AGE, LOOKUP_PAUSE, ServerLookup, checked_servers, family_of
from twistedudp.errors import BroadcastNotSupported, HostNotFound, InvalidAddress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.logger import LogEvent
    from typing_extensions import Self

    from twistedudp._resolve import AddressFamily
    from twistedudp.address import Address
    from twistedudp.errors import TwistedUDPError

OLD = "192.0.2.1"
NEW = "192.0.2.9"
SIX = "2001:db8::1"


@implementer(ILogObserver)
class LogCapture:
    """What is logged meanwhile.

    Attributes:
        texts: The events, as text.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __enter__(self) -> Self:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self)

    def __call__(self, event: LogEvent) -> None:
        """Keep an event."""
        self.texts.append(formatEvent(event))


@implementer(IHostnameResolver)
class Resolver:
    """A resolver that answers when the test says so.

    Attributes:
        asked: The names of all look-ups.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._open: list[tuple[str, int, Any, Any]] = []

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> Any:
        """Keep a question."""
        assert transportSemantics == "UDP"
        self.asked.append(hostName)
        self._open.append((hostName, portNumber, addressTypes, resolutionReceiver))

    def answer(self, *hosts: str, name: str | None = None) -> None:
        """Answer the oldest open question, or the oldest one about a name."""
        question = next(one for one in self._open if name in (None, one[0]))
        self._open.remove(question)
        _, port, types, receiver = question
        for host in hosts:
            kind: Any = IPv6Address if ":" in host else IPv4Address
            if types is None or kind in types:
                receiver.addressResolved(kind("UDP", host, port))
        receiver.resolutionComplete()


@implementer(IReactorPluggableNameResolver)
class Reactor(Clock):
    """A clock with that resolver."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = Resolver()

    def installNameResolver(self, resolver: Any) -> Any:
        """Take another one."""
        old, self.nameResolver = self.nameResolver, resolver
        return old


class LookupTestCase(SynchronousTestCase):
    """A look-up, and what it tells."""

    def setUp(self) -> None:
        """Begin with nothing."""
        self.reactor = Reactor()
        self.resolver = self.reactor.nameResolver
        self.told: list[list[Address]] = []
        self.failures: list[TwistedUDPError] = []

    def lookup(self, *servers: tuple[str, int], family: AddressFamily | None = None) -> ServerLookup:
        """Make a look-up and start it."""

        def learnt(addresses: Sequence[Address]) -> None:
            self.told.append(list(addresses))

        lookup = ServerLookup(self.reactor, servers, family, learnt, self.failures.append)
        lookup.needed()
        return lookup

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.reactor.advance(seconds)


class TimeTests(LookupTestCase):
    """When names are looked up."""

    def test_numbers(self) -> None:
        """A minute, and three seconds."""
        self.assertEqual((LOOKUP_AGE, LOOKUP_PAUSE), (60.0, 3.0))

    def test_once(self) -> None:
        """However often somebody asks, a name is looked up once while its answer is to come and for a minute."""
        lookup = self.lookup(("a.example", 7))
        for _ in range(5):
            lookup.needed()
        self.resolver.answer(OLD)
        self.assertEqual(self.told, [[(OLD, 7)]])
        self.wait(59.999)
        lookup.needed()
        self.assertEqual(self.resolver.asked, ["a.example"])
        self.wait(0.001)
        for _ in range(5):
            lookup.needed()
        self.assertEqual(self.resolver.asked, ["a.example"] * 2)

    def test_a_name_that_moves(self) -> None:
        """The next look-up tells the new address, and the one after that counts a minute from there."""
        lookup = self.lookup(("a.example", 7))
        self.resolver.answer(OLD)
        self.wait(100.0)
        lookup.needed()
        self.wait(5.0)
        self.resolver.answer(NEW)
        self.assertEqual(self.told, [[(OLD, 7)], [(NEW, 7)]])
        self.wait(59.9)
        lookup.needed()
        self.assertEqual(len(self.resolver.asked), 2)

    def test_not_while_idle(self) -> None:
        """Nothing is looked up while nobody asks, and no timer runs."""
        self.lookup(("a.example", 7))
        self.resolver.answer(OLD)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.wait(10_000.0)
        self.assertEqual(len(self.resolver.asked), 1)

    def test_doubt(self) -> None:
        """Where a call got no answer the name is looked up at once, but for what was looked up 3 s ago."""
        lookup = self.lookup(("a.example", 7))
        self.resolver.answer(OLD)
        self.wait(3.0)
        lookup.doubted()
        self.assertEqual(len(self.resolver.asked), 2)
        self.wait(2.0)
        self.resolver.answer(OLD)
        self.wait(2.999)
        lookup.doubted()
        self.assertEqual(len(self.resolver.asked), 2)
        self.wait(0.001)
        lookup.needed()  # the doubt is not forgotten
        self.assertEqual(len(self.resolver.asked), 3)

    def test_doubts_are_bounded(self) -> None:
        """However many calls get no answer, there are at least 3 s between two look-ups."""
        lookup = self.lookup(("a.example", 7))
        self.resolver.answer(OLD)
        for _ in range(120):
            self.wait(0.5)
            before = len(self.resolver.asked)
            for _ in range(10):
                lookup.doubted()
            if len(self.resolver.asked) > before:
                self.resolver.answer(OLD)
        self.assertEqual(len(self.resolver.asked), 1 + 60 // 3)

    def test_doubts_while_it_runs(self) -> None:
        """A doubt while the answer is to come starts no second look-up."""
        lookup = self.lookup(("a.example", 7))
        lookup.doubted()
        self.assertEqual(len(self.resolver.asked), 1)
        self.resolver.answer(OLD)
        self.assertEqual(self.told, [[(OLD, 7)]])

    def test_numeric(self) -> None:
        """Numeric hosts are their own answer, at once and for ever."""
        lookup = self.lookup((OLD, 7), (SIX, 8))
        self.assertEqual(self.told[-1], [(OLD, 7), (SIX, 8)])
        self.assertTrue(lookup.is_final)
        told = len(self.told)
        for _ in range(3):
            self.wait(1000.0)
            lookup.needed()
            lookup.doubted()
        self.assertEqual((self.resolver.asked, len(self.told)), ([], told))

    def test_numeric_beside_a_name(self) -> None:
        """A numeric host waits a little for a name before it; only the name is looked up, time after time."""
        lookup = self.lookup(("a.example", 7), (OLD, 8))
        self.wait(FIRST_ANSWER_WAITS - 0.01)
        self.assertEqual(self.told, [])
        self.wait(0.02)
        self.assertEqual(self.told, [[(OLD, 8)]])
        self.resolver.answer(NEW)
        self.assertEqual(self.told[-1], [(NEW, 7), (OLD, 8)])
        self.assertFalse(lookup.is_final)
        self.wait(60.0)
        lookup.needed()
        self.assertEqual(self.resolver.asked, ["a.example"] * 2)


class FailureTests(LookupTestCase):
    """Names that do not resolve."""

    def test_unknown(self) -> None:
        """The error names the first host, and the next one who asks has it looked up again."""
        lookup = self.lookup(("a.example", 7), ("b.example", 7))
        self.resolver.answer()
        self.assertEqual(self.failures, [])
        self.resolver.answer()
        [error] = self.failures
        assert isinstance(error, HostNotFound)
        self.assertEqual((error.host, self.told), ("a.example", []))
        lookup.needed()
        self.assertEqual(len(self.resolver.asked), 4)
        for _ in range(2):
            self.resolver.answer(OLD)
        self.assertEqual(self.told[-1], [(OLD, 7), (OLD, 7)])

    def test_some_left_out(self) -> None:
        """A server whose name does not resolve is told of in the log now and then, and the others are used."""
        with LogCapture() as log:
            lookup = self.lookup(("a.example", 7), (OLD, 8))
            self.resolver.answer()
            for _ in range(2):
                self.wait(60.0)
                lookup.needed()
                self.resolver.answer()
        self.assertEqual(self.told[0], [(OLD, 8)])
        [first, *others] = log.texts
        self.assertIn("the server a.example:7 is left out: its name does not resolve", first)
        self.assertEqual(len(others), 1)

    def test_doubt_of_an_unknown_name(self) -> None:
        """A doubt is a question too."""
        lookup = self.lookup(("a.example", 7))
        self.resolver.answer()
        lookup.doubted()
        self.assertEqual(len(self.resolver.asked), 2)

    def test_dead_name_server(self) -> None:
        """A look-up that fails takes nothing away: what was known is told again, and no failure."""
        lookup = self.lookup(("a.example", 7))
        self.resolver.answer(OLD, SIX)
        for _ in range(3):
            self.wait(60.0)
            lookup.needed()
            self.resolver.answer()
        self.assertEqual(self.told, [[(OLD, 7), (SIX, 7)]] * 4)
        self.assertEqual(self.failures, [])

    def test_some_fail(self) -> None:
        """Of several names those that resolve are used, in the order of the servers, as they become known."""
        lookup = self.lookup(("a.example", 1), ("b.example", 2), ("c.example", 3))
        self.resolver.answer(NEW, name="c.example")
        self.wait(FIRST_ANSWER_WAITS)
        self.assertEqual(self.told, [[(NEW, 3)]])
        self.resolver.answer(OLD, SIX, name="a.example")
        self.assertEqual(self.told[-1], [(OLD, 1), (SIX, 1), (NEW, 3)])
        self.resolver.answer(name="b.example")
        self.assertEqual(self.told[-1], [(OLD, 1), (SIX, 1), (NEW, 3)])
        self.assertEqual(self.failures, [])
        self.wait(60.0)
        lookup.needed()
        self.assertEqual(self.resolver.asked[3:], ["a.example", "b.example", "c.example"])
        self.resolver.answer(NEW, name="b.example")
        self.assertEqual(self.told[-1], [(OLD, 1), (SIX, 1), (NEW, 2), (NEW, 3)])

    def test_family(self) -> None:
        """Addresses of the other family are left out, of names and of numeric hosts; the error says why."""
        self.lookup(("a.example", 7), (SIX, 8), family="ipv4")
        self.resolver.answer(SIX, OLD)
        self.assertEqual(self.told[-1], [(OLD, 7)])
        self.lookup((SIX, 8), family="ipv4")
        self.assertIn("no ipv4 address", str(self.failures[-1]))

    def test_numeric_of_the_other_family(self) -> None:
        """A numeric host that is never used does not keep the names from being looked up again."""
        lookup = self.lookup((SIX, 8), ("a.example", 7), family="ipv4")
        self.resolver.answer(OLD)
        self.assertFalse(lookup.is_final)
        self.wait(60.0)
        lookup.needed()
        self.assertEqual(len(self.resolver.asked), 2)


class StopTests(LookupTestCase):
    """A client that stops meanwhile."""

    def test_stop(self) -> None:
        """An answer that comes after the stop is not told, and nothing is looked up any more."""
        lookup = self.lookup(("a.example", 7), ("b.example", 7))
        self.resolver.answer(OLD)
        lookup.stop()
        self.resolver.answer(NEW)
        lookup.needed()
        lookup.doubted()
        self.assertEqual((self.told, self.failures, len(self.resolver.asked)), ([], [], 2))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_together(self) -> None:
        """Answers that come soon after each other are told together: the first server is the first that was named."""
        self.lookup(("a.example", 1), ("b.example", 2))
        self.resolver.answer(NEW, name="b.example")
        self.wait(0.1)
        self.assertEqual(self.told, [])
        self.resolver.answer(OLD, name="a.example")
        self.assertEqual(self.told, [[(OLD, 1), (NEW, 2)]])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_stop_within(self) -> None:
        """Whoever is told the addresses may stop it meanwhile."""
        told = []

        def learnt(addresses: Sequence[Address]) -> None:
            told.append(addresses)
            lookup.stop()

        lookup = ServerLookup(self.reactor, [(OLD, 7), (SIX, 7)], None, learnt, self.failures.append)
        lookup.needed()
        lookup.needed()
        self.assertEqual(told, [[(OLD, 7), (SIX, 7)]])


class ServersTests(SynchronousTestCase):
    """What a client may be given."""

    def test_one(self) -> None:
        """A host and a port."""
        self.assertEqual(checked_servers("a.example", 7, ""), [("a.example", 7)])

    def test_several(self) -> None:
        """Several pairs, of any kind of sequence and of both families."""
        servers = [("a.example", 7), (OLD, 1), (SIX, 65535)]
        for given in (servers, tuple(servers), [list(server) for server in servers]):
            several: Any = given
            self.assertEqual(checked_servers(several, None, ""), servers)

    def test_wrong(self) -> None:
        """What is no such thing is told with its place."""
        wrong: Any
        for wrong, port, what in (
            ([], None, "no server is given"),
            ([("a", 1)], 7, "each has its own"),
            (["a.example"], None, "'a.example' is no server"),
            ([("a", 1, 2)], None, "is no server"),
            ([("a", 1), ("b", 0)], None, "port=0"),
            ([("a", 1), ("", 1)], None, "host=''"),
            ([(OLD, 1), ("0.0.0.0", 1)], None, "every address"),  # noqa: S104  # it is refused
            ("a", None, "port is missing"),
        ):
            self.assertRaisesRegex(InvalidAddress, what, checked_servers, wrong, port, "")
        groups: Any = [(OLD, 1), ("224.0.0.1", 1)]
        self.assertRaises(BroadcastNotSupported, checked_servers, groups, None, "")

    def test_interface(self) -> None:
        """The local address must be of the family of each numeric server."""
        both: Any = [(OLD, 1), (SIX, 1)]
        self.assertRaisesRegex(InvalidAddress, "different address families", checked_servers, both, None, OLD)
        self.assertEqual((family_of("", None), family_of(OLD, None), family_of(SIX, "ipv6")), (None, "ipv4", "ipv6"))
        self.assertRaisesRegex(InvalidAddress, "contradict", family_of, OLD, "ipv6")
