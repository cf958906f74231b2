"""A host of the simulated network: its addresses, and who is bound to which port.

Theory of operation: what Linux does for UDP sockets without SO_REUSEADDR. A port number of a host is taken for an
address by a socket bound to it or to a wildcard; ``::`` takes it for IPv4 as well (IPV6_V6ONLY is 0). So at most one
socket covers an address and port, and delivery needs no ranking. Every host has the whole of 127.0.0.0/8 and ``::1`` to
itself.
"""

from __future__ import annotations

import errno
import functools
import os
from typing import TYPE_CHECKING, Final

from .. import address

if TYPE_CHECKING:
    import random

    from ..address import Address
    from ._port import SimulatedPort

__all__ = [
    "ANY_IPV4",
    "ANY_IPV6",
    "BROADCAST",
    "EPHEMERAL_PORTS",
    "Host",
    "canonical",
    "is_group",
    "is_ipv6",
    "is_loopback",
]

ANY_IPV4: Final = "0.0.0.0"  # noqa: S104  # the address to compare with; no socket is opened here
ANY_IPV6: Final = "::"
BROADCAST: Final = "255.255.255.255"

EPHEMERAL_PORTS: Final = range(32768, 61000)
"""What port 0 draws from: Linux' net.ipv4.ip_local_port_range as it comes."""

_KNOWN_ADDRESSES: Final = 65536
"""Addresses of which what they are is remembered: a test's hosts, with room for forged sources."""

# Each is asked several times for each datagram, and to read an address takes longer than all the rest of its way.
_remembered = functools.lru_cache(maxsize=_KNOWN_ADDRESSES)
canonical = _remembered(address.canonical)
is_group = _remembered(address.is_group)
is_ipv6 = _remembered(address.is_ipv6)
is_loopback = _remembered(address.is_loopback)


class Host:
    """Addresses and bound ports of one simulated host.

    Attributes:
        name: Its first address; what links are named after.
        addresses: Its addresses beside loopback, in canonical spelling.
        silent: Whether it keeps quiet about datagrams to ports where nobody listens.
        down: Whether it has crashed and not come back yet: nothing that arrives is heard or answered.
    """

    def __init__(self, addresses: tuple[str, ...], rng: random.Random, *, silent: bool) -> None:
        self.name = addresses[0]
        self.addresses = addresses
        self.silent = silent
        self.down = False
        self._rng = rng
        self._bound: dict[int, list[SimulatedPort]] = {}

    @property
    def ports(self) -> list[SimulatedPort]:
        """The ports that are bound, by number."""
        return [port for _, ports in sorted(self._bound.items()) for port in ports]

    def owns(self, address: str) -> bool:
        """Tell whether a canonical address is one of this host's, as this host sees it."""
        return address in self.addresses or is_loopback(address)

    def bind(self, port: SimulatedPort, address: str, number: int) -> int:
        """Give a port its address and number.

        Args:
            port: Who binds.
            address: A canonical address or a wildcard.
            number: The port number; 0 for one that is free.

        Returns:
            The port number.

        Raises:
            OSError: EADDRNOTAVAIL, EADDRINUSE.
            OverflowError: The number is no 16-bit number.
        """
        if not 0 <= number <= 65535:
            raise OverflowError("port must be 0-65535")
        if address not in (ANY_IPV4, ANY_IPV6) and not self.owns(address):
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
        if number == 0:
            number = self._ephemeral(address)
        elif self._is_taken(address, number):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        self._bound.setdefault(number, []).append(port)
        return number

    def release(self, port: SimulatedPort, number: int) -> None:
        """Take back what :meth:`bind` gave."""
        self._bound[number].remove(port)
        if not self._bound[number]:
            del self._bound[number]

    def crash(self) -> None:
        """Go down: the ports vanish."""
        self.down = True
        for port in self.ports:
            port.vanish()
        self._bound.clear()

    def port_for(self, destination: Address, peer: Address) -> SimulatedPort | None:
        """Return the port that takes what ``peer`` sends to ``destination``, if there is one.

        A broadcast goes to ports bound to a wildcard, a multicast to those of them that have joined the group.
        """
        address, number = destination
        joined = address != BROADCAST and is_group(address)
        for port in self._bound.get(number, ()):
            if joined and not port.hears(address, peer[0]):
                continue
            if _covers(port.bound_address, address) and port.takes_from(peer):
                return port
        return None

    def source_for(self, destination: str, bound_address: str) -> str | None:
        """Return the address that a datagram to ``destination`` leaves from, or ``None`` if there is no way.

        Args:
            destination: A canonical address.
            bound_address: What the sending port is bound to.
        """
        local = self.owns(destination)
        if bound_address not in (ANY_IPV4, ANY_IPV6):
            # A loopback address must not leave the host (RFC 1122 section 3.2.1.3).
            return bound_address if local or not is_loopback(bound_address) else None
        if local:
            return "127.0.0.1" if is_loopback(destination) and not is_ipv6(destination) else destination
        return next((address for address in self.addresses if is_ipv6(address) == is_ipv6(destination)), None)

    def _is_taken(self, address: str, number: int) -> bool:
        others = (port.bound_address for port in self._bound.get(number, ()))
        return any(_covers(other, address) or _covers(address, other) for other in others)

    def _ephemeral(self, address: str) -> int:
        start = self._rng.randrange(len(EPHEMERAL_PORTS))
        for step in range(len(EPHEMERAL_PORTS)):
            number = EPHEMERAL_PORTS[(start + step) % len(EPHEMERAL_PORTS)]
            if not self._is_taken(address, number):
                return number
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _covers(bound_address: str, address: str) -> bool:
    """Tell whether a socket with the first address gets, or keeps others from getting, what goes to the second."""
    return bound_address in (address, ANY_IPV6) or (bound_address == ANY_IPV4 and not is_ipv6(address))
