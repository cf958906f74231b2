"""The client's pump where calls go through DTLS: requests on one side, sessions on the other.

Theory of operation: to the core a session is a server, with an address of its own (:class:`SessionAddress`). So all
that the core promises for a server holds for a session: a call that must not run twice is repeated in the session that
it was first sent into, and nowhere else; its answer counts if it comes in that session. While no session is in use, the
core knows no server, and requests wait in its queue, where their deadlines run. Which session is in use, and when a
handshake is due, is :mod:`._client_sessions`' matter.

One session has one local port, so what the core calls sockets are none here: idempotent retransmissions stay in the
session, and so do echoes of equal bytes, which are answered first come, first served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ._client_sessions import ClientSessions
from ._msgpack import peek_msgid_untrusted
from ._pump import RequestPump
from .errors import DTLSHandshakeFailed, RequestTimedOut
from .messages import TYPE_RESPONSE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from ._client_session import Connect
    from .address import Address, SessionAddress
    from .core import Requester
    from .errors import TwistedUDPError

__all__ = ["NOTIFICATION_WAITS", "SecurePump"]

NOTIFICATION_WAITS: Final = 10.0
"""Seconds for which a notification has a handshake tried; nobody is told what became of it."""


class SecurePump(RequestPump):
    """Drive a :class:`Requester` through secure sessions.

    Args:
        reactor: The reactor.
        requester: The core.
        deliver: Called with each request that has got its outcome.
        connect: Begins a handshake.
    """

    def __init__(self, reactor: Any, requester: Requester, deliver: Any, connect: Connect) -> None:
        super().__init__(reactor, requester, "", deliver)
        self._addresses: Sequence[Address] = ()
        self._question = requester.unasked_request()
        retry_refused = requester.settings.retry_refused
        self._sessions = ClientSessions(reactor, self.now, connect, self, retry_refused=retry_refused)

    def servers_resolved(self, addresses: Sequence[Address]) -> None:
        """Learn the servers' addresses: where handshakes are tried."""
        self._addresses = addresses
        self._sessions.addresses_learnt(addresses)
        self.pump()

    def wanted(self, seconds: float | None) -> None:
        """Learn that something is about to be sent, and for how many seconds it can wait for a session."""
        self._sessions.wanted(self.now() + (NOTIFICATION_WAITS if seconds is None else seconds))

    def explained(self, error: TwistedUDPError) -> TwistedUDPError:
        """Return what to tell the caller of a request that failed: of one that was never sent, why it was not."""
        if not isinstance(error, RequestTimedOut) or error.attempts or not self._addresses:
            return error
        if self._sessions.fault is not None:
            return self._sessions.fault
        if self._sessions.in_use:
            return error
        text = f"the server did not answer the handshake within {error.elapsed:.3g} s; does it speak DTLS?"
        return DTLSHandshakeFailed(self._addresses[0], "no_answer", text)

    def pump(self) -> None:
        """Do what the core asks for, until it asks for nothing more; begin a handshake where one is wanted."""
        self._sessions.go_on()
        super().pump()

    def stop(self) -> Deferred[Any]:
        """End the sessions and the timers; the requests must have got their outcomes before.

        Returns:
            A Deferred that fires when the ports are free.
        """
        super().stop()
        return self._sessions.stop()

    # What the sessions ask for

    def use(self, peer: SessionAddress) -> None:
        """Send what waits, and all that comes, into a session."""
        self.requester.servers_resolved((peer,), now=self.now())
        self.pump()

    def hold(self) -> None:
        """Send nothing that is new: let it wait."""
        self.requester.servers_resolved((), now=self.now())

    def leave(self, peer: SessionAddress, error: TwistedUDPError | None) -> None:
        """Have what may run twice wait for another session; the rest fails with the error, or goes on in this one."""
        self.requester.peer_left(peer, error, now=self.now())
        self.pump()

    def fail(self, error: TwistedUDPError) -> None:
        """Fail what waits for a session."""
        self.resolution_failed(error)

    def received(self, datagrams: Sequence[bytes], peer: SessionAddress) -> None:
        """Take datagrams that came in a session."""
        requester, now = self.requester, self.now()
        msgid, question = self._question
        for datagram in datagrams:
            if datagram == question or peek_msgid_untrusted(datagram, TYPE_RESPONSE) == msgid:
                continue  # that it came is all that was asked
            requester.datagram_received(datagram, peer, requester.echo_socket(datagram), now=now)
        self.pump()

    def refused(self, peer: SessionAddress, reason: str, quoted: bytes) -> None:
        """Learn why a datagram sent into a session was not delivered: as without DTLS, it fails the request quoted."""
        self.requester.peer_unreachable(peer, reason, quoted, now=self.now())
        self.pump()

    def last_deadline(self, peer: SessionAddress) -> float | None:
        """Return when the last request that was sent into a session ends, ``None`` where there is none."""
        return self.requester.last_deadline(peer)

    def round_trip_timeout(self, peer: SessionAddress) -> float | None:
        """Return after how many seconds an answer is late in a session, as far as that is known."""
        return next((known.timeout for known in self.requester.stats.peers if known.address is peer), None)

    def question(self) -> bytes:
        """Return a request that any server answers."""
        return self._question[1]

    def _way_to(self, peer: Address, socket: int) -> Callable[[bytes, Address], None]:  # noqa: ARG002  # one for all
        return self._sessions.writer(peer)
