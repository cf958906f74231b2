"""One secure session of a client, and the interfaces between its DTLS, who owns it, and whose calls it carries.

Theory of operation: a :class:`ClientSession` stands between a :class:`Link`, which is the DTLS of it, and its owner. It
lives for one session: when that has ended, it never becomes another, so that nothing is repeated in a session that it
was not sent in. After it was stopped it tells nothing any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from .address import SessionAddress

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .address import Address
    from .errors import TwistedUDPError

__all__ = ["LEAST_DOUBT", "Calls", "ClientSession", "Connect", "Link", "SessionOwner"]

LEAST_DOUBT: Final = 0.2
"""Seconds that a session may at least leave unanswered what was sent before it is in doubt."""


class Link(Protocol):
    """A secure session, or the attempt at one, with a local port of its own.

    It calls the :class:`ClientSession` that it was made for: ``opened`` once or ``failed``, then ``received``, and
    ``ended`` where the session ends without being stopped from here. It calls nothing after ``stop``.
    """

    def write(self, payload: bytes) -> None:
        """Send one datagram."""

    def stop(self) -> Any:
        """End the session, telling the server, or the attempt; return a Deferred of the port being free, or None."""


class Connect(Protocol):
    """What makes a :class:`Link`."""

    def __call__(self, address: Address, session: ClientSession) -> Link:
        """Begin a handshake with the server at an address.

        Raises:
            TwistedUDPError: There is no local port to do it from.
        """


class Calls(Protocol):
    """What the sessions are for: the client's requests."""

    def use(self, peer: SessionAddress) -> None:
        """Send what waits, and all that comes, into this session."""

    def hold(self) -> None:
        """Send nothing that is new: let it wait."""

    def leave(self, peer: SessionAddress, error: TwistedUDPError | None) -> None:
        """Have what may run twice wait for another session. The rest fails with the error, or goes on in this one."""

    def fail(self, error: TwistedUDPError) -> None:
        """Fail what waits for a session."""

    def received(self, datagrams: Sequence[bytes], peer: SessionAddress) -> None:
        """Take datagrams that came in a session."""

    def refused(self, peer: SessionAddress, reason: str, quoted: bytes) -> None:
        """Learn why a datagram sent into a session was not delivered, as far as the network says."""

    def last_deadline(self, peer: SessionAddress) -> float | None:
        """Return when the last request that was sent into a session ends; ``None`` where there is none."""

    def round_trip_timeout(self, peer: SessionAddress) -> float | None:
        """Return after how many seconds an answer is late in a session, as far as that is known."""

    def question(self) -> bytes:
        """Return a request that any server answers."""


class SessionOwner(Protocol):
    """What a session tells of itself; see ``ClientSessions``."""

    @property
    def now(self) -> Callable[[], float]:
        """What tells the time in seconds."""

    def opened(self, session: ClientSession) -> None:
        """It has come about."""

    def failed(self, session: ClientSession, error: TwistedUDPError) -> None:
        """It will not come about."""

    def heard(self, session: ClientSession, datagrams: Sequence[bytes]) -> None:
        """Something came."""

    def doubted(self, session: ClientSession, now: float) -> None:
        """It has left unanswered for a while what was sent."""

    def refused(self, session: ClientSession, reason: str, quoted: bytes) -> None:
        """The network says that nobody is there."""

    def ended(self, session: ClientSession, error: TwistedUDPError) -> None:
        """It has ended."""

    def closing(self, closed: object) -> None:
        """Its port is being closed: a Deferred that tells when, or None."""


class ClientSession:
    """One session, from the attempt at it to its end.

    Args:
        owner: Who is told of it.
        address: The server's address.

    Attributes:
        address: The server's address.
        peer: The server's address within this session.
        heard: When the last datagram came, or the handshake was done; in seconds.
        unanswered: When the first of those was sent after which nothing came, ``None`` if the last word is the
            server's.
    """

    __slots__ = ("_link", "_owner", "_waiting", "address", "heard", "peer", "unanswered")

    def __init__(self, owner: SessionOwner, address: Address) -> None:
        self._owner = owner
        self._link: Link | None = None
        self._waiting = True
        self.address = address
        self.peer = SessionAddress(address)
        self.heard = 0.0
        self.unanswered: float | None = None

    def begin(self, connect: Connect) -> None:
        """Begin the handshake."""
        link = connect(self.address, self)
        if self._waiting:
            self._link = link
        else:  # it failed, or was stopped, before it was returned
            self._owner.closing(link.stop())

    def write(self, payload: bytes, _peer: Address | None = None) -> None:
        """Send a datagram; it is lost where the session has ended."""
        if self._link is None:
            return
        now = self._owner.now()
        if self.unanswered is None:
            self.unanswered = now
        elif now - self.unanswered > LEAST_DOUBT:
            self._owner.doubted(self, now)
        self._link.write(payload)

    def stop(self) -> None:
        """End it from here."""
        self._waiting = False
        link, self._link = self._link, None
        if link is not None:
            self._owner.closing(link.stop())

    # What the link tells

    def opened(self) -> None:
        """The handshake is done, and the server is who it should be."""
        if self._waiting:
            self.heard = self._owner.now()
            self._owner.opened(self)

    def failed(self, error: TwistedUDPError) -> None:
        """There will be no session."""
        if self._waiting:
            self.stop()
            self._owner.failed(self, error)

    def received(self, datagrams: Sequence[bytes]) -> None:
        """Datagrams have come."""
        if self._waiting:
            self.heard = self._owner.now()
            self.unanswered = None
            self._owner.heard(self, datagrams)

    def refused(self, reason: str, quoted: bytes) -> None:
        """The network says why a payload was not delivered, which can be forged by whoever sees it pass."""
        if self._waiting:
            self._owner.refused(self, reason, quoted)

    def ended(self, error: TwistedUDPError) -> None:
        """The session has ended, and no answer can come in it any more."""
        if self._waiting:
            self.stop()
            self._owner.ended(self, error)
