"""The compiled admission decides as the one in plain Python: any policy, any senders, any times."""

from __future__ import annotations

import random
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.admission.senders import KEY, SECOND, admission, compiled, raw_address
from tests.transport.mmsg_case import require_compiled
from twistedudp.admission import AdmissionPolicy, weight_of
from twistedudp.admission._buckets import SETS_SHIFT, mixed, secrets_of

if TYPE_CHECKING:
    from collections.abc import Iterable

PROPERTY = settings(deadline=None, max_examples=400, database=None)

HOSTS = (
    *("10.0.0.1", "10.0.0.2", "10.0.0.255", "10.0.1.0", "192.0.2.1", "0.0.0.0", "255.255.255.255"),  # noqa: S104  # addresses as others
    *("::ffff:10.0.0.1", "::ffff:192.0.2.1", "::ffff:0.0.0.0"),
    *("::", "::1", "::fffe:10.0.0.1", "::1:0:ffff:10.0.0.1", "0:0:0:1::ffff:a00:1", "fe80::1%3", "fe80::1%7"),
    *("2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:1:ffff::1", "2001:db8:0:100::1", "2001:db8:0:ffff::1"),
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
)
"""Few, in all ways related: the same host, the same network, numbers that are equal but for the IP version."""

NETWORKS = tuple(
    map(
        ip_network,
        (
            *("0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/25", "10.0.0.1/32", "192.0.2.0/24", "255.255.255.255/32"),
            *("::/0", "::/96", "::1/128", "::ffff:0:0/96", "::ffff:10.0.0.0/120", "2001:db8::/56", "2001:db8:0:1::/65"),
            *("fe80::/10", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"),
        ),
    )
)


def policies() -> st.SearchStrategy[AdmissionPolicy]:
    """Return policies with small rates, so that all of them refuse something."""
    rate = st.just(0.0) | st.sampled_from([0.001, 0.3, 1.0, 3.0, 7.0, 1000.0, 1e7]) | st.floats(0.5, 50.0)
    listed = st.lists(st.sampled_from(NETWORKS), max_size=3).map(tuple)
    return st.builds(
        AdmissionPolicy,
        rate=rate,
        burst=st.integers(1, 20) | st.just(1_000_000),
        network_factor=st.sampled_from([1.0, 1.5, 2.0, 8.0, 65536.0]),
        total_rate=rate,
        allow=st.just(()) | listed,
        deny=listed,
        trust=listed,
        log_only=st.booleans(),
    )


def steps() -> st.SearchStrategy[list[tuple[str, int, int, int]]]:
    """Return who sends, how much later than the one before, how many datagrams at once, and of which size."""
    later = st.sampled_from([0, 0, 1, 999_999, 1_000_000, SECOND // 7, SECOND, 100 * SECOND])
    count = st.just(1) | st.integers(1, 64)
    size = st.sampled_from([0, 1, 1500, 1501, 3000, 3001, 65_507])
    return st.lists(st.tuples(st.sampled_from(HOSTS), later, count, size), max_size=60)


class TwinTests(SynchronousTestCase):
    """Both, side by side."""

    def setUp(self) -> None:
        """Leave it out where nothing was compiled."""
        require_compiled()

    def check(self, policy: AdmissionPolicy, sent: Iterable[tuple[str, int, int, int]], start: int = SECOND) -> None:
        """Fail if they decide, count or tell anything differently."""
        ours, theirs = admission(policy), compiled(policy)
        now = start
        for number, (host, later, count, size) in enumerate(sent):
            now += later
            expected = ours.admitted(host, now, count, weight_of(size))
            got = theirs.admitted(raw_address(host), now, count, size)
            self.assertEqual(expected, got, f"datagram {number}, from {host} at {now}")
        told = [(one.reason, one.number) for one in theirs.take_refusals()]
        self.assertEqual(sorted((one.reason, one.number) for one in ours.take_refusals()), sorted(told))
        self.assertEqual(ours.stats, theirs.stats)

    def test_same_decisions(self) -> None:
        """Whatever the policy and whoever sends whenever, both let the same datagrams in for the same reasons."""

        @PROPERTY
        @given(policies(), steps(), st.sampled_from([0, 1, SECOND, 10**18]))
        @example(AdmissionPolicy(rate=1.0, burst=3), [("10.0.0.1", 0, 64, 1), ("10.0.0.1", SECOND, 64, 1)], 0)
        @example(AdmissionPolicy(rate=0, total_rate=5.0), [("::1", 0, 64, 1), ("10.0.0.1", SECOND, 64, 65_507)], 0)
        def holds(policy: AdmissionPolicy, sent: list[tuple[str, int, int, int]], start: int) -> None:
            self.check(policy, sent, start)

        holds()

    def test_same_evictions(self) -> None:
        """Sets that overflow forget the same senders."""
        secrets = secrets_of(KEY)
        crowd = [
            host
            for number in range(1 << 16, 1 << 20)
            if mixed(number, secrets.ipv4, secrets) >> SETS_SHIFT < 2
            for host in [f"0.{number >> 16}.{number >> 8 & 255}.{number & 255}"]
        ]
        self.assertGreater(len(crowd), 60)
        rng = random.Random(1)  # noqa: S311  # which of them send when
        policy = AdmissionPolicy(rate=5.0, burst=4, network_factor=65536.0, total_rate=0)
        for spread in (0.2, 2.0):
            sent = [
                (
                    crowd[min(int(rng.expovariate(spread)), len(crowd) - 1)],
                    rng.randrange(SECOND // 20),
                    rng.choice((1, 1, 3)),
                    1,
                )
                for _ in range(2000)
            ]
            self.check(policy, sent)

    def test_crowd(self) -> None:
        """... and so they do among 20,000 senders of both IP versions, many of whom come again."""
        rng = random.Random(2)  # noqa: S311  # as above
        policy = AdmissionPolicy(rate=2.0, burst=2, network_factor=2.0, total_rate=50_000.0)
        hosts = [self.some_host(rng) for _ in range(20_000)]
        self.check(policy, [(rng.choice(hosts), rng.randrange(2000), 1, 1) for _ in range(20_000)])

    def some_host(self, rng: random.Random) -> str:
        """Return a host of a random network."""
        if rng.random() < 0.8:
            return f"10.{rng.randrange(8)}.{rng.randrange(256)}.{rng.randrange(256)}"
        return f"2001:db8:{rng.randrange(16):x}:{rng.randrange(65536):x}::{rng.randrange(9):x}"

    def test_first_host(self) -> None:
        """The host that is told for the log is the first, as ports name it."""
        policy = AdmissionPolicy(deny=NETWORKS)
        for host, name in (("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("2001:db8::1", "2001:db8::1")):
            theirs = compiled(policy)
            for sender in (host, "192.0.2.1", "::1"):
                theirs.admitted(raw_address(sender), SECOND, 2)
            self.assertEqual(theirs.take_refusals(), [("denied", name, 6)])
            self.assertEqual(theirs.take_refusals(), [])

    def test_key(self) -> None:
        """A key that is too short is refused by both; another key leads to other places."""
        arguments: Any = (AdmissionPolicy(), bytes(15))
        for make in (admission, compiled):
            with self.assertRaisesRegex(ValueError, "pass at least 16 random bytes"):
                make(*arguments)
