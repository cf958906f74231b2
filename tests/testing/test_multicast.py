"""Groups in the simulated network, and what else its ports have in common with real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.error import CannotListenError, DNSLookupError, InvalidAddressError, MulticastJoinError
from twisted.internet.interfaces import IMulticastTransport
from twisted.internet.protocol import DatagramProtocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from twistedudp.errors import LocalError
from twistedudp.testing import SimulatedNetwork
from twistedudp.transport import listen

if TYPE_CHECKING:
    from twistedudp.testing import SimulatedReactor

GROUP = "239.255.77.60"
GROUP6 = "ff05::7760"
FIRST, FIRST6 = "192.0.2.1", "2001:db8::1"
SECOND, SECOND6 = "192.0.2.2", "2001:db8::2"


class Notes(DatagramProtocol):
    """Notes what it is told."""

    noisy = False

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Note a datagram, its sender's host and whether it was sent to a group."""
        self.notes.append((datagram, addr[0], self.transport.delivering_to_group))  # type: ignore[union-attr]  # ours


class NotesTimes(DatagramProtocol):
    """Notes when what it is given has arrived."""

    noisy = False

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def datagramReceived(self, datagram: bytes, _: Any) -> None:
        """Note a datagram."""
        self.notes.append((datagram, tuple(self.transport.arrival_times)))  # type: ignore[union-attr]  # ours


class NotesTimesOfBatches(NotesTimes):
    """Likewise, of batches."""

    def datagrams_received(self, datagrams: Any) -> None:
        """Note a batch."""
        payloads = b"".join(datagram for datagram, _ in datagrams)
        self.notes.append((payloads, tuple(self.transport.arrival_times)))  # type: ignore[union-attr]  # ours


class GroupTestCase(SynchronousTestCase):
    """Two hosts with an address of each kind."""

    def setUp(self) -> None:
        """Make the network."""
        self.network = SimulatedNetwork()
        self.first = self.network.reactor(FIRST, FIRST6, name="first.example")
        self.second = self.network.reactor(SECOND, SECOND6)

    def listen(self, reactor: SimulatedReactor, interface: str = "", port: int = 7) -> Any:
        """Listen on a host."""
        return reactor.listenUDP(port, Notes(), interface, 65535)

    def done(self, deferred: Any) -> Any:
        """Let a Deferred fire and return its result."""
        return self.network.run_until(deferred)

    def heard(self, port: Any) -> list[Any]:
        """Run until nothing happens any more and return what a port has heard, once."""
        self.network.run_until_idle()
        notes, port.protocol.notes = port.protocol.notes, []
        return list(notes)


