"""One session: a Connection, what is known of its peer, and the way of datagrams through the two memory BIOs.

Theory of operation: a memory BIO has no boundaries between datagrams, so one datagram at a time is written into it and
everything that comes of it is read before the next; and everything that OpenSSL wants to send is read after each step,
for reading may answer too (the last flight of a handshake is sent again when the peer's comes again). Two shortcuts
cost nothing of this: a datagram that is one whole record is used up by one ``recv``, and a record of application data
is answered by nothing.

A session knows no port and no timer: whoever owns it sends what :meth:`Session.outgoing` returns, and asks
:meth:`Session.retransmit` when :meth:`Session.wait` has passed. Nothing here raises for what a peer has sent; after
each step ``ended`` tells whether it was the last.

An ``SSL.Error`` is believed when it comes twice in a row: once it may be another session's. ``WantReadError`` and
``ZeroReturnError`` are subclasses of it, and stand first.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, Literal, Protocol

from OpenSSL import SSL
from twisted.internet.error import MessageLengthError

from ._failures import TOO_MUCH
from ._records import APPLICATION_DATA, handshake_bytes, is_one_record, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography import x509

    from ..address import Address
    from ._facts import PeerFacts

__all__ = ["LARGEST_HANDSHAKE", "LATE_HANDSHAKE", "Connection", "Policy", "Session", "new_connection", "unfit"]

_LARGEST_RECORD: Final = 16384
"""Bytes of the largest payload of a record (RFC 6347 section 4.1); a smaller buffer would split it."""

LARGEST_HANDSHAKE: Final = 1 << 17
"""Bytes that a peer may send for one handshake, repetitions included: a chain of certificates has a few thousand.
OpenSSL keeps up to 1 MB of messages that come before their turn."""

LATE_HANDSHAKE: Final = 1 << 15
"""Bytes of handshake messages that a session takes once it is open: time enough for a last flight that is repeated
because its answer was lost. There is no renegotiation that would have more, and OpenSSL would keep them, as above."""

_ALL: Final = 1 << 20
"""Bytes to read of what is to be sent, in one go: more than any flight has."""

_SHORTEST_WAIT: Final = 0.001
"""Seconds: OpenSSL's own clock may say that no time is left while the timer of a reactor is a hair too early."""


class Connection(Protocol):
    """What a session needs of an ``OpenSSL.SSL.Connection``; all of it is public, and documented there."""

    def bio_write(self, buf: bytes, /) -> int:
        """Take what has come."""

    def bio_read(self, bufsiz: int, /) -> bytes:
        """Return what is to be sent; raises WantReadError where there is nothing."""

    def recv(self, bufsiz: int, /) -> bytes:
        """Return the payload of a record."""

    def send(self, buf: bytes, /) -> int:
        """Make a record of a payload."""

    def do_handshake(self) -> None:
        """Take the next step."""

    def shutdown(self) -> bool:
        """Make a close_notify."""

    def set_ciphertext_mtu(self, mtu: int, /) -> None:
        """Set the bytes of the largest datagram."""

    def get_cleartext_mtu(self) -> int:
        """Return the bytes of the largest payload that fits it."""

    def set_tlsext_host_name(self, name: bytes, /) -> None:
        """Tell the server by which name it is asked."""

    def get_peer_certificate(self, *, as_cryptography: Literal[True]) -> x509.Certificate | None:
        """Return what the peer has shown."""

    def set_app_data(self, data: object, /) -> None:
        """Keep something for the callbacks."""

    def DTLSv1_listen(self) -> None:
        """Look for a ClientHello with a cookie of ours; raises WantReadError where there is none."""

    def DTLSv1_get_timeout(self) -> float | None:
        """Return the seconds until a flight is to be sent again, by OpenSSL's own clock; None where none is."""

    def DTLSv1_handle_timeout(self) -> bool:
        """Send it again if it is time; tell whether that was so."""


class Policy(Protocol):
    """What sessions need of a :class:`DTLSContext`; tests have another, whose Connections only pretend."""

    generation: int
    is_server: bool

    def connection(self, facts: PeerFacts, /) -> Connection:
        """Return a new Connection."""

    def verified_name(self, connection: Connection, server_name: str | None, /) -> str | None:
        """Return the verified name of its peer, or raise PeerRefused."""


