"""Groups on the kernel's own sockets, by the loopback interface alone.

Datagrams to groups of IPv6 need a route that the loopback interface does not have as it comes; here the kernel is asked
which groups it has joined where, and tests/integration/test_port_groups.py has a network with such a route.
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError, InvalidAddressError, MulticastJoinError
from twisted.internet.interfaces import IMulticastTransport
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.transport.fakes import Notes
from twistedudp.errors import LocalError
from twistedudp.transport import _bound, _kernel, _multicast, listen

GROUP = "239.255.77.61"
"""A group of one's own, as RFC 2365 section 6.1 has it."""
GROUP6 = "ff01::7761"
"""One that does not leave the interface (RFC 4291 section 2.7)."""
LOOPBACK = "127.0.0.1"
BACKENDS = ("scalar", None)


def number_of_loopback() -> int:
    """Return the number of the loopback interface."""
    return next(number for number, name in socket.if_nameindex() if name.startswith("lo"))


def interfaces_of(group: str) -> list[int]:
    """Return the numbers of the interfaces on which an IPv6 group is joined."""
    digits = socket.inet_pton(socket.AF_INET6, group).hex()
    entries = [line.split() for line in Path("/proc/net/igmp6").read_text(encoding="ascii").splitlines()]
    return [int(entry[0]) for entry in entries if entry[2] == digits]


class NamingReactor(MemoryReactorClock):
    """A reactor that knows two names, and answers about a third when it is told to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted has no types there
        self.slow: Deferred[str] = Deferred()

    def resolve(self, name: str, *_: Any) -> Deferred[str]:
        """Look a name up."""
        if name == "slow.example":
            return self.slow
        known = {"localhost": LOOPBACK, "group.example": GROUP}
        return succeed(known[name]) if name in known else fail(DNSLookupError(name))


class MulticastTestCase(SynchronousTestCase):
    """Ports on a reactor that is not run: they are read when the test says so."""

    def setUp(self) -> None:
        """Make the reactor."""
        self.reactor = NamingReactor()

    def listen(self, interface: str = "", **options: Any) -> Any:
        """Listen until the test ends."""
        port: Any = listen(self.reactor, 0, Notes(), interface, **options)
        self.addCleanup(port.connectionLost)
        return port

    def heard(self, port: Any, group: str) -> list[bytes]:
        """Send to a group by loopback, then to the port itself, and return what the port hears."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
            plain.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
            number = port.getHost().port
            plain.sendto(b"group", (group, number))
            plain.sendto(b"own", (LOOPBACK, number))
        port.doRead()
        heard = [note[0] for note in port.protocol.notes]
        port.protocol.notes.clear()
        return heard


