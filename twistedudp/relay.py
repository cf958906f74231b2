"""A relay that puts a bad network between clients and a server: real sockets, and the effects of a simulated link.

Theory of operation: clients send to the relay's port instead of the server's. Each client gets an upstream socket of
its own, connected to the server, so that the server can tell clients apart and the relay knows whose reply came. What
comes from a client travels the link to the server, what comes from the server the link to the client; both links are
shared by all clients, so that a rate limit or a burst of loss is that of one path. Delayed datagrams wait in one heap
(:mod:`twistedudp._in_flight`) with one timer, which a reactor keeps to about a millisecond: late rather than early.

An upstream socket belongs to a client *and* to the source address that the effects leave its datagrams with: an effect
that plays a NAT, and replaces ``Datagram.source``, makes the server see another port. Which port that is the kernel
says, not the effect. What comes to it travels back to the address that the effect knows, so that the NAT's other half
finds it, or loses it. Where a datagram goes in the end is not the effects' business: there is one server, and each
upstream socket has one client.

An ordinary process cannot send ICMP errors. Those that an effect makes and those that the server's host sends are
therefore counted and end here: a client sees what it sees behind a firewall that filters ICMP, silence.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import gatherResults
from twisted.internet.error import InvalidAddressError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.logger import Logger

from ._alarm import Alarm, steady_clock
from ._in_flight import Direction, InFlight
from ._rate_limit import RateLimit
from ._resolve import resolve
from ._sessions import MAX_SESSIONS, SESSION_TIMEOUT, RelayStats, Sessions
from .address import format_address, is_group, is_ip, is_unspecified
from .errors import InvalidAddress
from .impairment import Datagram, Link, parse_effects
from .server import UDPServerService

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from twisted.internet.defer import Deferred

    from ._in_flight import DirectionStats
    from ._sessions import Session
    from .address import Address
    from .impairment import LinkEffect
    from .interfaces import Unreachable
    from .transport import BoundSocket

    Effects: TypeAlias = tuple[Iterable[LinkEffect], Iterable[LinkEffect]]

__all__ = ["MAX_SESSIONS", "SESSION_TIMEOUT", "RelayProtocol", "RelayStats", "UDPImpairmentService"]

_SECONDS_PER_WARNING: Final = 60.0

_log = Logger(namespace="twistedudp")


class RelayProtocol(DatagramProtocol):
    """Relays between the clients that send to its port and one server, over two links.

    Args:
        reactor: Provides IReactorTime, and ports as :func:`twistedudp.transport.listen` wants them.
        server: The server's numeric address.
        effects: The effects on what clients send, and those on what the server sends; their time begins when the
            protocol is started.
        seed: What the effects' randomness is derived from.
        max_sessions: Upstream sockets that may be open at once.
        session_timeout: Seconds after which an idle upstream socket is closed.
        clock: Returns seconds and does not go back.

    Attributes:
        server: The server's address.
        stats: The :class:`RelayStats`.

    Raises:
        InvalidAddress: ``server`` is not the numeric address of one host.
    """

    noisy = False
    transport: Any  # our own port or any other IUDPTransport

    def __init__(
        self,
        reactor: Any,
        server: Address,
        effects: Effects = ((), ()),
        *,
        seed: int = 0,
        max_sessions: int = MAX_SESSIONS,
        session_timeout: float = SESSION_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = _checked_server(server)
        to_server, to_client = effects
        self._to_server = Direction(_link(seed, "to server", to_server), self._arrived_at_server)
        self._to_client = Direction(_link(seed, "to client", to_client), self._arrived_at_client)
        self.stats = RelayStats(self._to_server.stats, self._to_client.stats)
        self._clock = clock
        self._begun = clock()
        self._in_flight = InFlight()
        self._alarm = Alarm(reactor, self._now, self._wake)
        self._sessions = Sessions(self, reactor, max_sessions, session_timeout)
        self._warnings = RateLimit(1, _SECONDS_PER_WARNING, clock)

    def startProtocol(self) -> None:
        """Begin the effects' time."""
        self._begun = self._clock()

    def stopProtocol(self) -> None:
        """Close the upstream sockets and drop what is under way."""
        self.close()

    def close(self) -> Deferred[Any]:
        """Close the upstream sockets and drop what is under way.

        Returns:
            A Deferred that fires when they are closed.
        """
        self._alarm.cancel()
        self._in_flight.clear()
        return self._sessions.close()

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Send a client's datagram on its way to the server."""
        if addr[1] == 0:
            self.stats.refused_port_zero += 1
            return
        if addr in self._sessions.own_addresses:
            self.stats.refused_own += 1
            return
        self._in_flight.send(Datagram(addr, self.server, datagram), self._to_server, addr, self._now())
        self._alarm.at(self._in_flight.next_due)

    def reply_received(self, datagram: bytes, addr: Address, session: Session) -> None:
        """Send a server's datagram on its way to the client; called by the client's upstream socket."""
        if addr != self.server:  # it came before the socket was connected
            self.stats.refused_stranger += 1
            return
        now = self._now()
        self._sessions.used(session, now)
        self._in_flight.send(Datagram(self.server, session.source, datagram), self._to_client, session.client, now)
        self._alarm.at(self._in_flight.next_due)

    def server_unreachable(self, reason: str) -> None:
        """Count an ICMP error about what was sent to the server, and log one now and then."""
        self.stats.server_unreachable += 1
        self.warn(f"the server {format_address(self.server)} cannot be reached: {reason}; clients are not told")

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:  # noqa: ARG002  # an interface
        """Count an ICMP error about what was sent to a client."""
        self.stats.client_unreachable += 1

    def warn(self, text: str) -> None:
        """Log a warning that anybody on the network can provoke, unless one was logged just now."""
        if self._warnings.allowed():
            suppressed = self._warnings.take_suppressed()
            _log.warn(
                "{text}", text=f"{text} ({suppressed:,} warnings before this one were left out)" if suppressed else text
            )

    def describe(self) -> str:
        """Return the counters in one line."""
        stats = self.stats
        sessions = f"sessions: {len(self._sessions)} open, {stats.sessions_opened} opened"
        rare = {
            "expired": stats.sessions_expired,
            "evicted": stats.sessions_evicted,
            "failed to open": stats.sessions_failed,
            "datagrams not sendable": stats.unsendable,
            "from port 0": stats.refused_port_zero,
            "from the relay itself": stats.refused_own,
            "from strangers": stats.refused_stranger,
            "ICMP errors about the server": stats.server_unreachable,
            "ICMP errors about clients": stats.client_unreachable,
        }
        return "; ".join(
            (
                f"to server: {_describe_direction(stats.to_server)}",
                f"to client: {_describe_direction(stats.to_client)}",
                f"under way: {len(self._in_flight)}",
                ", ".join((sessions, *(f"{count} {what}" for what, count in rare.items() if count))),
            )
        )

    def _now(self) -> float:
        return self._clock() - self._begun

    def _wake(self, now: float) -> None:
        try:
            self._in_flight.run(now)
            self._sessions.expire(now)
        finally:  # an effect of somebody else's may raise; the reactor logs that, and the others must not wait for ever
            self._alarm.at(self._in_flight.next_due)
            self._alarm.at(self._sessions.next_expiry)

    def _arrived_at_server(self, datagram: Datagram, client: Address) -> None:
        now = self._now()
        session = self._sessions.of(client, datagram.source, now)
        if session is None:
            self.stats.unsendable += 1
            return
        self._write(session.transport, datagram.payload, None)
        self._sessions.used(session, now)
        self._alarm.at(self._sessions.next_expiry)

    def _arrived_at_client(self, datagram: Datagram, client: Address) -> None:
        self._write(self.transport, datagram.payload, client)

    def _write(self, port: Any, payload: bytes, addr: Address | None) -> None:
        try:
            port.write(payload, addr)
        except (OSError, MessageLengthError, InvalidAddressError) as error:
            self.stats.unsendable += 1
            self.warn(f"a datagram of {len(payload):,} bytes could not be sent on: {error}")


