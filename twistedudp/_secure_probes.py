"""Probes in DTLS: what stands in the place of a port for a :class:`~._prober.Prober`.

Theory of operation: a session is shaken hands for before the first probe, and probes are written into it. A server that
was started again does not know the session and cannot say so; where it stopped in order, it has said so before. So when
the session has ended, or nothing has come in it for some time, another is made, each by a :class:`DTLSClient` of its
own. The silent one is used until then, for silence may be the network's: what would be lost is lost, and what comes
back ends the new handshake. Nothing is kept for later: a probe that leaves late would measure this program. What is
written while there is no session is dropped and counted, and so it is lost.

The kernel tells when a record arrived, which is the time of the answer in it. Datagrams are read one by one, for those
of a batch may have one time for all.
"""

from __future__ import annotations

from collections import ChainMap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import DatagramProtocol

from . import transport
from ._alarm import steady_clock
from .dtls import DTLSClient, DTLSLimits
from .errors import DTLSHandshakeFailed, RequestAborted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.interfaces import IListeningPort
    from twisted.python.failure import Failure

    from .address import Address
    from .dtls import DTLSContext
    from .interfaces import Unreachable

__all__ = ["HANDSHAKE_TIME", "LEAST_SILENCE", "PAUSE", "UNANSWERED", "ProbeSessions", "SessionCounts"]

HANDSHAKE_TIME: Final = 10.0
"""Seconds for a handshake: its flights are sent again after 1, 3 and 7 s, and from a fresh port after 4 s."""

PAUSE: Final = 1.0
"""Seconds from the start of a handshake to that of the next, so that a server that is away is not flooded with them."""

LEAST_SILENCE: Final = 1.0
"""Seconds without an answer after which a session may have been forgotten; a longer timeout of answers counts."""

UNANSWERED: Final = 3
"""Probes in a row that must have had no answer by then: one or two are lost on the best of paths."""

_REFLECTIONS: Final = 2
"""How often a ClientHello must come back to be believed: one may be forged."""

_HELLO: Final = slice(0, 1), slice(13, 14)  # the types of record and handshake message (RFC 6347 section 4.1, 4.2.2)


@dataclass
class SessionCounts:
    """What became of a run's sessions.

    Attributes:
        handshake: Seconds that the first handshake took; None before it is over.
        handshakes: How many were completed.
        without_session: Probes written while there was no session.
    """

    handshake: float | None = None
    handshakes: int = 0
    without_session: int = 0


@dataclass
class _PortStats:
    """The counters of the port in use, as far as a prober wants them."""

    send_errors: ChainMap[int, int] = field(default_factory=ChainMap)
    port: Any = None

    @property
    def turns_cut_short(self) -> int:
        """How many turns ended before the port had read everything."""
        stats = getattr(self.port, "stats", None)
        return 0 if stats is None else int(stats.turns_cut_short)

    def are_of(self, port: Any) -> None:
        """Tell of another port from now on."""
        self.port = port
        stats = getattr(port, "stats", None)
        self.send_errors.maps[0] = {} if stats is None else stats.send_errors


