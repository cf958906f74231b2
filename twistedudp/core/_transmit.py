"""What the core asks the network to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..address import Address

__all__ = ["Transmit"]


class Transmit(NamedTuple):
    """One datagram to send."""

    payload: bytes
    peer: Address
    socket: int = 0
    """Which local socket it leaves from: 0 is the usual one, others exist where a request needs its own port."""