class UDPImpairmentService(UDPServerService):
    """A relay with a bad network in it, as an ``IService``.

    Args:
        reactor: Provides ``IReactorUDP``, or ``IReactorFDSet`` for ports of ours.
        port: The port number to listen on; 0 picks a free one.
        server: The numeric address of the server to relay to.
        interface: A numeric address of this machine to listen on.
        effects: A text for :func:`twistedudp.impairment.parse_effects`, for both directions; or a callable without
            arguments that returns new effects on what clients send and new ones on what the server sends, such as
            ``lambda: ([Loss(0.3)], [])``, called at each start.
        seed: What the effects' randomness is derived from; ``None`` takes the seed in the text of ``effects``, or 0.
        max_sessions: Upstream sockets that may be open at once.
        session_timeout: Seconds after which an idle upstream socket is closed.
        bound: A socket that is bound already, for the first start; the service owns it from now on.

    Attributes:
        protocol: The :class:`RelayProtocol`, whose ``stats`` tell what happened; ``None`` before the first start.

    Raises:
        InvalidAddress: ``server`` is not the numeric address of one host.
        twistedudp.impairment.EffectError: The text of the effects is wrong.
        ValueError: The text has a seed, and another one was given beside it.
    """

    protocol: RelayProtocol | None

    def __init__(
        self,
        reactor: Any,
        port: int,
        server: Address,
        interface: str = "127.0.0.1",
        *,
        effects: str | Callable[[], Effects] = "",
        seed: int | None = None,
        max_sessions: int = MAX_SESSIONS,
        session_timeout: float = SESSION_TIMEOUT,
        bound: BoundSocket | None = None,
    ) -> None:
        server = _checked_server(server)
        make_effects, chosen_seed = _recipe(effects, seed)
        clock = steady_clock(reactor)

        def make() -> RelayProtocol:
            return RelayProtocol(
                reactor,
                server,
                make_effects(),
                seed=chosen_seed,
                max_sessions=max_sessions,
                session_timeout=session_timeout,
                clock=clock,
            )

        super().__init__(reactor, port, make, interface, bound=bound)

    def log_statistics(self) -> None:
        """Log the counters in one line."""
        if self.protocol is not None:
            _log.info("statistics: {text}", text=self.protocol.describe())

    def stopService(self) -> Deferred[Any] | None:
        """Log the counters and stop; what is under way is dropped.

        Returns:
            A Deferred that fires when all ports are free; ``None`` if the service was not running.
        """
        stopping = super().stopService()
        if stopping is None or self.protocol is None:
            return stopping
        self.log_statistics()
        return gatherResults([stopping, self.protocol.close()])


