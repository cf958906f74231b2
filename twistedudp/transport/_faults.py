"""Whose fault it is that a datagram was not sent.

Theory of operation: a send fails because the caller asked for something impossible, which is raised where it was asked,
or because the network did not take it, which is loss like any other on the way and is counted by ``errno``. Some
numbers mean either, and the socket has to be asked: EACCES is a broadcast that was not allowed or a route that forbids,
EMSGSIZE a datagram that nothing carries or one too large for its path on a socket that may not fragment.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from twisted.internet.error import MessageLengthError

from ..address import max_payload, unmapped
from ._addresses import is_broadcast
from ._errors import BroadcastNotAllowed

if TYPE_CHECKING:
    from ._addresses import SockAddr
    from ._stats import DatagramStats
    from ._unreachable import UnreachableReports

__all__ = ["SendFaults"]

_NO_ROUTE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})
"""Errors of a send that say what an ICMP error would, without asking any router; the last where IPv6 is disabled."""


class SendFaults:
    """Judges the failed sends of one socket.

    Args:
        handle: The socket.
        stats: What to count in.
        reports: What the network has said about peers and paths.
    """

    __slots__ = ("_handle", "_reports", "_stats")

    def __init__(self, handle: socket.socket, stats: DatagramStats, reports: UnreachableReports) -> None:
        self._handle = handle
        self._stats = stats
        self._reports = reports

    def check_size(self, datagram: bytes, host: str) -> None:
        """Refuse what UDP cannot carry, whatever the path.

        Args:
            datagram: The payload.
            host: The numeric host that it goes to.

        Raises:
            twisted.internet.error.MessageLengthError: It is larger than a datagram can be.
        """
        most = max_payload(host)
        if len(datagram) > most:
            raise MessageLengthError(
                f"message too long: {len(datagram):,} bytes, a UDP datagram carries at most {most:,}"
            )

    def raise_callers(
        self, error: OSError, datagram: bytes, sockaddr: SockAddr | None, host: str, *, answers: bool
    ) -> None:
        """Raise what the caller did wrong; return if it was not the caller.

        Args:
            error: What the send failed with, on its own account.
            datagram: The payload.
            sockaddr: Where it was to go, None for the peer of a connected socket.
            host: The numeric host of that.
            answers: Whether it goes to a peer whose datagram is being delivered.

        Raises:
            twisted.internet.error.MessageLengthError: It is larger than UDP carries, or than its path does where the
                socket may not fragment (IP_MTU_DISCOVER, ip(7)).
            BroadcastNotAllowed: A broadcast address, without leave.
            OSError: ``EINVAL`` for UDP port 0 and for a link-local address without its scope.
        """
        number = error.errno or 0
        if number == errno.EMSGSIZE:
            self._reports.drain()  # the kernel has put there what it knows of the path
            self.check_size(datagram, host)
            raise MessageLengthError(self._too_long_for_path(datagram, host)) from error
        if number == errno.EACCES and sockaddr is not None:
            self.raise_broadcast(error, sockaddr)
        # An answer to a datagram that came with source port 0, which anybody can send, is no mistake of the protocol's;
        # and a route of the type "blackhole" (ip-route(8)) makes any send fail so.
        if number == errno.EINVAL and sockaddr is not None and not answers:
            if sockaddr[1] == 0:
                raise OSError(number, f"{host}: nobody can listen on UDP port 0") from error
            if len(sockaddr) == 4 and sockaddr[3] == 0 and ip_address(sockaddr[0]).is_link_local:
                raise OSError(number, f"{host}: a link-local address needs its scope, as in {host}%eth0") from error

    def raise_broadcast(self, error: OSError, sockaddr: SockAddr) -> None:
        """Tell a missing setBroadcastAllowed from a route or a firewall that forbids: EACCES means either.

        Args:
            error: The EACCES.
            sockaddr: Where the datagram was to go.

        Raises:
            BroadcastNotAllowed: It was the former.
        """
        host = unmapped(sockaddr[0])
        if not self._handle.getsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST) and is_broadcast(host):
            raise BroadcastNotAllowed(host) from error

    def count_loss(self, error: OSError, datagram: bytes, sockaddr: SockAddr | None) -> None:
        """Count a datagram that the network did not take, and tell the protocol where its peer cannot be reached.

        Args:
            error: What the send failed with.
            datagram: The payload.
            sockaddr: Where it was to go, None for the peer of a connected socket.
        """
        number = error.errno or 0
        self._stats.count_send_error(number)
        if number in _NO_ROUTE and sockaddr is not None:
            self._reports.no_route(sockaddr, number, datagram)

    def _too_long_for_path(self, datagram: bytes, host: str) -> str:
        text = f"message too long: {len(datagram):,} bytes do not fit into one packet to {host}"
        mtu = self._reports.path_mtu(host)
        if mtu is None:
            return text
        headers = 48 if ":" in host else 28  # of IP and UDP: RFC 8200 section 3, RFC 791, RFC 768
        return f"{text}: the path has an MTU of {mtu:,} bytes, which leaves {mtu - headers:,} for the datagram"
