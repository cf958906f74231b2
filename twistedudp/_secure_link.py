"""What a client's session is made of: a :class:`DTLSClient`, for one session and no other.

Theory of operation: a ``DTLSClient`` would begin anew at the next write after its session has ended. Calls must not be
repeated in a session that they were not sent in, so a link stops its client at that end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.protocol import DatagramProtocol

from ._secure_pump import SecurePump
from .dtls import DTLSClient, DTLSLimits
from .errors import DTLSSessionLost, TwistedUDPError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    from ._client_session import ClientSession
    from .address import Address
    from .core import Requester
    from .dtls import DTLSContext
    from .interfaces import Unreachable

__all__ = ["HANDSHAKE_TIME", "SecureLink", "make_secure_pump", "payload_limit"]

HANDSHAKE_TIME: Final = 30.0
"""Seconds for which one attempt is made; it ends sooner where nobody waits for it any more."""

OVERHEAD: Final = 37
"""Bytes that DTLS adds to a payload at most: a record's header, and what the ciphers add."""

_ENDS: Final = {
    "closed": "the server closed the session",
    "idle": "the session was closed because nothing came for long",
}


class SecureLink(DatagramProtocol):
    """One session with a server.

    Args:
        reactor: The reactor.
        address: The server's address.
        server_name: Whose certificate it must show.
        context: The certificates.
        session: Who is told.
        interface: The local address to send from; empty for what the kernel chooses.
        limits: The bounds.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        address: Address,
        server_name: str,
        context: DTLSContext,
        session: ClientSession,
        *,
        interface: str = "",
        limits: DTLSLimits,
    ) -> None:
        self._address = address
        self._session: ClientSession | None = session
        self._client = DTLSClient(reactor, address, server_name, context, self, interface=interface, limits=limits)
        self._client.open(HANDSHAKE_TIME).addCallbacks(self._opened, self._failed)

    def write(self, payload: bytes) -> None:
        """Send one datagram."""
        self._client.write(payload, self._address)

    def stop(self) -> Deferred[None]:
        """End the session or the attempt; the Deferred fires when the port is free."""
        self._session = None
        return self._client.stopListening()

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take a datagram."""
        self.datagrams_received(((datagram, addr),))

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Take all the datagrams that have come."""
        if self._session is not None:
            self._session.received([datagram for datagram, _ in datagrams])

    def peer_lost(self, addr: Address, reason: str) -> None:
        """The session is no more."""
        if self._session is not None:
            why = _ENDS.get(reason, f"the session broke ({reason})")
            self._session.ended(DTLSSessionLost(addr, why))

    def peer_unreachable(self, _addr: Address, reason: Unreachable, quoted: bytes) -> None:
        """The network says why a payload was not delivered."""
        if self._session is not None:
            self._session.refused(reason.reason, quoted)

    def _opened(self, _: None) -> None:
        if self._session is not None:
            self._session.opened()

    def _failed(self, failure: Failure) -> None:
        if self._session is not None:
            error = failure.value
            if not isinstance(error, TwistedUDPError):
                failure.raiseException()
            self._session.failed(error)


def payload_limit(limits: DTLSLimits | None) -> int:
    """Return how many bytes one datagram carries."""
    return (limits or DTLSLimits()).mtu - OVERHEAD


def make_secure_pump(
    reactor: Any,
    requester: Requester,
    deliver: Any,
    context: DTLSContext,
    limits: DTLSLimits | None,
    *,
    host_of: Callable[[Address], str],
    interface: str,
) -> SecurePump:
    """Return the pump of a client whose calls go through DTLS.

    Args:
        reactor: The reactor.
        requester: The core.
        deliver: Called with each request that has got its outcome.
        context: The certificates.
        limits: The bounds; ``None`` for the usual ones.
        host_of: Returns the host that the client was given for an address: whom its certificate must name.
        interface: The local address to send from; empty for what the kernel chooses.
    """
    bounds = limits or DTLSLimits()

    def connect(address: Address, session: ClientSession) -> SecureLink:
        return SecureLink(reactor, address, host_of(address), context, session, interface=interface, limits=bounds)

    return SecurePump(reactor, requester, deliver, connect)
