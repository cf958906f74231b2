"""Addresses of peers: parsing what people type, printing what they read, and a few questions about them.

Theory of operation: an address is the pair ``(host, port)`` that every Twisted ``DatagramProtocol`` knows, with the
host as a numeric text. IPv6 scopes stay in the host (``fe80::1%eth0``), and an IPv4 address that came through a
dual-stack socket (``::ffff:192.0.2.1``) is written as IPv4, so that one peer has one spelling. Nothing here asks the
network or a name server.
"""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias

__all__ = [
    "DEFAULT_PORT",
    "LARGEST_PAYLOAD",
    "Address",
    "SessionAddress",
    "canonical",
    "format_address",
    "is_group",
    "is_ip",
    "is_ipv6",
    "is_loopback",
    "is_unspecified",
    "max_payload",
    "parse_host_port",
    "unmapped",
]

Address: TypeAlias = tuple[str, int]
"""A numeric host and a port."""

DEFAULT_PORT: Final = 10000
"""The UDP port of ``twistd udpecho`` and ``udpecho`` where none is named."""

LARGEST_PAYLOAD: Final = 65527
"""Bytes of the largest UDP payload there is: 65,535 less the UDP header, since IPv6's length leaves its own out."""


class SessionAddress(tuple[str, int]):  # noqa: SLOT001  # a tuple of any length can have no slots
    """The address of a peer within one secure session with it.

    It is a host and a port like any other, but equal to itself alone: another session of the same peer, or of whoever
    has its address by then, has another. So what is kept by the peer's address, such as a response for a request that
    repeats, is kept for one session.

    Attributes:
        certificate_name: The peer's name, by its verified certificate; None where it has shown none.
    """

    certificate_name: str | None = None

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    __hash__ = object.__hash__


_MAPPED: Final = "::ffff:"
_LARGEST_PAYLOAD_IPV4: Final = 65507  # IPv4's length includes its own header of 20 bytes


def format_address(address: Address) -> str:
    """Return an address as people write it: ``192.0.2.1:10000``, ``[2001:db8::1]:10000``."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_host_port(text: str, default_port: int) -> Address:
    """Split ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``; a bare IPv6 address is a host without a port.

    Args:
        text: What the user typed; the host may be a name.
        default_port: The port where the text has none.

    Raises:
        ValueError: The text is none of these; the message says what is wrong with it.
    """
    host, port_text = _split_host_port(text.strip())
    if not host:
        raise ValueError(f"{text!r} has no host; write HOST or HOST:PORT")
    if any(character.isspace() for character in host):
        raise ValueError(f"{text!r} has a space in its host; write HOST or HOST:PORT")
    if port_text is None:
        return host, default_port
    number = port_text.lstrip("0")
    if not (port_text.isascii() and port_text.isdigit() and 1 <= len(number) <= 5 and int(number) <= 65535):
        raise ValueError(f"{port_text!r} is not a port: it must be a number from 1 to 65535")
    return host, int(number)


def _split_host_port(text: str) -> tuple[str, str | None]:
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not an address; write an IPv6 address with a port as [HOST]:PORT")
        if not is_ipv6(host):
            raise ValueError(f"{host!r} is not an IPv6 address; only these stand in brackets")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        if not is_ipv6(text):
            raise ValueError(f"{text!r} is neither HOST:PORT nor an IPv6 address")
        return text, None
    host, colon, port_text = text.partition(":")
    return host, port_text if colon else None


def is_ip(host: str) -> bool:
    """Tell whether a host is a numeric IPv4 or IPv6 address, which needs no name server."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_ipv6(host: str) -> bool:
    """Tell whether a host is a numeric IPv6 address, with or without a scope."""
    return ":" in host and is_ip(host)


def is_loopback(host: str) -> bool:
    """Tell whether a numeric host is this machine's loopback (127.0.0.0/8, ::1)."""
    return ipaddress.ip_address(unmapped(host)).is_loopback


def is_group(host: str) -> bool:
    """Tell whether a numeric host is a multicast address or the limited broadcast address 255.255.255.255.

    A directed broadcast (192.0.2.255) cannot be told from an address without the interface's netmask.
    """
    address = ipaddress.ip_address(unmapped(host))
    return address.is_multicast or host == "255.255.255.255"


def is_unspecified(host: str) -> bool:
    """Tell whether a numeric host is 0.0.0.0 or ::, which a server can listen on but nobody can be asked at."""
    return ipaddress.ip_address(host).is_unspecified


def max_payload(host: str) -> int:
    """Return the bytes of the largest datagram that a numeric host's address family carries."""
    return LARGEST_PAYLOAD if ":" in host else _LARGEST_PAYLOAD_IPV4


def canonical(host: str) -> str:
    """Return the one spelling of a numeric host that the kernel uses, with IPv4-mapped IPv6 as IPv4.

    Raises:
        ValueError: It is not numeric.
    """
    return unmapped(str(ipaddress.ip_address(unmapped(host))))


def unmapped(host: str) -> str:
    """Return an IPv4-mapped IPv6 host (RFC 4291 section 2.5.5.2) as IPv4, any other host as it is."""
    if host.startswith(_MAPPED) and "." in host:
        return host[len(_MAPPED) :]
    return host