def _link(seed: int, name: str, effects: Iterable[LinkEffect]) -> Link:
    link = Link(seed, name, 0.0)
    for effect in effects:
        link.add(effect)
    return link


def _recipe(effects: str | Callable[[], Effects], seed: int | None) -> tuple[Callable[[], Effects], int]:
    """Return what makes the effects at each start, and the seed."""
    if not isinstance(effects, str):
        return effects, seed or 0
    parsed = parse_effects(effects)
    if None not in (seed, parsed.seed) and seed != parsed.seed:
        raise ValueError(f"there are two seeds, {seed} and the effects' {parsed.seed}; leave one of them out")
    return parsed.make_pair, seed or parsed.seed or 0


def _checked_server(server: Address) -> Address:
    host, port = server
    if not is_ip(host):
        raise InvalidAddress(f"{host!r} is not a numeric address; resolve it first")
    if is_group(host) or is_unspecified(host):
        raise InvalidAddress(f"{host} is not the address of one server")
    if not 0 < port <= 65535:
        raise InvalidAddress(f"{port} is not a port that a server can have: 1 to 65535")
    spelled: list[Address] = []
    resolve(None, host, port, None, spelled.extend)  # numeric: at once
    return spelled[0]


def _describe_direction(stats: DirectionStats) -> str:
    parts = [f"{stats.sent} received", f"{stats.arrived} sent", _by_effect(stats, "lost")]
    parts += [_by_effect(stats, what) for what in ("refused", "added", "changed")]
    if stats.overflowed:
        parts.append(f"{stats.overflowed} dropped because too many were under way")
    return ", ".join(filter(None, parts))


def _by_effect(stats: DirectionStats, what: str) -> str:
    """Return ``51 lost (Loss 51)``; nothing where it did not happen, but a loss of 0 is worth telling."""
    counts = {label: getattr(effect, what) for label, effect in stats.effects.items() if getattr(effect, what)}
    if not counts:
        return "0 lost" if what == "lost" else ""
    return f"{sum(counts.values())} {what} ({', '.join(f'{label} {count}' for label, count in counts.items())})"
