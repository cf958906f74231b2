"""The addresses of the server that a client talks to, and which of them to ask.

Theory of operation: a name may have several addresses (``localhost`` has ``::1`` and ``127.0.0.1``) and a server may
listen on one of them only. New requests go to the preferred address: the first one until it refuses or leaves a request
without an answer, then the next one, round and round; an address that answers becomes the preferred one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..address import max_payload
from ._round_trip import RoundTrip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..address import Address

__all__ = ["Server", "ServerList"]


class Server:
    """One address and what is known of it.

    Attributes:
        address: Where it listens.
        max_payload: Bytes of the largest datagram that its address family carries.
        round_trip: Its round trip times.
    """

    __slots__ = ("address", "max_payload", "round_trip")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.max_payload = max_payload(address[0])
        self.round_trip = RoundTrip()


class ServerList:
    """The known addresses, in the resolver's order."""

    def __init__(self) -> None:
        self._servers: list[Server] = []
        self._preferred = 0

    def __len__(self) -> int:
        return len(self._servers)

    @property
    def preferred(self) -> Server | None:
        """The server that a new request goes to, or ``None`` while no address is known."""
        return self._servers[self._preferred] if self._servers else None

    def replace(self, addresses: Sequence[Address]) -> None:
        """Take over a resolver's answer; addresses known already keep what was learnt of them, duplicates count once.

        Args:
            addresses: All addresses, in order; at least one.
        """
        preferred = self.preferred
        known = {server.address: server for server in self._servers}
        self._servers = [known.get(address) or Server(address) for address in dict.fromkeys(addresses)]
        self._preferred = self._servers.index(preferred) if preferred in self._servers else 0

    def after(self, server: Server) -> Server:
        """Return the server to try after one that gave no answer, the same one where there is no other."""
        if server not in self._servers:
            return self._servers[self._preferred]
        return self._servers[(self._servers.index(server) + 1) % len(self._servers)]

    def at(self, address: Address) -> Server | None:
        """Return the server at an address, or ``None``."""
        return next((server for server in self._servers if server.address == address), None)

    def answered(self, server: Server) -> None:
        """Prefer a server that has answered."""
        if server is not self.preferred and server in self._servers:
            self._preferred = self._servers.index(server)

    def failed(self, server: Server) -> None:
        """Prefer the next server if this one, which refused or kept silent, is the preferred one."""
        if server is self.preferred:
            self._preferred = (self._preferred + 1) % len(self._servers)
