"""The decision about each datagram.

Theory of operation: first the lists, then the three buckets that the datagram must get a token of: its host's, its
network's and everybody's. All are asked before any is touched, so that what one of them refuses costs the others
nothing: a host that sends too much does not use up what its neighbours may send. Time is given in whole nanoseconds and
all arithmetic is exact, so that the compiled twin (``transport/_mmsg/_admission.pyx``) comes to the same decisions.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, NamedTuple

from ._buckets import BucketTable, mixed, secrets_of
from ._networks import LIMITED, TRUSTED, intervals
from ._stats import REASONS, AdmissionStats

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._policy import AdmissionPolicy

__all__ = ["PACKET", "Admission", "Refusals", "weight_of"]

PACKET: Final = 1500
"""Bytes of payload that count as one datagram: what a packet of an Ethernet carries, rounded up."""

_REMEMBERED: Final = 4096
"""Hosts whose text need not be read again: as many as a port remembers of its peers."""

_HOST_RATE: Final = REASONS.index("host_rate")
_NETWORK_RATE: Final = REASONS.index("network_rate")
_TOTAL_RATE: Final = REASONS.index("total_rate")


def weight_of(size: int) -> int:
    """Return as how many datagrams one of some size counts: as many as it takes packets.

    A rate of datagrams alone would let a host have 65,507 bytes decoded and echoed where 1,500 were meant.

    Args:
        size: Its payload in bytes.
    """
    return 1 if size <= PACKET else -(-size // PACKET)


class Refusals(NamedTuple):
    """Datagrams refused for one reason since somebody asked last."""

    reason: str
    host: str
    """The numeric host of the first of them."""
    number: int
    """How many there were."""


class Admission:
    """Decides by a policy which datagrams are let in.

    Args:
        policy: The policy.
        key: At least 16 random bytes, which nobody outside of the process may know: they keep the places of senders in
            the tables unpredictable.
        stats: What to count in; None for counters of its own.

    Attributes:
        policy: The policy.
        stats: The counters.

    Raises:
        ValueError: The key is too short.
    """

    __slots__ = ("_everybody", "_hosts", "_limits", "_locate", "_networks", "_refused", "policy", "stats")

    def __init__(self, policy: AdmissionPolicy, *, key: bytes, stats: AdmissionStats | None = None) -> None:
        self.policy = policy
        self.stats = AdmissionStats() if stats is None else stats
        self._limits = policy.limits()
        self._locate = lru_cache(_REMEMBERED)(_locator(policy, key))
        self._hosts = BucketTable(self.stats)
        self._networks = BucketTable(self.stats)
        self._everybody = 0
        self._refused: dict[int, tuple[str, int]] = {}

    def __sizeof__(self) -> int:
        """Return the bytes that the tables take, which never change."""
        return object.__sizeof__(self) + self._hosts.__sizeof__() + self._networks.__sizeof__()

    @property
    def has_refused(self) -> bool:
        """Whether there is something for :meth:`take_refusals`."""
        return bool(self._refused)

    def admits(self, host: str, now: int, weight: int = 1) -> bool:
        """Tell whether to let one datagram in, and count it against its sender if so.

        Args:
            host: The sender's numeric address; a scope is of no account.
            now: The time in nanoseconds, from a clock that never goes back.
            weight: As how many datagrams it counts; see :func:`weight_of`.

        Raises:
            ValueError: The host is not numeric.
        """
        return self.admitted(host, now, 1, weight) > 0

    def admitted(self, host: str, now: int, count: int, weight: int = 1) -> int:
        """Return how many of several datagrams that came together are to be let in: the first ones.

        It is as if :meth:`admits` were asked for each.
        """
        verdict, host_mark, network_mark = self._locate(host)
        if verdict == TRUSTED:
            return count
        let_in, reason = (
            self._limited(host_mark, network_mark, now, count, weight) if verdict == LIMITED else (0, verdict)
        )
        if let_in < count:
            first, so_far = self._refused.get(reason, (host, 0))
            self._refused[reason] = first, so_far + count - let_in
            self.stats.refused[REASONS[reason]] += count - let_in
            if self.policy.log_only:
                return count
        return let_in

    def take_refusals(self) -> list[Refusals]:
        """Return what was refused since this was last asked, by reason: five entries at most."""
        refused, self._refused = self._refused, {}
        return [Refusals(REASONS[reason], host, count) for reason, (host, count) in refused.items()]

    def _limited(self, host_mark: int, network_mark: int, now: int, count: int, weight: int) -> tuple[int, int]:
        """Take tokens for as many as the rates allow; return their number, and what refuses the next one."""
        host_interval, network_interval, total_interval, host_room, network_room, total_room, heaviest = self._limits
        if weight > 1:
            weight = min(weight, heaviest)
            host_interval, network_interval, total_interval = (
                weight * host_interval,
                weight * network_interval,
                weight * total_interval,
            )
        let_in, reason = count, -1
        host_full = network_full = host_place = network_place = 0
        if host_interval:
            host_place = self._hosts.place(host_mark)
            host_full = self._hosts.full_at(host_place, host_mark, now)
            fitting = (now + host_room - host_full) // host_interval
            if fitting < let_in:
                let_in, reason = max(fitting, 0), _HOST_RATE
            network_place = self._networks.place(network_mark)
            network_full = self._networks.full_at(network_place, network_mark, now)
            fitting = (now + network_room - network_full) // network_interval
            if fitting < let_in:
                let_in, reason = max(fitting, 0), _NETWORK_RATE
        everybody = max(self._everybody, now)
        if total_interval:
            fitting = (now + total_room - everybody) // total_interval
            if fitting < let_in:
                let_in, reason = max(fitting, 0), _TOTAL_RATE
        if let_in:
            if host_interval:
                self._hosts.put(host_place, host_mark, host_full + let_in * host_interval, now)
                self._networks.put(network_place, network_mark, network_full + let_in * network_interval, now)
            self._everybody = everybody + let_in * total_interval
        return let_in, reason


def _locator(policy: AdmissionPolicy, key: bytes) -> Callable[[str], tuple[int, int, int]]:
    """Return what finds a host's verdict, and what it and its network are known by in the tables."""
    secrets = secrets_of(key)
    networks = policy.networks()
    of_ipv4, of_ipv6 = intervals(networks, 32), intervals(networks, 128)

    def locate(host: str) -> tuple[int, int, int]:
        octets = host.split(".")
        if len(octets) == 4 and ":" not in host:  # what a flood of forged senders consists of need not be slow
            address: IPv4Address | IPv6Address = IPv4Address(bytes(map(int, octets)))
        else:
            address = ip_address(host.partition("%")[0])
        if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
            number = int(address)
            word = number >> 64  # the /64, and without its last byte the /56
            return (
                of_ipv6.verdict(number),
                mixed(word, secrets.ipv6, secrets),
                mixed(word & ~0xFF, secrets.ipv6, secrets),
            )
        number = int(address) & 0xFFFF_FFFF
        return (
            of_ipv4.verdict(number),
            mixed(number, secrets.ipv4, secrets),
            mixed(number & ~0xFF, secrets.ipv4, secrets),
        )

    return locate