class MembershipTests(MulticastTestCase):
    """Joining and leaving."""

    def check(self, interface: str, group: str, by: str) -> None:
        """Join a group, leave it and join it again, on each backend."""
        for backend in BACKENDS:
            port = self.listen(interface, backend=backend)
            self.assertEqual([b"own"], self.heard(port, group))
            for _ in range(2):
                self.assertIdentical(None, self.successResultOf(port.joinGroup(group, by)))
                self.assertEqual([b"group", b"own"], self.heard(port, group))
                self.assertIdentical(None, self.successResultOf(port.leaveGroup(group, by)))
                self.assertEqual([b"own"], self.heard(port, group))

    def test_interface(self) -> None:
        """The port provides what Twisted's multicast ports do."""
        self.assertTrue(verifyObject(IMulticastTransport, self.listen()))

    def test_ipv4(self) -> None:
        """On a port of IPv4."""
        self.check("", GROUP, LOOPBACK)

    def test_ipv6(self) -> None:
        """On a port of IPv6, by each way to name the interface."""
        name = socket.if_indextoname(number_of_loopback())
        for by in (name, number_of_loopback(), str(number_of_loopback()), "::1", f"fe80::1%{name}"):
            for interface in ("::", "::1"):
                port = self.listen(interface)
                self.assertIdentical(None, self.successResultOf(port.joinGroup(GROUP6, by)))
                self.assertEqual([number_of_loopback()], interfaces_of(GROUP6))
                self.assertIdentical(None, self.successResultOf(port.leaveGroup(GROUP6, by)))
                self.assertEqual([], interfaces_of(GROUP6))

    def test_dual_stack(self) -> None:
        """A port of both families joins groups of both."""
        self.check("::", GROUP, LOOPBACK)

    def test_groups_of_others(self) -> None:
        """What is sent to a group reaches those that have joined it, not whoever has the same port number elsewhere."""
        for interface in ("", "::"):
            port, other = self.listen(interface), self.listen(interface)
            self.successResultOf(other.joinGroup(GROUP, LOOPBACK))
            self.assertEqual([b"own"], self.heard(port, GROUP))

    def test_names(self) -> None:
        """Names are resolved by the reactor."""
        port = self.listen()
        self.successResultOf(port.joinGroup("group.example", "localhost"))
        self.assertEqual([b"group", b"own"], self.heard(port, GROUP))

    def test_unknown_name(self) -> None:
        """A name that has no address fails as the reactor says."""
        self.failureResultOf(self.listen().joinGroup("nowhere.example"), DNSLookupError)

    def test_stopped_meanwhile(self) -> None:
        """A port that is stopped while a name is being looked up joins nothing, and says so."""
        port = self.listen()
        joining = port.joinGroup("slow.example", LOOPBACK)
        self.assertNoResult(joining)
        port.connectionLost()
        self.reactor.slow.callback(GROUP)
        self.failureResultOf(joining, LocalError)

    def test_not_listening(self) -> None:
        """A port that was stopped can do nothing with groups."""
        port = self.listen()
        port.connectionLost()
        for deferred in (port.joinGroup(GROUP), port.leaveGroup(GROUP), port.setOutgoingInterface(LOOPBACK)):
            self.failureResultOf(deferred, LocalError)
        for call in (port.getTTL, port.getLoopbackMode, port.getOutgoingInterface):
            self.assertRaises(LocalError, call)
        self.assertRaises(LocalError, port.setTTL, 1)
        self.assertRaises(LocalError, port.setLoopbackMode, True)

    def test_refused(self) -> None:
        """What is no group, of another family, or on no interface of this host, fails as on Twisted's ports."""
        for interface, group, by in (
            ("", LOOPBACK, ""),
            ("", GROUP6, ""),
            ("", GROUP, "::1"),
            ("", GROUP, "192.0.2.1"),
            ("::", GROUP6, -1),
            ("::1", GROUP, ""),
            ("::1", "::1", ""),
            ("::", GROUP6, LOOPBACK),
            ("::", GROUP6, "2001:db8::1"),
            ("::", GROUP6, "nosuch0"),
            ("::", GROUP6, "fe80::1%nosuch0"),
        ):
            port = self.listen(interface)
            self.failureResultOf(port.joinGroup(group, by), MulticastJoinError)

    def test_refusal_told(self) -> None:
        """The error names the group, the interface and what the kernel said."""
        failure = self.failureResultOf(self.listen().joinGroup(LOOPBACK), MulticastJoinError)
        self.assertEqual((LOOPBACK, ""), failure.value.args[:2])
        self.assertIsInstance(failure.value.__cause__, OSError)


