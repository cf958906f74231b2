"""Effects on what datagrams carry: flipped bits, cut ends, a largest size.

Theory of operation: they leave ICMP errors alone. These are short enough for any link, and one with other bytes would
quote a datagram that nobody sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..address import LARGEST_PAYLOAD
from ._effect import Effect, checked_probability, checked_whole
from ._link import Arrival
from ._packets import may_be_refused, packet_too_big, wire_size
from ._units import bytes_text, percent_text

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from ._link import Datagram

__all__ = ["MTU", "Corrupt", "Truncate"]

_LEAST_MTU: Final = 68
"""Bytes that every IPv4 link carries unfragmented (RFC 791 section 3.2)."""
_LARGEST_PACKET: Final = 40 + 65535
"""Bytes of the largest IPv6 packet without jumbograms; IPv4's has 40 bytes less."""


class Corrupt(Effect):
    """Some datagrams arrive with flipped bits in their payload; empty ones have none to flip, and pass.

    On a real link nearly all such datagrams would be lost at the receiver, by UDP's checksum, which any single flipped
    bit fails. This is about what arrives in spite of it: two faults that cancel out, a sender that
    uses no checksum, a middlebox that makes a new one over what it has broken. For the usual case use
    :class:`Loss`. ICMP errors are left alone.

    Args:
        probability: From 0 to 1.
        bits: How many bits are flipped, different ones, from 1 to 524,216; all of a payload that has fewer.

    Raises:
        EffectError: One of them is out of its range.
    """

    def __init__(self, probability: float, bits: int = 1) -> None:
        self.probability = checked_probability("probability", probability)
        self.bits = checked_whole("bits", bits, 1, LARGEST_PAYLOAD * 8, " bits")

    def __call__(self, datagram: Datagram, _now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Pass it at once, perhaps changed."""
        payload = datagram.payload
        if datagram.error is None and payload and rng.random() < self.probability:
            broken = bytearray(payload)
            for bit in rng.sample(range(len(broken) * 8), min(self.bits, len(broken) * 8)):
                broken[bit >> 3] ^= 1 << (bit & 7)
            datagram = datagram._replace(payload=bytes(broken))
        return (Arrival(datagram),)

    def __str__(self) -> str:
        return f"corrupt={percent_text(self.probability)}:{self.bits}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {"probability": self.probability, "bits": self.bits}


class Truncate(Effect):
    """Some datagrams arrive without their end; empty ones have none, and pass.

    A network does not do that, but receivers with a small buffer and broken middleboxes do, and a decoder must stand
    it. ICMP errors are left alone.

    Args:
        probability: From 0 to 1.
        size: Bytes that are left, from 0 to 65,527; what is not longer passes whole. ``None`` for a random
            number, evenly from none to all but one.

    Raises:
        EffectError: One of them is out of its range.
    """

    def __init__(self, probability: float, size: int | None = None) -> None:
        self.probability = checked_probability("probability", probability)
        self.size = None if size is None else checked_whole("size", size, 0, LARGEST_PAYLOAD, " bytes")

    def __call__(self, datagram: Datagram, _now: float, rng: random.Random, /) -> Iterable[Arrival]:
        """Pass it at once, perhaps cut."""
        payload = datagram.payload
        if datagram.error is None and payload and rng.random() < self.probability:
            size = rng.randrange(len(payload)) if self.size is None else self.size
            datagram = datagram._replace(payload=payload[:size])
        return (Arrival(datagram),)

    def __str__(self) -> str:
        size = "" if self.size is None else f":{bytes_text(self.size)}"
        return f"truncate={percent_text(self.probability)}{size}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {"probability": self.probability, "size": self.size}


class MTU(Effect):
    """Packets larger than the link's MTU are lost, as where a path drops what it may not fragment.

    The size includes the IP and UDP headers, as an interface's MTU does: an MTU of 1,500 passes payloads of up to
    1,472 bytes, 1,452 with IPv6. Nothing is fragmented. ICMP errors pass.

    Args:
        size: Bytes, from 68 to 65,575.
        icmp: Whether the sender is told, by an ICMP "fragmentation needed" (type 3 code 4), with IPv6 "packet too big"
            (type 2). Many networks do not: a black hole. What was sent to a group is lost in silence
            anyway. The error tells neither who sent it nor the MTU.

    Raises:
        EffectError: The size is out of its range.
    """

    def __init__(self, size: int, icmp: bool = False) -> None:
        self.size = checked_whole("size", size, _LEAST_MTU, _LARGEST_PACKET, " bytes")
        self.icmp = icmp

    def __call__(self, datagram: Datagram, _now: float, _rng: random.Random, /) -> Iterable[Arrival]:
        """Pass it at once, or lose it."""
        if datagram.error is not None or wire_size(datagram) <= self.size:
            return (Arrival(datagram),)
        return (Arrival(packet_too_big(datagram)),) if self.icmp and may_be_refused(datagram) else ()

    def __str__(self) -> str:
        return f"mtu={bytes_text(self.size)}{':icmp' if self.icmp else ''}"

    def arguments(self) -> dict[str, object]:
        """Return the arguments that make an effect like this one."""
        return {"size": self.size, "icmp": self.icmp}
