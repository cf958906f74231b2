"""Addresses as Twisted has them, addresses as the kernel has them, and the way between the two.

Theory of operation: a protocol knows a peer as ``(host, port)``. For IPv4 that is what the kernel takes and gives. An
IPv6 socket needs more: the scope of a link-local address (``fe80::1%eth0``, RFC 4007) is a number of its own, and on
a socket bound to ``::`` an IPv4 peer appears as ``::ffff:192.0.2.1``. A host must be checked before the kernel sees
it, because ``sendto`` would ask a name server about anything that is not a number and block the reactor meanwhile.
None of this may be done anew for each datagram, hence :class:`TwoGenerations`, a bounded memory.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, Generic, TypeAlias, TypeVar

from ..address import unmapped
from ._errors import invalid_address

if TYPE_CHECKING:
    from ..address import Address

__all__ = [
    "ANY_HOSTS",
    "MAX_REMEMBERED",
    "SockAddr",
    "TwoGenerations",
    "family_of",
    "is_broadcast",
    "peer_of",
    "sockaddr_of",
]

SockAddr: TypeAlias = "tuple[str, int] | tuple[str, int, int, int]"
"""What Python's ``socket`` takes and gives: two members for IPv4, four for IPv6."""

ANY_HOSTS: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104  # compared with, not bound to
"""Interfaces that mean all addresses of this host."""

MAX_REMEMBERED: Final = 4096
"""Entries of one generation of a memory: two generations of about 400 bytes each make 3 MB at most, and peers that
are answered later than some thousand others have come are rare: they only cost a fresh look."""

_DISCARD: Final = 9  # any port will do; this one is the discard service's (RFC 863)
_BROADCAST: Final = "<broadcast>"  # how Python's socket module spells 255.255.255.255

_K = TypeVar("_K")
_V = TypeVar("_V")


class TwoGenerations(Generic[_K, _V]):
    """A bounded memory that forgets what was not asked for lately.

    New entries join the young generation. When that is full it becomes the old one and what the old one held is
    forgotten; an entry of the old one that is asked for joins the young again. That costs no order keeping.

    Attributes:
        young: The entries of the present generation, for a quick look without a call.
        forgotten: How many entries were dropped, ever.
    """

    __slots__ = ("_bound", "_old", "forgotten", "young")

    def __init__(self, bound: int = MAX_REMEMBERED) -> None:
        self.young: dict[_K, _V] = {}
        self._old: dict[_K, _V] = {}
        self._bound = bound
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def __contains__(self, key: object) -> bool:
        return key in self.young or key in self._old

    def get(self, key: _K) -> _V | None:
        """Return what is known, None where nothing is."""
        value = self.young.get(key)
        if value is None:
            value = self._old.pop(key, None)
            if value is not None:
                self._insert(key, value)
        return value

    def put(self, key: _K, value: _V) -> None:
        """Remember something, which may cost the oldest entries their place."""
        self._old.pop(key, None)
        self._insert(key, value)

    def discard(self, key: _K) -> None:
        """Forget something, if it is known."""
        self.young.pop(key, None)
        self._old.pop(key, None)

    def _insert(self, key: _K, value: _V) -> None:
        if len(self.young) >= self._bound and key not in self.young:
            self.forgotten += len(self._old)
            self._old, self.young = self.young, {}
        self.young[key] = value


def family_of(host: str) -> socket.AddressFamily | None:
    """Return the address family of a numeric host (a scope is allowed), None for anything else."""
    try:
        if ":" in host:
            socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
            return socket.AF_INET6
        socket.inet_pton(socket.AF_INET, host)
    except (OSError, ValueError, TypeError):
        return None
    return socket.AF_INET


def peer_of(sockaddr: Any) -> Address:
    """Return what protocols are given for an address that the kernel gave.

    Args:
        sockaddr: An address of an IPv4 or IPv6 socket, as ``recvfrom`` returns it.
    """
    if len(sockaddr) == 2:
        return sockaddr[0], sockaddr[1]
    host, port, _, scope = sockaddr
    if scope and "%" not in host:
        return f"{host}%{_scope_name(scope)}", port
    return unmapped(host), port


def sockaddr_of(addr: Any, *, family: socket.AddressFamily, dual_stack: bool) -> SockAddr:
    """Return what the kernel takes for an address that a protocol wrote, without ever asking a name server.

    Args:
        addr: ``(host, port)``; for IPv6 the four members of Python's ``socket`` do as well.
        family: The family of the socket.
        dual_stack: Whether an IPv6 socket reaches IPv4 peers too.

    Raises:
        twisted.internet.error.InvalidAddressError: The host is not numeric, or not one for this socket.
    """
    host, port = addr[0], addr[1]
    kind = socket.AF_INET if host == _BROADCAST else family_of(host)
    if kind is None:
        raise invalid_address(host, "write() only accepts IP addresses, not hostnames")
    if family == socket.AF_INET:
        if kind == socket.AF_INET6:
            raise invalid_address(host, "IPv4 port write() called with IPv6 address")
        return host, port
    if kind == socket.AF_INET:
        if not dual_stack or host == _BROADCAST:
            raise invalid_address(host, "IPv6 port write() called with IPv4 or broadcast address")
        return f"::ffff:{host}", port, 0, 0
    bare, _, scope = host.partition("%")
    return bare, port, 0, _scope_index(host, scope) if scope else (addr[3] if len(addr) == 4 else 0)


def _scope_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:  # the interface has just gone; the number still tells peers apart
        return str(index)


def _scope_index(host: str, scope: str) -> int:
    if scope.isascii() and scope.isdigit():
        return int(scope)
    try:
        return socket.if_nametoindex(scope)
    except OSError as error:
        raise invalid_address(host, f"there is no network interface {scope!r}") from error


def is_broadcast(host: str) -> bool:
    """Tell whether a numeric host is a broadcast address of one of this machine's networks, or of all.

    Only the kernel knows these: it lets a UDP socket connect to one if that may broadcast, and not otherwise.
    Connecting sends nothing.
    """
    return ":" not in host and not _can_connect(host, broadcast=0) and _can_connect(host, broadcast=1)


def _can_connect(host: str, *, broadcast: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, broadcast)
        try:
            probe.connect((host, _DISCARD))
        except OSError:
            return False
    return True
