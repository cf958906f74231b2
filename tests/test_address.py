"""Addresses: what people type, and what they read."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twistedudp.address import (
    format_address,
    is_group,
    is_ip,
    is_ipv6,
    is_loopback,
    parse_host_port,
    unmapped,
)


class FormatTests(SynchronousTestCase):
    """Printing."""

    def test_families(self) -> None:
        """IPv6 stands in brackets, everything else does not."""
        self.assertEqual(format_address(("192.0.2.1", 10000)), "192.0.2.1:10000")
        self.assertEqual(format_address(("2001:db8::1", 7)), "[2001:db8::1]:7")
        self.assertEqual(format_address(("localhost", 7)), "localhost:7")

    def test_round_trip(self) -> None:
        """What is printed can be typed in again."""
        for address in (("192.0.2.1", 1), ("2001:db8::1", 65535), ("fe80::1%eth0", 5), ("name.example", 10000)):
            self.assertEqual(parse_host_port(format_address(address), 99), address)


class ParseTests(SynchronousTestCase):
    """Typing."""

    def test_forms(self) -> None:
        """Host alone, host and port, and both forms of IPv6."""
        for text, expected in {
            "localhost": ("localhost", 10000),
            "localhost:7": ("localhost", 7),
            "  localhost:7\n": ("localhost", 7),
            "192.0.2.1": ("192.0.2.1", 10000),
            "192.0.2.1:65535": ("192.0.2.1", 65535),
            "::1": ("::1", 10000),
            "2001:db8::1:7": ("2001:db8::1:7", 10000),
            "[::1]": ("::1", 10000),
            "[::1]:1": ("::1", 1),
            "[fe80::1%eth0]:7": ("fe80::1%eth0", 7),
        }.items():
            self.assertEqual(parse_host_port(text, 10000), expected, text)

    def test_refused(self) -> None:
        """Each bad text is refused, and the message says what is wrong with it."""
        for text, reason in {
            "": "no host",
            "   ": "no host",
            ":7": "no host",
            "local host": "a space",
            "local\thost:7": "a space",
            "localhost:": "not a port",
            "localhost:0": "1 to 65535",
            "localhost:65536": "1 to 65535",
            "localhost:-1": "not a port",
            "localhost:+1": "not a port",
            "localhost:seven": "'seven' is not a port",
            "localhost:\u0667": "not a port",  # a digit, but not an ASCII one
            "localhost:1_0": "not a port",
            "[::1": "[HOST]:PORT",
            "[::1]7": "[HOST]:PORT",
            "[::1]:": "not a port",
            "[::1]:0": "1 to 65535",
            "[localhost]:7": "only these stand in brackets",
            "[192.0.2.1]:7": "only these stand in brackets",
            "[]:7": "only these stand in brackets",
            "a:b:c": "neither HOST:PORT nor an IPv6 address",
            "192.0.2.1:7:8": "neither HOST:PORT nor an IPv6 address",
        }.items():
            error = self.assertRaises(ValueError, parse_host_port, text, 10000)
            self.assertIn(reason, str(error), text)


class QuestionTests(SynchronousTestCase):
    """The questions about numeric hosts."""

    def test_is_ip(self) -> None:
        """Both families, with a scope too; names and halves are none."""
        for host in ("127.0.0.1", "::1", "fe80::1%eth0", "::ffff:192.0.2.1"):
            self.assertTrue(is_ip(host), host)
        for host in ("localhost", "", "127.0.0", "127.0.0.256", ":", "1"):
            self.assertFalse(is_ip(host), host)

    def test_is_ipv6(self) -> None:
        """Only IPv6."""
        for host in ("::1", "fe80::1%eth0", "::ffff:192.0.2.1"):
            self.assertTrue(is_ipv6(host), host)
        for host in ("127.0.0.1", "localhost", "a:b", ""):
            self.assertFalse(is_ipv6(host), host)

    def test_is_loopback(self) -> None:
        """127.0.0.0/8 and ::1, also as a dual-stack socket writes them."""
        for host in ("127.0.0.1", "127.255.0.3", "::1", "::ffff:127.0.0.1"):
            self.assertTrue(is_loopback(host), host)
        for host in ("128.0.0.1", "::2", "::ffff:192.0.2.1", "fe80::1%lo"):
            self.assertFalse(is_loopback(host), host)

    def test_is_group(self) -> None:
        """Multicast of both families and the limited broadcast address."""
        for host in ("224.0.0.1", "239.255.255.255", "ff02::1", "255.255.255.255", "::ffff:224.0.0.1"):
            self.assertTrue(is_group(host), host)
        for host in ("127.0.0.1", "192.0.2.255", "::1", "223.255.255.255", "240.0.0.1"):
            self.assertFalse(is_group(host), host)

    def test_unmapped(self) -> None:
        """One peer has one spelling."""
        self.assertEqual(unmapped("::ffff:192.0.2.1"), "192.0.2.1")
        for host in ("192.0.2.1", "::1", "::ffff:0:1", "localhost", ""):
            self.assertEqual(unmapped(host), host)
