"""Control messages: bytes in, values out."""

from __future__ import annotations

import errno
import socket
import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.transport.fakes import arrived, drop_count, icmp_error, pktinfo, pktinfo6, reporter4, reporter6, together
from twistedudp.interfaces import Unreachable
from twistedudp.transport import _kernel


class NumberTests(SynchronousTestCase):
    """Numbers that the kernel tells."""

    def test_drops(self) -> None:
        """The count of drops comes with a datagram, and stands in what is told of the buffers; or is not told."""
        self.assertEqual(7, _kernel.parse_counter(drop_count(7)[2]))
        told = struct.pack("=9I", *range(1, 9), 4_000_000_000)
        self.assertEqual(len(told), _kernel.MEMINFO_SIZE)
        self.assertEqual(4_000_000_000, _kernel.parse_drops(told))
        self.assertIdentical(None, _kernel.parse_drops(told[:-4]))

    def test_arrival(self) -> None:
        """The time is told to the nanosecond, which no floating-point number could hold."""
        self.assertEqual(1_700_000_000_123_456_789, _kernel.parse_arrival_time(arrived(1_700_000_000_123_456_789)[2]))

    def test_segments(self) -> None:
        """The size that the datagrams in one buffer have is a number."""
        self.assertEqual(1200, _kernel.parse_segment_size(together(1200)[2]))
        self.assertEqual(
            (socket.IPPROTO_UDP, _kernel.UDP_SEGMENT, struct.pack("=H", 1200)), _kernel.segment_option(1200)
        )


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

    def test_mtu(self) -> None:
        """Where the datagram was too large, the MTU is told; with any other error the number means something else."""
        for number, mtu in ((errno.EMSGSIZE, 1400), (errno.ECONNREFUSED, 0)):
            queued = _kernel.parse_extended_error([icmp_error(number, icmp=(3, 4), info=1400)])
            assert queued is not None
            self.assertEqual(mtu, queued.mtu)

    def test_nothing_told(self) -> None:
        """No error, or half of one, is none."""
        level, kind, data = icmp_error()
        self.assertIdentical(None, _kernel.parse_extended_error([pktinfo("192.0.2.1")]))
        self.assertIdentical(None, _kernel.parse_extended_error([(level, kind, data[:12])]))
        self.assertIdentical(None, _kernel.parse_extended_error([(socket.SOL_SOCKET, kind, data)]))
