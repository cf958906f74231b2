"""What an operator decides about admission, checked when it is written down."""

from __future__ import annotations

import math
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..errors import LocalError

if TYPE_CHECKING:
    from typing import TypeAlias

    Network: TypeAlias = IPv4Network | IPv6Network

__all__ = [
    "LARGEST_BURST",
    "LARGEST_FACTOR",
    "LARGEST_RATE",
    "LEAST_RATE",
    "AdmissionPolicy",
    "Limits",
    "Networks",
    "PolicyError",
    "covering",
    "parse_network",
]

LEAST_RATE: Final = 0.001
"""Datagrams per second: one in a quarter of an hour; whoever wants less wants a deny list."""

LARGEST_RATE: Final = 10_000_000.0
"""Datagrams per second: ten times what one process can read, and still 100 ns apart, in which time is counted here."""

LARGEST_BURST: Final = 1_000_000
"""Datagrams; with the least rate it stays far within the 64 bits in which the compiled backend counts."""

LARGEST_FACTOR: Final = 65536.0
"""More than a /24 has hosts, and a /56 has networks of hosts."""

_SECOND: Final = 1_000_000_000  # in nanoseconds
_MAPPED_BITS: Final = 96  # of ::ffff:0:0/96, RFC 4291 section 2.5.5.2
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_GIVEN_OUT: Final = IPv6Network("2000::/3")


class PolicyError(LocalError, ValueError):
    """An admission policy that cannot be.

    Attributes:
        parameter: The name of the setting at fault.
    """

    def __init__(self, parameter: str, problem: str) -> None:
        super().__init__(f"{parameter}{problem}")
        self.parameter = parameter


class Limits(NamedTuple):
    """The rates of a policy in nanoseconds. An interval of 0 means that there is no limit."""

    host_interval: int
    """Between two datagrams of one host, in the long run."""
    network_interval: int
    """... of one network."""
    total_interval: int
    """... of everybody."""
    host_tolerance: int
    """How much earlier than so a host's datagrams may come: its burst, times the interval."""
    network_tolerance: int
    total_tolerance: int
    heaviest: int
    """As how many datagrams one counts at most, however large: as the least burst, or it would never get in."""


class Networks(NamedTuple):
    """The networks of a policy, with IPv4-mapped IPv6 as IPv4: one host has one spelling."""

    allow: tuple[Network, ...]
    deny: tuple[Network, ...]
    trust: tuple[Network, ...]


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """Who may send to a port, and how often.

    Rates are kept by token buckets: a sender who was silent may send a burst at once, and in the long run the rate. A
    datagram has to pass all of them, and one of more than 1,500 bytes counts as so many as it takes packets, since work
    and traffic grow with its size. ``deny`` has the last word over ``trust``, and ``trust`` over ``allow`` and all
    rates.

    Args:
        rate: Datagrams per second that one host may send: an IPv4 address, or an IPv6 /64, which is one host's for the
            asking. 0 for no limit, neither for hosts nor for networks.
        burst: Datagrams that it may send at once after a silence.
        network_factor: How many times as much the network around it may send altogether: the /24 or the /56.
        total_rate: Datagrams per second of all senders that are not trusted, whose burst is one second's worth. 0 for
            no limit.
        allow: The networks that are let in; if there are any, nobody else is, of either IP version.
        deny: The networks that are not let in.
        trust: The networks that are let in at any rate. They take nothing from what others may send together.
        log_only: Let everything in, and count and log what would have been refused.

    Raises:
        PolicyError: A setting is out of its range, or not of its kind; a LocalError and a ValueError.
    """

    rate: float = 1000.0
    burst: int = 2000
    network_factor: float = 8.0
    total_rate: float = 100_000.0
    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    trust: tuple[Network, ...] = ()
    log_only: bool = False

    def __post_init__(self) -> None:
        _check_rate("rate", self.rate)
        _check_rate("total_rate", self.total_rate)
        if not _is_number(self.burst) or self.burst % 1 or not 1 <= self.burst <= LARGEST_BURST:
            raise PolicyError("burst", f"={self.burst!r}: write a whole number from 1 to {LARGEST_BURST:,}")
        if not _is_number(self.network_factor) or not 1 <= self.network_factor <= LARGEST_FACTOR:
            raise PolicyError(
                "network_factor", f"={self.network_factor!r}: write a number from 1 to {LARGEST_FACTOR:,.0f}"
            )
        for name in ("allow", "deny", "trust"):
            _check_networks(name, getattr(self, name))
        if not isinstance(self.log_only, bool):
            raise PolicyError("log_only", f"={self.log_only!r}: write True or False")

    def limits(self) -> Limits:
        """Return the rates as :class:`Admission` counts them."""
        host = network = total = total_burst = 0
        if self.rate:
            host = max(1, round(_SECOND / self.rate))
            network = max(1, round(_SECOND / (self.rate * self.network_factor)))
        if self.total_rate:
            total = max(1, round(_SECOND / self.total_rate))
            total_burst = max(1, round(self.total_rate))
        burst, network_burst = int(self.burst), int(self.burst * self.network_factor)
        heaviest = min([*([burst] if host else []), *([total_burst] if total else [])], default=1)
        return Limits(host, network, total, host * burst, network * network_burst, total * total_burst, heaviest)

    def networks(self) -> Networks:
        """Return the lists, with IPv4-mapped IPv6 as IPv4."""
        return Networks(*(tuple(map(_unmapped, listed)) for listed in (self.allow, self.deny, self.trust)))


