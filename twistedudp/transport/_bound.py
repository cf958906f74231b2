"""A UDP socket bound to its port, before anything listens on it.

Theory of operation: binding can fail and may need the rights of root; listening runs user code and needs neither. So
the two are apart: :func:`bind` makes a socket with every option set, and :class:`BoundSocket` carries it to the port
that will read it, also across a ``fork`` (``twistd`` becomes a daemon in between). For that reason nothing here opens
an epoll descriptor: one made before the fork would be shared with the parent. SO_REUSEADDR is never set: on UDP it
lets another process take the port's datagrams.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Final

from twisted.internet.abstract import isIPAddress, isIPv6Address

from ..address import canonical, is_group
from . import _kernel
from ._addresses import ANY_HOSTS, is_broadcast, peer_of, sockaddr_of
from ._arguments import check_bind
from ._errors import cannot_listen, invalid_address

__all__ = [
    "DEFAULT_RECEIVE_BUFFER",
    "BoundSocket",
    "ask_hops",
    "ask_timestamps",
    "bind",
    "check_bound",
    "granted_receive_buffer",
    "set_options",
]

IP_MULTICAST_ALL: Final = 49
"""``linux/in.h``"""
IPV6_MULTICAST_ALL: Final = 29
"""``linux/in6.h``, since Linux 4.20."""

DEFAULT_RECEIVE_BUFFER: Final = 4 * 1024 * 1024
"""Bytes asked for where the caller names none. The kernel's usual 212,992 hold 256 small datagrams, 5 ms of a busy
server; 4 MiB hold about 5,000. Memory is used only by what is waiting."""


class BoundSocket:
    """A bound, non-blocking UDP socket that does not listen yet; made by :func:`bind`.

    Hand it to :func:`twistedudp.transport.listen` as ``bound=``, once; the port then owns it. Until then
    :meth:`close` gives the UDP port back.

    Attributes:
        host: The numeric host it is bound to, as :func:`bind` was asked; ``"0.0.0.0"`` for all of IPv4.
        port: The UDP port it is bound to, never 0.
        interface: What :func:`bind` was asked for, in canonical spelling.
        wildcard: Whether it takes datagrams for any address of this host.
        to_group: Whether it is bound to a broadcast or multicast address.
        receive_buffer: The receive buffer granted, in bytes of the kernel's accounting.
        shortfall: What to tell the operator where less was granted than asked for; empty otherwise.
    """

    def __init__(self, handle: socket.socket, interface: str, receive_buffer: int | None) -> None:
        self.interface = interface
        self.host, self.port = peer_of(handle.getsockname())
        self.wildcard = interface in ANY_HOSTS
        self.to_group = not self.wildcard and (is_group(self.host) or is_broadcast(self.host))
        self.receive_buffer = _ask_receive_buffer(handle, receive_buffer)
        self.shortfall = _describe_shortfall(receive_buffer, self.receive_buffer)
        self._handle: socket.socket | None = handle

    @property
    def family(self) -> socket.AddressFamily:
        """``AF_INET``, or ``AF_INET6`` (which serves IPv4 as well where the host is ``::``)."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    def take(self) -> socket.socket:
        """Give the socket away: from now on it is the caller's to close.

        Raises:
            twisted.internet.error.CannotListenError: It was taken or closed before.
        """
        handle, self._handle = self._handle, None
        if handle is None:
            reason = OSError(errno.EBADF, "this BoundSocket was used or closed before")
            raise cannot_listen(self.interface, self.port, reason)
        return handle

    def close(self) -> None:
        """Give the UDP port back; nothing happens where the socket was taken or closed before."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()


def bind(port: int, interface: str = "", *, receive_buffer: int | None = None, reuse_port: bool = False) -> BoundSocket:
    """Bind a UDP port without listening on it.

    Args:
        port: The UDP port; 0 lets the kernel choose a free one.
        interface: A numeric address of this host. ``""`` and ``"0.0.0.0"`` mean all of IPv4, ``"::"`` all of IPv6 and
            IPv4.
        receive_buffer: The receive buffer to ask for, in bytes; None asks for 4 MiB and is content with less.
        reuse_port: Let other sockets have the same port, all of one user's and all asking for it (SO_REUSEPORT): the
            kernel gives each peer to one of them, and a group's datagrams to all.

    Raises:
        twisted.internet.error.CannotListenError: The port is taken, needs more rights, or the address is not this
            host's. Its ``socketError`` is the :class:`OSError`.
        twisted.internet.error.InvalidAddressError: ``interface`` is not a numeric address.
        TypeError: An argument is of the wrong kind.
        ValueError: A receive buffer of less than 1 byte or more than 2,147,483,647.
    """
    check_bind(port, receive_buffer, reuse_port=reuse_port)
    if interface and not isIPAddress(interface) and not isIPv6Address(interface):
        raise invalid_address(interface, "not an IPv4 or IPv6 address.")
    interface = canonical(interface) if interface else ""
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    try:
        handle = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:  # IPv6 may be switched off altogether
        raise cannot_listen(interface, port, error) from error
    try:
        handle.setblocking(False)
        if family == socket.AF_INET6:
            handle.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(interface not in ANY_HOSTS))
        set_options(handle, wildcard=interface in ANY_HOSTS)
        if reuse_port:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        handle.bind(sockaddr_of((interface, port), family=family, dual_stack=False) if interface else ("", port))
        return BoundSocket(handle, interface, receive_buffer)
    except (OSError, OverflowError) as error:  # OverflowError: the port is no 16-bit number
        handle.close()
        raise cannot_listen(interface, port, error) from error
    except BaseException:
        handle.close()
        raise


def check_bound(bound: object) -> None:
    """Check the argument of that name.

    Raises:
        TypeError: It is neither None nor what :func:`bind` returned.
    """
    if bound is not None and not all(hasattr(bound, name) for name in ("interface", "port", "close")):
        raise TypeError(f"bound={bound!r}: it must be None or what twistedudp.transport.bind() returned")


def set_options(handle: socket.socket, *, wildcard: bool) -> None:
    """Set what the port relies on; an option that this kernel lacks costs its feature only, not the port."""
    ipv6 = handle.family == socket.AF_INET6
    if not _kernel.LINUX:
        return
    options = [(socket.IPPROTO_IP, _kernel.IP_RECVERR), (socket.SOL_SOCKET, _kernel.SO_RXQ_OVFL)]
    if ipv6:
        options.append((socket.IPPROTO_IPV6, _kernel.IPV6_RECVERR))
    if wildcard:
        options.append((socket.IPPROTO_IP, _kernel.IP_PKTINFO))
        if ipv6:
            options.append((socket.IPPROTO_IPV6, _kernel.IPV6_RECVPKTINFO))
    for level, option in options:
        _set(handle, level, option, 1)
    # Else the kernel delivers what is sent to any group that anybody on this host has joined.
    _set(handle, socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
    if ipv6:
        _set(handle, socket.IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0)


def ask_timestamps(handle: socket.socket) -> bool:
    """Have the kernel tell when each datagram arrived; return whether it will."""
    return _kernel.LINUX and _set(handle, socket.SOL_SOCKET, _kernel.SO_TIMESTAMPNS, 1)


def ask_hops(handle: socket.socket) -> bool:
    """Have the kernel tell the hop limit of each datagram (IP_RECVTTL, IPV6_RECVHOPLIMIT); return whether it will."""
    if not _kernel.LINUX:
        return False
    told = _set(handle, socket.IPPROTO_IP, _kernel.IP_RECVTTL, 1)  # on IPv6 sockets too: IPv4 may come on them
    if handle.family == socket.AF_INET6:
        told = _set(handle, socket.IPPROTO_IPV6, _kernel.IPV6_RECVHOPLIMIT, 1) and told
    return told


def _set(handle: socket.socket, level: int, option: int, value: int) -> bool:
    """Set an option and return True, False if the kernel does not know it."""
    try:
        handle.setsockopt(level, option, value)
    except OSError as error:
        if error.errno not in {errno.ENOPROTOOPT, errno.EOPNOTSUPP}:
            raise
        return False
    return True


def granted_receive_buffer(handle: socket.socket) -> int:
    """Return a socket's receive buffer in the bytes that were asked for; Linux reports the double (socket(7))."""
    reported = handle.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    return reported // 2 if _kernel.LINUX else reported


def _ask_receive_buffer(handle: socket.socket, wanted: int | None) -> int:
    """Ask for a receive buffer and return what was granted, in bytes."""
    if wanted is None:
        wanted = DEFAULT_RECEIVE_BUFFER
        if granted_receive_buffer(handle) >= wanted:
            return granted_receive_buffer(handle)
    if _kernel.LINUX:
        with suppress(OSError):  # passes net.core.rmem_max, but needs CAP_NET_ADMIN
            handle.setsockopt(socket.SOL_SOCKET, _kernel.SO_RCVBUFFORCE, wanted)
            return granted_receive_buffer(handle)
    with suppress(OSError):  # BSD refuses what exceeds its limit instead of granting less
        handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    return granted_receive_buffer(handle)


def _describe_shortfall(wanted: int | None, granted: int) -> str:
    if wanted is None or granted >= wanted:
        return ""
    advice = (
        f"raise the limit with: sysctl -w net.core.rmem_max={wanted}"
        if _kernel.LINUX
        else "raise the limit of the operating system (kern.ipc.maxsockbuf on BSD and macOS)"
    )
    return f"the receive buffer is {granted:,} bytes, {wanted:,} were asked for: bursts may be lost; {advice}"
