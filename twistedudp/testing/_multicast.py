"""Multicast groups in the simulated network.

Theory of operation: a host has two interfaces, loopback with the number 1 and the network with the number 2, as Linux
counts them. A port joins a group on one of them. What it sends to a group leaves by the one that it has chosen, else by
the network: to every other host if its time to live is not 0, and to this host as well if the loopback mode is on. By
which interface a datagram came is told by its source, for only what leaves by loopback has a loopback address.
"""

from __future__ import annotations

import errno
import os
from socket import AF_INET
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError, MulticastJoinError
from twisted.internet.task import deferLater

from ..transport._addresses import family_of
from ..transport._errors import invalid_address
from ..transport._multicast import MAX_TTL
from ._host import ANY_IPV4, ANY_IPV6, BROADCAST, canonical, is_group, is_ipv6, is_loopback

if TYPE_CHECKING:
    from ._reactor import SimulatedReactor

__all__ = ["Reach", "SimulatedMulticast", "checked_number", "os_error"]

_ANY: Final = 0
_LOOPBACK: Final = 1
_NETWORK: Final = 2

_INTERFACES: Final = {
    "": _ANY,
    ANY_IPV4: _ANY,
    ANY_IPV6: _ANY,
    "0": _ANY,
    "1": _LOOPBACK,
    "lo": _LOOPBACK,
    "2": _NETWORK,
}
"""Interfaces that are not named by an address."""


class Reach(NamedTuple):
    """Where a datagram to a group goes."""

    source: str
    """The address that it leaves from, ``""`` for the one that the host chooses."""
    here: bool
    """Whether it comes to ports of this host."""
    elsewhere: bool
    """Whether it leaves this host."""


