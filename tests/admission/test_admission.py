"""The decision: lists first, then tokens of the host, of its network and of everybody's."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.admission.senders import KEY, MILLISECOND, SECOND, admission
from twistedudp.admission import REASONS, Admission, AdmissionPolicy, weight_of

HOST = "192.0.2.7"
START = 5 * SECOND


class Case(SynchronousTestCase):
    """A case with an admission under test."""

    def decide(self, **settings: Any) -> Admission:
        """Return one with rates of our own; what is not given is without limit."""
        return admission(AdmissionPolicy(**{"rate": 0, "total_rate": 0, **settings}))

    def let_in(self, decider: Admission, host: str, count: int, now: int = START) -> int:
        """Return how many of several datagrams are let in at a time."""
        return sum(decider.admits(host, now) for _ in range(count))


class RateTests(Case):
    """Token buckets."""

    def test_burst_then_rate(self) -> None:
        """A silent host may send a burst at once, and then one datagram each interval, to the nanosecond."""
        decider = self.decide(rate=100.0, burst=5, network_factor=65536)
        self.assertEqual(self.let_in(decider, HOST, 8), 5)
        self.assertEqual(self.let_in(decider, HOST, 3, START + 10 * MILLISECOND - 1), 0)
        self.assertEqual(self.let_in(decider, HOST, 3, START + 10 * MILLISECOND), 1)
        self.assertEqual(self.let_in(decider, HOST, 9, START + 60 * MILLISECOND), 5)
        self.assertEqual(self.let_in(decider, HOST, 9, START + 500 * SECOND), 5)
        self.assertEqual(decider.stats.refused, Counter(host_rate=3 + 3 + 2 + 4 + 4))

    def test_long_run(self) -> None:
        """Whoever sends twice the rate gets half of it through, and the burst once."""
        decider = self.decide(rate=1000.0, burst=100)
        let_in = sum(decider.admits(HOST, START + number * MILLISECOND // 2) for number in range(20_000))
        self.assertTrue(10_095 <= let_in <= 10_101, let_in)

    def test_size(self) -> None:
        """A datagram counts as one for each 1,500 bytes that it begins, and the largest fits into the least burst."""
        self.assertEqual([weight_of(size) for size in (0, 1, 1500, 1501, 3000, 3001, 65_507)], [1, 1, 1, 2, 2, 3, 44])
        decider = self.decide(rate=1.0, burst=10, network_factor=1.0, total_rate=11.0)
        told = [decider.admits(HOST, START, weight) for weight in (4, 4, 3, 2, 1)]
        self.assertEqual(told, [True, True, False, True, False])
        later = START + 9 * SECOND
        self.assertEqual([decider.admits(HOST, later, 44), decider.admits(HOST, later, 1)], [False, True])
        for policy in ({"burst": 1}, {"rate": 0.0, "total_rate": 1.0}, {"burst": 50, "total_rate": 2.0}):
            decider = self.decide(**{"rate": 1.0, **policy})
            self.assertEqual([decider.admits(HOST, START, 44), decider.admits(HOST, START, 44)], [True, False], policy)

    def test_hosts_apart(self) -> None:
        """An address of IPv4 and a /64 of IPv6 are one host each; all that is in a /64 is one."""
        decider = self.decide(rate=1.0, burst=1, network_factor=1000)
        for host, expected in (
            ("192.0.2.1", 1),
            ("192.0.2.2", 1),
            ("::ffff:192.0.2.2", 0),
            ("2001:db8::1", 1),
            ("2001:db8::2:3:4:5", 0),
            ("2001:db8:0:1::1", 1),
            ("fe80::1%eth0", 1),
            ("fe80::2%eth1", 0),
            ("192.0.2.1", 0),
        ):
            self.assertEqual(self.let_in(decider, host, 1), expected, host)

    def test_network(self) -> None:
        """A /24, and a /56, may send so many times as much as a host in it; its neighbour is another."""
        decider = self.decide(rate=1.0, burst=2, network_factor=3.0)
        for near, far in (("198.51.100.{}", "198.51.101.1"), ("2001:db8:0:ab{:02x}::1", "2001:db8:0:ac00::1")):
            hosts = [near.format(number) for number in (0, 255, 1, 127, 128, 64, 15, 16)]
            self.assertEqual([self.let_in(decider, host, 2) for host in hosts], [2, 2, 2, 0, 0, 0, 0, 0], near)
            self.assertEqual(self.let_in(decider, far, 2), 2)
        self.assertEqual(decider.stats.refused, Counter(network_rate=20))

    def test_total(self) -> None:
        """All senders together may send a second's worth at once, and then the total rate."""
        decider = self.decide(total_rate=50.0)
        hosts = [f"10.{number}.0.1" for number in range(60)]
        self.assertEqual(sum(decider.admits(host, START) for host in hosts), 50)
        self.assertEqual(sum(decider.admits(host, START + SECOND // 10) for host in hosts), 5)
        self.assertEqual(decider.stats.refused, Counter(total_rate=65))

    def test_refused_takes_nothing(self) -> None:
        """What a host sends too much costs neither its network nor everybody a token."""
        decider = self.decide(rate=1.0, burst=2, network_factor=2.0, total_rate=4.0)
        self.assertEqual(self.let_in(decider, "192.0.2.1", 1000), 2)
        self.assertEqual(self.let_in(decider, "192.0.2.2", 1000), 2)
        self.assertEqual(self.let_in(decider, "192.0.2.3", 1000), 0)
        self.assertEqual(self.let_in(decider, "198.51.100.1", 1), 0, "everybody's four are used")
        self.assertEqual(decider.stats.refused, Counter(host_rate=998 * 2, network_rate=1000, total_rate=1))
        decider = self.decide(rate=1.0, burst=2, network_factor=2.0, total_rate=5.0)
        for host in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
            self.let_in(decider, host, 1000)
        self.assertEqual(self.let_in(decider, "198.51.100.1", 2), 1)

    def test_refused_by_wider_takes_nothing_of_narrower(self) -> None:
        """What everybody's rate refuses costs the host none of its own tokens."""
        decider = self.decide(rate=0.01, burst=3, total_rate=1.0)
        self.assertEqual(self.let_in(decider, HOST, 3), 1)
        later = [self.let_in(decider, HOST, 2, START + second * SECOND) for second in (2, 4)]
        self.assertEqual(later, [1, 1])
        self.assertEqual(self.let_in(decider, HOST, 1, START + 6 * SECOND), 0, "its three are used")

    def test_no_limits(self) -> None:
        """Rates of 0 are no limit at all."""
        decider = self.decide()
        self.assertEqual(decider.admitted(HOST, START, 10**9), 10**9)
        self.assertEqual(decider.take_refusals(), [])

    def test_several_at_once(self) -> None:
        """Of datagrams that came together the first are let in, as if each had been asked for."""
        decider = self.decide(rate=1.0, burst=10)
        self.assertEqual(decider.admitted(HOST, START, 4), 4)
        self.assertEqual(decider.admitted(HOST, START, 64), 6)
        self.assertEqual(decider.admitted(HOST, START, 64), 0)
        self.assertEqual(decider.stats.refused, Counter(host_rate=58 + 64))


class ListTests(Case):
    """Who is let in at all."""

    def test_deny(self) -> None:
        """A denied network is refused, and nobody else."""
        decider = self.decide(deny=(ip_network("192.0.2.0/25"), ip_network("2001:db8::/32")))
        for host, expected in (
            ("192.0.2.127", False),
            ("::ffff:192.0.2.1", False),
            ("192.0.2.128", True),
            ("192.0.1.255", True),
            ("2001:db8:ffff::1", False),
            ("2001:db9::", True),
            ("0.0.0.0", True),  # noqa: S104  # an address as any other
            ("255.255.255.255", True),
        ):
            self.assertEqual(decider.admits(host, START), expected, host)
        self.assertEqual(decider.stats.refused, Counter(denied=3))

    def test_allow(self) -> None:
        """Where networks are allowed nobody else is let in, of the other IP version neither."""
        decider = self.decide(allow=(ip_network("10.0.0.0/8"),))
        self.assertTrue(decider.admits("10.255.0.1", START))
        self.assertFalse(decider.admits("11.0.0.0", START))
        self.assertFalse(decider.admits("2001:db8::1", START))
        self.assertEqual(decider.stats.refused, Counter(not_allowed=2))

    def test_trust(self) -> None:
        """A trusted network is let in at any rate and uses up nothing, not even where only others are allowed."""
        trusted = (ip_network("10.0.0.0/8"),)
        decider = self.decide(rate=1.0, burst=1, total_rate=1.0, trust=trusted, allow=(ip_network("192.0.2.0/24"),))
        self.assertEqual(self.let_in(decider, "10.1.2.3", 500), 500)
        self.assertEqual(self.let_in(decider, HOST, 2), 1)
        self.assertEqual(self.let_in(decider, "10.1.2.3", 500), 500)

    def test_precedence(self) -> None:
        """To deny has the last word, whatever else holds."""
        everybody = (ip_network("0.0.0.0/0"), ip_network("::/0"))
        decider = self.decide(allow=everybody, trust=everybody, deny=(ip_network("192.0.2.7"),))
        self.assertFalse(decider.admits("192.0.2.7", START))
        self.assertTrue(decider.admits("192.0.2.8", START))
        self.assertEqual(decider.stats.refused, Counter(denied=1))

    def test_list_costs_no_tokens(self) -> None:
        """What a list refuses costs its network and everybody nothing."""
        decider = self.decide(rate=1.0, burst=1, network_factor=1.0, total_rate=1.0, deny=(ip_network(HOST),))
        self.assertEqual(self.let_in(decider, HOST, 100), 0)
        self.assertEqual(self.let_in(decider, "192.0.2.8", 2), 1)


class LogOnlyTests(Case):
    """A policy on trial."""

    def test_lets_in(self) -> None:
        """Everything is let in, and what would not have been is counted by the same reasons."""
        settings: dict[str, Any] = {
            "rate": 1.0,
            "burst": 2,
            "network_factor": 2.0,
            "total_rate": 5.0,
            "deny": (ip_network("10.0.0.0/8"),),
            "allow": (ip_network("192.0.0.0/8"), ip_network("10.0.0.0/8")),
        }
        earnest, trial = self.decide(**settings), self.decide(**settings, log_only=True)
        sent = 0
        for host in ("192.0.2.1", "192.0.2.2", "192.0.2.3", "192.5.0.1", "192.6.0.1", "10.0.0.1", "11.0.0.1"):
            earnest.admitted(host, START, 3)
            self.assertEqual(trial.admitted(host, START, 3), 3)
            sent += 3
        self.assertEqual(trial.stats, earnest.stats)
        self.assertEqual(set(trial.stats.refused), set(REASONS))


class RefusalsTests(Case):
    """What is handed over for the log."""

    def test_by_reason(self) -> None:
        """For each reason the first host and the number, once."""
        decider = self.decide(rate=1.0, burst=1, deny=(ip_network("10.0.0.0/8"),))
        self.assertFalse(decider.has_refused)
        for host in ("10.0.0.1", "10.0.0.2", HOST, HOST, HOST, "10.0.0.3"):
            decider.admits(host, START)
        self.assertTrue(decider.has_refused)
        self.assertEqual(decider.take_refusals(), [("denied", "10.0.0.1", 3), ("host_rate", HOST, 2)])
        self.assertEqual(decider.take_refusals(), [])
        self.assertFalse(decider.has_refused)

    def test_bounded(self) -> None:
        """However many are refused, it is an entry for each reason."""
        decider = self.decide(deny=(ip_network("0.0.0.0/0"),))
        for number in range(10_000):
            decider.admits(f"10.0.{number >> 8}.{number & 255}", START)
        self.assertEqual(decider.take_refusals(), [("denied", "10.0.0.0", 10_000)])


class KeyTests(Case):
    """The secret."""

    def test_too_short(self) -> None:
        """A key of fewer than 16 bytes is refused, with what to pass."""
        with self.assertRaisesRegex(ValueError, "15 bytes are too few; pass at least 16 random bytes"):
            Admission(AdmissionPolicy(), key=bytes(15))

    def test_places_depend_on_it(self) -> None:
        """Which senders share a set depends on the key: nobody can work it out."""
        places = []
        for key in (KEY, KEY[::-1]):
            decider = admission(AdmissionPolicy(), key)
            places.append([decider._locate(f"10.0.{number}.1")[1] >> 50 for number in range(256)])
        equal = sum(one == other for one, other in zip(*places, strict=True))
        self.assertLess(equal, 5)
        self.assertGreater(len(set(places[0])), 250)

    def test_not_numeric(self) -> None:
        """A host that is no address is refused by an error, not let in."""
        with self.assertRaises(ValueError):
            admission(AdmissionPolicy()).admits("localhost", START)
