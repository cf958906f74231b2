"""The network interfaces of this host, as far as discovery needs them.

Theory of operation: ``ifaddr`` asks the system. What discovery wants to know is by which address a group is joined and
asked on an interface (IPv4) or by which number (IPv6), what its broadcast addresses are, and who is *attached*, that
is, can be reached without a router. A reactor that is no real one tells its interfaces itself, by a method
``network_interfaces``.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from ..address import is_group, is_loopback, is_unspecified
from ..errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Interface",
    "chosen",
    "has_family",
    "interfaces_of",
    "local_interfaces",
    "made_interface",
    "reachable",
    "serving",
]

_ANY_IPV4: Final = "0.0.0.0"  # noqa: S104  # compared with, not bound to
_ANY_IPV6: Final = "::"

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Interface(NamedTuple):
    """One network interface with its addresses; link-local ones without their scope."""

    name: str
    number: int
    """The kernel's number of it; 0 where it has none."""
    ipv4: tuple[str, ...]
    ipv6: tuple[str, ...]
    broadcasts: tuple[str, ...]
    """The broadcast address of each of its IPv4 networks."""
    networks: tuple[Network, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of its addresses."""
        return self.ipv4 + self.ipv6


def interfaces_of(reactor: Any) -> list[Interface]:
    """Return the interfaces of the host that a reactor runs on."""
    own = getattr(reactor, "network_interfaces", None)
    if own is not None:
        return [made_interface(*told) for told in own()]
    return local_interfaces()


def local_interfaces() -> list[Interface]:
    """Return the interfaces of this machine that have an address, by number."""
    import ifaddr  # noqa: PLC0415  # ctypes: only where something is discovered

    found = []
    for adapter in ifaddr.get_adapters():
        addresses = [(ip.ip if isinstance(ip.ip, str) else ip.ip[0], ip.network_prefix) for ip in adapter.ips]
        found.append(made_interface(adapter.nice_name, adapter.index or 0, addresses))
    return sorted(found, key=lambda interface: (interface.number, interface.name))


def made_interface(
    name: str, index: int, addresses: Sequence[tuple[str, int]], broadcasts: Sequence[str] | None = None
) -> Interface:
    """Return an interface.

    Args:
        name: Its name.
        index: Its number.
        addresses: Its addresses with the length of their networks' prefixes, in bits.
        broadcasts: Its broadcast addresses; None for those that follow from the addresses.
    """
    ipv4 = tuple(host for host, _ in addresses if ":" not in host)
    ipv6 = tuple(host.partition("%")[0] for host, _ in addresses if ":" in host)
    networks = tuple(
        ipaddress.ip_network(f"{host.partition('%')[0]}/{length}", strict=False) for host, length in addresses
    )
    if broadcasts is None:
        # Networks of one or two addresses have none (RFC 3021).
        own = [str(net.broadcast_address) for net in networks if net.version == 4 and net.prefixlen < 31]
        broadcasts = list(dict.fromkeys(own))
    return Interface(name, index, ipv4, ipv6, tuple(broadcasts), networks)


def chosen(interfaces: Sequence[Interface], wanted: Sequence[str] | None) -> list[Interface]:
    """Return the interfaces that are meant by names or addresses, all where nothing is said.

    Raises:
        LocalError: One is none of this host's.
    """
    if wanted is None:
        return list(interfaces)
    found: dict[Interface, None] = {}
    for text in wanted:
        bare = text.partition("%")[0]
        named = [interface for interface in interfaces if text == interface.name or bare in interface.addresses]
        if not named:
            names = ", ".join(interface.name for interface in interfaces) or "none"
            raise LocalError(
                f"{text!r} is no network interface of this machine that has an address, and no address of one; "
                f"there is: {names}"
            )
        found.update(dict.fromkeys(named))
    return list(found)


def serving(service: str, interfaces: Sequence[Interface]) -> list[Interface]:
    """Return the interfaces on which a service can be asked: its own and loopback, or all.

    Args:
        service: The address that it is bound to, perhaps ``0.0.0.0`` or ``::``.
        interfaces: Those of this host.
    """
    if service in (_ANY_IPV4, _ANY_IPV6):
        return list(interfaces)
    return [
        interface for interface in interfaces if _has(interface, service) or any(map(is_loopback, interface.addresses))
    ]


def reachable(asker: str, service: str, interfaces: Sequence[Interface]) -> bool:
    """Tell whether an asker can be answered from a service's address without a router, and may be.

    Args:
        asker: A numeric host, with its scope if it is link-local.
        service: The address that the service is bound to, perhaps ``0.0.0.0`` or ``::``.
        interfaces: Those of this host.
    """
    bare = asker.partition("%")[0]
    wildcard = service in (_ANY_IPV4, _ANY_IPV6)
    if is_group(bare) or is_unspecified(bare) or not has_family(service, 6 if ":" in bare else 4):
        return False
    if is_loopback(bare):
        return True
    if any(asker in interface.broadcasts for interface in interfaces):
        return False
    return any(wildcard or _has(interface, service) for interface in interfaces if _attached(asker, interface))


def has_family(service: str, family: int) -> bool:
    """Tell whether a service can be reached over IPv4 (4) or IPv6 (6)."""
    return service == _ANY_IPV6 or (":" in service) == (family == 6)


def _attached(asker: str, interface: Interface) -> bool:
    """Tell whether a host is on a network of an interface."""
    bare, _, scope = asker.partition("%")
    address = ipaddress.ip_address(bare)
    if scope:
        return scope in (interface.name, str(interface.number))
    return any(address in network for network in interface.networks)


def _has(interface: Interface, service: str) -> bool:
    bare, _, scope = service.partition("%")
    return bare in interface.addresses and (not scope or scope in (interface.name, str(interface.number)))
