"""What an operator can decide, and what is said to what cannot be."""

from __future__ import annotations

import dataclasses
from ipaddress import ip_network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

import twistedudp
from twistedudp.admission import AdmissionPolicy, PolicyError, parse_network
from twistedudp.admission._policy import LARGEST_BURST, LARGEST_FACTOR, LARGEST_RATE, LEAST_RATE
from twistedudp.errors import LocalError


class PolicyTests(SynchronousTestCase):
    """Settings are checked where they are written down."""

    def test_defaults(self) -> None:
        """The default policy is the documented one, and the public one."""
        policy = twistedudp.AdmissionPolicy()
        self.assertEqual((policy.rate, policy.burst, policy.network_factor), (1000.0, 2000, 8.0))
        self.assertEqual((policy.total_rate, policy.log_only), (100_000.0, False))
        self.assertEqual(policy.networks(), ((), (), ()))

    def test_cannot_be_changed(self) -> None:
        """A policy that was checked stays as it is."""
        with self.assertRaises(dataclasses.FrozenInstanceError):
            AdmissionPolicy().rate = -1.0  # type: ignore[misc]  # it is the test

    def test_borders(self) -> None:
        """The least and the largest of everything are taken."""
        AdmissionPolicy(rate=0, total_rate=0, burst=1, network_factor=1)
        AdmissionPolicy(rate=LEAST_RATE, total_rate=LEAST_RATE)
        AdmissionPolicy(rate=LARGEST_RATE, total_rate=LARGEST_RATE, burst=LARGEST_BURST, network_factor=LARGEST_FACTOR)

    def test_refused(self) -> None:
        """What cannot be is a LocalError and a ValueError that names the setting, its value, and what to write."""
        net = "192.0.2.0/24"
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"rate": -1.0}, r"rate=-1\.0: write datagrams per second from 0\.001 to 10,000,000, or 0 for no limit"),
            ({"rate": float("nan")}, "rate=nan"),
            ({"rate": float("inf")}, "rate=inf"),
            ({"rate": LARGEST_RATE * 1.01}, "rate="),
            ({"rate": LEAST_RATE / 2}, "rate="),
            ({"rate": True}, "rate=True"),
            ({"rate": "1000"}, "rate='1000'"),
            ({"total_rate": -0.5}, r"total_rate=-0\.5: write datagrams per second"),
            ({"burst": 0}, "burst=0: write a whole number from 1 to 1,000,000"),
            ({"burst": 1.5}, r"burst=1\.5"),
            ({"burst": LARGEST_BURST + 1}, "burst="),
            ({"burst": True}, "burst=True"),
            ({"network_factor": 0.5}, r"network_factor=0\.5: write a number from 1 to 65,536"),
            ({"network_factor": LARGEST_FACTOR * 2}, "network_factor="),
            ({"allow": net}, r"allow='192\.0\.2\.0/24': write a tuple, such as"),
            ({"deny": [ip_network(net)]}, "deny=.*: write a tuple"),
            ({"trust": (net,)}, r"trust=.*write ipaddress\.ip_network\('192\.0\.2\.0/24'\)"),
            ({"log_only": 1}, "log_only=1: write True or False"),
        ]
        for settings, text in wrong:
            with self.assertRaisesRegex(PolicyError, f"^{text}") as caught:
                AdmissionPolicy(**settings)
            self.assertIsInstance(caught.exception, LocalError)
            self.assertIsInstance(caught.exception, ValueError)
            self.assertEqual([caught.exception.parameter], list(settings))

    def test_limits(self) -> None:
        """Rates become times between datagrams, and bursts how much earlier they may come."""
        limits = AdmissionPolicy(rate=1000.0, burst=2000, network_factor=8.0, total_rate=100_000.0).limits()
        self.assertEqual(limits, (1_000_000, 125_000, 10_000, 2_000_000_000, 2_000_000_000, 1_000_000_000, 2000))
        self.assertEqual(AdmissionPolicy(rate=0, total_rate=0).limits(), (0, 0, 0, 0, 0, 0, 1))
        self.assertEqual(AdmissionPolicy(rate=0, total_rate=0.5).limits()[2:], (2_000_000_000, 0, 0, 2_000_000_000, 1))

    def test_within_64_bits(self) -> None:
        """No setting leads to times that do not fit into 63 bits beside a thousand years of uptime."""
        for rate in (LEAST_RATE, LARGEST_RATE):
            for factor in (1.0, LARGEST_FACTOR):
                policy = AdmissionPolicy(rate=rate, burst=LARGEST_BURST, network_factor=factor, total_rate=rate)
                self.assertLess(max(policy.limits()) + 10**18, 2**62)
                self.assertGreater(min(policy.limits()), 0)

    def test_mapped(self) -> None:
        """A network of IPv4-mapped IPv6 is one of IPv4, as its hosts are."""
        listed = tuple(map(ip_network, ("::ffff:192.0.2.0/120", "::ffff:0:0/96", "::/0", "10.0.0.0/8")))
        expected = tuple(map(ip_network, ("192.0.2.0/24", "0.0.0.0/0", "::/0", "10.0.0.0/8")))
        self.assertEqual(AdmissionPolicy(deny=listed).networks().deny, expected)


class ParseNetworkTests(SynchronousTestCase):
    """What operators write."""

    def test_networks(self) -> None:
        """Prefixes and single hosts of both IP versions."""
        for text, network in (
            ("192.0.2.0/24", "192.0.2.0/24"),
            (" 192.0.2.1 ", "192.0.2.1/32"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
        ):
            self.assertEqual(parse_network(text), ip_network(network))

    def test_refused(self) -> None:
        """What is none is answered with what to write; a host with a network's prefix with the network."""
        with self.assertRaisesRegex(ValueError, r"'192\.0\.2\.7/24' is a host .*; write 192\.0\.2\.0/24$"):
            parse_network("192.0.2.7/24")
        for text in ("", "example.org", "192.0.2.0/33", "1.2.3", "fe80::%eth0/64x"):
            with self.assertRaisesRegex(ValueError, "is no network .*write a prefix such as"):
                parse_network(text)