class ProbeSessions:  # budget: a port's part, a client's part, and when to look for another session
    """Sessions with one server, one after the other; a port to a prober.

    Args:
        reactor: The reactor.
        peer: The server's numeric address and port.
        server_name: Whose certificate it must show.
        context: A client's certificates.
        silence: Seconds after which an answer is late; see :data:`LEAST_SILENCE`.
        interface: The local address to send from; empty for what the kernel chooses.

    Attributes:
        peer: The server's address.
        counts: What became of the sessions.
        stats: The counters of the port in use that a prober wants.
        arrival_times: When the answer being delivered arrived, as a port's own.

    Raises:
        DTLSConfigurationError: The context is a server's, or the name cannot be that of a host.
    """

    def __init__(
        self,
        reactor: Any,
        peer: Address,
        server_name: str,
        context: DTLSContext,
        *,
        silence: float = 2.0,
        interface: str = "",
    ) -> None:
        self.peer = peer
        self.counts = SessionCounts()
        self.stats = _PortStats()
        self.arrival_times: Sequence[int] = ()
        self._make: Callable[[_Session], DTLSClient] = lambda session: DTLSClient(
            reactor,
            peer,
            server_name,
            context,
            session,
            interface=interface,
            limits=DTLSLimits(),
            listen=session.listen,
        )
        self._silence = max(silence, LEAST_SILENCE)
        self._clock = steady_clock(reactor)
        self._protocol: DatagramProtocol | None = None
        self._now: _Session | None = None
        self._next: _Session | None = None
        self._closing: list[Deferred[None]] | None = []
        self._unanswered = 0
        self._quiet_since = self._began = -PAUSE

    def open(self) -> Deferred[None]:
        """Shake hands.

        Returns:
            A Deferred that fires with None, or fails with DTLSHandshakeFailed; cancelling it ends the handshake.
        """
        opened: Deferred[None] = Deferred(lambda _: self._drop_next())
        self._shake(opened)
        return opened

    def begin(self, protocol: DatagramProtocol) -> ProbeSessions:
        """Be the transport of a protocol, and return what its port is: this."""
        self._protocol = protocol
        protocol.makeConnection(self)  # type: ignore[arg-type]  # of a transport it uses arrival_times alone
        return self

    def write(self, payload: bytes, _addr: Address | None = None) -> None:
        """Send a probe in the session there is.

        Raises:
            twisted.internet.error.MessageLengthError: It does not fit a datagram.
        """
        if self._now is None:
            self.counts.without_session += 1
            self._renew()
            return
        if not self._unanswered:
            self._quiet_since = self._clock()
        self._unanswered += 1
        self._now.client.write(payload)
        if self._unanswered > UNANSWERED and self._clock() - self._quiet_since > self._silence:
            self._renew()

    def stopListening(self) -> Deferred[None]:
        """End everything, telling the server; the Deferred fires when the ports are free."""
        if self._closing is None:
            return gatherResults([]).addCallback(lambda _: None)
        now, self._now = self._now, None
        coming = self._next
        self._drop_next()
        if coming is not None and not self.counts.handshakes:
            coming.result.errback(RequestAborted("the handshake was ended"))
        if now is not None:
            self._close(now)
        closing, self._closing = self._closing, None
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.doStop()  # type: ignore[no-untyped-call]  # Twisted has no types there
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)

    # -- what sessions tell

    def heard(self, session: _Session, payload: bytes) -> None:
        """Deliver."""
        if session is not self._now or self._protocol is None:
            return
        self._unanswered = 0
        self._drop_next()  # the session lives
        self.arrival_times = session.client.arrival_times
        try:
            self._protocol.datagramReceived(payload, self.peer)
        finally:
            self.arrival_times = ()

    def refused(self, session: _Session, reason: Unreachable, payload: bytes) -> None:
        """Tell of a probe that the network did not deliver."""
        told: Any = getattr(self._protocol, "peer_unreachable", None)
        if session is self._now and told is not None:
            told(self.peer, reason, payload)

    def lost(self, session: _Session) -> None:
        """Make another session."""
        if session is self._now:
            self._now = None
            self._close(session)
            self._renew()

    def reflected(self, session: _Session) -> None:
        """Give up: the server sends back what it gets."""
        if session is self._next and not self.counts.handshakes:
            text = "it sent back what it got: an echo server for plain UDP listens there; leave --dtls out"
            self._drop_next()
            session.result.errback(DTLSHandshakeFailed(self.peer, "failed", text))

    # -- sessions

    def _renew(self) -> None:
        """Shake hands anew, unless that is being done or was done just now."""
        if self._closing is not None and self._next is None and self._clock() >= self._began + PAUSE:
            self._shake(Deferred())

    def _shake(self, result: Deferred[None]) -> None:
        self._began = self._clock()
        session = self._next = _Session(self, result)
        session.client = self._make(session)
        session.client.open(HANDSHAKE_TIME).addCallbacks(
            lambda _: self._opened(session), lambda failure: self._failed(session, failure)
        )

    def _opened(self, session: _Session) -> None:
        if session is not self._next:
            return
        self._next = None
        former, self._now = self._now, session
        self._unanswered = 0
        self.stats.are_of(session.port)
        self.counts.handshakes += 1
        if self.counts.handshake is None:
            self.counts.handshake = self._clock() - self._began
        if former is not None:
            self._close(former)
        session.result.callback(None)

    def _failed(self, session: _Session, failure: Failure) -> None:
        if session is self._next:
            self._next = None
            self._close(session)
            if not self.counts.handshakes:  # else nobody waits: the run tells of it by what it lost
                session.result.errback(failure)

    def _drop_next(self) -> None:
        session, self._next = self._next, None
        if session is not None:
            self._close(session)

    def _close(self, session: _Session) -> None:
        if self._closing is None:
            return
        self._closing = [closed for closed in self._closing if not closed.called]
        self._closing.append(session.client.stopListening())


class _Session(DatagramProtocol):
    """What a session's client gives its payloads to, and where its ports come from.

    Args:
        owner: Whom to tell.
        result: What fires at the end of the handshake.
    """

    noisy = False
    client: DTLSClient

    def __init__(self, owner: ProbeSessions, result: Deferred[None]) -> None:
        self.result = result
        self.port: IListeningPort | None = None
        self._owner = owner
        self._reflections = 0

    def datagramReceived(self, datagram: bytes, _addr: Address) -> None:
        """Take a payload."""
        self._owner.heard(self, datagram)

    def peer_lost(self, _addr: Address, _reason: str) -> None:
        """Learn that the session is no more."""
        self._owner.lost(self)

    def peer_unreachable(self, _addr: Address, reason: Unreachable, quoted: bytes) -> None:
        """Learn that the network did not deliver a payload."""
        self._owner.refused(self, reason, quoted)

    def listen(
        self, reactor: Any, port: int, protocol: DatagramProtocol, interface: str, **options: Any
    ) -> IListeningPort:
        """Open a port whose datagrams have times and are delivered one by one."""
        taker = _OneByOne(protocol, self._saw)
        self.port = transport.listen(reactor, port, taker, interface, timestamps=True, **options)
        return self.port

    def _saw(self, datagram: bytes) -> None:
        record, message = _HELLO
        if (datagram[record], datagram[message]) == (b"\x16", b"\x01"):  # no server says hello to a client
            self._reflections += 1
            if self._reflections == _REFLECTIONS:
                self._owner.reflected(self)


class _OneByOne(DatagramProtocol):
    """Hands single datagrams to a protocol that would rather have batches.

    Args:
        protocol: The protocol.
        saw: Called with each datagram before.
    """

    noisy = False

    def __init__(self, protocol: Any, saw: Callable[[bytes], None]) -> None:
        self._protocol = protocol
        self._saw = saw

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Hand on a datagram."""
        self._saw(datagram)
        self._protocol.datagramReceived(datagram, addr)

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Hand on the network's word."""
        self._protocol.peer_unreachable(peer, reason, quoted)
