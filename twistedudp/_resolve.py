"""Names to addresses, by the reactor's own resolver.

Theory of operation: a numeric host is its own answer, at once and without the resolver, which may use a thread. A name
is looked up by the reactor's ``nameResolver`` (IReactorPluggableNameResolver), and its addresses keep the resolver's
order, which is the operating system's preference (RFC 6724).
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IResolutionReceiver
from zope.interface import implementer

from .address import canonical, is_ip, is_ipv6

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IHostResolution

    from .address import Address

__all__ = ["AddressFamily", "resolve"]

AddressFamily: TypeAlias = Literal["ipv4", "ipv6"]


@implementer(IResolutionReceiver)
class _Receiver:
    """Collect addresses and hand them over when there are no more."""

    def __init__(self, port: int, done: Callable[[list[Address]], None]) -> None:
        self._port = port
        self._done = done
        self._addresses: list[Address] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Nothing to do: an answer that comes too late is ignored, and resolvers cannot be cancelled."""

    def addressResolved(self, address: IAddress) -> None:
        """Take one address."""
        if isinstance(address, (IPv4Address, IPv6Address)):
            self._addresses.append((_spelled(address.host), self._port))

    def resolutionComplete(self) -> None:
        """Hand over."""
        self._done(self._addresses)


def _spelled(host: str) -> str:
    """Return a numeric host as the port will spell it in what it receives: answers are known by their address."""
    host, percent, scope = canonical(host).partition("%")
    if scope.isascii() and scope.isdigit():
        with suppress(OSError):  # no such interface: sending will say so
            scope = socket.if_indextoname(int(scope))
    return host + percent + scope


def resolve(
    reactor: Any, host: str, port: int, family: AddressFamily | None, done: Callable[[list[Address]], None]
) -> None:
    """Look up a host.

    Args:
        reactor: Provides IReactorPluggableNameResolver, unless the host is numeric.
        host: A name or a numeric address.
        port: The port that each address gets.
        family: Leave out the addresses of the other family.
        done: Called once, with the addresses in order; with none where the name does not resolve. For a numeric host
            it is called before this returns.
    """
    if is_ip(host):
        host = _spelled(host)
        wanted = family is None or (family == "ipv6") is is_ipv6(host)
        done([(host, port)] if wanted else [])
        return
    types = {"ipv4": [IPv4Address], "ipv6": [IPv6Address], None: None}[family]
    reactor.nameResolver.resolveHostName(
        _Receiver(port, done), host, port, addressTypes=types, transportSemantics="UDP"
    )
