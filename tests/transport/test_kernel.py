"""Control messages: bytes in, values out."""

from __future__ import annotations

import errno
import socket
import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.transport.fakes import drop_count, icmp_error, pktinfo, pktinfo6, reporter4, reporter6
from twistedudp.interfaces import Unreachable
from twistedudp.transport import _kernel


class AddressAskedTests(SynchronousTestCase):
    """To which address a datagram went."""

    def test_none(self) -> None:
        """No control message tells nothing."""
        self.assertEqual(b"", _kernel.address_asked([]))

    def test_among_others(self) -> None:
        """It is found beside the drop counter and messages of other levels."""
        stranger = (socket.IPPROTO_TCP, _kernel.IP_PKTINFO, b"stranger")
        message = pktinfo("192.0.2.1")
        self.assertEqual(message[2], _kernel.address_asked([drop_count(1), stranger, message]))

    def test_dual_stack(self) -> None:
        """Of both kinds, the IPv4 one counts: it knows broadcasts."""
        both = [pktinfo6("::ffff:192.0.2.255"), pktinfo("192.0.2.1", "192.0.2.255")]
        self.assertEqual(both[1][2], _kernel.address_asked(both))

    def test_ipv6(self) -> None:
        """IPv6 alone is found."""
        self.assertEqual(pktinfo6("::1")[2], _kernel.address_asked([pktinfo6("::1")]))

    def test_drops(self) -> None:
        """The drop counter is a number, or absent."""
        self.assertEqual(7, _kernel.dropped_by_kernel([pktinfo("192.0.2.1"), drop_count(7)]))
        self.assertIdentical(None, _kernel.dropped_by_kernel([pktinfo("192.0.2.1")]))


class ReturnPathTests(SynchronousTestCase):
    """How an answer leaves."""

    def path(self, message: tuple[int, int, bytes]) -> _kernel.ReturnPath:
        """Parse what a control message says."""
        return _kernel.parse_return_path(message[2])

    def test_ipv4(self) -> None:
        """From the address asked, by whatever interface leads there."""
        data = struct.pack("@i4s4s", 0, socket.inet_aton("192.0.2.1"), bytes(4))
        expected = ([(socket.IPPROTO_IP, _kernel.IP_PKTINFO, data)], False)
        self.assertEqual(expected, self.path(pktinfo("192.0.2.1")))

    def test_ipv4_broadcast(self) -> None:
        """To a broadcast the answer leaves from the host's own address."""
        path = self.path(pktinfo("192.0.2.1", "192.0.2.255"))
        self.assertTrue(path.to_group)
        self.assertEqual(self.path(pktinfo("192.0.2.1")).ancillary, path.ancillary)

    def test_ipv6(self) -> None:
        """From the address asked, by whatever interface leads there."""
        self.assertEqual(([pktinfo6("2001:db8::1", 0)], False), self.path(pktinfo6("2001:db8::1", 9)))

    def test_ipv6_link_local(self) -> None:
        """A link-local address means nothing without its interface."""
        for host in ("fe80::1", "febf::1"):
            self.assertEqual(([pktinfo6(host, 9)], False), self.path(pktinfo6(host, 9)))
        self.assertEqual(([pktinfo6("fec0::1", 0)], False), self.path(pktinfo6("fec0::1", 9)))

    def test_ipv6_multicast(self) -> None:
        """A multicast address cannot be a source."""
        self.assertEqual(([], True), self.path(pktinfo6("ff02::1")))

    def test_untold(self) -> None:
        """Where the kernel did not tell, it may choose."""
        self.assertEqual(([], False), _kernel.parse_return_path(b""))


class ExtendedErrorTests(SynchronousTestCase):
    """What stands in the error queue."""

    def unreachable(self, *messages: tuple[int, int, bytes]) -> Unreachable:
        """Parse control messages that tell an error."""
        queued = _kernel.parse_extended_error(messages)
        assert queued is not None
        return queued.unreachable

    def test_ipv4(self) -> None:
        """An ICMP error tells its number, type, code and who sent it."""
        expected = Unreachable(errno.ECONNREFUSED, "Connection refused", 3, 3, "192.0.2.9")
        self.assertEqual(expected, self.unreachable(pktinfo("192.0.2.1"), icmp_error(reporter=reporter4("192.0.2.9"))))

    def test_ipv6(self) -> None:
        """So does an ICMPv6 error."""
        data = icmp_error(errno.EHOSTUNREACH, origin=3, icmp=(1, 3), reporter=reporter6("2001:db8::9"))[2]
        message = (socket.IPPROTO_IPV6, _kernel.IPV6_RECVERR, data)
        expected = Unreachable(errno.EHOSTUNREACH, "No route to host", 1, 3, "2001:db8::9")
        self.assertEqual(expected, self.unreachable(message))

    def test_mapped_reporter(self) -> None:
        """An IPv4 router is shown as IPv4 on a dual-stack socket too."""
        self.assertEqual("192.0.2.9", self.unreachable(icmp_error(reporter=reporter6("::ffff:192.0.2.9"))).reporter)

    def test_unknown_reporter(self) -> None:
        """The reporter is empty where it is not told, or not whole."""
        unspecified = struct.pack("=HHI", socket.AF_UNSPEC, 0, 0)
        for raw in (b"", b"\x02", unspecified, reporter4("192.0.2.9")[:6], reporter6("::1")[:20]):
            self.assertEqual("", self.unreachable(icmp_error(reporter=raw)).reporter)

    def test_local(self) -> None:
        """The own kernel's errors have no ICMP type; the origin says whose they are."""
        queued = _kernel.parse_extended_error([icmp_error(errno.EMSGSIZE, origin=1, icmp=(9, 9))])
        assert queued is not None
        self.assertEqual((1, 0, 0), (queued.origin, queued.unreachable.icmp_type, queued.unreachable.icmp_code))

    def test_nothing_told(self) -> None:
        """No error, or half of one, is none."""
        level, kind, data = icmp_error()
        self.assertIdentical(None, _kernel.parse_extended_error([pktinfo("192.0.2.1")]))
        self.assertIdentical(None, _kernel.parse_extended_error([(level, kind, data[:12])]))
        self.assertIdentical(None, _kernel.parse_extended_error([(socket.SOL_SOCKET, kind, data)]))
