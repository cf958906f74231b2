"""What is read of a datagram by hand: the header of records, and whether it begins a handshake.

Theory of operation: a DTLS 1.2 datagram holds records one after the other, each with a header of 13 bytes (RFC 6347
section 4.1): type, version (2), epoch (2), number (6), length (2). OpenSSL writes a whole flight into its memory BIO
without a boundary between datagrams, so it is cut here, between records, into what fits a packet. Nothing else of the
protocol is read here, and no record is judged: the test for a ClientHello only keeps from OpenSSL what cannot be one.
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "APPLICATION_DATA",
    "HEADER_SIZE",
    "LARGEST_HELLO",
    "client_random",
    "epoch",
    "handshake_bytes",
    "is_client_hello",
    "is_dtls",
    "is_one_record",
    "pack",
]

HEADER_SIZE: Final = 13
"""Bytes of a record's header."""

APPLICATION_DATA: Final = 23
"""The type of records that carry what applications send (RFC 5246 section 6.2.1)."""

_HANDSHAKE: Final = 22
_CONTENT_TYPES: Final = frozenset({20, 21, _HANDSHAKE, APPLICATION_DATA})
"""ChangeCipherSpec, alert, handshake, application data: no other is used without an extension that we do not offer."""

_RANDOM: Final = slice(27, 59)
"""Where a ClientHello has its random: after the record's header, the message's (12 bytes) and the version (2)."""

_SMALLEST_HELLO: Final = 59
LARGEST_HELLO: Final = 2048
"""Bytes: ClientHellos have a few hundred. What OpenSSL cannot take in one go would be taken for the next peer's."""

_VERSIONS: Final = (b"\xfe\xff", b"\xfe\xfd")
"""DTLS 1.0 and 1.2: a ClientHello may come in a record of the older version (RFC 6347 section 4.2.1)."""


def is_dtls(datagram: bytes) -> bool:
    """Tell whether a datagram begins with the header of a record."""
    return len(datagram) > HEADER_SIZE and datagram[0] in _CONTENT_TYPES and datagram[1] == 0xFE


def is_client_hello(datagram: bytes) -> bool:
    """Tell whether a datagram may begin with a ClientHello, so that OpenSSL shall look at it."""
    return (
        _SMALLEST_HELLO <= len(datagram) <= LARGEST_HELLO
        and datagram[0] == _HANDSHAKE
        and datagram[1:3] in _VERSIONS
        and datagram[3:5] == b"\0\0"  # the epoch
        and datagram[13] == 1  # the message's type
        and datagram[19:22] == b"\0\0\0"  # the fragment's offset: the random is in the first fragment
    )


def client_random(hello: bytes) -> bytes:
    """Return the 32 bytes by which a ClientHello is known again when it is sent again."""
    return hello[_RANDOM]


def epoch(datagram: bytes) -> int:
    """Return the epoch of a datagram's first record: 0 before its sender's keys are in use."""
    return datagram[3] << 8 | datagram[4]


def handshake_bytes(datagram: bytes) -> int:
    """Return how many bytes of a datagram are records of handshakes; of one that is cut, those that are there."""
    size = start = 0
    while start + HEADER_SIZE <= len(datagram):
        end = start + HEADER_SIZE + (datagram[start + 11] << 8 | datagram[start + 12])
        if datagram[start] == _HANDSHAKE:
            size += min(end, len(datagram)) - start  # a length is anybody's claim
        start = end
    return size


def is_one_record(datagram: bytes) -> bool:
    """Tell whether a datagram is one record, whole and nothing else."""
    return len(datagram) == HEADER_SIZE + (datagram[11] << 8 | datagram[12])


def pack(flight: bytes, mtu: int) -> list[bytes]:
    """Cut what OpenSSL wants to send into datagrams, between records.

    Args:
        flight: Whole records.
        mtu: Bytes that a datagram may have. A larger record is sent in a datagram of its own.
    """
    if len(flight) <= mtu:
        return [flight]
    datagrams: list[bytes] = []
    start = end = 0
    while end < len(flight):
        following = end + HEADER_SIZE + int.from_bytes(flight[end + 11 : end + HEADER_SIZE], "big")
        if following - start > mtu and end > start:
            datagrams.append(flight[start:end])
            start = end
        end = following
    datagrams.append(flight[start:])
    return datagrams
