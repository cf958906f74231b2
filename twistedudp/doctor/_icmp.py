"""What ICMP errors say: their names, and which finding each one makes.

Theory of operation: two tables, of ICMP (RFC 792, RFC 1122 section 3.2.2.1, RFC 1812 section 5.2.7.1) and of ICMPv6
(RFC 4443 section 3). An error counts by its type and code and by who sent it: "port unreachable" of the host itself
means that nobody listens, and the same of a router on the way is how many firewalls reject.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..interfaces import Unreachable

__all__ = ["code_of", "is_time_exceeded", "name_of"]

_HOST, _NET, _PROHIBITED = "UDP-HOST-UNREACHABLE", "UDP-NET-UNREACHABLE", "UDP-PROHIBITED"
_OTHER: Final = "UDP-UNREACHABLE"

_ICMP: Final = {
    (3, 0): ("network unreachable", _NET),
    (3, 1): ("host unreachable", _HOST),
    (3, 2): ("protocol unreachable", _OTHER),
    (3, 3): ("port unreachable", "UDP-REFUSED"),
    (3, 5): ("source route failed", _OTHER),
    (3, 6): ("network unknown", _NET),
    (3, 7): ("host unknown", _HOST),
    (3, 8): ("source host isolated", _HOST),
    (3, 9): ("network administratively prohibited", _PROHIBITED),
    (3, 10): ("host administratively prohibited", _PROHIBITED),
    (3, 11): ("network unreachable for this type of service", _NET),
    (3, 12): ("host unreachable for this type of service", _HOST),
    (3, 13): ("communication administratively prohibited", _PROHIBITED),
    (3, 14): ("host precedence violation", _PROHIBITED),
    (3, 15): ("precedence cutoff in effect", _PROHIBITED),
    (11, 0): ("time exceeded in transit", _OTHER),
    (11, 1): ("fragment reassembly time exceeded", _OTHER),
    (12, 0): ("parameter problem", _OTHER),
}
_ICMPV6: Final = {
    (1, 0): ("no route to destination", _NET),
    (1, 1): ("communication administratively prohibited", _PROHIBITED),
    (1, 2): ("beyond scope of source address", _NET),
    (1, 3): ("address unreachable", _HOST),
    (1, 4): ("port unreachable", "UDP-REFUSED"),
    (1, 5): ("source address failed ingress/egress policy", _PROHIBITED),
    (1, 6): ("reject route to destination", _PROHIBITED),
    (3, 0): ("hop limit exceeded in transit", _OTHER),
    (3, 1): ("fragment reassembly time exceeded", _OTHER),
    (4, 1): ("unrecognized next header", _OTHER),
}


def name_of(reason: Unreachable, *, ipv6: bool) -> str:
    """Return an error as people look it up: ``ICMP 3/13, communication administratively prohibited``."""
    version = "ICMPv6" if ipv6 else "ICMP"
    known = (_ICMPV6 if ipv6 else _ICMP).get((reason.icmp_type, reason.icmp_code))
    return f"{version} {reason.icmp_type}/{reason.icmp_code}, {known[0] if known else reason.reason.lower()}"


def is_time_exceeded(reason: Unreachable, *, ipv6: bool) -> bool:
    """Tell whether a router reports that a datagram had no hops left there."""
    return (reason.icmp_type, reason.icmp_code) == ((3, 0) if ipv6 else (11, 0))


def code_of(reason: Unreachable, *, ipv6: bool) -> str:
    """Return the code of the finding that an error makes, where its own host or a router sent it."""
    known = (_ICMPV6 if ipv6 else _ICMP).get((reason.icmp_type, reason.icmp_code))
    return known[1] if known else _OTHER
