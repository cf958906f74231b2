"""Does a server that is silent speak DTLS? A ClientHello made by hand, and what answers one.

Theory of operation: a server that speaks DTLS drops what is no record without a word (RFC 6347 section 4.1.2.7), so
that it looks like a firewall. A ClientHello it answers: with a cookie (HelloVerifyRequest), with its own hello, or with
an alert where it can agree on nothing. That is all that is wanted here, so OpenSSL is not, nor the extra that brings
it. Nothing is proven by it but that something there speaks DTLS: the answer holds nothing that was sent.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["client_hello", "speaks_dtls"]

_ALERT, _HANDSHAKE = 21, 22
_ANSWERS: Final = (2, 3)
"""ServerHello and HelloVerifyRequest (RFC 6347 section 4.3.2)."""

_MESSAGE: Final = 13
"""Where a record's first message has its type."""

_SUITES: Final = (0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8, 0x00FF)
"""ECDHE with AES-GCM or ChaCha20-Poly1305 (RFC 5289, RFC 7905), and that renegotiation is safe (RFC 5746)."""

_EXTENSIONS: Final = (
    (10, struct.pack("!4H", 6, 29, 23, 24)),  # groups: X25519, P-256, P-384
    (11, b"\1\0"),  # points that are not compressed
    (13, struct.pack("!6H", 10, 0x0403, 0x0804, 0x0401, 0x0503, 0x0501)),  # signatures
)


def client_hello(random: bytes) -> bytes:
    """Return a datagram with a ClientHello of DTLS 1.2.

    Args:
        random: 32 bytes.
    """
    suites = struct.pack(f"!{len(_SUITES)}H", *_SUITES)
    extensions = b"".join(struct.pack("!HH", kind, len(value)) + value for kind, value in _EXTENSIONS)
    body = b"".join(
        (
            b"\xfe\xfd" + random + b"\0\0",  # neither a session nor a cookie
            struct.pack("!H", len(suites)) + suites + b"\1\0",  # nor compression
            struct.pack("!H", len(extensions)) + extensions,
        )
    )
    size = len(body).to_bytes(3, "big")
    message = b"\1" + size + bytes(5) + size + body  # number 0, in one fragment
    return bytes((_HANDSHAKE, 0xFE, 0xFF)) + bytes(8) + struct.pack("!H", len(message)) + message


def speaks_dtls(head: bytes) -> bool:
    """Tell whether a datagram begins as what answers a ClientHello."""
    if len(head) <= _MESSAGE or head[1] != 0xFE:
        return False
    return head[0] == _ALERT or (head[0] == _HANDSHAKE and head[_MESSAGE] in _ANSWERS)
