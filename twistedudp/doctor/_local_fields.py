"""Whether a field of a datagram is what a packet filter's rule compares it with.

Theory of operation: pure functions over values as nft writes them in JSON: numbers, names, ``{"range": [1, 9]}`` and
``{"prefix": {"addr": "192.0.2.0", "len": 24}}``; the reader of iptables' rules makes the same. What is not known of
the datagram, its sender above all, is *perhaps* equal to anything, except where that is out of the question: nobody
else's datagram comes from 127.0.0.1 or through the loopback interface.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Any, TypeAlias

from ._local_filter import Match

if TYPE_CHECKING:
    from ._local_filter import Datagram

__all__ = ["field_equals", "only_member"]


def only_member(value: Any) -> tuple[str, Any]:
    """Return the one member of an object, as nft writes statements and typed values; an empty name if it has more."""
    if isinstance(value, dict) and len(value) == 1:
        ((kind, body),) = value.items()
        return kind, body
    return "", None


_Ip: TypeAlias = "ipaddress.IPv4Address | ipaddress.IPv6Address"


def _is(holds: bool) -> Match:
    return Match.YES if holds else Match.NO


def field_equals(field: str, value: Any, datagram: Datagram) -> Match:
    """Tell whether a field of the datagram has a value or lies in a range.

    Args:
        field: ``dport``, ``l4proto``, ``nfproto``, ``protocol``, ``ct state``, ``iifname``, ``daddr``, ``saddr``,
            ``pkttype``, ``type of daddr``, ``none`` (it has no such field); whatever else is not known.
        value: A number or a text, or a range or prefix as nft writes it.
        datagram: The datagram.
    """
    if field in {"daddr", "saddr"}:
        return _address_equals(field, value, datagram)
    if field == "dport":
        return _port_equals(value, datagram.port)
    if not isinstance(value, (str, int)) or (field == "iifname" and value != "lo" and not datagram.looped):
        return Match.PERHAPS
    known = {
        "none": (),
        "iifname": ("lo",) if datagram.looped else (),
        "l4proto": ("udp", 17),
        "nfproto": ("ipv6", 10) if datagram.ipv6 else ("ipv4", 2),
        "protocol": ("ip6", 0x86DD) if datagram.ipv6 else ("ip", 0x0800),
        "pkttype": ("host", "unicast", 0),
        "ct state": ("new",),
        "type of daddr": ("local", "unicast"),
    }.get(field)
    if known is None or (field == "ct state" and isinstance(value, int)):
        return Match.PERHAPS
    return _is(value in known)


def _port_equals(value: Any, port: int) -> Match:
    ends = value.get("range") if isinstance(value, dict) else [value, value]
    if not isinstance(ends, list) or len(ends) != 2:
        return Match.PERHAPS
    first, last = map(_port_number, ends)
    return Match.PERHAPS if first is None or last is None else _is(first <= port <= last)


def _port_number(value: Any) -> int | None:
    if isinstance(value, str):
        try:
            return int(value) if value.isdecimal() else socket.getservbyname(value, "udp")
        except (OSError, ValueError, UnicodeError):  # a service that this machine does not know
            return None
    return value if isinstance(value, int) else None


def _address_equals(field: str, value: Any, datagram: Datagram) -> Match:
    try:
        first, last = _address_range(value)
    except (ValueError, TypeError, KeyError):
        return Match.PERHAPS
    version = 6 if datagram.ipv6 else 4
    if not first.version == last.version == version:
        return Match.NO
    if field == "daddr" and datagram.host:
        host = ipaddress.ip_address(datagram.host.partition("%")[0])
        return _is(host.version == version and int(first) <= int(host) <= int(last))
    looped = first.is_loopback and last.is_loopback
    return (Match.PERHAPS if datagram.looped else Match.NO) if looped else Match.PERHAPS


def _address_range(value: Any) -> tuple[_Ip, _Ip]:
    """Return the first and the last address of an address, prefix or range.

    Raises:
        ValueError: It is none.
        TypeError: It is of another kind.
        KeyError: It is a prefix that lacks something.
    """
    kind, body = only_member(value)
    if kind == "prefix":
        network = ipaddress.ip_network(f"{body['addr']}/{body['len']}", strict=False)
        return network[0], network[-1]
    if kind == "range":
        first, last = body
        return ipaddress.ip_address(first), ipaddress.ip_address(last)
    if not isinstance(value, str):
        raise TypeError("no address")
    network = ipaddress.ip_network(value, strict=False)
    return network[0], network[-1]
