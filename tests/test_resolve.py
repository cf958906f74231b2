"""Names to addresses."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IHostnameResolver
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from twistedudp._resolve import resolve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver

    from twistedudp.address import Address


@implementer(IHostnameResolver)
class Resolver:
    """Keeps what it is asked, and the receiver, for the test to answer."""

    receiver: IResolutionReceiver

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Keep the question."""
        self.receiver = resolutionReceiver
        self.asked.append((hostName, portNumber, addressTypes, transportSemantics))
        resolution: Any = object()
        resolutionReceiver.resolutionBegan(resolution)
        return resolution  # type: ignore[no-any-return]  # nobody looks at it


class Reactor:
    """A reactor that has a resolver."""

    def __init__(self) -> None:
        self.nameResolver = Resolver()


class ResolveTests(SynchronousTestCase):
    """Looking a host up."""

    def setUp(self) -> None:
        """Keep the answers."""
        self.reactor = Reactor()
        self.answers: list[list[Address]] = []

    def test_numeric(self) -> None:
        """A numeric host answers itself before resolve() returns, without a resolver."""
        for host in ("192.0.2.1", "2001:db8::1", "fe80::1%eth0"):
            resolve(object(), host, 7, None, self.answers.append)
        self.assertEqual(self.answers, [[("192.0.2.1", 7)], [("2001:db8::1", 7)], [("fe80::1%eth0", 7)]])

    def test_spellings(self) -> None:
        """An address is handed over as the kernel spells it, for answers are known by it."""
        scope = socket.if_nameindex()[0]
        for host, spelled in (
            ("0:0:0:0:0:0:0:1", "::1"),
            ("2001:DB8::0001", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            (f"fe80::1%{scope[0]}", f"fe80::1%{scope[1]}"),
            (f"fe80::1%{scope[1]}", f"fe80::1%{scope[1]}"),
            ("fe80::1%999999", "fe80::1%999999"),
        ):
            answers: list[list[Address]] = []
            resolve(self.reactor, host, 7, None, answers.append)
            self.assertEqual(answers, [[(spelled, 7)]])

    def test_numeric_of_a_family(self) -> None:
        """Of the other family it has no address."""
        resolve(object(), "192.0.2.1", 7, "ipv4", self.answers.append)
        resolve(object(), "192.0.2.1", 7, "ipv6", self.answers.append)
        resolve(object(), "2001:db8::1", 7, "ipv4", self.answers.append)
        resolve(object(), "2001:db8::1", 7, "ipv6", self.answers.append)
        self.assertEqual(self.answers, [[("192.0.2.1", 7)], [], [], [("2001:db8::1", 7)]])

    def test_name(self) -> None:
        """A name's addresses come together when there are no more, in the resolver's order."""
        resolve(self.reactor, "server.example", 7, None, self.answers.append)
        receiver = self.reactor.nameResolver.receiver
        receiver.addressResolved(IPv6Address("UDP", "2001:db8::1", 7))
        receiver.addressResolved(UNIXAddress(b"/no/address/of/ours"))
        receiver.addressResolved(IPv4Address("UDP", "192.0.2.1", 7))
        self.assertEqual(self.answers, [])
        receiver.resolutionComplete()
        self.assertEqual(self.answers, [[("2001:db8::1", 7), ("192.0.2.1", 7)]])

    def test_port_is_ours(self) -> None:
        """Each address gets the port asked for, whatever the resolver makes of it."""
        resolve(self.reactor, "server.example", 7, None, self.answers.append)
        self.reactor.nameResolver.receiver.addressResolved(IPv4Address("UDP", "192.0.2.1", 0))
        self.reactor.nameResolver.receiver.resolutionComplete()
        self.assertEqual(self.answers, [[("192.0.2.1", 7)]])

    def test_none(self) -> None:
        """A name without addresses gives none."""
        resolve(self.reactor, "nobody.example", 7, None, self.answers.append)
        self.reactor.nameResolver.receiver.resolutionComplete()
        self.assertEqual(self.answers, [[]])

    def test_question(self) -> None:
        """The resolver is asked for UDP addresses of the wanted family."""
        for family in ("ipv4", "ipv6", None):
            wanted: Any = family
            resolve(self.reactor, "server.example", 7, wanted, self.answers.append)
        self.assertEqual(
            self.reactor.nameResolver.asked,
            [
                ("server.example", 7, [IPv4Address], "UDP"),
                ("server.example", 7, [IPv6Address], "UDP"),
                ("server.example", 7, None, "UDP"),
            ],
        )