class MembershipTests(GroupTestCase):
    """Joining and leaving."""

    def test_interface(self) -> None:
        """A port provides what Twisted's multicast ports do."""
        self.assertTrue(verifyObject(IMulticastTransport, self.listen(self.first)))

    def test_members_only(self) -> None:
        """A group is heard by ports that have joined it, from joining to leaving it, on every host."""
        for interface, group, source in (("", GROUP, SECOND), ("::", GROUP6, SECOND6), ("::", GROUP, SECOND)):
            port, sending = self.listen(self.first, interface), self.listen(self.second, interface)
            for change, expected in (
                (None, []),
                (port.joinGroup, [(b"all", source, True)]),
                (port.leaveGroup, []),
                (port.joinGroup, [(b"all", source, True)]),
            ):
                if change is not None:
                    self.assertIdentical(None, self.done(change(group)))
                sending.write(b"all", (group, 7))
                self.assertEqual(expected, self.heard(port))
                self.assertEqual([], self.heard(sending))
            for each in (port, sending):
                self.done(each.stopListening())

    def test_bound_to_an_address(self) -> None:
        """A port that is bound to one address hears no group, as on Linux."""
        port, sending = self.listen(self.first, FIRST), self.listen(self.second)
        self.done(port.joinGroup(GROUP))
        sending.write(b"all", (GROUP, 7))
        self.assertEqual([], self.heard(port))

    def test_other_interface(self) -> None:
        """What is joined on loopback is not heard from the network, and the other way round."""
        port, sending = self.listen(self.first), self.listen(self.second)
        self.done(port.joinGroup(GROUP, "127.0.0.1"))
        sending.write(b"from the network", (GROUP, 7))
        self.assertEqual([], self.heard(port))
        self.done(port.setOutgoingInterface("127.0.0.1"))
        port.write(b"from myself", (GROUP, 7))
        self.assertEqual([(b"from myself", "127.0.0.1", True)], self.heard(port))
        self.done(port.leaveGroup(GROUP, "127.0.0.1"))
        self.done(port.joinGroup(GROUP, FIRST))
        port.write(b"from myself", (GROUP, 7))
        self.assertEqual([], self.heard(port))

    def test_names(self) -> None:
        """A name is looked up in the network's table, which takes the time that it takes."""
        self.network.names["group.example"] = (GROUP,)
        self.network.lookup_delay = 0.5
        port, sending = self.listen(self.first), self.listen(self.second)
        joining = port.joinGroup("group.example", "first.example")
        self.assertNoResult(joining)
        self.done(joining)
        self.assertEqual(1.0, self.network.clock.seconds())
        sending.write(b"all", (GROUP, 7))
        self.assertEqual([(b"all", SECOND, True)], self.heard(port))
        self.network.run_until_idle()
        unknown = port.joinGroup("nowhere.example")
        self.assertRaises(DNSLookupError, self.done, unknown)

    def test_refused(self) -> None:
        """What is no group, of another family, on no interface, joined already or not joined fails."""
        for interface, group, by in (
            ("", FIRST, ""),
            ("", "255.255.255.255", ""),
            ("", GROUP6, ""),
            ("", GROUP, "::1"),
            ("", GROUP, SECOND),
            ("::1", GROUP, ""),
            ("::", GROUP6, "3"),
            ("::", GROUP6, "127.0.0.1"),
        ):
            port = self.listen(self.first, interface, 0)
            self.assertRaises(MulticastJoinError, self.done, port.joinGroup(group, by))
        port = self.listen(self.first)
        self.assertRaises(MulticastJoinError, self.done, port.leaveGroup(GROUP))
        self.done(port.joinGroup(GROUP))
        self.assertRaises(MulticastJoinError, self.done, port.joinGroup(GROUP, FIRST))

    def test_not_listening(self) -> None:
        """A port that was stopped can do nothing with groups."""
        port = self.listen(self.first)
        self.done(port.stopListening())
        for deferred in (port.joinGroup(GROUP), port.leaveGroup(GROUP), port.setOutgoingInterface(FIRST)):
            self.assertRaises(LocalError, self.done, deferred)
        for call in (port.getTTL, port.getLoopbackMode, port.getOutgoingInterface):
            self.assertRaises(LocalError, call)
        self.assertRaises(LocalError, port.setTTL, 1)
        self.assertRaises(LocalError, port.setLoopbackMode, True)


