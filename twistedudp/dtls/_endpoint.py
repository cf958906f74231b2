"""The server's side (signatures first)."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import DatagramProtocol

from ._limits import DTLSLimits, DTLSStats

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import AbstractDatagramProtocol

    from ..address import Address
    from ._context import DTLSContext

__all__ = ["DTLSEndpoint"]


class DTLSEndpoint(DatagramProtocol):
    """Give DTLS to a protocol: listen with this in its place.

    To the wrapped protocol it is the transport (IUDPTransport, and of IDatagramPort: ``write_batch``,
    ``arrival_times``, ``delivering_to_group``).

    Args:
        protocol: The protocol to wrap; its ``datagrams_received``, if it has one, gets batches.
        context: A server's context.
        reactor: Provides IReactorTime.
        limits: The bounds.
        random_bytes: Where keys of cookies come from.

    Attributes:
        protocol: The wrapped protocol.
        context: The context; ``context.reload()`` takes effect for the sessions to come.
        stats: The counters.
        proves_addresses: True: whoever has a session has shown that it gets what is sent to its address.
        payload_limit: Bytes of the largest payload that surely fits: ``limits.mtu`` less 37.
    """

    noisy = False
    proves_addresses = True

    def __init__(
        self,
        protocol: AbstractDatagramProtocol,
        context: DTLSContext,
        *,
        reactor: Any,
        limits: DTLSLimits = DTLSLimits(),  # noqa: B008  # it is frozen
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.protocol = protocol
        self.context = context
        self.stats = DTLSStats()

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        raise NotImplementedError

    @property
    def half_open(self) -> int:
        """How many handshakes are under way."""
        raise NotImplementedError

    def peer_certificate_name(self, addr: Address) -> str | None:
        """Return the verified name of a peer: the first DNS, IP, URI or email subjectAltName, else the common name.

        ``None`` where there is no session with it, or no certificate was asked for.
        """
        raise NotImplementedError

    def session_number(self, addr: Address) -> int | None:
        """Return the number of the session that is open with a peer, never used twice; ``None`` where there is none."""
        raise NotImplementedError

    def close_sessions(self, reason: str = "stopped") -> None:
        """End all sessions, telling their peers (close_notify). New ones can begin."""

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Send one datagram in the session of its peer.

        Without a session it is dropped and counted: a server does not begin one.

        Raises:
            twisted.internet.error.MessageLengthError: It is empty, which DTLS does not carry, or does not fit the MTU.
        """

    def write_batch(
        self, datagrams: Sequence[tuple[bytes, Address]]
    ) -> list[tuple[bytes, Address, Exception]]:
        """Send several datagrams at once, in order; otherwise as :meth:`write`; returns what it would have raised."""
        raise NotImplementedError

    def stopListening(self) -> Deferred[None] | None:
        """Stop the port: the wrapped protocol is stopped, and all peers are told (close_notify)."""
