"""ICMP messages as a router or a peer would send them, and as anybody can forge them.

Theory of operation: an ICMP error carries the header and the beginning of the datagram that it is about, and the kernel
gives it to the socket whose addresses stand in there. A raw socket sends the message; with ICMPv6 the kernel fills in
the checksum, which covers the addresses.
"""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from twistedudp.address import Address

__all__ = ["PORT_UNREACHABLE", "PORT_UNREACHABLE_6", "error_about", "raw_socket"]

PORT_UNREACHABLE: Final = (3, 3)
"""ICMP type and code (RFC 792)."""
PORT_UNREACHABLE_6: Final = (1, 4)
"""The same of ICMPv6 (RFC 4443)."""
_UDP_HEADER: Final = 8


def raw_socket(host: str) -> socket.socket:
    """Return a socket that sends ICMP messages from an address; takes root's rights."""
    if ":" in host:
        made = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    else:
        made = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    made.bind((host, 0))
    return made


def error_about(sender: Address, receiver: Address, payload: bytes, *, kind: tuple[int, int], mtu: int = 0) -> bytes:
    """Return an ICMP or ICMPv6 message about a datagram.

    Args:
        sender: Who sent the datagram, and is to learn of the error.
        receiver: Where it was sent to.
        payload: As much of it as is quoted.
        kind: The message's type and code.
        mtu: Of the next hop, where the message carries one.
    """
    size = _UDP_HEADER + len(payload)
    datagram = struct.pack("!HHHH", sender[1], receiver[1], size, 0) + payload
    if ":" in sender[0]:
        header = struct.pack("!IHBB", 6 << 28, size, socket.IPPROTO_UDP, 64)
        header += socket.inet_pton(socket.AF_INET6, sender[0]) + socket.inet_pton(socket.AF_INET6, receiver[0])
        return struct.pack("!BBHI", *kind, 0, mtu) + header + datagram
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + size, 0, 0, 64, socket.IPPROTO_UDP, 0)
    header += socket.inet_aton(sender[0]) + socket.inet_aton(receiver[0])
    message = struct.pack("!BBHI", *kind, 0, mtu) + header + datagram
    return message[:2] + struct.pack("!H", _checksum(message)) + message[4:]


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
