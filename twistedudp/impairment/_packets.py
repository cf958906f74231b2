"""What IP adds to a datagram: headers, and the ICMP errors that speak of it.

Theory of operation: datagrams here are payloads with addresses. Where the size on the wire counts, the headers without
options are added. Where a host or router refuses one, an ICMP error is made, a :class:`Datagram` on the way to the
sender, which quotes as much of it as the RFCs allow.
"""

from __future__ import annotations

import errno
from typing import Final

from ..address import is_group
from ..interfaces import Unreachable
from ._link import Datagram

__all__ = ["may_be_refused", "packet_too_big", "port_unreachable", "wire_size"]

_UDP_HEADER: Final = 8
_IPV4_HEADER: Final = 20
_IPV6_HEADER: Final = 40
_ICMP_HEADER: Final = 8

_PORT_UNREACHABLE: Final = (3, 3)
"""Type and code (RFC 792)."""
_PORT_UNREACHABLE_IPV6: Final = (1, 4)
"""Type and code (RFC 4443 section 3.1)."""
_FRAGMENTATION_NEEDED: Final = (3, 4)
"""Type and code (RFC 792; RFC 1191 section 4)."""
_PACKET_TOO_BIG: Final = (2, 0)
"""Type and code (RFC 4443 section 3.2)."""

_AROUND_QUOTE_IPV4: Final = _IPV4_HEADER + _ICMP_HEADER + _IPV4_HEADER + _UDP_HEADER
_AROUND_QUOTE_IPV6: Final = _IPV6_HEADER + _ICMP_HEADER + _IPV6_HEADER + _UDP_HEADER
_QUOTED_IPV4: Final = 576 - _AROUND_QUOTE_IPV4
"""Bytes of payload that an ICMP error quotes: it has at most 576 bytes (RFC 1812 section 4.3.2.3) with four headers."""
_QUOTED_IPV6: Final = 1280 - _AROUND_QUOTE_IPV6
"""The same for ICMPv6: at most the least MTU (RFC 4443 section 3.1)."""


def wire_size(datagram: Datagram) -> int:
    """Return the bytes of a datagram with its IP and UDP headers, or of an ICMP error with all of its four."""
    if ":" in datagram.destination[0]:
        headers = _AROUND_QUOTE_IPV6 if datagram.error else _IPV6_HEADER + _UDP_HEADER
    else:
        headers = _AROUND_QUOTE_IPV4 if datagram.error else _IPV4_HEADER + _UDP_HEADER
    return headers + len(datagram.payload)


def may_be_refused(datagram: Datagram) -> bool:
    """Tell whether an ICMP error may be sent about a datagram.

    None is about another ICMP error, and none about what was sent to many (RFC 1122 section 3.2.2).
    """
    return datagram.error is None and not is_group(datagram.destination[0])


def port_unreachable(datagram: Datagram) -> Datagram:
    """Return the ICMP error of the host where nobody listens for a datagram, on the way to the sender."""
    reporter = datagram.destination[0]
    kind = _PORT_UNREACHABLE_IPV6 if ":" in reporter else _PORT_UNREACHABLE
    # A fixed text: strerror()'s depends on the platform, and equal seeds are to give equal traces everywhere.
    return _about(datagram, Unreachable(errno.ECONNREFUSED, "Connection refused", *kind, reporter))


def packet_too_big(datagram: Datagram) -> Datagram:
    """Return the ICMP error of a router that cannot forward a datagram unfragmented, on the way to the sender.

    The router has no address here, so the error's ``reporter`` is empty, nor does the error tell the MTU.
    """
    kind = _PACKET_TOO_BIG if ":" in datagram.destination[0] else _FRAGMENTATION_NEEDED
    return _about(datagram, Unreachable(errno.EMSGSIZE, "Message too long", *kind, ""))


def _about(datagram: Datagram, error: Unreachable) -> Datagram:
    limit = _QUOTED_IPV6 if ":" in datagram.destination[0] else _QUOTED_IPV4
    return Datagram(datagram.destination, datagram.source, datagram.payload[:limit], error)
