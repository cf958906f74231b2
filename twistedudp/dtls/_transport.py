"""What both sides are to the protocol that they wrap: a transport whose datagrams are payloads of sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..errors import LocalError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from twisted.internet.protocol import AbstractDatagramProtocol

    from ..address import Address
    from ._delivery import Delivery
    from ._limits import DTLSLimits, DTLSStats

__all__ = ["SessionTransport", "send_to_anybody", "send_together"]

_OVERHEAD: Final = 37
"""Bytes that DTLS adds to a payload at most, with the cipher suites of ours: a header of 13, the nonce's 8 bytes that
are sent, and a tag of 16 (RFC 5288); ChaCha20-Poly1305 sends no nonce."""


class SessionTransport:
    """The part of ``IUDPTransport`` and ``IDatagramPort`` that is the same on both sides.

    Attributes:
        limits: The bounds.
        proves_addresses: True: whoever has a session has shown that it gets what is sent to its address.
    """

    proves_addresses = True
    limits: DTLSLimits
    _delivery: Delivery

    @property
    def protocol(self) -> AbstractDatagramProtocol:
        """The wrapped protocol."""
        return self._delivery.protocol

    @property
    def payload_limit(self) -> int:
        """Bytes of the largest payload that surely fits a datagram."""
        return self.limits.mtu - _OVERHEAD

    @property
    def arrival_times(self) -> Sequence[int]:
        """When the datagrams being delivered arrived, as the port's own ``arrival_times``."""
        return self._delivery.arrival_times

    @property
    def delivering_to_group(self) -> bool:
        """False: a session has one peer."""
        return False

    def write(self, packet: bytes, addr: Address | None = None) -> None:
        """Send one datagram in the session of its peer."""
        raise NotImplementedError

    def writeSequence(self, seq: Iterable[bytes], addr: Address | None = None) -> None:
        """Send one datagram made of several pieces; otherwise as :meth:`write`."""
        self.write(b"".join(seq), addr)

    def setBroadcastAllowed(self, enabled: bool) -> None:
        """Refuse to allow broadcasts.

        Raises:
            twistedudp.errors.LocalError: They were to be allowed.
        """
        if enabled:
            raise LocalError("DTLS has one peer for each session: nothing can be broadcast; use a port of its own")

    def getBroadcastAllowed(self) -> bool:
        """Return False."""
        return False


def send_together(port: Any, datagrams: Sequence[tuple[bytes, Address]]) -> None:
    """Send datagrams by a port, in one go where it can."""
    if len(datagrams) > 1 and hasattr(port, "write_batch"):
        port.write_batch(datagrams)
    else:
        for datagram, addr in datagrams:
            port.write(datagram, addr)


def send_to_anybody(port: Any, datagrams: Sequence[bytes], addr: Address, stats: DTLSStats) -> None:
    """Send datagrams to an address that may have been forged: one that nothing can be sent to is no error of ours."""
    for datagram in datagrams:
        try:
            port.write(datagram, addr)
        except OSError:  # noqa: PERF203  # UDP port 0, a broadcast address, or a link-local one without its scope
            stats.not_sent["unsendable"] += 1
