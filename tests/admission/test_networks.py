"""The lists as intervals: the verdict of each address, however networks lie in one another."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twistedudp.admission import AdmissionPolicy
from twistedudp.admission._networks import DENIED, LIMITED, NOT_ALLOWED, TRUSTED, intervals

PROPERTY = settings(deadline=None, max_examples=100, database=None)


@st.composite
def networks(draw: st.DrawFn, bits: int) -> IPv4Network | IPv6Network:
    """Return a network among few, so that many lie in, beside and upon one another."""
    prefix = draw(st.integers(bits - 8, bits) | st.sampled_from([0, 1, bits // 2]))
    number = draw(st.sampled_from([0, (1 << bits) - 256, 10 << bits - 8])) + draw(st.integers(0, 255))
    number = number >> bits - prefix << bits - prefix
    return IPv4Network((number, prefix)) if bits == 32 else IPv6Network((number, prefix))


def lists(bits: int) -> st.SearchStrategy[tuple[IPv4Network | IPv6Network, ...]]:
    """Return lists of networks."""
    return st.lists(networks(bits), max_size=6).map(tuple)


def expected(policy: AdmissionPolicy, address: IPv4Address | IPv6Address) -> int:
    """Return what the lists say of an address, read one by one."""
    if any(address in network for network in policy.deny):
        return DENIED
    if any(address in network for network in policy.trust):
        return TRUSTED
    if policy.allow and not any(address in network for network in policy.allow):
        return NOT_ALLOWED
    return LIMITED


class IntervalsTests(SynchronousTestCase):
    """Against reading the lists one by one."""

    def check(self, bits: int, policy: AdmissionPolicy) -> None:
        """Fail if any border of any network is judged otherwise."""
        found = intervals(policy.networks(), bits)
        self.assertEqual(found.starts, sorted(set(found.starts)))
        self.assertEqual(found.starts[0], 0)
        self.assertNotIn(True, [one == other for one, other in zip(found.verdicts, found.verdicts[1:])])  # noqa: B905  # the last has no next
        make = IPv4Address if bits == 32 else IPv6Address
        numbers = {0, (1 << bits) - 1}
        for network in (*policy.allow, *policy.deny, *policy.trust):
            first, last = int(network.network_address), int(network.broadcast_address)
            numbers |= {max(first - 1, 0), first, last, min(last + 1, (1 << bits) - 1)}
        for number in numbers:
            self.assertEqual(found.verdict(number), expected(policy, make(number)), str(make(number)))

    def test_ipv4(self) -> None:
        """Any lists of IPv4."""

        @PROPERTY
        @given(lists(32), lists(32), lists(32))
        def holds(
            allow: tuple[IPv4Network, ...], deny: tuple[IPv4Network, ...], trust: tuple[IPv4Network, ...]
        ) -> None:
            self.check(32, AdmissionPolicy(allow=allow, deny=deny, trust=trust))

        holds()

    def test_ipv6(self) -> None:
        """Any lists of IPv6."""

        @PROPERTY
        @given(lists(128), lists(128), lists(128))
        def holds(
            allow: tuple[IPv6Network, ...], deny: tuple[IPv6Network, ...], trust: tuple[IPv6Network, ...]
        ) -> None:
            self.check(128, AdmissionPolicy(allow=allow, deny=deny, trust=trust))

        holds()

    def test_no_lists(self) -> None:
        """Without lists there is one interval, in which all are limited."""
        for bits in (32, 128):
            self.assertEqual(intervals(AdmissionPolicy().networks(), bits), ([0], [LIMITED]))

    def test_other_version_only(self) -> None:
        """A list of one IP version allows nobody of the other, and denies nobody."""
        policy = AdmissionPolicy(allow=(ip_network("10.0.0.0/8"),))
        self.assertEqual(intervals(policy.networks(), 128), ([0], [NOT_ALLOWED]))
        policy = AdmissionPolicy(deny=(ip_network("::/0"),))
        self.assertEqual(intervals(policy.networks(), 32), ([0], [LIMITED]))