class SendingTests(GroupTestCase):
    """How what is sent to a group leaves."""

    def members(self) -> tuple[Any, Any]:
        """Return ports of both hosts, both members."""
        ports = self.listen(self.first), self.listen(self.second)
        for port in ports:
            self.done(port.joinGroup(GROUP))
        return ports

    def test_loopback_mode(self) -> None:
        """Members on the sender's host hear it if that is allowed, as it is at first."""
        here, there = self.members()
        self.assertIdentical(True, here.getLoopbackMode())
        here.write(b"1", (GROUP, 7))
        self.assertEqual(([(b"1", FIRST, True)],) * 2, (self.heard(here), self.heard(there)))
        here.setLoopbackMode(False)
        self.assertIdentical(False, here.getLoopbackMode())
        here.write(b"2", (GROUP, 7))
        self.assertEqual(([], [(b"2", FIRST, True)]), (self.heard(here), self.heard(there)))

    def test_ttl(self) -> None:
        """With no time to live it stays on the host; an impossible one is refused."""
        here, there = self.members()
        self.assertEqual(1, here.getTTL())
        here.setTTL(0)
        here.write(b"1", (GROUP, 7))
        self.assertEqual(([(b"1", FIRST, True)], []), (self.heard(here), self.heard(there)))
        for ttl in (-1, 256):
            self.assertRaises(ValueError, here.setTTL, ttl)
        self.assertEqual(0, here.getTTL())

    def test_outgoing_interface(self) -> None:
        """By loopback it stays on the host and has a loopback address; by an address of the host it has that."""
        reactor = self.network.reactor("192.0.2.3", "192.0.2.4", "2001:db8::3")
        member = self.listen(self.second)
        self.done(member.joinGroup(GROUP))
        port = self.listen(reactor)
        for addr, heard in (
            ("127.0.0.1", []),
            ("192.0.2.4", [(b"x", "192.0.2.4", True)]),
            ("0.0.0.0", [(b"x", "192.0.2.3", True)]),  # noqa: S104  # the host chooses
        ):
            self.assertEqual(1, self.done(port.setOutgoingInterface(addr)))
            self.assertEqual(addr, port.getOutgoingInterface())
            port.write(b"x", (GROUP, 7))
            self.assertEqual(heard, self.heard(member))

    def test_outgoing_interface_of_ipv6(self) -> None:
        """It is a number: 1 for loopback, 2 for the network, 0 for what the host chooses."""
        member, port = self.listen(self.second, "::"), self.listen(self.first, "::")
        self.done(member.joinGroup(GROUP6))
        for index, heard in ((1, []), (2, [(b"x", FIRST6, True)]), (0, [(b"x", FIRST6, True)])):
            self.assertEqual(1, self.done(port.setOutgoingInterface(index)))
            self.assertEqual(index, port.getOutgoingInterface())
            port.write(b"x", (GROUP6, 7))
            self.assertEqual(heard, self.heard(member))
        self.done(port.setOutgoingInterface("lo"))
        self.assertEqual(1, port.getOutgoingInterface())

    def test_outgoing_interface_of_dual_stack(self) -> None:
        """A port of both families has one for each: an IPv4 address is for groups of IPv4."""
        member, port = self.listen(self.second, "::"), self.listen(self.first, "::")
        self.done(member.joinGroup(GROUP))
        self.done(member.joinGroup(GROUP6, 2))
        for addr, heard in (("127.0.0.1", [FIRST6]), (FIRST, [FIRST, FIRST6]), (1, [FIRST])):
            self.assertEqual(1, self.done(port.setOutgoingInterface(addr)))
            port.write(b"x", (GROUP, 7))
            port.write(b"x", (GROUP6, 7))
            self.assertEqual(heard, [host for _, host, _ in self.heard(member)])
        self.assertRaises(InvalidAddressError, self.done, member.joinGroup(GROUP, 2))

    def test_wrong_outgoing_interface(self) -> None:
        """One of another kind, or that this host does not have, fails."""
        for interface, addr, error in (
            ("", 1, InvalidAddressError),
            ("", "::1", MulticastJoinError),
            ("", SECOND, OSError),
            ("::", 3, OSError),
        ):
            port = self.listen(self.first, interface, 0)
            self.assertRaises(error, self.done, port.setOutgoingInterface(addr))

    def test_broadcast_is_no_group(self) -> None:
        """A broadcast goes everywhere, whatever is set for groups."""
        here, there = self.members()
        here.setTTL(0)
        here.setLoopbackMode(False)
        self.done(here.setOutgoingInterface("127.0.0.1"))
        here.setBroadcastAllowed(True)
        here.write(b"all", ("255.255.255.255", 7))
        self.assertEqual(([(b"all", FIRST, True)],) * 2, (self.heard(here), self.heard(there)))


class SurfaceTests(GroupTestCase):
    """What code may ask of a real port."""

    def test_backend(self) -> None:
        """The port tells that it is none of the real ones, and knows no path's MTU."""
        port = self.listen(self.first)
        self.assertEqual(("simulated", None), (port.backend, port.path_mtu(SECOND)))

    def test_reuse_port(self) -> None:
        """A host's ports cannot be shared, which is said."""
        self.assertRaises(CannotListenError, listen, self.first, 7, Notes(), reuse_port=True)

    def test_arrival_times(self) -> None:
        """They are the virtual time, one for each datagram being delivered, if they were asked for."""
        self.network.advance(1.5)
        for make, timestamps, expected in (
            (NotesTimes, True, [(b"a", (1,)), (b"b", (1,))]),
            (NotesTimesOfBatches, True, [(b"ab", (1, 1))]),
            (NotesTimes, False, [(b"a", ()), (b"b", ())]),
        ):
            protocol = make()
            port: Any = listen(self.first, 7, protocol, timestamps=timestamps)
            sending = self.listen(self.second)
            now = self.network.clock.seconds()
            for payload in (b"a", b"b"):
                sending.write(payload, (FIRST, 7))
            self.network.run_until_idle()
            after = self.network.clock.seconds()
            told = [
                (payload, tuple(round(now * 1e9) <= each <= round(after * 1e9) for each in times))
                for payload, times in protocol.notes
            ]
            self.assertEqual(expected, told)
            self.assertEqual((), tuple(port.arrival_times))
            for each in (port, sending):
                self.done(each.stopListening())
