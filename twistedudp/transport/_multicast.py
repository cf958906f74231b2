"""Multicast: the groups that a port takes part in, and how what it sends to a group leaves.

Theory of operation: ``IMulticastTransport`` as Twisted's own multicast ports have it, on every port. Where Twisted has
one thing only for IPv4, this has it for IPv6 as well: hops beside the time to live, and the interface on which an IPv6
group is joined, which the kernel wants as a number. A port bound to ``::`` can join groups of both families, and what
is set for the one is set for the other. Names are resolved as Twisted does, by the reactor; everything else the kernel
does at once.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from sys import byteorder
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.error import MulticastJoinError

from ._addresses import family_of
from ._errors import invalid_address

if TYPE_CHECKING:
    from ._life import Life

__all__ = ["MAX_TTL", "MulticastTransport", "interface_index"]

MAX_TTL: Final = 255
"""Routers that a datagram passes at most (RFC 791, RFC 8200: a field of eight bits)."""

_MEMBERSHIP: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.IP_DROP_MEMBERSHIP),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.IPV6_LEAVE_GROUP),
}
_TTL: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_MULTICAST_TTL),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS),
}
_LOOPBACK: Final = {
    socket.AF_INET: (socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP),
    socket.AF_INET6: (socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP),
}
_ADDRESSES_OF_INTERFACES: Final = Path("/proc/net/if_inet6")  # proc(5): address, index and more, in hexadecimal digits


class MulticastTransport:
    """The part of a port that ``IMulticastTransport`` adds.

    Attributes:
        reactor: What resolves names.
    """

    reactor: Any

    def joinGroup(self, addr: str, interface: str | int = "") -> Deferred[None]:
        """Take what is sent to a group.

        Args:
            addr: The group's address, or a name for the reactor to resolve.
            interface: Where: for IPv4 an address of this host or its name. For IPv6 the interface's name or number, or
                an address of it. Empty lets the kernel choose.

        Returns:
            A Deferred that fires with None when the group is joined. It fails with
            :class:`twisted.internet.error.MulticastJoinError` where the address is no group's or of the wrong family or
            the kernel refuses, with what the reactor says where a name has no address, and with
            :class:`twistedudp.errors.LocalError` if the port does not listen.
        """
        return Deferred.fromCoroutine(self._change_membership(addr, interface, join=True))

    def leaveGroup(self, addr: str, interface: str | int = "") -> Deferred[None]:
        """Take it no longer; arguments and result as those of :meth:`joinGroup`."""
        return Deferred.fromCoroutine(self._change_membership(addr, interface, join=False))

    def setOutgoingInterface(self, addr: str | int) -> Deferred[int]:
        """Choose the interface by which datagrams to groups leave.

        Args:
            addr: As ``interface`` of :meth:`joinGroup`; ``0.0.0.0`` or 0 lets the kernel choose. On a port bound to
                ``::`` an IPv4 address is for groups of IPv4, anything else for those of IPv6.

        Returns:
            A Deferred that fires with 1; it fails as that of :meth:`joinGroup`, and with :class:`OSError` where there
            is no such interface.
        """
        return Deferred.fromCoroutine(self._set_outgoing_interface(addr))

    def getOutgoingInterface(self) -> str | int:
        """Return the interface by which datagrams to groups leave: for IPv4 an address, for IPv6 a number.

        On a port bound to ``::`` it is the one for groups of IPv6.
        """
        handle = self._listening().handle
        if handle.family == socket.AF_INET6:
            return int.from_bytes(handle.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, 4), byteorder)
        return socket.inet_ntoa(handle.getsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, 4))

    def setLoopbackMode(self, mode: bool) -> None:
        """Set whether members on this host get what this port sends to a group; they do at first."""
        self._set(_LOOPBACK, int(bool(mode)))

    def getLoopbackMode(self) -> bool:
        """Tell whether members on this host get what this port sends to a group."""
        handle = self._listening().handle
        return bool(handle.getsockopt(*_LOOPBACK[handle.family]))

    def setTTL(self, ttl: int) -> None:
        """Set how far datagrams to groups go, 1 at first: 0 is this host, 1 the local network, more as many routers.

        Raises:
            ValueError: Not between 0 and 255.
        """
        if not 0 <= ttl <= MAX_TTL:
            raise ValueError(f"ttl={ttl!r}: it must be between 0 and {MAX_TTL}")
        self._set(_TTL, ttl)

    def getTTL(self) -> int:
        """Return how far datagrams to groups go."""
        handle = self._listening().handle
        return handle.getsockopt(*_TTL[handle.family])

    def _listening(self) -> Life:
        """Return what there is between start and end of the port.

        Raises:
            LocalError: It does not listen.
        """
        raise NotImplementedError

    async def _change_membership(self, addr: str, interface: str | int, *, join: bool) -> None:
        group = await self._resolved(addr)
        handle = self._listening().handle
        family = _family_for(handle, group)
        if family == socket.AF_INET:
            where = socket.inet_aton("0.0.0.0")  # noqa: S104  # the kernel chooses
            if isinstance(interface, int):
                raise invalid_address(interface, "the interface of an IPv4 group is given as an address of this host")
            if interface:
                where = _packed(socket.AF_INET, await self._resolved(interface))
        else:
            index = interface if isinstance(interface, int) else interface_index(interface)
            where = _packed_index(index)
        level, joining, leaving = _MEMBERSHIP[family]
        try:
            handle.setsockopt(level, joining if join else leaving, _packed(family, group) + where)
        except OSError as error:
            raise MulticastJoinError(addr, interface, *error.args) from error

    async def _set_outgoing_interface(self, addr: str | int) -> int:
        handle = self._listening().handle
        if isinstance(addr, str) and family_of(addr) == socket.AF_INET and _is_dual_stack(handle):
            handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _packed(socket.AF_INET, addr))
        elif handle.family == socket.AF_INET6:
            index = addr if isinstance(addr, int) else interface_index(addr)
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        elif isinstance(addr, str):
            packed = _packed(socket.AF_INET, await self._resolved(addr))
            self._listening().handle.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, packed)
        else:
            raise invalid_address(addr, "the outgoing interface of an IPv4 port is given as an address of this host")
        return 1

    async def _resolved(self, host: str) -> str:
        if family_of(host) is not None:
            return host
        return str(await self.reactor.resolve(host))

    def _set(self, option: dict[Any, tuple[int, int]], value: int) -> None:
        """Set an option for datagrams to groups, for both families on a port that has both."""
        handle = self._listening().handle
        handle.setsockopt(*option[handle.family], value)
        if _is_dual_stack(handle):
            with suppress(OSError):  # systems other than Linux may have no such option on an IPv6 socket
                handle.setsockopt(*option[socket.AF_INET], value)


def interface_index(interface: str) -> int:
    """Return the kernel's number of a network interface; 0 means any.

    Args:
        interface: Its name, its number, an IPv6 address of it, or one with its name after a ``%``; ``""`` and ``"::"``
            mean any.

    Raises:
        twisted.internet.error.MulticastJoinError: This host has none such.
    """
    bare, _, scope = interface.partition("%")
    wanted = scope or bare
    if wanted in {"", "::"}:
        return 0
    if wanted.isascii() and wanted.isdigit():
        return int(wanted)
    if family_of(wanted) == socket.AF_INET6:
        index = _index_of_address(wanted)
        if index:
            return index
    with suppress(OSError):
        return socket.if_nametoindex(wanted)
    raise MulticastJoinError(f"this host has no network interface {wanted!r} for IPv6; give its name or number")


def _index_of_address(host: str) -> int:
    """Return the number of the interface that has an IPv6 address, 0 if there is none or the system does not tell."""
    digits = socket.inet_pton(socket.AF_INET6, host).hex()
    with suppress(OSError), _ADDRESSES_OF_INTERFACES.open(encoding="ascii") as table:
        for line in table:
            address, index, *_ = line.split()
            if address == digits:
                return int(index, 16)
    return 0


def _family_for(handle: socket.socket, group: str) -> socket.AddressFamily:
    """Return the family in which a socket joins a group: its own, or IPv4 if it has both."""
    if family_of(group) == socket.AF_INET and _is_dual_stack(handle):
        return socket.AF_INET
    return handle.family


def _is_dual_stack(handle: socket.socket) -> bool:
    return handle.family == socket.AF_INET6 and not handle.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def _packed_index(index: int) -> bytes:
    """Return an interface's number as the kernel takes it.

    Raises:
        MulticastJoinError: No interface can have it.
    """
    try:
        return index.to_bytes(4, byteorder)
    except OverflowError as error:
        raise MulticastJoinError(f"this host has no network interface {index}") from error


def _packed(family: socket.AddressFamily, host: str) -> bytes:
    try:
        return socket.inet_pton(family, host)
    except OSError as error:
        raise MulticastJoinError(f"invalid address literal for {family.name}: {host!r}") from error
