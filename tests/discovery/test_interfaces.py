"""The network interfaces, and who may be answered."""

from __future__ import annotations

import ifaddr
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.discovery import _interfaces
from twistedudp.discovery._discover import paths
from twistedudp.discovery._interfaces import chosen, interfaces_of, local_interfaces, made_interface, reachable, serving
from twistedudp.errors import LocalError

LO = made_interface("lo", 1, [("127.0.0.1", 8), ("::1", 128)])
ETH0 = made_interface("eth0", 2, [("192.0.2.1", 24), ("192.0.2.129", 25), ("fe80::1", 64), ("2001:db8::1", 64)])
TUN0 = made_interface("tun0", 3, [("198.51.100.1", 32)])
WLAN0 = made_interface("wlan0", 4, [("203.0.113.1", 24), ("fe80::2", 64)])
ANY = "0.0.0.0"  # noqa: S104  # compared with, not bound to
ALL = [LO, ETH0, TUN0, WLAN0]


class Adapter:
    """An adapter as ``ifaddr`` has it."""

    def __init__(self, name: str, index: int | None, *ips: ifaddr.IP) -> None:
        self.nice_name = name
        self.index = index
        self.ips = ips


class ListTests(SynchronousTestCase):
    """What there is."""

    def test_made(self) -> None:
        """Each IPv4 network has a broadcast address, but for those of one or two hosts."""
        self.assertEqual(ETH0.broadcasts, ("192.0.2.255",))
        self.assertEqual(
            made_interface("x", 9, [("192.0.2.1", 25), ("192.0.2.129", 25)]).broadcasts, ("192.0.2.127", "192.0.2.255")
        )
        self.assertEqual((TUN0.broadcasts, LO.broadcasts), ((), ("127.255.255.255",)))
        self.assertEqual(made_interface("x", 9, [("192.0.2.1", 31)]).broadcasts, ())
        self.assertEqual((ETH0.ipv4, ETH0.ipv6), (("192.0.2.1", "192.0.2.129"), ("fe80::1", "2001:db8::1")))

    def test_local(self) -> None:
        """What ifaddr tells is taken over, in the order of the kernel's numbers, without scopes."""
        adapters = [
            Adapter("eth0", 2, ifaddr.IP("192.0.2.1", 24, "eth0"), ifaddr.IP(("fe80::1", 0, 2), 64, "eth0")),
            Adapter("lo", 1, ifaddr.IP("127.0.0.1", 8, "lo")),
            Adapter("eth0:1", None, ifaddr.IP("192.0.2.9", 24, "eth0:1")),
        ]
        self.patch(ifaddr, "get_adapters", lambda: adapters)
        found = local_interfaces()
        self.assertEqual([(each.name, each.number, each.addresses) for each in found], [
            ("eth0:1", 0, ("192.0.2.9",)), ("lo", 1, ("127.0.0.1",)), ("eth0", 2, ("192.0.2.1", "fe80::1")),
        ])  # fmt: skip

    def test_this_machine(self) -> None:
        """This machine has a loopback interface, by whatever name."""
        self.assertIn("127.0.0.1", [host for interface in local_interfaces() for host in interface.ipv4])

    def test_of_a_reactor(self) -> None:
        """A reactor that knows its interfaces is asked; the system in all other cases."""

        class Knows:
            def network_interfaces(self) -> list[tuple[object, ...]]:
                return [("net0", 2, [("192.0.2.1", 0)], ["255.255.255.255"])]

        (found,) = interfaces_of(Knows())
        self.assertEqual((found.name, found.broadcasts), ("net0", ("255.255.255.255",)))
        self.patch(_interfaces, "local_interfaces", lambda: [LO])
        self.assertEqual(interfaces_of(object()), [LO])

    def test_chosen(self) -> None:
        """By name, by any address, each once, in the order asked for; one that is not there is an error."""
        self.assertEqual(chosen(ALL, None), ALL)
        self.assertEqual(chosen(ALL, ["wlan0", "192.0.2.129", "eth0", "fe80::2%wlan0"]), [WLAN0, ETH0])
        error = self.assertRaises(LocalError, chosen, ALL, ["eth1"])
        self.assertIn("'eth1' is no network interface of this machine", str(error))
        self.assertIn("there is: lo, eth0, tun0, wlan0", str(error))
        self.assertIn("there is: none", str(self.assertRaises(LocalError, chosen, [], ["eth1"])))


