"""Multicast: groups that a port joins and leaves, and how its own datagrams to groups leave.

Theory of operation: everything happens on the loopback interface, to which a group is joined and through which it is
written to; Linux lets it, though the interface does not have the flag for it.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from twisted.internet import interfaces
from twisted.internet.error import MulticastJoinError
from twisted.python.failure import Failure
from zope.interface.verify import verifyObject

from tests.contracts.case import BatchPeer, ContractCase, Peer, address_of

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from twistedudp.address import Address

__all__ = ["MulticastContract"]

GROUP = "239.255.77.62"
"""A group of one's own, as RFC 2365 section 6.1 has it."""

LOOPBACK = "127.0.0.1"


class MulticastContract(ContractCase):
    """IMulticastTransport."""

    def listen_to_groups(self, protocol: Peer, interface: str = "") -> Any:
        """Make a port that may join groups, and writes to them through the loopback interface."""
        port = self.listen(protocol, interface, multicast=True)
        if ":" not in interface:
            self.result_of(port.setOutgoingInterface(LOOPBACK))
        return port

    def result_of(self, deferred: Deferred[Any]) -> object:
        """Wait for a Deferred and return what it fires with, a Failure where it fails."""
        results: list[object] = []
        deferred.addBoth(results.append)
        self.wait(lambda: bool(results), "a Deferred never fired")
        return results[0]

    def join(self, port: Any, group: str = GROUP) -> None:
        """Let a port join a group on the loopback interface."""
        self.assertIdentical(None, self.result_of(port.joinGroup(group, LOOPBACK)))

    def test_multicast_interface(self) -> None:
        """A port provides IMulticastTransport."""
        self.assertTrue(verifyObject(interfaces.IMulticastTransport, self.listen(Peer(), "", multicast=True)))

    def test_multicast_defaults(self) -> None:
        """At first datagrams to groups go as far as the next router, come back to this host, and leave by any way."""
        port = self.listen(Peer(), "", multicast=True)
        self.assertEqual((1, True, "0.0.0.0"), (port.getTTL(), port.getLoopbackMode(), port.getOutgoingInterface()))  # noqa: S104  # which means none

    def test_ttl(self) -> None:
        """What is set as the time to live is told."""
        port = self.listen_to_groups(Peer())
        for ttl in (0, 7, 255):
            port.setTTL(ttl)
            self.assertEqual(ttl, port.getTTL())

    def test_ttl_out_of_range(self) -> None:
        """A time to live is one byte; another one is an error and changes nothing."""
        port = self.listen_to_groups(Peer())
        port.setTTL(3)
        for wrong in (256, -1):
            self.assertRaises((ValueError, struct.error), port.setTTL, wrong)  # the latter from Twisted's port
        self.assertEqual(3, port.getTTL())

    def test_loopback_mode(self) -> None:
        """What is set as the loopback mode is told."""
        port = self.listen(Peer(), "", multicast=True)
        for mode in (False, True):  # to be seen on other interfaces only: whatever the loopback device sends comes back
            port.setLoopbackMode(mode)
            self.assertEqual(mode, port.getLoopbackMode())

    def test_outgoing_interface(self) -> None:
        """What is set as the outgoing interface is told; its Deferred fires with 1."""
        port = self.listen(Peer(), "", multicast=True)
        self.assertEqual(1, self.result_of(port.setOutgoingInterface(LOOPBACK)))
        self.assertEqual(LOOPBACK, port.getOutgoingInterface())

    def test_join_and_leave(self) -> None:
        """A port hears a group from joining it to leaving it, and may join it again."""
        receiver = Peer()
        port, sending = self.listen_to_groups(receiver), self.listen_to_groups(Peer())
        for payload in (b"1", b"2"):
            receiver.received.clear()
            sending.write(b"before", (GROUP, port.getHost().port))
            self.provider.settle()
            self.join(port)
            sending.write(payload, (GROUP, port.getHost().port))
            self.wait(lambda: receiver.payloads[-1:] == [payload], "no datagram arrived")  # noqa: B023  # it ends here
            self.assertIdentical(None, self.result_of(port.leaveGroup(GROUP, LOOPBACK)))
            sending.write(b"after", (GROUP, port.getHost().port))
            sending.write(b"own" + payload, address_of(port))
            self.wait(lambda: receiver.payloads[-1:] == [b"own" + payload], "no datagram arrived")  # noqa: B023  # as above
            self.assertEqual([payload, b"own" + payload], receiver.payloads)

    def test_two_groups(self) -> None:
        """A port may join several groups; what it hears has its sender's address, and is answered."""

        def answer(peer: Peer, datagram: bytes, addr: Address) -> None:
            peer.port.write(b"heard " + datagram, addr)

        for receiver in (Peer(answer), BatchPeer(answer)):
            sender = Peer()
            port, sending = self.listen_to_groups(receiver), self.listen_to_groups(sender)
            self.join(port)
            self.join(port, "239.255.77.63")
            sending.write(b"a", (GROUP, port.getHost().port))
            sending.write(b"b", ("239.255.77.63", port.getHost().port))
            sending.write(b"c", address_of(port))
            self.wait(lambda sender=sender: len(sender.received) == 3, "not all answers arrived")  # type: ignore[misc]  # mypy cannot infer a lambda with a default
            self.assertEqual([b"heard a", b"heard b", b"heard c"], sender.payloads)
            self.assertEqual({sending.getHost().port}, {peer[1] for peer in receiver.peers})

    def test_groups_of_others(self) -> None:
        """A port does not hear the groups that others on this host have joined."""
        receiver, other = Peer(), Peer()
        port, joined, sending = (self.listen_to_groups(each) for each in (receiver, other, Peer()))
        self.join(joined)
        sending.write(b"theirs", (GROUP, port.getHost().port))
        sending.write(b"theirs", (GROUP, joined.getHost().port))
        sending.write(b"own", address_of(port))
        self.wait(lambda: bool(other.received and receiver.received), "no datagram arrived")
        self.provider.settle()
        self.assertEqual(([b"own"], [b"theirs"]), (receiver.payloads, other.payloads))

    def test_join_what_is_no_group(self) -> None:
        """An address that is not a group's cannot be joined, and a group that was not joined cannot be left."""
        port = self.listen_to_groups(Peer())
        for deferred in (port.joinGroup("127.0.0.1", LOOPBACK), port.leaveGroup(GROUP, LOOPBACK)):
            failure = self.result_of(deferred)
            self.assertIsInstance(failure, Failure)
            self.assertIsInstance(getattr(failure, "value", None), MulticastJoinError)

    def test_multicast_ipv6(self) -> None:
        """A port of IPv6 has the same, with the number of an interface for its address."""
        port = self.listen(Peer(), "::", multicast=True)
        self.assertEqual((True, 0), (port.getLoopbackMode(), port.getOutgoingInterface()))
        self.assertEqual(1, self.result_of(port.setOutgoingInterface(1)))
        port.setLoopbackMode(False)
        self.assertEqual((False, 1), (port.getLoopbackMode(), port.getOutgoingInterface()))
