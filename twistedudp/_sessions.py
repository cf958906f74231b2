"""The upstream sockets of a relay: one for each client, as the server sees it.

Theory of operation: a session belongs to a client and to the source address that the effects leave its datagrams with,
so that an effect that plays a NAT gives the client another socket. Sessions stand in the order of their last use: the
first is the one that expires next, and the one that gives way when too many are open.
"""

from __future__ import annotations

import errno
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol

from . import transport
from ._in_flight import DirectionStats
from .address import format_address, is_ipv6, unmapped

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from .address import Address
    from .interfaces import Unreachable

__all__ = ["MAX_SESSIONS", "SESSION_TIMEOUT", "RelayStats", "Session", "SessionOwner", "Sessions"]

MAX_SESSIONS: Final = 4096
"""Upstream sockets that may be open at once. Each takes two file descriptors; beyond it the session that has been idle
the longest gives way to a new one."""

SESSION_TIMEOUT: Final = 300.0
"""Seconds after which an idle upstream socket is closed: what RFC 4787 (REQ-5) recommends to a NAT."""


@dataclass(slots=True)
class RelayStats:
    """What a relay did since it was made; in datagrams, where not said otherwise."""

    to_server: DirectionStats = field(default_factory=DirectionStats)
    to_client: DirectionStats = field(default_factory=DirectionStats)
    unsendable: int = 0
    """Came out of a link and could not be written: no upstream socket to be had, or too large for the other side."""
    refused_port_zero: int = 0
    """From source port 0, where nobody can be answered."""
    refused_own: int = 0
    """From one of the relay's own upstream sockets: the server is the relay itself, and this ended the loop."""
    refused_stranger: int = 0
    """To an upstream socket, but not from the server."""
    server_unreachable: int = 0
    """ICMP errors about what was sent to the server; the client is not told."""
    client_unreachable: int = 0
    """ICMP errors about what was sent to a client; the server is not told."""
    sessions_opened: int = 0
    """Upstream sockets."""
    sessions_expired: int = 0
    """Of these, closed because they had been idle for so long."""
    sessions_evicted: int = 0
    """Of these, closed because too many were open."""
    sessions_failed: int = 0
    """Upstream sockets that could not be opened."""


class SessionOwner(Protocol):
    """What sessions need of their relay."""

    server: Address
    stats: RelayStats

    def reply_received(self, datagram: bytes, addr: Address, session: Session) -> None:
        """Take what came to a session's socket."""

    def server_unreachable(self, reason: str) -> None:
        """Take an ICMP error about what a session's socket has sent."""

    def warn(self, text: str) -> None:
        """Log a warning, within a limit."""


class Session(DatagramProtocol):
    """One upstream socket: a client, as the server sees it."""

    noisy = False
    transport: Any  # our own port or any other IUDPTransport

    def __init__(self, relay: SessionOwner, client: Address, source: Address) -> None:
        self.client = client
        self.source = source
        self.own_address = ("", 0)
        self.last_used = 0.0
        self._relay = relay

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take a reply."""
        self._relay.reply_received(datagram, addr, self)

    def connectionRefused(self) -> None:
        """Take a port-unreachable, by the name that Twisted has for it on a connected port."""
        self._relay.server_unreachable("Connection refused")

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:  # noqa: ARG002  # an interface
        """Take any other ICMP error."""
        if reason.errno != errno.ECONNREFUSED:
            self._relay.server_unreachable(reason.reason)


class Sessions:
    """The upstream sockets of a relay, the one that has been idle the longest first.

    Attributes:
        own_addresses: What they are bound to.
    """

    def __init__(self, relay: SessionOwner, reactor: Any, most: int, timeout: float) -> None:
        self.own_addresses: set[Address] = set()
        self._relay = relay
        self._reactor = reactor
        self._most = most
        self._timeout = timeout
        self._open: OrderedDict[tuple[Address, Address], Session] = OrderedDict()
        self._closing: list[Deferred[Any]] = []

    def __len__(self) -> int:
        return len(self._open)

    @property
    def next_expiry(self) -> float | None:
        """When the session that has been idle the longest expires."""
        for session in self._open.values():
            return session.last_used + self._timeout
        return None

    def of(self, client: Address, source: Address, now: float) -> Session | None:
        """Return the session of a client whose datagrams come from a source; ``None`` if none can be opened."""
        session = self._open.get((client, source))
        if session is not None:
            return session
        session = self._new(client, source)
        if session is not None:
            session.last_used = now
            self._open[client, source] = session
            self.own_addresses.add(session.own_address)
            self._relay.stats.sessions_opened += 1
            if len(self._open) > self._most:
                self._close(next(iter(self._open.values())))
                self._relay.stats.sessions_evicted += 1
        return session

    def used(self, session: Session, now: float) -> None:
        """Note that a session is in use."""
        key = (session.client, session.source)
        if key in self._open:
            session.last_used = now
            self._open.move_to_end(key)

    def expire(self, now: float) -> None:
        """Close what has been idle for too long."""
        while self._open:
            session = next(iter(self._open.values()))
            if session.last_used + self._timeout > now:
                return
            self._close(session)
            self._relay.stats.sessions_expired += 1

    def close(self) -> Deferred[Any]:
        """Close all; return a Deferred that fires when that has been done."""
        for session in list(self._open.values()):
            self._close(session)
        return gatherResults(list(self._closing))

    def _new(self, client: Address, source: Address) -> Session | None:
        session = Session(self._relay, client, source)
        relay = self._relay
        try:
            port: Any = transport.listen(self._reactor, 0, session, "::" if is_ipv6(relay.server[0]) else "")
            port.connect(*relay.server)
        except (OSError, CannotListenError) as error:
            relay.stats.sessions_failed += 1
            relay.warn(_explain_failure(error, relay.server, len(self)))
            if session.transport is not None:
                self._stop(session)
            return None
        own = port.getHost()
        session.own_address = (unmapped(own.host), own.port)
        return session

    def _close(self, session: Session) -> None:
        del self._open[session.client, session.source]
        self.own_addresses.discard(session.own_address)
        self._stop(session)

    def _stop(self, session: Session) -> None:
        stopped = maybeDeferred(session.transport.stopListening)
        self._closing.append(stopped)
        stopped.addBoth(lambda _: self._closing.remove(stopped))


def _explain_failure(error: Exception, server: Address, count: int) -> str:
    cause = error.socketError if isinstance(error, CannotListenError) else error
    if getattr(cause, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return (
            f"no file descriptor is left for another client, {count:,} have theirs; raise the limit (ulimit -n), or "
            "allow fewer sessions"
        )
    return f"no socket to {format_address(server)} can be had: {cause}"