class SendingTests(MulticastTestCase):
    """How what is sent to a group leaves."""

    def test_defaults(self) -> None:
        """At first it goes as far as the next router and comes back, by whatever interface the kernel chooses."""
        for interface, any_interface in (("", "0.0.0.0"), ("::", 0)):  # noqa: S104  # compared with
            port = self.listen(interface)
            self.assertEqual(
                (1, True, any_interface), (port.getTTL(), port.getLoopbackMode(), port.getOutgoingInterface())
            )

    def test_ttl(self) -> None:
        """The time to live is set for both families of the port, in the kernel."""
        for interface, levels in (
            ("", [(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL)]),
            ("::1", [(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS)]),
            ("::", [(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS), (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL)]),
        ):
            port = self.listen(interface)
            for ttl in (0, 7, 255):
                port.setTTL(ttl)
                self.assertEqual(ttl, port.getTTL())
                self.assertEqual({ttl}, {port.getHandle().getsockopt(*level) for level in levels})
            for ttl in (-1, 256):
                with self.assertRaisesRegex(ValueError, f"ttl={ttl}: it must be between 0 and 255"):
                    port.setTTL(ttl)
            self.assertEqual(255, port.getTTL())

    def test_loopback_mode(self) -> None:
        """Whether it comes back is set for both families of the port, in the kernel."""
        for interface, levels in (
            ("", [(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP)]),
            ("::", [(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP), (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP)]),
        ):
            port = self.listen(interface)
            for mode in (False, True):
                port.setLoopbackMode(mode)
                self.assertIdentical(mode, port.getLoopbackMode())
                self.assertEqual({int(mode)}, {port.getHandle().getsockopt(*level) for level in levels})

    def test_outgoing_interface(self) -> None:
        """It is set by address or name for IPv4, by number or name for IPv6."""
        port = self.listen()
        for addr in (LOOPBACK, "0.0.0.0", "localhost"):  # noqa: S104  # which means any
            self.assertEqual(1, self.successResultOf(port.setOutgoingInterface(addr)))
            self.assertEqual(addr.replace("localhost", LOOPBACK), port.getOutgoingInterface())
        port = self.listen("::")
        number = number_of_loopback()
        for index in (number, 0, socket.if_indextoname(number)):
            self.assertEqual(1, self.successResultOf(port.setOutgoingInterface(index)))
            self.assertEqual(0 if index == 0 else number, port.getOutgoingInterface())

    def test_outgoing_interface_of_dual_stack(self) -> None:
        """A port of both families has one for each: an IPv4 address is for groups of IPv4."""
        port = self.listen("::")
        for addr in (LOOPBACK, "0.0.0.0"):  # noqa: S104  # which means any
            self.assertEqual(1, self.successResultOf(port.setOutgoingInterface(addr)))
            told = port.getHandle().getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4)
            self.assertEqual((addr, 0), (socket.inet_ntoa(told), port.getOutgoingInterface()))
        self.failureResultOf(self.listen("::1").setOutgoingInterface(LOOPBACK), MulticastJoinError)

    def test_number_for_ipv4(self) -> None:
        """A group of IPv4 is not joined by a number."""
        self.failureResultOf(self.listen().joinGroup(GROUP, 1), InvalidAddressError)

    def test_wrong_outgoing_interface(self) -> None:
        """One of another kind, or that this host does not have, fails."""
        for interface, addr, error in (
            ("", 1, InvalidAddressError),
            ("", "::1", MulticastJoinError),
            ("", "192.0.2.1", OSError),
            ("::", "nosuch0", MulticastJoinError),
            ("::", 2**31 - 1, OSError),
        ):
            self.failureResultOf(self.listen(interface).setOutgoingInterface(addr), error)

    def test_write(self) -> None:
        """What a port writes to a group reaches its members, on each backend."""
        for backend in BACKENDS:
            port = self.listen(backend=backend)
            self.successResultOf(port.joinGroup(GROUP, LOOPBACK))
            self.successResultOf(port.setOutgoingInterface(LOOPBACK))
            told: list[bool] = []
            port.protocol.does = lambda *_, port=port, told=told: told.append(port.delivering_to_group)
            port.write(b"to all", (GROUP, port.getHost().port))
            port.doRead()
            self.assertEqual([b"to all"], [note[0] for note in port.protocol.notes])
            self.assertEqual([True], told)


class InterfaceIndexTests(SynchronousTestCase):
    """Names, numbers and addresses of interfaces."""

    def test_any(self) -> None:
        """Nothing, and the address that means all, mean any."""
        self.assertEqual([0, 0, 0], [_multicast.interface_index(each) for each in ("", "::", "0")])

    def test_other_systems(self) -> None:
        """Where the system does not list its addresses, an address is no way to name an interface."""
        self.patch(_multicast, "_ADDRESSES_OF_INTERFACES", Path("/nowhere/if_inet6"))
        self.assertRaises(MulticastJoinError, _multicast.interface_index, "::1")
        self.assertEqual(number_of_loopback(), _multicast.interface_index(socket.if_indextoname(number_of_loopback())))


class OptionTests(MulticastTestCase):
    """What the kernel is told."""

    def test_own_groups_only(self) -> None:
        """The socket hears only groups that it has joined itself, in each family that it has."""
        self.assertEqual(0, self.listen().getHandle().getsockopt(socket.IPPROTO_IP, _bound.IP_MULTICAST_ALL))
        handle = self.listen("::").getHandle()
        self.assertEqual(0, handle.getsockopt(socket.IPPROTO_IP, _bound.IP_MULTICAST_ALL))
        self.assertEqual(0, handle.getsockopt(socket.IPPROTO_IPV6, _bound.IPV6_MULTICAST_ALL))

    def test_drops_told_everywhere(self) -> None:
        """The kernel counts drops on every socket, whatever it is bound to."""
        for interface in (LOOPBACK, "", "::1", "::"):
            told = self.listen(interface).getHandle().getsockopt(socket.SOL_SOCKET, _kernel.SO_RXQ_OVFL, 4)
            self.assertEqual((1,), struct.unpack("i", told))
