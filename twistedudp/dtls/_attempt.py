"""One attempt of a client: a port of its own and the session on it.

Theory of operation: the port's protocol. It gives what comes from the server to the session and tells its owner what
became of it: the handshake is complete, or has failed, payloads have come, the session is over. What comes from another
address is dropped and counted.

The network's word that nobody listens (ICMP) counts during the handshake if it quotes the ClientHello, the random of
which nobody off the path knows; with a session that is open, if it quotes the datagram sent last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import DatagramProtocol

from ._facts import PeerFacts
from ._failures import PeerRefused, why
from ._records import APPLICATION_DATA, is_dtls, pack
from ._session import Session, new_connection
from ._transport import send_together

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from ..address import Address
    from ..interfaces import Unreachable
    from ._limits import DTLSStats
    from ._session import Policy

__all__ = ["Attempt", "Owner"]

_HELLO_QUOTED: Final = 59
"""Bytes of a ClientHello up to the end of its random."""

_RECORD_QUOTED: Final = 29
"""Bytes of a record up to the eighth of its ciphertext at least: the header, 13, and a nonce, 8, can be guessed."""


class Owner(Protocol):
    """What an attempt tells."""

    stats: DTLSStats

    def shaken(self, attempt: Attempt) -> bool:
        """Take a handshake that is complete; tell whether the peer is let in."""

    def failed(self, attempt: Attempt, finding: PeerRefused, /) -> None:
        """Take a handshake that has failed."""

    def heard(self, attempt: Attempt, payloads: Sequence[bytes], times: Sequence[int]) -> None:
        """Take payloads, at least one, and when each arrived."""

    def over(self, attempt: Attempt, reason: str) -> None:
        """Take the end of a session that was open."""

    def moved(self) -> None:
        """Look at the timers again."""

    def refused(self, reason: Unreachable, quoted: bytes) -> None:
        """Take the network's word that a payload was not delivered."""


class Attempt(DatagramProtocol):
    """A port and a session with a server.

    Args:
        owner: Whom to tell.
        address: The server.
        session: The session.
        clock: Returns the time in seconds.

    Attributes:
        session: The session.
    """

    noisy = False

    def __init__(self, owner: Owner, address: Address, session: Session, clock: Callable[[], float]) -> None:
        self.session = session
        self.port: Any = None
        self._owner = owner
        self._address = address
        self._clock = clock
        self._hello = b""
        self._last: tuple[bytes, bytes] = (b"", b"")

    @classmethod
    def new(
        cls, owner: Owner, policy: Policy, address: Address, clock: Callable[[], float], *, number: int, mtu: int
    ) -> Attempt:
        """Return an attempt that has no port yet."""
        facts = PeerFacts()
        session = Session(new_connection(policy, facts, mtu), facts, address, number=number, mtu=mtu, now=clock())
        return cls(owner, address, session, clock)

    def begin(self, port: Any, server_name: bytes | None) -> None:
        """Send the ClientHello.

        Args:
            port: Where it leaves from; the attempt's own from now on.
            server_name: The host name to tell the server (RFC 6066 section 3), ``None`` where it is known by address.
        """
        self.port = port
        if server_name is not None:
            self.session.connection.set_tlsext_host_name(server_name)
        self.session.shake()
        flight = self.session.outgoing()
        self._hello = flight[0] if flight else b""
        self._send(flight)
        if self.session.ended:
            self._owner.failed(self, why(self.session.facts, self.session.error))

    def leave(self, *, farewell: bool) -> Deferred[Any]:
        """Give up the session and the port.

        Args:
            farewell: Whether to tell the server, which takes a handshake that is complete.

        Returns:
            A Deferred that fires when the port is free.
        """
        if farewell:
            self._send(self.session.farewell())
        self.session.drop()
        port, self.port = self.port, None
        return maybeDeferred(port.stopListening) if port is not None else maybeDeferred(lambda: None)

    def write(self, payload: bytes) -> None:
        """Send a payload; the session is open.

        Raises:
            twisted.internet.error.MessageLengthError: DTLS does not carry it.
        """
        sealed = self.session.seal(payload)
        if self.session.ended:
            self._owner.over(self, self.session.ended)
        else:
            self._last = (payload, sealed)
            self._send(pack(sealed, self.session.mtu))

    def write_batch(self, payloads: Sequence[bytes]) -> None:
        """Send payloads that fit, together where the port can."""
        sealed: list[tuple[bytes, Address]] = []
        for payload in payloads:
            records = self.session.seal(payload)
            if self.session.ended:
                break
            self._last = (payload, records)
            sealed += [(datagram, self._address) for datagram in pack(records, self.session.mtu)]
        send_together(self.port, sealed)
        if self.session.ended:
            self._owner.over(self, self.session.ended)

    def retransmit(self) -> None:
        """Send the last flight of the handshake again, if its time has come."""
        self._owner.stats.retransmissions += self.session.retransmit()
        self._send(self.session.outgoing())
        if self.session.ended:
            self._owner.failed(self, why(self.session.facts, self.session.error))

    def datagramReceived(self, datagram: bytes, addr: Address) -> None:
        """Take a datagram."""
        self.datagrams_received(((datagram, addr),))

    def datagrams_received(self, datagrams: Sequence[tuple[bytes, Address]]) -> None:
        """Take all the datagrams that have come."""
        stats = self._owner.stats
        arrival = getattr(self.port, "arrival_times", ())
        received: list[bytes] = []
        times: list[int] = []
        for index, (datagram, addr) in enumerate(datagrams):
            if self.port is None:
                return  # what came before has ended it
            if addr != self._address:
                stats.dropped["stranger"] += 1
            elif not is_dtls(datagram):
                stats.dropped["not_dtls"] += 1
            else:
                payloads = self._hear(datagram)
                received += payloads
                times += arrival[index : index + 1] * len(payloads)
                if self.session.ended:
                    break
        if received:
            self._owner.heard(self, received, times)
        if self.session.ended and self.port is not None:
            self._owner.over(self, self.session.ended)

    def peer_unreachable(self, peer: Address, reason: Unreachable, quoted: bytes) -> None:
        """Take the network's word that a datagram was not delivered."""
        if self.port is None or peer != self._address:
            return
        payload, sealed = self._last
        if self.session.opened:
            if len(quoted) >= min(_RECORD_QUOTED, len(sealed)) > 0 and sealed.startswith(quoted):
                self._owner.refused(reason, payload)
        elif len(quoted) >= _HELLO_QUOTED and quoted[27:_HELLO_QUOTED] == self._hello[27:_HELLO_QUOTED]:
            text = f"it cannot be reached: {reason.reason}; is a server running there?"
            self._owner.failed(self, PeerRefused("unreachable", text))

    def _hear(self, datagram: bytes) -> Sequence[bytes]:
        session = self.session
        if session.opened:
            payloads = session.receive(datagram)
            if payloads:
                session.heard = self._clock()
            elif not session.ended:
                self._owner.stats.dropped["no_data"] += 1
            if datagram[0] != APPLICATION_DATA or session.ended:
                self._send(session.outgoing())
            return payloads
        complete = session.shake(datagram)
        self._send(session.outgoing())
        if session.ended:
            self._owner.failed(self, why(session.facts, session.error))
        elif complete and self._owner.shaken(self):
            return session.drain()
        else:
            self._owner.moved()
        return ()

    def _send(self, datagrams: Sequence[bytes]) -> None:
        if self.port is not None:
            for datagram in datagrams:
                self.port.write(datagram, self._address)