class SimulatedMulticast:
    """The part of a simulated port that ``IMulticastTransport`` adds; its methods are those of the real port.

    Attributes:
        bound_address: The address bound to, or a wildcard.
    """

    bound_address: str
    _reactor: SimulatedReactor

    def __init__(self) -> None:
        self._joined: set[tuple[str, int]] = set()
        self._ttl = 1
        self._loops = True
        self._outgoing = _ANY
        self._outgoing_ipv4 = ""

    def joinGroup(self, addr: str, interface: str | int = "") -> Deferred[None]:
        """Take what is sent to a group; see ``IMulticastTransport.joinGroup``.

        Args:
            addr: The group's address, or a host name.
            interface: An address of this host; for IPv6 also the interface's number: 1 is loopback, 2 the network.

        Returns:
            A Deferred that fires with None, or fails with :class:`twisted.internet.error.MulticastJoinError`,
            :class:`twisted.internet.error.DNSLookupError`, or :class:`twistedudp.errors.LocalError` if the port does
            not listen.
        """
        return Deferred.fromCoroutine(self._change_membership(addr, interface, join=True))

    def leaveGroup(self, addr: str, interface: str | int = "") -> Deferred[None]:
        """Take it no longer; arguments and result as those of :meth:`joinGroup`."""
        return Deferred.fromCoroutine(self._change_membership(addr, interface, join=False))

    def setOutgoingInterface(self, addr: str | int) -> Deferred[int]:
        """Choose the interface by which datagrams to groups leave; see ``IMulticastTransport.setOutgoingInterface``.

        Args:
            addr: For IPv4 an address of this host, or its name; for IPv6 the interface's number. On a port bound to
                ``::`` an IPv4 address is for groups of IPv4, anything else for those of IPv6.

        Returns:
            A Deferred that fires with 1; it fails as that of :meth:`joinGroup`, and with :class:`OSError` where there
            is no such interface.
        """
        return Deferred.fromCoroutine(self._set_outgoing_interface(addr))

    def getOutgoingInterface(self) -> str | int:
        """Return the interface by which datagrams to groups leave: for IPv4 an address, for IPv6 a number."""
        self._check_listening()
        return self._outgoing if is_ipv6(self.bound_address) else self._outgoing_ipv4 or ANY_IPV4

    def setLoopbackMode(self, mode: bool) -> None:
        """Set whether members on this host get what this port sends to a group; they do at first."""
        self._check_listening()
        self._loops = bool(mode)

    def getLoopbackMode(self) -> bool:
        """Tell whether members on this host get what this port sends to a group."""
        self._check_listening()
        return self._loops

    def setTTL(self, ttl: int) -> None:
        """Set how far datagrams to groups go: 0 is this host, anything more all of the network, which has no routers.

        Raises:
            ValueError: Not between 0 and 255.
        """
        self._check_listening()
        if not 0 <= ttl <= MAX_TTL:
            raise ValueError(f"ttl={ttl!r}: it must be between 0 and {MAX_TTL}")
        self._ttl = ttl

    def getTTL(self) -> int:
        """Return how far datagrams to groups go."""
        self._check_listening()
        return self._ttl

    def hears(self, group: str, source: str) -> bool:
        """Tell whether the port has joined a group on the interface by which a datagram of this source comes."""
        return (group, _LOOPBACK if is_loopback(source) else _NETWORK) in self._joined

    def reach(self, group: str) -> Reach:
        """Tell where a datagram to a group or to the broadcast address goes."""
        if group == BROADCAST:
            return Reach("", here=True, elsewhere=True)
        outgoing = self._outgoing if is_ipv6(group) else self._outgoing_ipv4
        if (outgoing if isinstance(outgoing, int) else self._number_of(outgoing)) == _LOOPBACK:
            return Reach("::1" if is_ipv6(group) else "127.0.0.1", here=True, elsewhere=False)
        source = "" if is_ipv6(group) else self._outgoing_ipv4
        return Reach(source, here=self._loops, elsewhere=self._ttl > 0)

    def _check_listening(self) -> None:
        """Raise LocalError if the port does not listen."""
        raise NotImplementedError

    def _number_of(self, interface: str) -> int:
        """Return the number of an interface of this host.

        Raises:
            OSError: ENODEV: it has none such.
        """
        number = _INTERFACES.get(interface)
        if number is None and family_of(interface) is not None:
            interface = canonical(interface)
            if self._reactor.host.owns(interface):
                number = _LOOPBACK if is_loopback(interface) else _NETWORK
        if number is None:
            raise os_error(errno.ENODEV)
        return number

    async def _change_membership(self, addr: str, interface: str | int, *, join: bool) -> None:
        group = await self._resolved(addr)
        if isinstance(interface, int):
            if not is_ipv6(group):
                raise invalid_address(interface, "the interface of an IPv4 group is given as an address of this host")
            interface = str(interface)
        by_name = interface and not is_ipv6(group) and interface not in _INTERFACES
        where = await self._resolved(interface) if by_name else interface
        self._check_listening()
        self._check_family(group)
        if where and family_of(where) is not None and is_ipv6(where) != is_ipv6(group):
            raise MulticastJoinError(f"invalid address literal for the family of {group}: {where!r}")
        try:
            if not is_group(group) or group == BROADCAST:
                raise os_error(errno.EINVAL)
            membership = group, self._number_of(where) or _NETWORK
            if join == (membership in self._joined):
                raise os_error(errno.EADDRINUSE if join else errno.EADDRNOTAVAIL)
        except OSError as error:
            raise MulticastJoinError(addr, interface, *error.args) from error
        (self._joined.add if join else self._joined.remove)(membership)

    async def _set_outgoing_interface(self, addr: str | int) -> int:
        self._check_listening()
        if isinstance(addr, int):
            if not is_ipv6(self.bound_address):
                raise invalid_address(
                    addr, "the outgoing interface of an IPv4 port is given as an address of this host"
                )
            self._number_of(str(addr))
            self._outgoing = addr
        elif is_ipv6(self.bound_address) and (self.bound_address != ANY_IPV6 or family_of(addr) != AF_INET):
            self._outgoing = self._number_of(addr)
        else:
            host = await self._resolved(addr)
            self._check_family(host)
            self._number_of(host)
            self._outgoing_ipv4 = "" if host == ANY_IPV4 else host
        return 1

    def _check_family(self, host: str) -> None:
        mine = is_ipv6(self.bound_address)
        if is_ipv6(host) != mine and self.bound_address != ANY_IPV6:
            raise MulticastJoinError(f"invalid address literal for {'AF_INET6' if mine else 'AF_INET'}: {host!r}")

    async def _resolved(self, host: str) -> str:
        """Return a host's address, by the network's table of names if it is not numeric."""
        if family_of(host) is not None:
            return canonical(host)
        network: Any = self._reactor.network
        await deferLater(self._reactor, network.lookup_delay)
        for address in network.look_up(host):
            if is_ipv6(address) == is_ipv6(self.bound_address):
                return str(address)
        raise DNSLookupError(f"no address of {host!r} is known")


def os_error(number: int) -> OSError:
    """Return the exception that a system call raises.

    Args:
        number: The ``errno``.
    """
    return OSError(number, os.strerror(number))


def checked_number(port: int) -> int:
    """Return a UDP port to send to, as the kernel takes it.

    Raises:
        OSError: EINVAL: it is 0.
        OverflowError: It is no number of 16 bits.
    """
    if port == 0:
        raise os_error(errno.EINVAL)
    if not 0 < port <= 65535:
        raise OverflowError("port must be 0-65535.")
    return port
