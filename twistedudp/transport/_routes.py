"""Receiving so that an answer finds its way back, and knowing that way later.

Theory of operation: a socket bound to all addresses of a host must answer from the one that was asked, else a client
that has connected its socket never sees the answer. The kernel tells the address asked with each datagram (IP_PKTINFO,
ip(7)) and takes it back with the answer. The route of the datagram being delivered is at hand; that of each peer
heard lately is remembered, for answers that are written later. Sockets bound to one address need none of it: their
datagrams come by ``recvfrom``, which is cheaper, and only IPv6 addresses are translated.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from . import _kernel
from ._addresses import TwoGenerations, peer_of, sockaddr_of
from ._capabilities import lacking
from ._drops import KernelDrops

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..address import Address
    from ._addresses import SockAddr
    from ._stats import DatagramStats

__all__ = ["MAX_LOCAL_ADDRESSES", "Route", "Routes"]

MAX_LOCAL_ADDRESSES: Final = 1024
"""Addresses of this host whose control messages are kept ready. A host has a handful, but a local route for a whole
network (127.0.0.0/8 is one) lets a peer choose; then they are made anew, which costs a microsecond."""

_ANCILLARY_SIZE: Final = 192
"""Bytes: packet information of IPv6 and IPv4, drops, segment size, time and hops take 40 + 32 + 24 + 24 + 32 + 24."""

_ADDRESS_ASKED: Final = frozenset(
    {(socket.IPPROTO_IP, _kernel.IP_PKTINFO), (socket.IPPROTO_IPV6, _kernel.IPV6_PKTINFO)}
)
_ADDRESS_ASKED_KINDS: Final = frozenset({_kernel.IP_PKTINFO, _kernel.IPV6_PKTINFO})
_ARRIVED: Final = (socket.SOL_SOCKET, _kernel.SO_TIMESTAMPNS)
_DROPPED: Final = (socket.SOL_SOCKET, _kernel.SO_RXQ_OVFL)
_SEGMENTS: Final = (socket.IPPROTO_UDP, _kernel.UDP_GRO)
_HOPS: Final = frozenset({(socket.IPPROTO_IP, _kernel.IP_TTL), (socket.IPPROTO_IPV6, _kernel.IPV6_HOPLIMIT)})

Route: TypeAlias = "tuple[SockAddr, _kernel.Ancillary]"
"""Where to send, and the control messages that name the address to send from (empty: the kernel chooses)."""


class Routes:  # budget: how to receive is settled once, so that it need not be asked for each datagram
    """The peers of one socket, as the kernel sees them.

    Attributes:
        current: The route of the datagram received last, None where the peer's address itself will do.
        to_group: Whether the datagram received last was sent to a broadcast or multicast address.
        known: The ways to the peers of late.
        receive: Returns the next datagram and its sender; takes the size of the buffer.
        moved: The peer of the datagram received last and its new route, where it has another one than before: what was
            received before is to be answered by the old one, and then :meth:`settle` is to be called.
        segment: Where several datagrams of equal size came in one buffer, that size in bytes, else 0; to be set back by
            whoever has taken the buffer apart.
        arrived: When the datagram received last arrived, in nanoseconds since the epoch; 0 if that was not asked for.
        drops: What did not fit into the receive buffer.
    """

    def __init__(
        self,
        handle: socket.socket,
        stats: DatagramStats,
        *,
        wildcard: bool,
        to_group: bool,
        return_path: bool = True,
    ) -> None:
        self.current: Route | None = None
        self.to_group = to_group
        self.segment = 0
        self.arrived = 0
        self.moved: tuple[Address, Route] | None = None
        self.drops = KernelDrops(handle, stats)
        self._in_batches = False
        self._bound_to_group = to_group
        self._hops = b""  # of the datagram received last, as _learn_path takes it; empty if not asked for
        self._lone = 1  # control messages that a datagram has which nothing but the address asked came with
        self.drops.refresh()
        # Of several, the last tells the address asked (the kernel adds them in that order), and that is all there is to
        # know where drops are asked for, on a dual-stack socket above all.
        self._last_only = self.drops.asked
        self._handle = handle
        self._stats = stats
        self._ipv6 = handle.family == socket.AF_INET6
        self._dual_stack = self._ipv6 and wildcard
        self.known: TwoGenerations[Address, Route] = TwoGenerations()
        self._names: TwoGenerations[SockAddr, Address] = TwoGenerations()
        self._paths: dict[bytes, _kernel.ReturnPath] = {}
        self._receive_from: Callable[[int], tuple[bytes, Any]] = handle.recvfrom
        self.receive: Callable[[int], tuple[bytes, Any]] = handle.recvfrom
        if wildcard and return_path and _kernel.LINUX:
            self.receive = self._receive_asked
        elif self._ipv6:
            self.receive = self._receive_named

    def take_segments(self) -> None:
        """Receive several datagrams at once where the kernel can (UDP_GRO, Linux 5.0)."""
        self._in_batches = True
        self._last_only = False
        if not _kernel.LINUX:
            return
        try:
            self._handle.setsockopt(socket.IPPROTO_UDP, _kernel.UDP_GRO, 1)
        except OSError as error:  # an older kernel, or one of another make
            lacking("UDP_GRO", error)
            return
        self._receive_with_messages()

    def take_times(self) -> None:
        """Note when each datagram arrived; the socket has been asked for it (SO_TIMESTAMPNS)."""
        self._lone = -1
        self._last_only = False
        self._receive_with_messages()

    def take_hops(self) -> None:
        """Note the hop limit of each datagram, and leave answers one less; the socket has been asked (IP_RECVTTL)."""
        self._lone = -1
        self._last_only = False
        self.receive = self._receive_asked

    def settle(self) -> None:
        """Use a peer's new route from now on, if one has moved."""
        moved, self.moved = self.moved, None
        if moved is not None:
            self._remember(*moved)

    def to(self, addr: Address) -> Route:
        """Return the way to a peer: the one it was last heard on, or what the kernel will choose.

        Raises:
            twisted.internet.error.InvalidAddressError: The host is not numeric, or not one for this socket.
        """
        route = self.known.get(addr)
        if route is None:
            route = (sockaddr_of(addr, family=self._handle.family, dual_stack=self._dual_stack), [])
            self._remember(addr, route)
        return route

    def forget(self, addr: Address) -> None:
        """Let the kernel choose the address to answer a peer from: the remembered one is gone from this host."""
        self.known.discard(addr)

    def _receive_with_messages(self) -> None:
        """Receive by ``recvmsg`` from now on, for the control messages."""
        self._receive_from = self._receive_told
        if self.receive == self._handle.recvfrom:
            self.receive = self._receive_told

    def _receive_told(self, size: int) -> tuple[bytes, Any]:
        """Receive on a socket that is bound to one address, with what the kernel tells."""
        datagram, ancillary, _, sockaddr = self._handle.recvmsg(size, _ANCILLARY_SIZE)
        if ancillary:
            self._read_ancillary(ancillary)
        return datagram, sockaddr

    def _receive_named(self, size: int) -> tuple[bytes, Address]:
        """Receive on an IPv6 socket that is bound to one address."""
        datagram, sockaddr = self._receive_from(size)
        peer = self._names.young.get(sockaddr)
        if peer is None:
            peer = self._name(sockaddr)
        route = self.known.young.get(peer)
        if route is None:
            route = (sockaddr, [])
            self._remember(peer, route)
        self.current = route
        return datagram, peer

    def _receive_asked(self, size: int) -> tuple[bytes, Address]:
        """Receive together with the address that was asked."""
        datagram, ancillary, _, sockaddr = self._handle.recvmsg(size, _ANCILLARY_SIZE)
        if len(ancillary) == self._lone:
            asked = ancillary[0][2]
        elif self._last_only and ancillary and ancillary[-1][1] in _ADDRESS_ASKED_KINDS:
            asked = ancillary[-1][2]
        else:
            asked = self._read_ancillary(ancillary)
        path = self._paths.get(asked)
        if path is None:
            path = self._learn_path(asked)
        back, self.to_group = path
        peer: Address | None = sockaddr
        if self._ipv6:
            peer = self._names.young.get(sockaddr)
            if peer is None:
                peer = self._name(sockaddr)
        route = self.known.young.get(peer)  # type: ignore[arg-type]  # mypy loses the type that "if" has settled
        if route is None or route[1] is not back:
            known, route = route, (sockaddr, back)
            if known is not None and self._in_batches:
                self.moved = peer, route  # type: ignore[assignment]  # as above
            else:
                self._remember(peer, route)  # type: ignore[arg-type]  # as above
        self.current = route
        return datagram, peer  # type: ignore[return-value]  # as above

    def _read_ancillary(self, ancillary: _kernel.Ancillary) -> bytes:
        """Take the control messages apart, and return the one that tells the address asked, ``b""`` if there is none.

        On a dual-stack socket an IPv4 datagram carries two of these; the IPv4 one knows broadcasts apart and comes
        last.
        """
        asked = b""
        for level, kind, data in ancillary:
            message = level, kind
            if message in _ADDRESS_ASKED:
                asked = data
            elif message in _HOPS:
                hops = min(max(_kernel.parse_hops(data) - 1, 0), _kernel.MOST_ANSWER_HOPS)
                self._hops = bytes((hops, level == socket.IPPROTO_IPV6))
            elif message == _ARRIVED:
                self.arrived = _kernel.parse_arrival_time(data)
            elif message == _SEGMENTS:
                self.segment = _kernel.parse_segment_size(data)
            elif message == _DROPPED:
                self.drops.told(_kernel.parse_counter(data))
        return asked + self._hops

    def _learn_path(self, asked: bytes) -> _kernel.ReturnPath:
        if len(self._paths) >= MAX_LOCAL_ADDRESSES:
            self._paths.clear()
        hops = self._hops
        path = _kernel.parse_return_path(asked[: len(asked) - len(hops)])
        if len(asked) == len(hops):  # a socket bound to one address, perhaps a group's, is not told it again
            path = path._replace(to_group=self._bound_to_group)
        if hops:
            limited = [*path.ancillary, _kernel.hop_option(hops[0], ipv6=bool(hops[1]))]
            path = path._replace(ancillary=limited if hops[0] else _kernel.HOPS_EXHAUSTED)
        self._paths[asked] = path
        return path

    def _name(self, sockaddr: SockAddr) -> Address:
        name = self._names.get(sockaddr)
        if name is None:
            name = peer_of(sockaddr)
            self._names.put(sockaddr, name)
        return name

    def _remember(self, addr: Address, route: Route) -> None:
        before = self.known.forgotten
        self.known.put(addr, route)
        self._stats.routes_forgotten += self.known.forgotten - before