class PathTests(SynchronousTestCase):
    """How is asked."""

    def test_paths(self) -> None:
        """Over IPv4 by broadcast and to the group, over IPv6 to the group; not over IPv6 on loopback."""
        found = {path.interface.name: path.hosts for path in paths(ALL, (4, 6))}
        self.assertEqual(found, {
            "lo": ("127.255.255.255", "239.255.100.32"),
            "eth0": ("192.0.2.255", "239.255.100.32", "ff12::6432"),
            "tun0": ("239.255.100.32",),
            "wlan0": ("203.0.113.255", "239.255.100.32", "ff12::6432"),
        })  # fmt: skip
        self.assertEqual([path.hosts for path in paths(ALL, (6,))], [("ff12::6432",)] * 2)
        self.assertEqual(len(paths(ALL, (4,))), 4)

    def test_none(self) -> None:
        """Where there is no way, it is said over what and where."""
        for interfaces, families, told in (
            ([LO], (6,), "over IPv6 on lo"),
            ([TUN0], (6,), "over IPv6 on tun0"),
            ([], (4, 6), "over IPv4 or IPv6 on no network interface"),
            (ALL, (), "over any address family"),
        ):
            self.assertIn(told, str(self.assertRaises(LocalError, paths, interfaces, families)))


class ReachableTests(SynchronousTestCase):
    """Who may be answered, and from where."""

    def test_table(self) -> None:
        """Only hosts of networks that this host is attached to, over the service's own interface and family."""
        for service, yes, no in (
            (
                "::",
                (
                    "192.0.2.7",
                    "127.0.0.1",
                    "::1",
                    "fe80::9%eth0",
                    "fe80::9%2",
                    "2001:db8::5",
                    "203.0.113.7",
                    "198.51.100.1",
                ),
                ("198.51.100.2", "8.8.8.8", "2001:db8:1::5", "fe80::9%eth9"),
            ),
            (ANY, ("192.0.2.7", "127.0.0.1"), ("8.8.8.8", "fe80::9%eth0", "::1", "2001:db8::5")),
            ("127.0.0.1", ("127.0.0.1", "127.9.9.9"), ("192.0.2.7", "192.0.2.1", "::1")),
            ("192.0.2.1", ("192.0.2.7", "127.0.0.1"), ("203.0.113.7", "8.8.8.8", "fe80::9%eth0")),
            ("2001:db8::1", ("2001:db8::5", "fe80::9%eth0"), ("fe80::9%wlan0", "192.0.2.7")),
            ("fe80::2%wlan0", ("fe80::9%wlan0",), ("fe80::9%eth0",)),
        ):
            for asker in yes:
                self.assertTrue(reachable(asker, service, ALL), (asker, service))
            for asker in no:
                self.assertFalse(reachable(asker, service, ALL), (asker, service))

    def test_nobody(self) -> None:
        """Groups, broadcast addresses and no address at all are nobody, whatever is attached."""
        for asker in ("255.255.255.255", "192.0.2.255", "239.255.100.32", ANY, "::", "ff02::1", "ff02::1%eth0"):
            self.assertFalse(reachable(asker, "::", ALL), asker)

    def test_serving(self) -> None:
        """Groups are joined where the service can be reached: on its own interface and loopback, or on all."""
        for service, names in (
            ("::", "lo eth0 tun0 wlan0"),
            (ANY, "lo eth0 tun0 wlan0"),
            ("127.0.0.1", "lo"),
            ("192.0.2.129", "lo eth0"),
            ("fe80::2%wlan0", "lo wlan0"),
        ):
            self.assertEqual([interface.name for interface in serving(service, ALL)], names.split(), service)
