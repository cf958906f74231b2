"""The addresses that a client talks to, what is known of each, and which of them to ask.

Theory of operation: a client is given one server or several, and a name may have several addresses (``localhost`` has
``::1`` and ``127.0.0.1``); all of them stand in one list. New requests go to the preferred address: the first one until
it refuses or leaves a request without an answer, then the next one, round and round; an address that answers becomes
the preferred one. An address whose circuit breaker is open is passed over. Each has a round trip time, a window and a
breaker of its own, which are started afresh when it has not answered for long.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from ..address import max_payload
from ._breaker import Breaker
from ._round_trip import RoundTrip
from ._window import Window

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ..address import Address
    from ._settings import RequesterSettings

__all__ = ["MAX_SERVERS", "PeerStats", "Server", "ServerList"]

MAX_SERVERS: Final = 64
"""Addresses that a client knows at most, the first ones: a name server may send hundreds."""


class PeerStats(NamedTuple):
    """What a client knows of one server address."""

    address: Address
    round_trip: float | None
    """Smoothed round trip time in seconds (SRTT of RFC 6298), ``None`` while there is none."""
    variation: float
    """Its variation in seconds (RTTVAR)."""
    timeout: float | None
    """Seconds before the first retransmission (RTO), ``None`` while the call's own timeout decides."""
    window: float
    """Requests that may be in flight."""
    in_flight: int
    """Requests that are."""
    circuit_open: bool
    """Whether calls fail at once because it does not answer."""


class Server:
    """One address and what is known of it.

    Attributes:
        address: Where it listens.
        alone: A tuple of just the address: what a request that went to it alone has asked.
        max_payload: Bytes of the largest datagram that its address family carries.
        round_trip: Its round trip times.
        window: How many requests may be in flight.
        breaker: Its circuit breaker.
        heard: When it last answered, or when it became known; in seconds.
    """

    __slots__ = ("address", "alone", "breaker", "heard", "max_payload", "round_trip", "window")

    def __init__(self, address: Address, settings: RequesterSettings, now: float) -> None:
        self.address = address
        self.alone = (address,)
        self.max_payload = min(max_payload(address[0]), settings.max_payload)
        self.window = Window(settings.window)
        self.forget(settings, now)

    def forget(self, settings: RequesterSettings, now: float) -> None:
        """Start afresh; what is in flight is in flight all the same."""
        in_flight = self.window.in_flight
        self.round_trip = RoundTrip(settings.policy)
        self.window = Window(settings.window)
        self.window.in_flight = in_flight
        self.breaker = Breaker(settings.breaker_threshold, settings.breaker_cooldown)
        self.heard = now

    @property
    def stats(self) -> PeerStats:
        """What is known, for people."""
        trip, window = self.round_trip, self.window
        return PeerStats(
            self.address,
            trip.smoothed,
            trip.variation,
            trip.timeout,
            window.size,
            window.in_flight,
            self.breaker.is_open,
        )


class ServerList:
    """The known addresses, in order.

    Args:
        settings: Those of the requester.

    Attributes:
        preferred: The server that comes first, ``None`` while no address is known.
    """

    def __init__(self, settings: RequesterSettings) -> None:
        self.preferred: Server | None = None
        self._settings = settings
        self._peer_age = settings.peer_age
        self._servers: list[Server] = []
        self._left: list[Server] = []

    def __len__(self) -> int:
        return len(self._servers)

    @property
    def stats(self) -> tuple[PeerStats, ...]:
        """What is known of each address, in order."""
        return tuple(server.stats for server in self._servers)

    def choose(self, now: float) -> Server | None:
        """Return the server for a new request: the preferred one, or the next whose circuit is closed.

        Returns:
            ``None`` if the circuits of all are open, or while no address is known.
        """
        server = self.preferred
        if server is None:
            return None
        if not server.breaker.is_open and now - server.heard <= self._peer_age:
            return server  # the usual case, and that of every request
        servers, at = self._servers, self._servers.index(server)
        return next((server for server in servers[at:] + servers[:at] if self._is_fit(server, now)), None)

    def _is_fit(self, server: Server, now: float) -> bool:
        """Tell whether a server may be asked; what is known of it is forgotten if it is out of date."""
        if now - server.heard > self._peer_age and not server.window.in_flight:
            server.forget(self._settings, now)
        return not server.breaker.is_open or server.breaker.allows(now)

    def replace(self, addresses: Sequence[Address], now: float) -> None:
        """Take over a resolver's answer; addresses known already keep what was learnt of them, duplicates count once.

        Args:
            addresses: All addresses, in order; none where requests are to wait for one.
            now: The time, in seconds.
        """
        preferred = self.preferred
        # One that has left and comes back has the same requests in flight as before.
        known = {server.address: server for server in (*self._left, *self._servers)}
        wanted = list(dict.fromkeys(addresses))[:MAX_SERVERS]
        self._servers = [known.get(address) or Server(address, self._settings, now) for address in wanted]
        self._left = [server for server in known.values() if server.window.in_flight and server not in self._servers]
        # One that has not answered yet may stand there only because its address was known first.
        proven = preferred is not None and preferred.round_trip.timeout is not None
        if proven and preferred in self._servers:
            self.preferred = preferred
        else:
            self.preferred = self._servers[0] if self._servers else None

    def after(self, server: Server, size: int, avoid: Collection[Address] = ()) -> Server | None:
        """Return the server to try after one that gave no answer, or ``None`` where there is no other to try.

        Args:
            server: The one that gave none; it may have left the list meanwhile.
            size: Bytes of the datagram that it is to take.
            avoid: Addresses not to try either.
        """
        servers = self._servers
        if server in servers:
            at = servers.index(server)
        else:
            at = servers.index(self.preferred) - 1 if self.preferred is not None else -1
        for other in servers[at + 1 :] + servers[: at + 1]:
            if other is server or other.breaker.is_open or other.address in avoid or other.max_payload < size:
                continue
            return other
        return None

    def at(self, address: Address) -> Server | None:
        """Return the server at an address, or ``None``."""
        return next((server for server in self._servers if server.address == address), None)

    def answered(self, server: Server, now: float) -> None:
        """Prefer a server that has answered."""
        server.heard = now
        if server.breaker.failures:
            server.breaker.answered()
        if server is not self.preferred and server in self._servers:
            self.preferred = server

    def failed(self, server: Server) -> None:
        """Prefer the next server if this one, which refused or kept silent, is the preferred one."""
        if server is self.preferred:
            self.preferred = self._servers[(self._servers.index(server) + 1) % len(self._servers)]

    def retry_in(self, now: float) -> float:
        """Return the seconds until the first of the open circuits lets a call through."""
        return max(0.0, min(server.breaker.retry_at for server in self._servers) - now)