class Session:  # budget: what is known of one peer, in slots, since there are thousands
    """One Connection with its peer.

    Args:
        connection: The Connection, whose MTU is set.
        facts: Its application data.
        address: The peer.
        random: The client random that the peer began with; empty in the client role.
        number: The session's number.
        mtu: Bytes of the largest datagram.
        now: The time in seconds.

    Attributes:
        opened: Whether the handshake is over and the peer verified.
        began: When it began.
        heard: When something genuine was last received.
        due: When the owner's timer shall look at it.
        name: The peer's verified name.
        payload_limit: Bytes of the largest payload, once it is open.
        ended: Why it is over: ``"closed"`` or ``"broken"``; empty while it is not.
        error: What OpenSSL raised at first, where it is broken.
        alarms: Errors that were not confirmed.
        taken: Bytes that have come for the handshake; once it is open, those that came late.
    """

    __slots__ = (
        "address", "alarms", "began", "connection", "due", "ended", "error", "facts", "heard", "mtu", "name", "number",
        "opened", "payload_limit", "random", "taken",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        facts: PeerFacts,
        address: Address,
        *,
        random: bytes = b"",
        number: int,
        mtu: int,
        now: float,
    ) -> None:
        self.taken = 0
        self.connection = connection
        self.facts = facts
        self.address = address
        self.random = random
        self.number = number
        self.opened = False
        self.began = self.heard = now
        self.due = inf
        self.name: str | None = None
        self.payload_limit = 0
        self.ended = ""
        self.error: SSL.Error | None = None
        self.alarms = 0
        self.mtu = mtu

    def shake(self, datagram: bytes = b"") -> bool:
        """Take a step of the handshake.

        Args:
            datagram: What has come; empty for the first step of a client.

        Returns:
            Whether the handshake is complete. The peer is not verified yet.
        """
        connection = self.connection
        if datagram:
            self.taken += len(datagram)
            if self.taken > LARGEST_HANDSHAKE:
                self.ended, self.facts.refusal = "broken", TOO_MUCH
                return False
            connection.bio_write(datagram)
        for _ in range(2):  # see above
            try:
                connection.do_handshake()
            except SSL.WantReadError:  # noqa: PERF203  # it is the loop's regular end
                self._survived()
                return False
            except SSL.Error as error:
                self.error = self.error or error
            else:
                self._survived()
                return True
        self.ended = "broken"
        return False

    def set_open(self, name: str | None, now: float) -> None:
        """Let payloads through: the peer is verified."""
        self.opened = True
        self.name = name
        self.taken = 0
        self.heard = now
        self.payload_limit = min(self.connection.get_cleartext_mtu(), _LARGEST_RECORD)

    def receive(self, datagram: bytes) -> Sequence[bytes]:
        """Return the payloads that a datagram brings, if it is genuine; for a session that is open."""
        one = is_one_record(datagram)
        if not (one and datagram[0] == APPLICATION_DATA):
            late = handshake_bytes(datagram)
            self.taken += late
            if late and self.taken > LATE_HANDSHAKE:  # perhaps forged, so that it must not end the session
                return ()
        self.connection.bio_write(datagram)
        if one:
            try:
                payload = self.connection.recv(_LARGEST_RECORD)
            except SSL.WantReadError:
                return ()
            except SSL.Error as error:
                return self.drain(error)
            if datagram[0] == APPLICATION_DATA:
                return (payload,)
            return [payload, *self.drain()]
        return self.drain()

    def drain(self, error: SSL.Error | None = None) -> list[bytes]:
        """Return all payloads that have come; whatever else has come is used up.

        Args:
            error: What the call before this one raised.
        """
        receive = self.connection.recv
        payloads: list[bytes] = []
        if isinstance(error, SSL.ZeroReturnError):
            self.ended = "closed"
            return payloads
        self.error = error
        while True:
            try:
                payloads.append(receive(_LARGEST_RECORD))
            except SSL.WantReadError:  # noqa: PERF203  # it is the loop's regular end
                self._survived()
                return payloads
            except SSL.ZeroReturnError:
                self.ended = "closed"
                return payloads
            except SSL.Error as raised:
                if self.error is not None:
                    self.ended = "broken"
                    return payloads
                self.error = raised
            else:
                self._survived()

    def seal(self, payload: bytes) -> bytes:
        """Return the records that carry a payload to the peer; empty where the session has ended by it.

        Raises:
            twisted.internet.error.MessageLengthError: DTLS does not carry it.
        """
        if not 0 < len(payload) <= self.payload_limit:
            raise MessageLengthError(unfit(payload, self.payload_limit))
        connection = self.connection
        try:
            connection.send(payload)
            return connection.bio_read(_ALL)
        except SSL.Error as error:
            self.error = error
            self.ended = "broken"
            return b""

    def outgoing(self) -> list[bytes]:
        """Return the datagrams that OpenSSL wants to send."""
        try:
            flight = self.connection.bio_read(_ALL)
        except SSL.Error:  # WantReadError: there is nothing
            return []
        return pack(flight, self.mtu)

    def wait(self) -> float | None:
        """Return the seconds until a flight may have to be sent again; ``None`` where nothing waits for an answer."""
        seconds = self.connection.DTLSv1_get_timeout()
        return None if seconds is None else max(_SHORTEST_WAIT, seconds)

    def retransmit(self) -> bool:
        """Send the last flight again if its time has come; tell whether that was so."""
        try:
            return bool(self.connection.DTLSv1_handle_timeout())
        except SSL.Error as error:  # too often
            self.error = error
            self.ended = "broken"
            return False

    def farewell(self) -> list[bytes]:
        """Return the datagrams that tell the peer that the session is over (close_notify)."""
        try:
            self.connection.shutdown()
        except SSL.Error:  # the session cannot say anything more
            return []
        return self.outgoing()

    def drop(self) -> None:
        """Forget everything; it and its Connection refer to each other otherwise."""
        self.opened = False
        self.ended = self.ended or "stopped"
        self.connection.set_app_data(None)

    def _survived(self) -> None:
        if self.error is not None:
            self.error = None
            self.alarms += 1


def new_connection(policy: Policy, facts: PeerFacts, mtu: int) -> Connection:
    """Return a Connection that is ready for a handshake: without an MTU set OpenSSL refuses to begin one."""
    connection = policy.connection(facts)
    connection.set_ciphertext_mtu(mtu)
    return connection


def unfit(payload: bytes, limit: int) -> str:
    """Return why a payload cannot be sent."""
    if not payload:
        return "an empty datagram cannot be sent: DTLS has none"
    return (
        f"message too long: {len(payload):,} bytes, this DTLS session carries at most {limit:,}; send less at once, or "
        "raise the MTU at this end (DTLSLimits.mtu)"
    )
