"""What the kernel tells of other processes' UDP sockets beyond ``/proc/net/udp``: buffer sizes, and whom they serve.

Theory of operation: sock_diag(7) is the interface behind ``ss``: a question over netlink, answered by a message for
each socket. Anybody may ask. The size of the receive buffer (``SO_RCVBUF``, in INET_DIAG_SKMEMINFO), whether an IPv6
socket refuses IPv4 (INET_DIAG_SKV6ONLY) and the interface it is bound to stand nowhere else. A kernel without the
module ``udp_diag`` does not answer, and then ``ss`` does not know either: nothing is told.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SocketDetails", "ask_kernel", "diag_question", "parse_diag"]

PATIENCE: Final = 1.0
"""Seconds for one answer of the kernel, which comes at once."""

MOST_MESSAGES: Final = 10_000
"""Reads of one answer at most; each may tell of hundreds of sockets."""

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY: Final = 20  # linux/sock_diag.h
_REQUEST_DUMP: Final = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR: Final = 2  # NLMSG_ERROR
_DONE: Final = 3  # NLMSG_DONE
_SKMEMINFO: Final = 7  # linux/inet_diag.h
_SKV6ONLY: Final = 11
_ALL_STATES: Final = 0xFFFFFFFF
_READ: Final = 65536

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_QUESTION = struct.Struct("=BBBxI")  # the beginning of struct inet_diag_req_v2
_SOCKET_ID = struct.Struct("!HH32x")  # struct inet_diag_sockid: ports, addresses
_SOCKET_ID_END = struct.Struct("=III")  # ... interface and cookie
_ANSWER = struct.Struct("=BBBB4x32xI8xIIIII")  # struct inet_diag_msg
_ATTRIBUTE = struct.Struct("=HH")  # struct nlattr
_RECEIVE_BUFFER = struct.Struct("=4xI")  # SK_MEMINFO_RCVBUF is the second
_INTERFACE_INDEX: Final = 4
_INODE: Final = 9


class SocketDetails(NamedTuple):
    """What the kernel tells of one socket."""

    inode: int
    receive_buffer: int | None
    """Bytes of the kernel's accounting, the double of what ``setsockopt`` asked for; None where it is not told."""
    only_ipv6: bool | None
    """Whether it is an IPv6 socket that takes no IPv4; None where it is not told."""
    interface: int
    """Index of the network interface that it is bound to, 0 for none."""


def ask_kernel(port: int) -> dict[int, SocketDetails]:
    """Return what the kernel tells of the UDP sockets at a port, by inode; nothing where it tells nothing."""
    details: dict[int, SocketDetails] = {}
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        return details
    with suppress(OSError), socket.socket(family, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(PATIENCE)
        for asked in (socket.AF_INET, socket.AF_INET6):
            netlink.sendto(diag_question(asked, port), (0, 0))
            for _ in range(MOST_MESSAGES):
                told, done = parse_diag(netlink.recv(_READ))
                details.update((one.inode, one) for one in told)
                if done:
                    break
    return details


def diag_question(family: int, port: int) -> bytes:
    """Return the message that asks for all UDP sockets of an address family at a local port."""
    body = (
        _QUESTION.pack(family, socket.IPPROTO_UDP, 1 << (_SKMEMINFO - 1), _ALL_STATES)
        + _SOCKET_ID.pack(port, 0)
        + _SOCKET_ID_END.pack(0, 0xFFFFFFFF, 0xFFFFFFFF)  # any interface; no particular socket
    )
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body


def parse_diag(data: bytes) -> tuple[list[SocketDetails], bool]:
    """Return what one read of the netlink socket tells, and whether it is the end of the answer."""
    told: list[SocketDetails] = []
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if kind in {_DONE, _ERROR} or length < _HEADER.size:
            return told, True
        body = data[at + _HEADER.size : at + length]
        if kind == _SOCK_DIAG_BY_FAMILY and len(body) >= _ANSWER.size:
            told.append(_details(body))
        at += (length + 3) & ~3
    return told, at == 0


def _details(body: bytes) -> SocketDetails:
    fields = _ANSWER.unpack_from(body)
    attributes = dict(_attributes(body[_ANSWER.size :]))
    memory, only_ipv6 = attributes.get(_SKMEMINFO, b""), attributes.get(_SKV6ONLY)
    return SocketDetails(
        inode=fields[_INODE],
        receive_buffer=_RECEIVE_BUFFER.unpack_from(memory)[0] if len(memory) >= _RECEIVE_BUFFER.size else None,
        only_ipv6=only_ipv6[0] != 0 if only_ipv6 else None,
        interface=fields[_INTERFACE_INDEX],
    )


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