def parse_network(text: str) -> Network:
    """Return the network that a text names: ``192.0.2.0/24``, ``2001:db8::/32``, or a single host.

    Args:
        text: What an operator wrote; bits to the right of the prefix must be 0, or it was meant otherwise.

    Raises:
        ValueError: It names none; the message says what to write.
    """
    try:
        return ip_network(text.strip())
    except ValueError as error:
        problem = f"{text!r} is no network ({error}); write a prefix such as 192.0.2.0/24 or 2001:db8::/32, or a host"
        try:
            meant = ip_network(text.strip(), strict=False)
        except ValueError:
            raise ValueError(problem) from None
        raise ValueError(f"{text!r} is a host with the prefix of a network; write {meant}") from None


def covering(networks: tuple[Network, ...]) -> Network | None:
    """Return the network that some networks make up which is everybody of an IP version, None if they do not.

    Everybody of IPv6 has an address of 2000::/3: no others are given out (RFC 4291 section 2.4).
    """
    known = [_unmapped(each) for each in networks]
    together: list[Network] = [
        *collapse_addresses(each for each in known if isinstance(each, IPv4Network)),
        *collapse_addresses(each for each in known if isinstance(each, IPv6Network)),
    ]
    for network in together:
        if not network.prefixlen or (isinstance(network, IPv6Network) and network.supernet_of(_GIVEN_OUT)):
            return network
    return None


def _check_rate(name: str, value: Any) -> None:
    if not _is_number(value) or not (value == 0 or LEAST_RATE <= value <= LARGEST_RATE):
        problem = f"write datagrams per second from {LEAST_RATE:g} to {LARGEST_RATE:,.0f}, or 0 for no limit"
        raise PolicyError(name, f"={value!r}: {problem}")


def _check_networks(name: str, value: Any) -> None:
    if not isinstance(value, tuple):
        raise PolicyError(name, f'={value!r}: write a tuple, such as (ipaddress.ip_network("192.0.2.0/24"),)')
    for one in value:
        if not isinstance(one, (IPv4Network, IPv6Network)):
            raise PolicyError(name, f"={value!r}: instead of {one!r} write ipaddress.ip_network({str(one)!r})")


def _is_number(value: Any) -> bool:
    """Tell whether it is a finite number, which True and False are not meant to be."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        inside = int(network.network_address) & 0xFFFF_FFFF
        return IPv4Network((inside, network.prefixlen - _MAPPED_BITS))
    return network
