"""Which list of a policy an address is on.

Theory of operation: the lists are turned, once, into the intervals of numbers between whose borders nothing changes,
each with its verdict. To judge an address is then one binary search, however long the lists are.
"""

from __future__ import annotations

from bisect import bisect_right
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._policy import Network, Networks

__all__ = ["DENIED", "LIMITED", "NOT_ALLOWED", "TRUSTED", "Intervals", "intervals"]

DENIED: Final = 0
NOT_ALLOWED: Final = 1
LIMITED: Final = 2
"""Let in as often as the rates allow."""
TRUSTED: Final = 3
"""Let in at any rate."""


class Intervals(NamedTuple):
    """The numbers of one IP version, in order: at each of :attr:`starts` the verdict beside it begins to hold."""

    starts: list[int]
    """The first is 0."""
    verdicts: list[int]

    def verdict(self, address: int) -> int:
        """Return what holds for an address."""
        return self.verdicts[bisect_right(self.starts, address) - 1]


def intervals(networks: Networks, bits: int) -> Intervals:
    """Return the intervals of one IP version.

    Args:
        networks: The policy's lists.
        bits: 32 for IPv4, 128 for IPv6.
    """
    deny, trust, allow = (_ranges(listed, bits) for listed in (networks.deny, networks.trust, networks.allow))
    borders = {0, *(border for listed in (deny, trust, allow) for border in listed if border < 1 << bits)}
    found = Intervals([], [])
    for start in sorted(borders):
        if _holds(deny, start):
            verdict = DENIED
        elif _holds(trust, start):
            verdict = TRUSTED
        elif networks.allow and not _holds(allow, start):  # a list of IPv4 alone lets no IPv6 in
            verdict = NOT_ALLOWED
        else:
            verdict = LIMITED
        if not found.verdicts or found.verdicts[-1] != verdict:
            found.starts.append(start)
            found.verdicts.append(verdict)
    return found


def _ranges(listed: Sequence[Network], bits: int) -> list[int]:
    """Return where networks of one IP version begin and end, in order: at even places they begin."""
    kind: type[IPv4Network | IPv6Network] = IPv4Network if bits == 32 else IPv6Network
    return [
        border
        for network in collapse_addresses(one for one in listed if isinstance(one, kind))  # type: ignore[type-var]  # all are of one kind
        for border in (int(network.network_address), int(network.broadcast_address) + 1)
    ]


def _holds(ranges: list[int], address: int) -> bool:
    """Tell whether an address is in one of the ranges, of which no two overlap."""
    return bisect_right(ranges, address) % 2 == 1
