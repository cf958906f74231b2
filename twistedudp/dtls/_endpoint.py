"""The server's side: a port whose datagrams are those of sessions.

Theory of operation, for each address::

    nothing  --ClientHello without cookie--> answered with one; still nothing
    nothing  --ClientHello, cookie ok--> SHAKING: in the half-open table, with a deadline and OpenSSL's own timer
    SHAKING  --the same ClientHello--> the same Connection, which repeats its flight
    SHAKING  --another ClientHello, cookie ok--> SHAKING, in the former's place
    SHAKING  --complete, certificate ok--> OPEN, in the place of an older OPEN of the same address
    SHAKING  --error, deadline, put out by others--> nothing
    OPEN     --close_notify--> the same is answered; nothing      --OpenSSL gave up--> nothing
    OPEN     --idle--> close_notify; nothing

An address may have one of each: a client that was started again is a stranger until its handshake is complete, and the
former session goes on till then, for anybody can send a ClientHello in somebody's name. Epoch 0 is the handshake's;
later epochs are the open session's, and the handshake's where they bring it nothing. A ClientHello that is known by its
random never makes a second Connection: the client would mix two flights.

Records of an address without a session are dropped, never tried on other sessions. A peer whose address changed, behind
a NAT, is therefore a stranger, and has to begin anew.

During a handshake nothing protects from datagrams that somebody sends with the peer's address: one of them can end it.
OpenSSL gives it up then, and it is the client that tries again.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from twisted.internet.error import MessageLengthError
from twisted.internet.interfaces import IUDPTransport
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from .._alarm import steady_clock
from ..errors import DTLSConfigurationError
from ._delivery import Delivery
from ._failures import PeerRefused, why
from ._half_open import HalfOpen
from ._limits import DTLSLimits, DTLSStats
from ._listener import Listener
from ._opened import OpenSessions
from ._records import APPLICATION_DATA, client_random, epoch, is_client_hello, is_dtls, pack
from ._reports import FULL, Reports
from ._timetable import Timetable
from ._transport import SessionTransport, send_to_anybody, send_together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.address import IPv4Address, IPv6Address
    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import AbstractDatagramProtocol

    from ..address import Address
    from ._session import Policy, Session

__all__ = ["DTLSEndpoint"]


@implementer(IUDPTransport)
class DTLSEndpoint(SessionTransport, DatagramProtocol):
    """Give DTLS to a protocol: listen with this in its place.

    To the wrapped protocol it is the transport. Empty datagrams are not carried, nor what does not fit the MTU.

    Args:
        protocol: The protocol to wrap; its ``datagrams_received``, if it has one, gets batches. The package's docstring
            tells what else it may have.
        context: A server's :class:`DTLSContext`.
        reactor: Provides IReactorTime.
        limits: The bounds.
        random_bytes: Where keys of cookies come from.

    Attributes:
        context: The context; its ``reload()`` takes effect for the sessions to come.
        limits: The bounds.
        stats: The counters, a :class:`DTLSStats`.
        protocol: The wrapped protocol.
        payload_limit: Bytes of the largest payload that surely fits a datagram.
        proves_addresses: True: whoever has a session has shown that it gets what is sent to its address.

    Raises:
        twistedudp.errors.DTLSConfigurationError: The context is a client's.
    """

    noisy = False

    def __init__(
        self,
        protocol: AbstractDatagramProtocol,
        context: Policy,
        *,
        reactor: Any,
        limits: DTLSLimits = DTLSLimits(),  # noqa: B008  # it is frozen
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        if not context.is_server:
            raise DTLSConfigurationError("a server needs the context of one: DTLSContext.server(certificate, key)")
        self.context = context
        self.limits = limits
        self.stats = DTLSStats()
        self._clock = steady_clock(reactor)
        self._port: Any = None
        self._only: Address | None = None
        self._opened = OpenSessions(limits)
        self._half_open = HalfOpen(limits)
        self._listener = Listener(context, limits, self.stats, random_bytes, now=self._clock())
        self._timetable = Timetable(reactor, self._clock, self._due)
        self._delivery = Delivery(protocol, self.stats, self._clock)
        self._reports = Reports(self._clock)

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return len(self._opened)

    @property
    def half_open(self) -> int:
        """How many handshakes are under way."""
        return len(self._half_open.sessions)

    def peer_certificate_name(self, addr: Address) -> str | None:
        """Return the verified name of a peer: the first DNS, IP, URI or email subjectAltName, else the common name.

        ``None`` where there is no session with it, or no certificate was asked for.
        """
        session = self._opened.get(addr)
        return None if session is None else session.name

    def session_number(self, addr: Address) -> int | None:
        """Return the number of the session that is open with a peer, never used twice; ``None`` where there is none."""
        session = self._opened.get(addr)
        return None if session is None else session.number

    def close_sessions(self, reason: str = "stopped") -> None:
        """End all sessions and handshakes, telling those whose session is open (close_notify). New ones can begin.

        Args:
            reason: What they are counted as, and what the wrapped protocol's ``peer_lost`` is told.
        """
        for session in list(self._half_open.sessions.values()):
            self._give_up(session, reason)
        for session in list(self._opened.values()):
            self._end(session, reason)

    def startProtocol(self) -> None:
        """Start the wrapped protocol."""
        self._port = self.transport
        self.protocol.makeConnection(self)

    def stopProtocol(self) -> None:
        """Stop the wrapped protocol, which may write a last datagram, and end all sessions."""
        try:
            self.protocol.doStop()  # type: ignore[no-untyped-call]  # Twisted has no types there
        finally:
            self.close_sessions()
            self._timetable.cancel()
            self._port = None

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take a datagram."""
        if getattr(self._port, "delivering_to_group", False):
            self.stats.dropped["group"] += 1
        else:
            self.datagrams_received(((datagram, addr),))

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Take all the datagrams that have come."""
        now = self._clock()
        times = getattr(self._port, "arrival_times", ())
        opened, shaking, deliver = self._opened, self._half_open.sessions, self._delivery.add
        for index, (datagram, addr) in enumerate(datagrams):
            session = opened.get(addr)
            if session is None or addr in shaking or datagram[:1] != b"\x17" or not is_dtls(datagram):
                payloads = self._route(datagram, addr, now)
                session = opened.get(addr)
            else:
                payloads = self._hear(session, datagram, now)
            if payloads:
                deliver(payloads, addr, times[index] if times else None)
            if session is not None and session.ended:
                self._end(session, session.ended)
        self._delivery.deliver()

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Send one datagram in the session of its peer.

        Without a session it is dropped and counted (``not_sent``): a server does not begin one.

        Raises:
            twisted.internet.error.MessageLengthError: It is empty, which DTLS does not carry, or does not fit the MTU.
        """
        session = self._opened.get(addr or self._only or ("", 0))
        if session is None:
            self.stats.not_sent["no_session"] += 1
            return
        sealed = session.seal(packet)
        if session.ended:
            self._end(session, session.ended)
        elif len(sealed) <= self.limits.mtu:
            self._port.write(sealed, session.address)
        else:
            self._send(pack(sealed, self.limits.mtu), session.address)

    def write_batch(self, datagrams: Sequence[tuple[bytes, Address]]) -> list[tuple[bytes, Address, Exception]]:
        """Send several datagrams at once, in order; otherwise as :meth:`write`.

        Returns:
            Those that the caller made wrong, each with its peer and with what ``write`` would have raised.
        """
        refused: list[tuple[bytes, Address, Exception]] = []
        sealed: list[tuple[bytes, Address]] = []
        for payload, addr in datagrams:
            session = self._opened.get(addr)
            if session is None:
                self.stats.not_sent["no_session"] += 1
                continue
            try:
                records = session.seal(payload)
            except MessageLengthError as error:
                refused.append((payload, addr, error))
                continue
            if session.ended:
                self._end(session, session.ended)
            else:
                sealed += [(datagram, addr) for datagram in pack(records, self.limits.mtu)]
        if self._port is not None:
            send_together(self._port, sealed)
        return refused

    def connect(self, host: str, port: int) -> None:
        """Let this port have one peer: only its datagrams are taken, and ``write`` needs no address."""
        self._port.connect(host, port)
        self._only = (host, port)

    def getHost(self) -> IPv4Address | IPv6Address:
        """Return the address that the port is bound to."""
        host: IPv4Address | IPv6Address = self._port.getHost()
        return host

    def stopListening(self) -> Deferred[None] | None:
        """Stop the port: the wrapped protocol is stopped, and all peers are told (close_notify).

        It returns a Deferred that fires with None when the UDP port is free; None where it was so already.
        """
        return None if self._port is None else self._port.stopListening()

    def _route(self, datagram: bytes, addr: Address, now: float) -> Sequence[bytes]:
        """Find out whose a datagram is, and return the payloads that it brings."""
        dropped = self.stats.dropped
        if not is_dtls(datagram):
            dropped["not_dtls"] += 1
            self._reports.foreign(addr)
            return ()
        if not addr[1]:
            dropped["source_port_zero"] += 1
            return ()
        session, shaking = self._opened.get(addr), self._half_open.sessions.get(addr)
        if is_client_hello(datagram):
            return self._greet(session, shaking, datagram, addr, now)
        if session is not None and (shaking is None or epoch(datagram)):
            payloads = self._hear(session, datagram, now)
            if payloads or shaking is None or session.ended:
                return payloads
        if shaking is None:
            dropped["unknown_peer"] += session is None
            return ()
        return self._shake(shaking, datagram, now)

    def _hear(self, session: Session, datagram: bytes, now: float) -> Sequence[bytes]:
        """Give a datagram to a session that is open."""
        payloads = session.receive(datagram)
        if payloads:
            session.heard = now
        elif not session.ended:
            self.stats.dropped["no_data"] += 1
        if datagram[0] != APPLICATION_DATA or session.ended or session.alarms:
            self.stats.alarms_survived += session.alarms
            session.alarms = 0
            self._send(session.outgoing(), session.address)
        return payloads

    def _greet(
        self, session: Session | None, shaking: Session | None, hello: bytes, addr: Address, now: float
    ) -> Sequence[bytes]:
        """Take a ClientHello: one that is known belongs to its Connection, any other to the listener."""
        random = client_random(hello)
        if shaking is not None and shaking.random == random:
            return self._shake(shaking, hello, now)
        if session is not None and session.random == random:
            self.stats.dropped["repeated_hello"] += 1
            return ()
        refusal = self._opened.refusal(addr) or self._half_open.refusal(addr, now)
        if refusal:
            self.stats.dropped[refusal] += 1
            self._reports.full(addr, refusal)
            return ()
        session = self._listener.hear(hello, random, addr, now, self._send)
        if session is None:
            return ()
        replaced = self._half_open.add(session)
        if replaced is not None:
            self._give_up(replaced, "restarted" if replaced.address == addr else "evicted")
        return self._shake(session, b"", now)

    def _shake(self, session: Session, datagram: bytes, now: float) -> Sequence[bytes]:
        """Take a step of a handshake; return what came with its last one."""
        complete = session.shake(datagram)
        self.stats.alarms_survived += session.alarms
        session.alarms = 0
        self._send(session.outgoing(), session.address)
        if session.ended:
            self._refuse(session, why(session.facts, session.error))
        elif not complete:
            self._watch(session, now)
        elif self._open(session, now):
            payloads = session.drain()  # what was kept back until the handshake was over
            self._send(session.outgoing(), session.address)
            return payloads
        return ()

    def _open(self, session: Session, now: float) -> bool:
        """Let a session that is complete take its place, if its peer is let in."""
        try:
            name = self.context.verified_name(session.connection, None)
        except PeerRefused as refused:
            self._refuse(session, refused)
            return False
        refusal = self._opened.refusal(session.address)
        if refusal:
            self.stats.dropped[refusal] += 1
            self._refuse(session, PeerRefused("failed", FULL[refusal]))
            return False
        self._half_open.remove(session)
        former = self._opened.get(session.address)
        if former is not None:
            self.stats.replaced += 1
            self._end(former, "replaced")
        session.set_open(name, now)
        self._opened.add(session)
        self.stats.opened += 1
        self._timetable.set(session, now + self.limits.idle_timeout)
        self._delivery.tell("peer_verified", session.address, name)
        return not session.ended

    def _refuse(self, session: Session, refused: PeerRefused) -> None:
        """End a handshake that failed, and say so."""
        if not session.ended:  # OpenSSL has nothing against the peer, so it has not told it
            self._send(session.farewell(), session.address)
        self._give_up(session, refused.reason)
        self._reports.refused(session.address, refused.text)

    def _give_up(self, session: Session, reason: str) -> None:
        """Forget a handshake."""
        self._half_open.remove(session)
        self._timetable.forget(session)
        session.drop()
        self.stats.failed[reason] += 1

    def _end(self, session: Session, reason: str) -> None:
        """Forget a session that was open; its peer is told, unless it has another by now."""
        self._delivery.deliver()
        if not self._opened.remove(session):
            return  # what was delivered has ended it
        self._timetable.forget(session)
        if reason != "replaced":
            self._send(session.farewell(), session.address)
        session.drop()
        self.stats.ended[reason] += 1
        self._delivery.tell("peer_lost", session.address, reason)

    def _due(self, session: Session, now: float) -> None:
        """Look at a session whose time has come."""
        if session.opened:
            if now >= session.heard + self.limits.idle_timeout:  # a difference would be rounded otherwise than the sum
                self._end(session, "idle")
            else:
                self._timetable.set(session, session.heard + self.limits.idle_timeout)
        elif now >= session.began + self.limits.handshake_timeout:
            self._give_up(session, "deadline")
            self._reports.refused(session.address, "it did not complete the handshake in time")
        else:
            self.stats.retransmissions += session.retransmit()
            self._send(session.outgoing(), session.address)
            if session.ended:
                self._refuse(session, why(session.facts, session.error))
            else:
                self._watch(session, now)

    def _watch(self, session: Session, now: float) -> None:
        """Set when a handshake is to be looked at again."""
        deadline = session.began + self.limits.handshake_timeout
        wait = session.wait()
        self._timetable.set(session, deadline if wait is None else min(deadline, now + wait))

    def _send(self, datagrams: Sequence[bytes], addr: Address) -> None:
        if self._port is not None:
            send_to_anybody(self._port, datagrams, addr, self.stats)
